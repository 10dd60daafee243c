"""The one exception this package raises: an image that cannot be built, found or trusted."""


class ImageError(Exception):
    """An image cannot be built, loaded or trusted; the message says why and how to mend it."""


class AbiError(ImageError):
    """The installed wasmtime does not offer a call this package needs, or offers it changed."""
