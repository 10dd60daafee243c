"""Terminal output: progress displays, and the console that they are drawn on."""
