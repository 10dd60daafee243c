"""Validation of untrusted snapshots and guests.

Sizes, offsets and globals are restricted to values that the interpreter could have left. The contents of the
memory are not checked: a guest is untrusted anyway.
"""

from __future__ import annotations

import mmap
import re
import zlib
from collections.abc import Mapping

from attrs import evolve, frozen

from evocell_runtime import artifacts, membrane
from evocell_runtime.cache import ImageCache, ImageManifest
from evocell_runtime.errors import ImageError
from evocell_runtime.hibernation import Hibernated
from evocell_runtime.image import Image
from evocell_runtime.native import PAGE_BYTES
from evocell_runtime.snapshot import Snapshot, freeze
from evocell_runtime.spec import FORMAT, digest_of

MAX_SNAPSHOT_BYTES = 2 << 30
"""Most bytes of an accepted memory."""

_ID = re.compile(r"[0-9a-f]{32}\Z")
_SHA256 = re.compile(r"[0-9a-f]{64}\Z")


@frozen(kw_only=True)
class ScratchUse:
    """Usage of a scratch space, as the membrane counts it.

    Attributes:
        used_bytes: In units of 4 KiB, with 4 KiB for each file and directory.
        entries: Files and directories.
    """

    used_bytes: int
    entries: int


def snapshot_abi() -> str:
    """Return the ABI that a snapshot must match: interpreter and membrane layout."""
    return digest_of(
        {
            "format": FORMAT,
            "artifacts": artifacts.KEY,
            "globals": list(membrane.GLOBALS),
            "arena": membrane.ARENA_BYTES,
            "preopens": list(membrane.PREOPENS),
        }
    )


def snapshot_of(image: Image) -> Snapshot:
    """Return an image's snapshot, taken from a fork that was never called.

    Raises:
        ImageError: It differs from the image's recorded snapshot.
    """
    fork = image.fork()
    try:
        snapshot = freeze(fork)
    finally:
        fork.close()
    if snapshot.sha256 != image.manifest.snapshot_sha256:
        msg = f"the image {image.image_id} does not start as it was frozen; see: evocell image verify"
        raise ImageError(msg)
    return snapshot


def root_files(manifest: ImageManifest) -> dict[str, str]:
    """Return hashes of the files at an image's `/`, whose contents a snapshot's interpreter depends on."""
    return {name: known.sha256 for name, known in manifest.files.items() if name.startswith("root/")}


def base_for(cache: ImageCache, root: Mapping[str, str]) -> ImageManifest | None:
    """Return an image in the cache with these files at its `/`; None if there is none."""
    wanted = dict(root)
    return next((found for found in cache.images() if root_files(found) == wanted), None)


def check_names(*, parent: str, version: str | None) -> None:
    """Refuse an invalid image id or code digest.

    Raises:
        ImageError: One of them is invalid.
    """
    if not _ID.match(parent) or not (version is None or _SHA256.match(version)):
        msg = "it does not say what it was made from"
        raise ImageError(msg)


def checked_snapshot(*, pages: int, offset: int, data: bytes, state: Mapping[str, int]) -> Snapshot:
    """Return a snapshot from untrusted numbers and bytes.

    Raises:
        ImageError: They are not a valid snapshot.
    """
    size = pages * PAGE_BYTES
    if not (0 < size <= MAX_SNAPSHOT_BYTES and 0 <= offset <= offset + len(data) <= size):
        msg = "its memory is larger or smaller than it says, or than may be"
        raise ImageError(msg)
    if offset % mmap.PAGESIZE:
        msg = "its memory does not begin at a page"
        raise ImageError(msg)
    return Snapshot(pages=pages, offset=offset, data=data, state=checked_state(state, size))


def with_empty_scratch(snapshot: Snapshot) -> Snapshot:
    """Return a snapshot whose forks begin with an empty scratch space, regardless of its own accounting."""
    return evolve(snapshot, state={**snapshot.state, "scratch_used": 0, "scratch_entries": 0})


def checked_guest(
    guest: Hibernated, *, image_bytes: int, growth_bytes: int, scratch: ScratchUse
) -> Hibernated:
    """Return a hibernated guest of a known image from untrusted data. Unpacks it once, under a bound.

    Args:
        guest: Untrusted numbers and bytes.
        image_bytes: Size of the image's memory.
        growth_bytes: Most growth of the guest's beyond.
        scratch: The measured usage of its scratch space; the guest's own accounting is ignored.

    Raises:
        ImageError: It is not a valid guest.
    """
    size = guest.memory_bytes
    if size % PAGE_BYTES or not image_bytes <= size <= image_bytes + growth_bytes:
        msg = f"its memory has {size:,} bytes, and its limits allow {image_bytes + growth_bytes:,}"
        raise ImageError(msg)
    at = 0
    for run in guest.runs:
        aligned = run.offset % mmap.PAGESIZE == run.size % mmap.PAGESIZE == 0
        if not aligned or run.offset < at or run.size <= 0 or run.offset + run.size > size:
            msg = "its pages lie outside its memory, or over each other"
            raise ImageError(msg)
        at = run.offset + run.size
    _check_packed(guest.packed, sum(run.size for run in guest.runs))
    state = checked_state(guest.state, size)
    return evolve(
        guest, state={**state, "scratch_used": scratch.used_bytes, "scratch_entries": scratch.entries}
    )


def checked_state(state: Mapping[str, int], memory_bytes: int) -> dict[str, int]:
    """Validate the membrane's globals between two calls.

    Raises:
        ImageError: Names or values are invalid.
    """
    if set(state) != set(membrane.GLOBALS):
        msg = "it has other globals than a guest has here"
        raise ImageError(msg)
    for name, value in state.items():
        if not 0 <= value < (1 << 64 if name in membrane.WIDE_GLOBALS else 1 << 32):
            msg = f"its global {name} is out of range"
            raise ImageError(msg)
    if state["open_files"]:
        msg = "it says it has files open, which cannot be carried over"
        raise ImageError(msg)
    if state["arena"] + membrane.ARENA_BYTES > memory_bytes:
        msg = "the membrane's room lies outside its memory"
        raise ImageError(msg)
    return dict(state)


def _check_packed(packed: bytes, size: int) -> None:
    unpacker = zlib.decompressobj()
    try:
        found = len(unpacker.decompress(packed, size + 1))
    except zlib.error as e:
        msg = "its pages cannot be unpacked"
        raise ImageError(msg) from e
    if found != size or not unpacker.eof or unpacker.unused_data:
        msg = "its pages are more or fewer than it says"
        raise ImageError(msg)
