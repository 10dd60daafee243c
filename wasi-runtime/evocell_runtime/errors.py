"""Exceptions of this package."""


class ImageError(Exception):
    """An image cannot be built, loaded or trusted; the message gives the reason and the remedy."""


class AbiError(ImageError):
    """The installed wasmtime lacks a call that this package needs, or has changed it."""
