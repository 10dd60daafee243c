"""Turns a WASI build of CPython into an image that is forked copy-on-write.

The only package of evocell that imports wasmtime. It knows nothing of sandboxes, evaluations or
fitness: it builds images, forks guests from them and runs calls in them.
"""
