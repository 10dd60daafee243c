"""What callers hold: the blocking engine, its trio-native twin, and their sandboxes."""
