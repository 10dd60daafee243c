"""Bundles made to escape from their tree, or to exhaust who unpacks them. Each is refused by name."""

from __future__ import annotations

import contextlib
import io
import stat
import struct
import tracemalloc
import zipfile
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evocell.code import paths
from evocell.code.sources import normalise
from evocell.errors import ConfigurationError

SIZE_IN_DIRECTORY = 24
SIZE_IN_HEADER = 22


def bundle(*entries, compression=zipfile.ZIP_DEFLATED):
    """Make a zip of (name or ZipInfo, content) pairs, as they are."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return stream.getvalue()


def with_mode(name, mode):
    info = zipfile.ZipInfo(name)
    info.external_attr = mode << 16
    return info


def declaring(data, size, crc=None):
    """Change what the only entry says of its size, in both places, and of its checksum."""
    changed = bytearray(data)
    directory = changed.rindex(b"PK\x01\x02")
    struct.pack_into("<L", changed, directory + SIZE_IN_DIRECTORY, size)
    struct.pack_into("<L", changed, SIZE_IN_HEADER, size)
    if crc is not None:
        struct.pack_into("<L", changed, directory + 16, crc)
        struct.pack_into("<L", changed, 14, crc)
    return bytes(changed)


def refusal(data):
    with pytest.raises(ConfigurationError) as caught:
        normalise(data)
    assert normalise(bundle(("program.py", "x = 1"))) == normalise("x = 1")
    return str(caught.value)


@pytest.mark.parametrize(
    "name", ["../evil.py", "a/../../evil.py", "..", "a/..", "../../../../etc/cron.d/evil", "./../evil.py"]
)
def test_traversal(name):
    assert "climbs out" in refusal(bundle((name, "")))


@pytest.mark.parametrize("name", ["/etc/passwd", "//etc/passwd"])
def test_absolute_paths(name):
    assert "is absolute" in refusal(bundle((name, "")))


def test_an_absolute_directory_entry():
    assert "is absolute" in refusal(bundle(("/etc/", "")))


@pytest.mark.parametrize("name", ["..\\evil.py", "C:\\evil.py"])
def test_backslashes(name):
    message = refusal(bundle((name, "")))

    assert "backslash" in message
    assert "evil.py" in message


def test_a_nul_that_hides_the_end_of_a_name():
    data = bundle(("program.pyX../evil", "")).replace(b"program.pyX", b"program.py\0")

    assert "NUL" in refusal(data)


def test_links():
    message = refusal(bundle((with_mode("evil.py", stat.S_IFLNK | 0o777), "/etc/passwd")))

    assert message.startswith("'evil.py' is a link")


@pytest.mark.parametrize("kind", [stat.S_IFIFO, stat.S_IFCHR, stat.S_IFBLK, stat.S_IFSOCK])
def test_devices_pipes_and_sockets(kind):
    message = refusal(bundle((with_mode("evil.py", kind | 0o666), "")))

    assert message.startswith("'evil.py' is neither a file nor a directory")


def test_a_bomb_by_its_declared_size():
    data = bundle(("fine.py", "x"), ("bomb.py", b"\0" * (5 << 20)))
    assert len(data) < 10_000

    assert refusal(data).startswith("'bomb.py' is larger than the 4 MiB")


def test_a_bomb_by_its_streamed_size_is_not_unpacked():
    data = declaring(bundle(("bomb.py", b"\0" * (64 << 20))), 100)
    tracemalloc.start()
    try:
        message = refusal(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert message.startswith("'bomb.py' unpacks to more than the 100 bytes")
    assert peak < 4 << 20


def test_a_declared_size_that_lies_is_found_even_if_the_checksum_fits_the_beginning():
    data = declaring(bundle(("lies.py", b"x = 1\n" * 100)), 6, zlib.crc32(b"x = 1\n"))

    assert refusal(data).startswith("'lies.py' unpacks to more than the 6 bytes")


def test_a_stored_entry_that_lies_about_its_size():
    data = declaring(bundle(("lies.py", b"x" * 100), compression=zipfile.ZIP_STORED), 6, zlib.crc32(b"x" * 6))

    assert refusal(data).startswith("'lies.py' unpacks to more than the 6 bytes")


def test_an_entry_that_unpacks_to_less_than_it_declares():
    data = declaring(bundle(("short.py", b"x" * 100)), 1000)

    assert refusal(data).startswith("'short.py' unpacks to something else")


def test_a_wrong_checksum():
    data = declaring(bundle(("bad.py", b"x" * 100)), 100, 1234)

    assert refusal(data).startswith("'bad.py' unpacks to something else")


def test_many_entries_that_are_large_together():
    data = bundle(*((f"part{index}.bin", b"\0" * (4 << 20)) for index in range(17)))

    assert refusal(data).startswith("'part16.bin' takes the tree over the 64 MiB")


def test_entries_that_share_one_body(monkeypatch):
    # The directory may point many entries at the same compressed bytes; each counts in full.
    monkeypatch.setattr(paths, "MAX_TOTAL_BYTES", 1 << 20)
    one = bundle(("a00.bin", b"\0" * (200 << 10)))
    start = one.rindex(b"PK\x01\x02")
    end = one.rindex(b"PK\x05\x06")
    entry = one[start:end]
    entries = b"".join(entry.replace(b"a00", b"a%02d" % index) for index in range(20))
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 20, 20, len(entries), start, 0)

    assert refusal(one[:start] + entries + tail).startswith("'a05.bin' takes the tree over")


@pytest.mark.parametrize(
    "names",
    [("program.py", "Program.py"), ("pkg/a.py", "PKG/b.py"), ("\u00e9.py", "e\u0301.py")],
)
def test_clashing_case(names):
    message = refusal(bundle(*((name, "") for name in names)))

    assert "clashes with" in message
    assert repr(names[1]) in message


def test_the_same_name_twice():
    with pytest.warns(UserWarning, match="Duplicate"):
        data = bundle(("program.py", "x = 1"), ("program.py", "x = 2"))

    assert refusal(data).startswith("'program.py' is in the bundle twice")


def test_a_file_where_another_needs_a_directory():
    assert "needs a directory" in refusal(bundle(("a", ""), ("a/b.py", "")))


def test_too_many_files():
    data = bundle(*((f"m{index:05}.py", "") for index in range(2001)))

    assert refusal(data).startswith("'m02000.py' is one file too many; a tree has at most 2,000")


def test_too_many_directories():
    data = bundle(("program.py", ""), *((f"d{index:05}/", "") for index in range(2500)))

    assert "is one file too many" in refusal(data)


def test_deep_paths_are_no_way_to_more_directories():
    deep = "/".join("d" * 480)
    data = bundle(*((f"{index}/{deep}/m.py", "") for index in range(2000)))

    assert "needs a directory too many; a tree has at most 2,000" in refusal(data)
    assert len(normalise(bundle((f"{deep}/m.py", "x = 1"))).files) == 1


def test_a_directory_too_large_to_list_is_refused_unread():
    data = bundle(*((f"m{index:05}.py", "") for index in range(5000)))

    assert refusal(data) == "'bundle' lists 5,000 entries; a tree has at most 2,000 files"


def test_a_count_that_lies_does_not_hide_the_directory_s_size():
    data = bytearray(bundle(*((f"{index:05}" + "n" * 200, "") for index in range(17_000))))
    end = data.rindex(b"PK\x05\x06")
    struct.pack_into("<2H", data, end + 8, 1, 1)

    assert refusal(bytes(data)).startswith("'bundle' lists")


def test_zip64():
    data = bundle(("program.py", "x = 1"))
    end = data.rindex(b"PK\x05\x06")
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, 0, 1)

    assert "zip64" in refusal(data[:end] + locator + data[end:])


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_other_compression(method):
    message = refusal(bundle(("a.py", b"x" * 1000), compression=method))

    assert message.startswith("'a.py' is compressed by another method")


def test_encryption():
    data = bytearray(bundle(("a.py", b"x")))
    data[data.rindex(b"PK\x01\x02") + 8] |= 1

    assert refusal(bytes(data)) == "'a.py' is encrypted"


@pytest.mark.parametrize("data", [b"", b"PK", b"x" * 100, b"PK\x05\x06", b"PK\x03\x04" + b"\0" * 40])
def test_what_is_no_zip_at_all(data):
    assert "bundle" in refusal(data)


def test_a_bundle_cut_off():
    data = bundle(("program.py", "x = 1\n" * 50))

    assert "cut off" in refusal(data[:-30])


def test_a_bundle_that_is_too_large():
    assert refusal(b"PK" + b"\0" * (64 << 20)) == "'bundle' is larger than 64 MiB"


def test_a_name_of_terminal_codes_is_shown_escaped():
    message = refusal(bundle(("\x1b[2J.py", "")))

    assert message.isprintable()


VALID = bundle(("program.py", "x = 1\n" * 20), ("pkg/a.py", "y"), ("data.bin", bytes(range(256))))


@given(st.lists(st.tuples(st.integers(0, len(VALID) - 1), st.integers(0, 255)), min_size=1, max_size=8))
def test_any_damage_is_refused_or_harmless(changes):
    data = bytearray(VALID)
    for place, value in changes:
        data[place] = value

    try:
        tree = normalise(bytes(data))
    except ConfigurationError:
        return
    assert all(not path.startswith("/") and ".." not in path.split("/") for path, _ in tree.files)


@given(st.binary(max_size=400))
def test_any_bytes_are_refused_or_a_tree(data):
    with contextlib.suppress(ConfigurationError):
        normalise(b"PK\x03\x04" + data)
