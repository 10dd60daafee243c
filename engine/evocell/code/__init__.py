"""Code of individuals: sources, version trees, byte code."""
