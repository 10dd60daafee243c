"""What `just bench` measures, one module for each kind of cost."""
