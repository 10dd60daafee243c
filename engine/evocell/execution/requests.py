"""The request that has a guest's agent make a call, in parts: what others hold as well stands alone."""

from __future__ import annotations

from evocell.execution.worker import CallJob
from evocell_guest.values import encode

__all__ = ["call_request"]

_MAP = 0x80
_MAP_MASK = 0xF0
_MAX_PAIRS = 15


def call_request(job: CallJob, *, load: bool) -> tuple[bytes, ...]:
    """Make the request of a call.

    Args:
        job: The call.
        load: Whether the code goes along.

    Returns:
        Parts that make up one map, as the agent reads it, when put one after the other. Code and arguments
        are parts of their own.
    """
    limits = job.limits
    plain = {
        "op": "call",
        "entry": job.entry,
        "seed": job.seed,
        "payload_bytes": limits.payload_bytes,
        "payload_items": limits.payload_items,
        "payload_depth": limits.payload_depth,
    }
    blobs = {
        # An empty one is in the image already.
        "code": (job.code.code or None) if load else None,
        "harness": job.harness.code if load and job.harness is not None else None,
        "args": job.payload,
    }
    head = encode(plain, max_items=2 * len(plain) + 1, max_depth=2)
    n_pairs = len(plain) + len(blobs)
    assert head[0] & _MAP_MASK == _MAP
    assert n_pairs <= _MAX_PAIRS
    parts = [bytes([_MAP | n_pairs]) + head[1:]]
    for key, blob in blobs.items():
        name = encode(key)
        if blob is None:
            parts[-1] += name + encode(None)
        else:
            parts[-1] += name + _bytes_header(len(blob))
            parts += [blob, b""]
    return tuple(part for part in parts if part)


def _bytes_header(size: int) -> bytes:
    """What MessagePack has in front of that many bytes."""
    for code, width in ((0xC4, 1), (0xC5, 2)):
        if size < 1 << (8 * width):
            return bytes([code]) + size.to_bytes(width, "big")
    return b"\xc6" + size.to_bytes(4, "big")
