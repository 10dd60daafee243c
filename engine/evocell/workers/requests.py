"""Encoding of a call's request for the guest's agent, in parts: those shared with other requests stand alone.

The format is marshal, because the guest decodes it at a tenth of the cost of any other format. The host
only writes this format and never reads it.

Source: CPython 3.15, Python/marshal.c; the codes used here are the same since 3.4.
"""

from __future__ import annotations

import marshal
from collections.abc import Sequence
from functools import lru_cache

from evocell.execution.follow_ups import LENGTH_BYTES, Splice, dump_marks
from evocell.execution.interface import CallJob, CompileJob, FollowUpJob
from evocell.execution.payload_cache import BLOB_BYTES
from evocell.models.limits import Limits
from evocell_guest.packing import module_name, pack_files

__all__ = ["CHILD_ENTRY", "call_request", "child_parts", "follow_up_splice", "in_pieces"]

CHILD_ENTRY = "evocell_child:main"
"""Entry of a call's child process: a function of the harness."""

_HOLE = b"\x00 the byte code \x00"
"""Stands for byte code that is not known yet."""

_VERSION = 2
"""Format version: all later interpreters read it, and it has no references between values."""


def call_request(job: CallJob, *, load: bool) -> tuple[bytes, ...]:
    """Make the request of a call.

    Args:
        job: The call.
        load: Whether the code is included.

    Returns:
        Parts that, concatenated, are one map as the agent reads it. Code and arguments are parts of
        their own.
    """
    limits = job.limits
    head = _head(job.entry, job.seed, limits)
    code = (job.code.code or None) if load else None  # the empty harness is in the image already
    harness = job.harness.code if load and job.harness is not None else None
    return _around(head, [(_CODE, code), (_HARNESS, harness), (_ARGS, job.payload)])


def follow_up_splice(job: FollowUpJob, compiling: CompileJob) -> Splice | None:
    """Make the request of a call around what its one file is compiled to.

    Args:
        job: The call.
        compiling: The compilation of its code.

    Returns:
        The parts around; None where the place of the code cannot be told.
    """
    ((path, _),) = compiling.tree.python_files
    policy = None if compiling.policy is None else compiling.policy.at_run_time()
    code = pack_files(compiling.root, [(path, _HOLE, ())], policy=policy)
    hole = _BYTES + len(_HOLE).to_bytes(LENGTH_BYTES, "little") + _HOLE
    module = module_name(path)[0]
    empty = dump_marks({module: {}})
    start, _, end = code.partition(hole)
    middle, found, end = end.partition(_BYTES + len(empty).to_bytes(LENGTH_BYTES, "little") + empty)
    if not found or hole in middle + end:
        return None
    harness = None if job.harness is None else job.harness.code
    head = _head(job.entry, job.seed, job.limits)
    first, *rest = _around(head + _CODE + _BYTES, [(_HARNESS, harness), (_ARGS, job.payload)])
    n_before = len(head + _CODE + _BYTES)
    return Splice(
        before=first[:n_before],
        between=start + _BYTES,
        middle=middle + _BYTES,
        after=(end + first[n_before:], *rest),
        n_around=len(code) - len(_HOLE) - len(empty),
        module=module,
    )


def _around(head: bytes, blobs: Sequence[tuple[bytes, bytes | None]]) -> tuple[bytes, ...]:
    """Put byte strings, each a part of its own, behind their names."""
    parts = [head]
    for name, blob in blobs:
        if blob is None:
            parts[-1] += name + _NONE
        else:
            parts[-1] += name + _BYTES + len(blob).to_bytes(LENGTH_BYTES, "little")
            parts += [blob, b""]
    parts[-1] += _END
    return tuple(part for part in parts if part)


def in_pieces(question: dict[str, object]) -> tuple[bytes, ...]:
    """Make a request of plain data, in pieces that make it up when put one after the other.

    They are short enough to be sent as they are: no other run has them too, so none is worth a name.
    """
    data = marshal.dumps(question, _VERSION)
    return tuple(data[at : at + BLOB_BYTES] for at in range(0, len(data), BLOB_BYTES))


def child_parts(job: CallJob) -> tuple[bytes, ...]:
    """Make a child process's request up to its arguments; see `evocell.guests.questions`.

    Args:
        job: The call; the process has the same code and harness.
    """
    own = CallJob(
        code=job.code, harness=job.harness, entry=CHILD_ENTRY, payload=b"", seed=job.seed, limits=job.limits
    )
    *parts, last, _ = call_request(own, load=True)
    return (*parts, last[:-LENGTH_BYTES])


@lru_cache(maxsize=1024)
def _head(entry: str, seed: int, limits: Limits) -> bytes:
    """Encode everything up to code and arguments; cached, since consecutive calls mostly share it."""
    return b"{" + b"".join(
        _plain(key) + _plain(value)
        for key, value in (
            ("op", "call"),
            ("entry", entry),
            ("seed", seed),
            ("payload_bytes", limits.payload_bytes),
            ("payload_items", limits.payload_items),
            ("payload_depth", limits.payload_depth),
        )
    )


def _plain(value: str | int) -> bytes:
    return marshal.dumps(value, _VERSION)


_NONE, _BYTES, _END = b"N", b"s", b"0"
_CODE, _HARNESS, _ARGS = _plain("code"), _plain("harness"), _plain("args")
