"""Sandbox lifecycle: creation, calls, code versions, copies, populations and garbage collection."""
