"""Code of individuals: what callers hand in, how it is kept, and its byte code."""
