"""The public API: the blocking `Engine`, the trio-native `AsyncEngine`, and their sandboxes."""
