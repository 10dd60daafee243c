"""The frame codec: untrusted bytes become values, or a `ProtocolError`. No I/O."""

from evocell.wire.values import decode_hostile, decode_response

__all__ = ["decode_hostile", "decode_response"]
