"""What a person sees on a terminal: progress displays, and the console that they are drawn on."""
