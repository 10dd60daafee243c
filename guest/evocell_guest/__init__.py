"""Guest agent: pure Python that loads and calls variants inside the sandbox.

It uses the standard library and msgpack only and never imports the engine. The engine imports from
here only the codec both sides share: `values`, `walk` and `arrays`.
"""

from .arrays import Array

__all__ = ["Array"]
