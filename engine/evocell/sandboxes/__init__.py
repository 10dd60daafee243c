"""Sandboxes over their life: creation, calls, code versions, copies, populations and collection."""
