"""Hibernation and copying of idle guests, as differences from their image.

Between calls the whole interpreter state is its memory and the membrane's globals. Only written pages of the
memory differ from the image; they are stored as differences, which are mostly zeros and compress to a few per
cent. A hibernated guest holds no store, no mapping and no descriptor; after waking, it gives the same results
for the same fuel as if it had never been hibernated.
"""

from __future__ import annotations

import mmap
import struct
import zlib
from collections.abc import Mapping
from typing import Any

from attrs import field, frozen

from evocell_runtime.errors import ImageError
from evocell_runtime.hot_pages import Run, written_pages
from evocell_runtime.instance import Instance
from evocell_runtime.native import RawMemory, same_memory

_LEVEL = 1
_PAGE = mmap.PAGESIZE

# Approximate overhead of the objects around the packed bytes: per run, and in total.
_RUN_BYTES = 112
_OBJECT_BYTES = 4096


@frozen
class Hibernated:
    """A guest put aside.

    Attributes:
        memory_bytes: Size of its memory.
        runs: The ranges of pages that differ from the image's.
        packed: The compressed differences of these pages.
        state: The membrane's globals.
    """

    memory_bytes: int
    runs: tuple[Run, ...] = field(repr=False)
    packed: bytes = field(repr=False)
    state: Mapping[str, int] = field(repr=False)

    @property
    def held_bytes(self) -> int:
        """Approximate bytes that it takes in this process."""
        return len(self.packed) + _RUN_BYTES * len(self.runs) + _OBJECT_BYTES

    def to_plain(self) -> dict[str, Any]:
        """Return it as plain data, for another process with the same image."""
        numbers = [number for run in self.runs for number in (run.offset, run.size)]
        return {
            "memory_bytes": self.memory_bytes,
            "runs": struct.pack(f"<{len(numbers)}Q", *numbers),
            "packed": self.packed,
            "state": {name: str(value) for name, value in self.state.items()},
        }

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Hibernated:
        """Restore it from the data of `to_plain`.

        Raises:
            KeyError, TypeError, ValueError, struct.error: It is something else.
        """
        packed = plain["packed"]
        if not isinstance(packed, bytes):
            msg = "packed"
            raise TypeError(msg)
        runs = tuple(Run(*pair) for pair in struct.iter_unpack("<QQ", plain["runs"]))
        state = {str(name): int(value) for name, value in plain["state"].items()}
        return cls(int(plain["memory_bytes"]), runs, packed, state)


def hibernate(instance: Instance, reference: RawMemory) -> Hibernated:
    """Record a guest's difference from its image. The instance is unchanged; close it afterwards.

    Args:
        instance: The idle guest.
        reference: The memory of a fork of the same image that was never called.

    Raises:
        ImageError: The guest has open files or a call in flight, or the kernel does not report written
            pages.
    """
    memory = instance.memory
    runs = _changed(_own_pages(instance), memory, reference)
    parts = [_difference(memory.read(run.offset, run.size), reference, run) for run in runs]
    packed = zlib.compress(b"".join(parts), _LEVEL)
    return Hibernated(memory.size_bytes, runs, packed, dict(instance.state()))


def wake(instance: Instance, asleep: Hibernated, reference: RawMemory) -> None:
    """Restore a hibernated guest into a fresh fork of the same image.

    Args:
        instance: The fork, in which nothing was called.
        asleep: The hibernated guest.
        reference: As for `hibernate`.

    Raises:
        ImageError: The fork's memory cannot grow to the guest's size.
    """
    instance.grow_to(asleep.memory_bytes)
    unpacked = zlib.decompress(asleep.packed)
    at = 0
    for run in asleep.runs:
        instance.memory.write(run.offset, _difference(unpacked[at : at + run.size], reference, run))
        at += run.size
    instance.restore_state(asleep.state)


def copy(source: Instance, target: Instance) -> int:
    """Copy a guest into a fresh fork of the same image; the guest is unchanged.

    Args:
        source: The idle guest.
        target: The fork, in which nothing was called.

    Returns:
        The number of bytes copied: the guest's written pages.

    Raises:
        ImageError: As for `hibernate` and `wake`.
    """
    runs = _own_pages(source)
    target.grow_to(source.memory.size_bytes)
    for run in runs:
        target.memory.copy(source.memory, run.offset, run.size)
    target.restore_state(source.state())
    return sum(run.size for run in runs)


def _own_pages(instance: Instance) -> tuple[Run, ...]:
    """Return the pages that an idle guest wrote to."""
    if not instance.at_rest:
        msg = "a guest with a call in flight, or whose call was killed, cannot be put aside or copied"
        raise ImageError(msg)
    if instance.open_files:
        msg = f"the guest has files open ({instance.open_files}); their numbers mean nothing in another"
        raise ImageError(msg)
    runs = written_pages(instance.memory.address, instance.memory.size_bytes)
    if not runs:
        msg = "/proc/self/pagemap does not tell which pages a guest wrote to, so it cannot be put aside"
        raise ImageError(msg)
    return runs


def _changed(runs: tuple[Run, ...], memory: RawMemory, reference: RawMemory) -> tuple[Run, ...]:
    """Return the parts of runs that differ from the image; a third of the written bytes does not."""
    here, there, known = memory.address, reference.address, reference.size_bytes
    changed: list[list[int]] = []
    for run in runs:
        for offset in range(run.offset, run.offset + run.size, _PAGE):
            if offset + _PAGE <= known and same_memory(here + offset, there + offset, _PAGE):
                continue
            if changed and changed[-1][1] == offset:
                changed[-1][1] = offset + _PAGE
            else:
                changed.append([offset, offset + _PAGE])
    return tuple(Run(start, end - start) for start, end in changed)


def _difference(data: bytes, reference: RawMemory, run: Run) -> bytes:
    """Return bytes xor the image's; beyond the image, the bytes themselves."""
    known = max(0, min(run.size, reference.size_bytes - run.offset))
    if not known:
        return data
    base = reference.read(run.offset, known)
    mixed = int.from_bytes(data[:known], "little") ^ int.from_bytes(base, "little")
    return mixed.to_bytes(known, "little") + data[known:]
