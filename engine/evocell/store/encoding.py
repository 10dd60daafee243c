"""Encoding of values for the store and the event stream."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from datetime import datetime

import msgpack
from attrs import Attribute

from evocell.errors import ProtocolError
from evocell.models.fitness import CaseResult, FitnessResult
from evocell.models.outcome import LimitExceeded, Raised
from evocell.models.state import SandboxState
from evocell.store.schema import LATEST_S
from evocell.wire.values import decode_hostile
from evocell_guest.walk import MAX_DEPTH

__all__ = [
    "STREAM_CHARS",
    "case_record",
    "check_time",
    "config_record",
    "is_kept_whole",
    "pack",
    "pack_files",
    "seconds",
    "text",
    "unpack",
]

STREAM_CHARS = 2_000
"""Characters of a case's output, error or traceback that are kept."""

MAX_SOURCE_BYTES = 1 << 20
"""Bytes of a version's text that are kept; of a larger one only the names of its files are kept."""

_MAX_BYTES = 64 << 20
_MAX_ITEMS = 10_000_000


def pack(value: object) -> bytes:
    """Encode plain data as msgpack; text that is no valid Unicode is escaped."""
    packed: bytes = msgpack.packb(value, unicode_errors="backslashreplace", datetime=False)
    return packed


def unpack(packed: bytes) -> object:
    """Decode what `pack` made.

    Raises:
        ValueError: It is damaged.
    """
    try:
        found: object = msgpack.unpackb(packed, unicode_errors="replace")
    except (msgpack.UnpackException, TypeError) as error:
        raise ValueError(f"the record cannot be read: {error}") from error
    except ValueError:
        # Keys other than text, which a caller's metadata may have, could have colliding hashes.
        return _unpack_any(packed)
    return found


def _unpack_any(packed: bytes) -> object:
    try:
        found: object = decode_hostile(
            packed, max_bytes=_MAX_BYTES, max_items=_MAX_ITEMS, max_depth=MAX_DEPTH
        )
    except ProtocolError as error:
        raise ValueError(f"the record cannot be read: {error}") from error
    return found


def text(value: str | None, most: int | None = None) -> str | None:
    """Make a string of any origin acceptable to the database."""
    if value is None:
        return None
    cut = value if most is None or len(value) <= most else value[:most] + " …"
    return cut if cut.isascii() else cut.encode("utf-8", "backslashreplace").decode()


def check_time(_: object, attribute: Attribute[float], value: object) -> None:
    """Refuse a value that is not a time in seconds since 1970; a validator of attrs.

    Raises:
        ValueError: It is not.
    """
    if not isinstance(value, float) or not 0 <= value <= LATEST_S:
        raise ValueError(f"{attribute.name} is not a time: {value!r}")


def seconds(moment: datetime | None) -> float | None:
    """Return a time in seconds since 1970."""
    return None if moment is None else moment.timestamp()


def case_record(case: CaseResult) -> dict[str, object]:
    """Describe a case without its value, which may be of any size."""
    outcome = case.outcome
    record: dict[str, object] = {
        "name": case.name,
        "index": case.index,
        "kind": outcome.kind,
        "score": dict(case.score) if isinstance(case.score, Mapping) else case.score,
        "passed": case.passed,
        "public": case.public,
        "error": text(case.error, STREAM_CHARS),
        "fuel_used": outcome.fuel_used,
        "wall_s": outcome.wall_s,
        "peak_memory_bytes": outcome.peak_memory_bytes,
    }
    if case.remark is not None:
        record["remark"] = text(case.remark, STREAM_CHARS)
    if outcome.stdout:
        record["stdout"] = text(outcome.stdout, STREAM_CHARS)
    if outcome.stderr:
        record["stderr"] = text(outcome.stderr, STREAM_CHARS)
    if isinstance(outcome, Raised):
        record["traceback"] = text(outcome.traceback, STREAM_CHARS)
    if isinstance(outcome, LimitExceeded):
        record["limit"], record["reached"] = outcome.limit, outcome.reached
    return record


def results_record(result: FitnessResult) -> bytes:
    """Encode the cases of a result."""
    return pack([case_record(case) for case in result.test_results])


def config_record(state: SandboxState) -> bytes:
    """Encode a sandbox's specification without its code."""
    spec = state.config
    limits = spec.limits
    names = [] if limits is None else [one.name for one in type(limits).__attrs_attrs__]
    return pack(
        {
            "image": spec.image,
            "limits": None if limits is None else {name: getattr(limits, name) for name in names},
        }
    )


def transitions_record(state: SandboxState) -> bytes:
    """Encode a sandbox's transitions so far."""
    return pack(
        [
            [
                step.before and step.before.value,
                step.after.value,
                step.at.timestamp(),
                text(step.reason, STREAM_CHARS),
            ]
            for step in state.transitions
        ]
    )


def pack_files(files: Sequence[tuple[str, bytes]]) -> tuple[int, bytes]:
    """Encode the text of a version.

    Args:
        files: Path and content of each file.

    Returns:
        Total bytes of the files, and the packed map from path to text; None stands for a file that is not
        text, or for every file if they are too large.
    """
    n_bytes = sum(len(content) for _, content in files)
    whole = n_bytes <= MAX_SOURCE_BYTES
    kept = {path: _as_text(content) if whole else None for path, content in files}
    return n_bytes, zlib.compress(pack(kept), 6)


def is_kept_whole(files: Sequence[tuple[str, bytes]]) -> bool:
    """Return whether `pack_files` keeps the text of every file of a version."""
    if not files or sum(len(content) for _, content in files) > MAX_SOURCE_BYTES:
        return False
    return all(content.isascii() or _as_text(content) is not None for _, content in files)


def unpack_files(packed: bytes) -> dict[str, str | None]:
    """Decode what `pack_files` made.

    Raises:
        ValueError: It is damaged.
    """
    inflate = zlib.decompressobj()
    try:
        raw = inflate.decompress(packed, _MAX_BYTES)
    except (zlib.error, TypeError) as error:
        raise ValueError(f"the source cannot be read: {error}") from error
    found = unpack(raw)
    if not isinstance(found, dict):
        raise ValueError("the source cannot be read: it is no map of files")  # noqa: TRY004 - damaged data
    return {str(path): content if isinstance(content, str) else None for path, content in found.items()}


def _as_text(content: bytes) -> str | None:
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None
