"""Where guests run: forks, the threads that drive them, and the outcomes read from them."""
