"""The pages every call writes to, copied ahead of the call in a few strokes.

A fork shares its pages with the image until it writes to them, and each first write is a fault of
about two microseconds. Some two hundred pages are written by every call (the interpreter's stack,
its allocator, the agent's own objects), always the same ones. They are found once, when the image
is built, and copied before a fork's first call with one request to the kernel per run of pages.

Source: Linux 5.14, madvise(2), MADV_POPULATE_WRITE; on older kernels the pages fault one by one.
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Iterable

from attrs import frozen

_POPULATE_WRITE = 23
_HELD, _FILE_OR_SHARED = 1 << 63 | 1 << 62, 1 << 61
_ENTRY_BYTES = 8
_PAGE = mmap.PAGESIZE

_madvise = ctypes.CDLL(None).madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)


@frozen
class Run:
    """Adjoining pages: where they begin in the guest's memory, and how far they go, in bytes."""

    offset: int
    size: int


def written_pages(address: int, size: int) -> tuple[Run, ...]:
    """Which pages of a private file mapping are no longer the file's.

    Args:
        address: Where the mapping begins.
        size: Its length in bytes.

    Returns:
        Runs of adjoining pages; empty where the kernel does not tell.
    """
    try:
        with open("/proc/self/pagemap", "rb", buffering=0) as pagemap:  # noqa: PTH123
            pagemap.seek(address // _PAGE * _ENTRY_BYTES)
            raw = pagemap.read(size // _PAGE * _ENTRY_BYTES)
    except OSError:
        return ()
    entries = struct.unpack(f"={len(raw) // _ENTRY_BYTES}Q", raw)
    written = [n for n, entry in enumerate(entries) if entry & _HELD and not entry & _FILE_OR_SHARED]
    return tuple(_runs(written))


def _runs(pages: Iterable[int]) -> list[Run]:
    runs: list[list[int]] = []
    for page in pages:
        if runs and page == runs[-1][1]:
            runs[-1][1] = page + 1
        else:
            runs.append([page, page + 1])
    return [Run(first * _PAGE, (end - first) * _PAGE) for first, end in runs]


def populate(address: int, runs: tuple[Run, ...]) -> None:
    """Give a mapping its own copies of the pages; does nothing on a kernel that cannot."""
    for run in runs:
        if _madvise(address + run.offset, run.size, _POPULATE_WRITE):
            return
