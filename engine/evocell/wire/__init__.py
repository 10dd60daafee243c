"""Frame codec, free of I/O: decodes untrusted bytes to values or raises `ProtocolError`."""

from evocell.wire.values import decode_hostile, decode_response

__all__ = ["decode_hostile", "decode_response"]
