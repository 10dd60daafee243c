"""Pre-copying of the pages that every call writes to.

A fork shares its pages with the image until it writes to them, and each first write is a fault of
about two microseconds. Some two hundred pages are written by every call (the interpreter's stack,
its allocator, the agent's own objects), always the same ones. They are found once, when the image
is built, and copied before a fork's first call with one request to the kernel per run of pages.

Source: Linux 5.14, madvise(2), MADV_POPULATE_WRITE; on older kernels the pages fault one by one.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import resource
import struct
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from itertools import pairwise
from pathlib import Path

from attrs import frozen

_POPULATE_WRITE = 23
_NO_HUGE_PAGES = 15
_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage")
_HELD, _FILE_OR_SHARED = 1 << 63 | 1 << 62, 1 << 61
_ENTRY_BYTES = 8
_PAGE = mmap.PAGESIZE

_madvise = ctypes.CDLL(None).madvise
_madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)

# Source: Linux 6.7, include/uapi/linux/fs.h, PAGEMAP_SCAN and the categories of pages.
_SCAN_REQUEST = 0xC0606610
_IS_FILE, _IS_PRESENT, _IS_SWAPPED, _IS_ZERO = 1 << 2, 1 << 3, 1 << 4, 1 << 5
_NEVER = _IS_FILE | _IS_ZERO
_MOST_REGIONS = 512
_REGION = struct.Struct("=QQ8x")


class _Scan(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            "size",
            "flags",
            "start",
            "end",
            "walk_end",
            "regions",
            "n_regions",
            "max_pages",
            "inverted",
            "all_of",
            "any_of",
            "returned",
        )
    )


_SCAN_BYTES = ctypes.sizeof(_Scan)

# Holds the interpreter's lock: it takes some ten microseconds.
_ioctl = ctypes.PyDLL(None).ioctl
_ioctl.argtypes = (ctypes.c_int, ctypes.c_ulong, ctypes.c_void_p)


@frozen
class Run:
    """A run of adjacent pages: offset in the guest's memory and length, in bytes."""

    offset: int
    size: int


@frozen(eq=False)
class Written:
    """The written pages of a body.

    Attributes:
        address: Where its memory begins.
        clean_address: Where that of the fork begins from which they are copied.
        copies: Of each run of pages its address, that of its copy, and its size.
        faults: Page faults of the process before they were looked up; None if they do not tell whether others
            have been written to since.
    """

    address: int
    clean_address: int
    copies: tuple[tuple[int, int, int], ...]
    faults: int | None


def page_faults() -> int:
    """Return the number of page faults of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_minflt + usage.ru_majflt


def small_pages_only(address: int, size: int) -> bool:
    """Have the kernel keep a mapping in small pages.

    Otherwise it may, at any moment, replace what is around a written page by one large page, which is then
    written to without a fault.

    Returns:
        Whether it does.
    """
    return not _madvise(address, size, _NO_HUGE_PAGES) or not _HUGE_PAGES.exists()


@cache
def faults_tell() -> bool:
    """Return whether the kernel counts a fault for each small page that is written to for the first time."""
    pages = 4
    with mmap.mmap(-1, pages * _PAGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        with suppress(OSError):
            memory.madvise(_NO_HUGE_PAGES)
        counts = [page_faults()]
        for page in range(pages):
            memory[page * _PAGE] = 1
            counts.append(page_faults())
    return all(after > before for before, after in pairwise(counts))


def written_pages(address: int, size: int) -> tuple[Run, ...]:
    """Return the pages of a private file mapping that were written to.

    Args:
        address: Where the mapping begins.
        size: Its length in bytes.

    Returns:
        Runs of adjacent pages; empty if the kernel does not report them.
    """
    return tuple(Run(start - address, end - start) for start, end in written_ranges(address, size) or ())


def written_ranges(address: int, size: int, *, most_pages: int = 0) -> list[tuple[int, int]] | None:
    """Return the written pages as half-open address ranges, a faster form of `written_pages`.

    Args:
        address: Where the mapping begins.
        size: Its length in bytes.
        most_pages: Returns None if there are more; 0 for any number.
    """
    try:
        pagemap = os.open("/proc/self/pagemap", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        scanned = _scan(pagemap, address, size, most_pages)
        if scanned is not None:
            return scanned[0]
        raw = os.pread(pagemap, size // _PAGE * _ENTRY_BYTES, address // _PAGE * _ENTRY_BYTES)
    except OSError:
        return []
    finally:
        os.close(pagemap)
    entries = struct.unpack(f"={len(raw) // _ENTRY_BYTES}Q", raw)
    written = [n for n, entry in enumerate(entries) if entry & _HELD and not entry & _FILE_OR_SHARED]
    if most_pages and len(written) > most_pages:
        return None
    return [(address + first * _PAGE, address + end * _PAGE) for first, end in _runs(written)]


def _scan(
    pagemap: int, address: int, size: int, most_pages: int = 0
) -> tuple[list[tuple[int, int]] | None] | None:
    """Find the pages by one system call, in a hundredth of the time.

    Returns:
        None if it is not available; else the result of `written_ranges`, in a tuple.
    """
    regions = ctypes.create_string_buffer(_MOST_REGIONS * _REGION.size)
    found: list[tuple[int, int]] = []
    at, end = address, address + size
    while at < end:
        request = _Scan(
            size=_SCAN_BYTES,
            start=at,
            end=end,
            regions=ctypes.addressof(regions),
            n_regions=_MOST_REGIONS,
            max_pages=most_pages + 1 if most_pages else 0,
            inverted=_NEVER,
            all_of=_NEVER,
            any_of=_IS_PRESENT | _IS_SWAPPED,
            returned=_IS_FILE,
        )
        count = _ioctl(pagemap, _SCAN_REQUEST, ctypes.byref(request))
        if count < 0 or request.walk_end <= at:
            return None
        found += _REGION.iter_unpack(memoryview(regions)[: count * _REGION.size])
        at = request.walk_end
        if most_pages and at < end:  # it stops early with more pages, or with very many runs
            return (None,)
    return (found,)


def _runs(pages: Iterable[int]) -> list[list[int]]:
    runs: list[list[int]] = []
    for page in pages:
        if runs and page == runs[-1][1]:
            runs[-1][1] = page + 1
        else:
            runs.append([page, page + 1])
    return runs


def populate(address: int, runs: tuple[Run, ...]) -> None:
    """Copy the pages of a mapping in advance; no effect on a kernel without support."""
    for run in runs:
        if _madvise(address + run.offset, run.size, _POPULATE_WRITE):
            return
