"""File format for images and sandboxes that are moved between engines.

An archive is a head, which states its kind and contents, and compressed sections. It is written atomically
and never overwrites a file. Reading trusts nothing: the head is capped and scanned before it is decoded, each
section is unpacked under the bound that its reader sets, everything is checked against its hash, and no
trailing bytes are allowed. It holds data only: native code and byte code are compiled where they run.
"""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

from attrs import field, frozen

from evocell.code.sources import FileTree
from evocell.errors import ConfigurationError, ProtocolError, StoreError
from evocell.wire.values import decode_hostile
from evocell_guest.values import encode

__all__ = ["Archive", "pack_tree", "read_archive", "tree_of", "unpack_tree", "write_archive"]

_MAGIC = b"evocell parcel 1\n"
_LENGTH_BYTES = 4
_HASH_BYTES = 32
_HEAD_BYTES, _HEAD_ITEMS, _HEAD_DEPTH = 1 << 20, 20_000, 8
_TREE_ITEMS, _TREE_DEPTH = 100_000, 4
_LEVEL = 1
_SLACK_BYTES = 1 << 16
_SECTION_FIELDS = 4


@frozen
class Archive:
    """Contents of an archive file.

    Attributes:
        kind: ``"image"`` or ``"sandbox"``.
        facts: Its metadata, as plain data.
        sections: Its larger parts, by name.
    """

    kind: str
    facts: Mapping[str, Any]
    sections: Mapping[str, bytes] = field(repr=False)


def write_archive(path: Path, parcel: Archive) -> None:
    """Write an archive to a new file, atomically, and flush it to disk.

    Raises:
        ConfigurationError: The file exists already.
        StoreError: It cannot be written.
    """
    packed: list[bytes] = []
    table = []
    for name, data in parcel.sections.items():
        packed.append(zlib.compress(data, _LEVEL))
        table.append([name, len(data), len(packed[-1]), hashlib.sha256(data).digest()])
    head = encode({"kind": parcel.kind, "facts": dict(parcel.facts), "sections": table})
    parts = (_MAGIC, len(head).to_bytes(_LENGTH_BYTES, "big"), hashlib.sha256(head).digest(), head, *packed)
    try:
        _write_new(path, parts)
    except FileExistsError as error:
        raise ConfigurationError(f"there is a file {path} already; choose another name", "path") from error
    except OSError as error:
        raise StoreError(f"{path} cannot be written: {error.strerror or error}", str(path)) from error


def _write_new(path: Path, parts: tuple[bytes, ...]) -> None:
    folder = path.absolute().parent
    with tempfile.NamedTemporaryFile(prefix=f".{path.name}.", dir=folder, delete=False) as file:
        made = Path(file.name)
        try:
            for part in parts:
                file.write(part)
            file.flush()
            os.fsync(file.fileno())
            path.hardlink_to(made)  # fails if the file exists, unlike a rename
        finally:
            made.unlink(missing_ok=True)
    with suppress(OSError):  # a file system without hard links
        directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)


def read_archive(path: Path, kind: str, bounds: Mapping[str, int]) -> Archive:
    """Read an untrusted archive.

    Args:
        path: The file.
        kind: The required kind.
        bounds: The sections it may have, and the most bytes each may unpack to.

    Raises:
        ConfigurationError: There is no such file, or it cannot be read.
        ProtocolError: It is no archive of that kind, is damaged, or is over a bound; the message says which.
    """
    try:
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise ConfigurationError(f"{path} is not a file", "path")
            return _read(file, kind, bounds)
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}", "path") from error
    except ProtocolError as error:
        raise ProtocolError(f"{path} is no exported {kind}: {error.message}") from error


def _read(file: BinaryIO, kind: str, bounds: Mapping[str, int]) -> Archive:
    if _exactly(file, len(_MAGIC)) != _MAGIC:
        raise ProtocolError("it does not begin as one")
    size = int.from_bytes(_exactly(file, _LENGTH_BYTES), "big")
    if size > _HEAD_BYTES:
        raise ProtocolError(f"its head has {size:,} bytes, and at most {_HEAD_BYTES:,} are allowed")
    digest, raw = _exactly(file, _HASH_BYTES), _exactly(file, size)
    if hashlib.sha256(raw).digest() != digest:
        raise ProtocolError("its head is damaged")
    head = decode_hostile(raw, max_bytes=_HEAD_BYTES, max_items=_HEAD_ITEMS, max_depth=_HEAD_DEPTH)
    facts = head.get("facts") if isinstance(head, dict) else None
    table = head.get("sections") if isinstance(head, dict) else None
    if not isinstance(facts, dict) or not isinstance(table, list):
        raise ProtocolError("its head says too little")
    if head.get("kind") != kind:
        found = head.get("kind")
        raise ProtocolError(f"it is an exported {found[:20] if isinstance(found, str) else 'nothing'!r}")
    sections: dict[str, bytes] = {}
    for row in table:
        name, data = _section(file, row, bounds)
        if name in sections:
            raise ProtocolError(f"its section {name!r} is there twice")
        sections[name] = data
    if file.read(1):
        raise ProtocolError("something follows its end")
    return Archive(kind, facts, sections)


def _section(file: BinaryIO, row: object, bounds: Mapping[str, int]) -> tuple[str, bytes]:
    if not isinstance(row, list) or len(row) != _SECTION_FIELDS:
        raise ProtocolError("its head describes a section wrongly")
    name, size, packed_size, digest = row
    bound = bounds.get(name) if isinstance(name, str) else None
    if bound is None or not _is_size(size) or not _is_size(packed_size):
        raise ProtocolError("its head describes a section wrongly")
    if size > bound or packed_size > bound + _SLACK_BYTES:
        raise ProtocolError(f"its section {name!r} has {size:,} bytes, and at most {bound:,} are allowed")
    unpacker = zlib.decompressobj()
    try:
        data = unpacker.decompress(_exactly(file, packed_size), size + 1)
    except zlib.error as error:
        raise ProtocolError(f"its section {name!r} cannot be unpacked") from error
    if len(data) != size or not unpacker.eof or unpacker.unused_data:
        raise ProtocolError(f"its section {name!r} is longer or shorter than it says")
    if hashlib.sha256(data).digest() != digest:
        raise ProtocolError(f"its section {name!r} is damaged")
    return name, data


def _is_size(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise ProtocolError("it is cut off")
    return data


def tree_of(directory: Path) -> FileTree:
    """Return the tree in a trusted directory.

    Raises:
        OSError: It cannot be read.
    """
    files = sorted(path for path in directory.rglob("*") if path.is_file() and not path.is_symlink())
    return FileTree(tuple((path.relative_to(directory).as_posix(), path.read_bytes()) for path in files))


def pack_tree(tree: FileTree) -> bytes:
    """Pack a tree's files into one section."""
    return encode([[path, content] for path, content in tree.files])


def unpack_tree(data: bytes, max_bytes: int) -> FileTree:
    """Unpack a tree from an untrusted section.

    Raises:
        ProtocolError: It is not a list of files.
        ConfigurationError: A path or size in it is refused, by name.
    """
    pairs = decode_hostile(data, max_bytes=max_bytes, max_items=_TREE_ITEMS, max_depth=_TREE_DEPTH)
    if not isinstance(pairs, list) or not all(isinstance(p, list) and len(p) == 2 for p in pairs):  # noqa: PLR2004
        raise ProtocolError("its files are no list of files")
    return FileTree(tuple((path, content) for path, content in pairs))
