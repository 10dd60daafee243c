"""The public API: the blocking engine, the trio-native one, and their sandboxes."""
