"""Shared by engine and workers: messages, their connection, the interface of a worker."""
