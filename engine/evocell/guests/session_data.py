"""Conversion of sessions to plain data and, from untrusted plain data, back."""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from evocell.code.sources import check_path
from evocell.errors import EvocellError, ProtocolError
from evocell.execution.messages import CopyRefused
from evocell.guests.guest import Fork
from evocell.guests.images import LoadedImages
from evocell.models.limits import Limits
from evocell.wire.values import decode_hostile
from evocell_guest.values import encode
from evocell_runtime.errors import ImageError
from evocell_runtime.hibernation import Hibernated
from evocell_runtime.membrane import charged_bytes
from evocell_runtime.portable import ScratchUse, checked_guest
from evocell_runtime.private import PRIVATE_MODE

__all__ = ["MAX_SCRATCH_FILES", "export_data", "import_data"]

MAX_SCRATCH_FILES = 10_000
"""Most files of a guest's scratch space that are exported."""

_SLACK_BYTES = 4 << 20
_ITEMS_PER_FILE = 3


def export_data(fork: Fork) -> dict[str, Any]:
    """Return a fork's state as plain data; the fork is unchanged. It must be idle.

    Raises:
        CopyRefused: It has files open, or too many in its scratch space.
    """
    try:
        return {"guest": fork.snapshot().to_plain(), "scratch": _packed_scratch(fork.scratch)}
    except (ImageError, OSError) as error:
        raise CopyRefused(str(error)) from error


def import_data(images: LoadedImages, state: Mapping[str, Any], make_scratch: Callable[[], Path]) -> Fork:
    """Make a hibernated fork from exported state.

    Args:
        images: The images here.
        state: ``"guest"`` and ``"scratch"``, untrusted, in the form that `export_data` returns; and the
            engine's own ``"image"``, ``"app"`` and ``"limits"``.
        make_scratch: Makes a directory for the guest to write in.

    Raises:
        CopyRefused: It cannot be restored here; the message says why.
    """
    try:
        limits = Limits(**state["limits"])
        image = images.get(state["image"])
        entries = _scratch_entries(_bytes(state, "scratch"), limits)
        guest = checked_guest(
            Hibernated.from_plain(state["guest"]),
            image_bytes=image.memory_bytes,
            growth_bytes=limits.memory_bytes,
            scratch=_charged(entries),
        )
        app = Path(state["app"])
        fork = Fork(image, app=app, harness=None, limits=limits, make_scratch=make_scratch, asleep=guest)
    except (ImageError, EvocellError, OSError) as error:
        raise CopyRefused(str(error)) from error
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, struct.error) as error:
        raise CopyRefused("what it held is not of the right form") from error
    try:
        _unpack(entries, fork.scratch)
    except OSError as error:
        fork.close()
        raise CopyRefused(f"its scratch files cannot be had: {error}") from error
    return fork


def _packed_scratch(scratch: Path | None) -> bytes:
    """Pack the files and directories of a scratch space; a guest cannot make links."""
    found: list[list[Any]] = []
    if scratch is not None:
        for place, directories, names in os.walk(scratch):
            here = Path(place)
            found += [[(here / name).relative_to(scratch).as_posix(), None] for name in directories]
            found += [
                [(here / name).relative_to(scratch).as_posix(), (here / name).read_bytes()] for name in names
            ]
    if len(found) > MAX_SCRATCH_FILES:
        raise CopyRefused(f"its scratch space has more than {MAX_SCRATCH_FILES:,} files")
    return encode(found)


def _scratch_entries(data: bytes, limits: Limits) -> list[tuple[str, bytes | None]]:
    """Return the paths and contents of scratch entries (directories without), checked against the limits.

    Raises:
        CopyRefused: They are malformed or over a limit; the message says why.
    """
    try:
        return list(_checked_entries(data, limits))
    except EvocellError as error:
        raise CopyRefused(f"its scratch files cannot be had: {error}") from error


def _checked_entries(data: bytes, limits: Limits) -> Iterator[tuple[str, bytes | None]]:
    entries = decode_hostile(
        data,
        max_bytes=limits.scratch_bytes + _SLACK_BYTES,
        max_items=_ITEMS_PER_FILE * MAX_SCRATCH_FILES + 1,
        max_depth=3,
    )
    if not isinstance(entries, list):
        raise ProtocolError("they are no list")
    if entries and not limits.scratch_bytes:
        raise ProtocolError("its limits allow none")
    if len(entries) > limits.scratch_files:
        raise ProtocolError(f"they are more than the {limits.scratch_files:,} that its limits allow")
    total = 0
    for entry in entries:
        if not isinstance(entry, list) or len(entry) != 2:  # noqa: PLR2004 - a path and a content
            raise ProtocolError("they are no list of files")
        path, content = entry
        if not isinstance(path, str) or not (content is None or isinstance(content, bytes)):
            raise ProtocolError("one of them holds something else than bytes")
        if check_path(path).count("/") >= limits.scratch_depth:
            raise ProtocolError(f"one of them lies deeper than the {limits.scratch_depth} names it may")
        size = len(content or b"")
        if size > limits.scratch_file_bytes:
            raise ProtocolError(
                f"one of them has {size:,} bytes, and its limits allow {limits.scratch_file_bytes:,}"
            )
        total += charged_bytes(size)
        if total > limits.scratch_bytes:
            raise ProtocolError(f"they take more than the {limits.scratch_bytes:,} bytes its limits allow")
        yield path, content


def _charged(entries: Sequence[tuple[str, bytes | None]]) -> ScratchUse:
    """Return the membrane's charge for them."""
    return ScratchUse(
        used_bytes=sum(charged_bytes(len(content or b"")) for _, content in entries), entries=len(entries)
    )


def _unpack(entries: Sequence[tuple[str, bytes | None]], scratch: Path | None) -> None:
    if scratch is None:
        return
    for path, content in entries:
        target = scratch / path
        if content is None:
            target.mkdir(mode=PRIVATE_MODE)
        else:
            with target.open("xb") as file:
                file.write(content)


def _bytes(state: Mapping[str, Any], name: str) -> bytes:
    value = state[name]
    if not isinstance(value, bytes):
        raise TypeError(name)
    return value
