"""Modules for harnesses, which run inside the sandbox on the guest's Python.

They are read as files and never imported by the host. They import the standard library only.
"""
