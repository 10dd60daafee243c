"""Reading of untrusted zip files and wheels.

`zipfile` reads the directory of the archive; the content is inflated here, because `zipfile` silently
stops at the declared size, and a wrong size has to be refused by name.
"""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable

from evocell.code.paths import MAX_FILE_BYTES, MAX_FILES, MAX_TOTAL_BYTES, Quota, refuse
from evocell.errors import ConfigurationError

_END = struct.Struct("<4s4H2LH")
_END_MAGIC = b"PK\x05\x06"
_ZIP64_LOCATOR_MAGIC = b"PK\x06\x07"
_ZIP64_LOCATOR_BYTES = 20
_COMMENT_BYTES = 1 << 16
_LOCAL = struct.Struct("<4s5H3L2H")
_LOCAL_MAGIC = b"PK\x03\x04"
_ENCRYPTED = 0x1
_RAW_DEFLATE = -zlib.MAX_WBITS
#: Size of the directory of a tree at its limits: a generous entry for each file, and as many
#: entries for directories.
_DIRECTORY_BYTES = 2 * MAX_FILES * 1024

# Exceptions of zipfile for a malformed directory.
_MALFORMED = (
    zipfile.BadZipFile,
    struct.error,
    ValueError,
    NotImplementedError,
    OSError,
    EOFError,
    IndexError,
    OverflowError,
)


def read_bundle(data: bytes, check_path: Callable[[object], str]) -> list[tuple[str, bytes]]:
    """Unpack a zip or wheel in memory.

    Args:
        data: The archive.
        check_path: Returns a valid path, and refuses any other.

    Returns:
        Path and content of each file, in the archive's order.

    Raises:
        ConfigurationError: The bytes are not a zip file, or an entry is refused; the message names it.
    """
    _check_end(data)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
    except _MALFORMED as error:
        raise ConfigurationError(f"the bundle is not a readable zip file: {error}", "bundle") from error
    found: list[tuple[str, bytes]] = []
    names: set[str] = set()
    declared = Quota()
    unpacked = Quota()
    for entry in entries:
        # zipfile cuts the name at a NUL; the original one must be checked.
        name = check_path(entry.orig_filename.removesuffix("/"))
        if name in names:
            raise refuse(name, "is in the bundle twice")
        names.add(name)
        declared.add_file(name)
        _check_entry(entry, name)
        if entry.is_dir():
            continue
        declared.add_bytes(name, entry.file_size)
        content = _inflate(data, entry, name)
        unpacked.add_bytes(name, len(content))
        found.append((name, content))
    return found


def _check_end(data: bytes) -> None:
    """Check the size of the directory before `zipfile` creates an object for each entry."""
    if len(data) > MAX_TOTAL_BYTES:
        raise refuse("bundle", f"is larger than {MAX_TOTAL_BYTES >> 20} MiB")
    start = len(data) - _END.size
    # Searches like zipfile, so that both find the same record.
    if not (start >= 0 and data[start : start + 4] == _END_MAGIC and data.endswith(b"\0\0")):
        start = data.rfind(_END_MAGIC, max(0, len(data) - _COMMENT_BYTES - _END.size))
    if start < 0 or start + _END.size > len(data):
        raise ConfigurationError(
            "the bundle is not a zip file or wheel, or it is cut off: it has no end record; "
            "the bytes of a program's text are to be decoded first",
            "bundle",
        )
    locator = start - _ZIP64_LOCATOR_BYTES
    if locator >= 0 and data[locator : locator + 4] == _ZIP64_LOCATOR_MAGIC:
        raise refuse("bundle", "is in the zip64 format; nothing of its permitted size needs that")
    _, _, _, _, entries, directory_bytes, _, _ = _END.unpack_from(data, start)
    if entries > 2 * MAX_FILES or directory_bytes > _DIRECTORY_BYTES:
        raise refuse("bundle", f"lists {entries:,} entries; a tree has at most {MAX_FILES:,} files")


def _check_entry(entry: zipfile.ZipInfo, name: str) -> None:
    mode = entry.external_attr >> 16
    if stat.S_ISLNK(mode):
        raise refuse(name, "is a link; put the file itself into the bundle")
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise refuse(name, "is neither a file nor a directory")
    if entry.flag_bits & _ENCRYPTED:
        raise refuse(name, "is encrypted")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise refuse(name, "is compressed by another method than deflate")


def _inflate(data: bytes, entry: zipfile.ZipInfo, name: str) -> bytes:
    """Unpack one entry, up to one byte beyond its declared size and its limit."""
    start = entry.header_offset
    if start < 0 or start + _LOCAL.size > len(data) or data[start : start + 4] != _LOCAL_MAGIC:
        raise refuse(name, "has no header in the bundle; it is damaged")
    *_, name_bytes, extra_bytes = _LOCAL.unpack_from(data, start)
    start += _LOCAL.size + name_bytes + extra_bytes
    packed = memoryview(data)[start : start + entry.compress_size]
    if len(packed) != entry.compress_size:
        raise refuse(name, "is cut off; the bundle is damaged")
    most = min(entry.file_size, MAX_FILE_BYTES)
    if entry.compress_type == zipfile.ZIP_STORED:
        content = bytes(packed[: most + 1])
    else:
        inflater = zlib.decompressobj(_RAW_DEFLATE)
        try:
            content = inflater.decompress(packed, most + 1)
        except zlib.error as error:
            raise refuse(name, f"cannot be unpacked: {error}") from error
    if len(content) > most:
        raise refuse(name, f"unpacks to more than the {entry.file_size:,} bytes that it declares")
    if len(content) != entry.file_size or zlib.crc32(content) != entry.CRC:
        raise refuse(name, "unpacks to something else than it declares; the bundle is damaged")
    return content
