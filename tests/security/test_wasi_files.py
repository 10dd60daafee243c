"""Files as a guest sees them: bounded, charged, cut off from the host, and the same on every machine."""

from __future__ import annotations

import os
import random
import struct

import pytest

from evocell_runtime import membrane
from evocell_runtime.membrane import START_NS, TRANSFER_BYTES, StopReason

EBADF, EFAULT, EFBIG, EINVAL, EMFILE, ENAMETOOLONG = 8, 21, 22, 28, 33, 37
EOVERFLOW, EPERM, EROFS, ESPIPE = 61, 63, 69, 70
APP = 4
TMP = 6


@pytest.fixture
def big(probe):
    (probe.root / "big.bin").write_bytes(bytes(range(256)) * 1024)
    return probe.open(3, "big.bin")


# ---------------------------------------------------------------------- transfers


@pytest.mark.parametrize("asked", [TRANSFER_BYTES + 1, 200_000, 0x7FFFFFFF])
def test_a_read_moves_at_most_64_kib(probe, big, asked):
    read = probe.call("fd_read", big, *probe.iovecs((probe.BUF, asked)), probe.OUT)

    assert (read.errno, probe.u32(probe.OUT)) == (0, TRANSFER_BYTES)
    assert probe.read(probe.BUF + TRANSFER_BYTES, 16) == bytes(16)
    assert read.fuel >= TRANSFER_BYTES


def test_many_buffers_move_no_more_than_one(probe, big):
    parts = [(probe.BUF, 0), *[(probe.BUF, TRANSFER_BYTES)] * 100]

    read = probe.call("fd_pread", big, *probe.iovecs(*parts), 256, probe.OUT)

    assert (read.errno, probe.u32(probe.OUT)) == (0, TRANSFER_BYTES)


def test_empty_buffers_without_end_are_not_all_looked_at(probe, big):
    count = 0x7FFFFFFF // 8

    read = probe.call("fd_read", big, probe.BUF, count, probe.OUT)

    assert (read.errno, probe.u32(probe.OUT)) == (0, 0)
    assert read.fuel < 200_000


def test_a_write_moves_at_most_64_kib(probe):
    made = probe.create("out.bin")

    written = probe.call("fd_write", made, *probe.iovecs((probe.BUF, 300_000)), probe.OUT)
    placed = probe.call("fd_pwrite", made, *probe.iovecs((probe.BUF, 300_000)), 0, probe.OUT + 4)

    assert (written.errno, placed.errno) == (0, 0)
    assert (probe.u32(probe.OUT), probe.u32(probe.OUT + 4)) == (TRANSFER_BYTES, TRANSFER_BYTES)
    assert (probe.tmp / "out.bin").stat().st_size == TRANSFER_BYTES


def test_a_read_lands_where_it_should_and_can_be_sought(probe, big):
    assert probe.call("fd_seek", big, -3, 2, probe.OUT).errno == 0
    assert probe.call("fd_tell", big, probe.OUT + 8).errno == 0
    assert probe.u64(probe.OUT) == probe.u64(probe.OUT + 8) == 256 * 1024 - 3
    assert probe.call("fd_read", big, *probe.iovecs((probe.BUF, 100)), probe.OUT).errno == 0

    assert (probe.u32(probe.OUT), probe.read(probe.BUF, 4)) == (3, b"\xfd\xfe\xff\0")


@pytest.mark.parametrize("descriptor", [-1, 3, 6, 7, 1000, 0x7FFFFFFF, -0x80000000])
def test_only_open_files_are_read_or_written(probe, descriptor):
    vectors = probe.iovecs((probe.BUF, 10))

    for name, rest in (("fd_read", ()), ("fd_pread", (0,)), ("fd_write", ()), ("fd_pwrite", (0,))):
        assert probe.call(name, descriptor, *vectors, *rest, probe.OUT).errno == EBADF, name
    assert probe.call("fd_close", descriptor).errno == EBADF


def test_standard_input_is_at_its_end_and_no_output(probe):
    vectors = probe.iovecs((probe.BUF, 10))

    assert probe.call("fd_read", 0, *vectors, probe.OUT).errno == 0
    assert probe.u32(probe.OUT) == 0
    assert probe.call("fd_write", 0, *vectors, probe.OUT).errno == EBADF
    assert probe.call("fd_read", 1, *vectors, probe.OUT).errno == EBADF


def test_standard_streams_cannot_be_sought_closed_or_told_from_plain_ones(probe):
    for descriptor in (0, 1, 2):
        assert probe.call("fd_seek", descriptor, 0, 0, probe.OUT).errno == ESPIPE
        assert probe.call("fd_close", descriptor).errno == 0
        probe.write(probe.OUT, b"\xff" * 24)
        assert probe.call("fd_fdstat_get", descriptor, probe.OUT).errno == 0
        assert struct.unpack("<QQQ", probe.read(probe.OUT, 24)) == (0, 64 if descriptor else 2, 0)
    assert probe.call("fd_write", 1, *probe.iovecs((probe.BUF, 3)), probe.OUT).errno == 0


# ---------------------------------------------------------------------- opening


def test_open_files_are_capped_and_closing_makes_room(probe, big):
    opened = [big, *(probe.open(3, "big.bin") for _ in range(7))]
    arguments = (3, 0, *probe.path("big.bin"), 0, 2, 0, 0, probe.OUT)

    assert probe.call("path_open", *arguments).errno == EMFILE
    assert probe.call("fd_close", opened[0]).errno == 0
    assert probe.call("fd_close", opened[0]).errno == EBADF
    assert probe.call("path_open", *arguments).errno == 0
    assert probe.call("path_open", *arguments).errno == EMFILE
    assert probe.instance.open_files == 8


def test_a_directory_counts_as_an_open_file_and_preopens_cannot_be_closed(probe):
    for _ in range(8):
        probe.open(3, ".", oflags=2)

    assert probe.call("path_open", 3, 0, *probe.path("."), 2, 0, 0, 0, probe.OUT).errno == EMFILE
    assert [probe.call("fd_close", d).errno for d in (3, 4, 5, 6)] == [EBADF] * 4


def test_a_file_that_cannot_be_made_is_not_charged(probe):
    missing = (TMP, 0, *probe.path("no/such"), 1, 64, 0, 0, probe.OUT)

    assert probe.call("path_open", *missing).errno == 44
    assert probe.call("path_create_directory", TMP, *probe.path("no/such")).errno == 44
    assert (probe.state("scratch_used"), probe.state("scratch_entries")) == (0, 0)


def test_failed_opens_do_not_count(probe):
    for _ in range(20):
        assert probe.call("path_open", 3, 0, *probe.path("missing"), 0, 2, 0, 0, probe.OUT).errno == 44

    assert probe.instance.open_files == 0


@pytest.mark.parametrize(
    ("name", "before", "after"),
    [
        ("path_open", (3, 0), (0, 2, 0, 0, 0x10000)),
        ("path_filestat_get", (3, 0), (0x10000,)),
        ("path_create_directory", (TMP,), ()),
        ("path_remove_directory", (TMP,), ()),
        ("path_unlink_file", (TMP,), ()),
        ("path_rename", (TMP,), (TMP, 0x8000, 1)),
    ],
)
def test_a_long_path_is_refused_unread(probe, name, before, after):
    for length in (4097, 0x7FFFFFFF, 0xFFFFFFFF):
        assert probe.call(name, *before, probe.PATH, length, *after).errno == ENAMETOOLONG
    probe.path("x" * 4096)
    assert probe.call(name, *before, probe.PATH, 4096, *after).errno not in (0, None)


def test_a_path_as_long_as_the_host_takes_is_taken(probe):
    assert probe.call("path_filestat_get", TMP, 0, *probe.path("./" * 2047 + "."), probe.OUT).errno == 0


def test_a_rename_to_a_long_path_is_refused(probe):
    (probe.tmp / "a").touch()

    assert probe.call("path_rename", TMP, *probe.path("a"), TMP, probe.PATH, 4097).errno == ENAMETOOLONG


@pytest.mark.parametrize("path", ["/etc/passwd", "../outside", "a/../../outside", "..", "link"])
@pytest.mark.parametrize("directory", [3, TMP])
def test_no_path_leads_out(probe, tmp_path, directory, path):
    (tmp_path / "outside").write_text("secret")
    for place in (probe.root, probe.tmp):
        (place / "a").mkdir()
        (place / "link").symlink_to(tmp_path / "outside")

    opened = probe.call("path_open", directory, 1, *probe.path(path), 0, 2, 0, 0, probe.OUT)
    stated = probe.call("path_filestat_get", directory, 1, *probe.path(path), probe.OUT)

    assert opened.errno not in (0, None)
    assert stated.errno not in (0, None)


@pytest.mark.parametrize("directory", [3, 4, 5])
def test_only_scratch_space_can_be_changed(probe, directory):
    place = [probe.root, probe.app, probe.harness][directory - 3]
    (place / "file").write_text("kept")
    (place / "folder").mkdir()
    file, folder, new = (
        probe.path(n, at=probe.PATH + 64 * i) for i, n in enumerate(("file", "folder", "new"))
    )
    denied = {
        "open to write": ("path_open", directory, 0, *file, 0, 64, 0, 0, probe.OUT),
        "truncate": ("path_open", directory, 0, *file, 8, 64, 0, 0, probe.OUT),
        "rmdir": ("path_remove_directory", directory, *folder),
        "unlink": ("path_unlink_file", directory, *file),
        "rename": ("path_rename", directory, *file, directory, *new),
        "rename out": ("path_rename", directory, *file, TMP, *new),
    }
    if directory != APP:
        denied["create"] = ("path_open", directory, 0, *new, 1, 64, 0, 0, probe.OUT)
        denied["mkdir"] = ("path_create_directory", directory, *new)

    for what, call in denied.items():
        assert probe.call(*call).errno not in (0, None), what
    assert sorted(p.name for p in place.iterdir()) == ["file", "folder"]
    assert (place / "file").read_text() == "kept"


def test_without_a_quota_nothing_is_created(probe):
    probe.begin(quota=0)

    assert probe.call("path_open", TMP, 0, *probe.path("a"), 1, 64, 0, 0, probe.OUT).errno == EROFS
    assert probe.call("path_create_directory", TMP, *probe.path("a")).errno == EROFS
    assert list(probe.tmp.iterdir()) == []


# ---------------------------------------------------------------------- quota


def grow_by_write(probe, made, size):
    probe.call("fd_seek", made, 0, 2, probe.OUT)
    return probe.call("fd_write", made, *probe.iovecs((probe.BUF, size)), probe.OUT)


def grow_by_pwrite(probe, made, size):
    return probe.call("fd_pwrite", made, *probe.iovecs((probe.BUF, 1)), size - 1, probe.OUT)


def grow_by_set_size(probe, made, size):
    return probe.call("fd_filestat_set_size", made, size)


def grow_by_seek(probe, made, size):
    probe.call("fd_seek", made, size - 1, 0, probe.OUT)
    return probe.call("fd_write", made, *probe.iovecs((probe.BUF, 1)), probe.OUT)


@pytest.mark.parametrize("grow", [grow_by_write, grow_by_pwrite, grow_by_set_size, grow_by_seek])
def test_growth_is_charged_in_4_kib_and_ends_the_call_past_the_quota(probe, grow):
    probe.begin(quota=40_960)
    made = probe.create("a")
    assert probe.state("scratch_used") == 4096

    assert grow(probe, made, 4097).errno == 0
    assert probe.state("scratch_used") == 4096 + 8192
    assert grow(probe, made, 2).errno == 0
    stopped = grow(probe, made, 60_000)

    assert stopped.trap == "UNREACHABLE"
    assert probe.state("stop_reason") == StopReason.FILES
    assert (probe.tmp / "a").stat().st_size <= 8192


def test_overwriting_costs_no_quota(probe):
    probe.begin(quota=40_960)
    made = probe.create("a")
    assert grow_by_pwrite(probe, made, 10_000).errno == 0
    used = probe.state("scratch_used")

    for _ in range(5):
        assert grow_by_pwrite(probe, made, 5_000).errno == 0

    assert probe.state("scratch_used") == used


def test_append_mode_is_charged_at_the_end_wherever_the_position_is(probe):
    probe.begin(quota=20_480)
    made = probe.create("a", fdflags=1)

    for _ in range(4):
        assert probe.call("fd_seek", made, 0, 0, probe.OUT).errno == 0
        assert probe.call("fd_write", made, *probe.iovecs((probe.BUF, 4096)), probe.OUT).errno == 0
    probe.call("fd_seek", made, 0, 0, probe.OUT)
    stopped = probe.call("fd_write", made, *probe.iovecs((probe.BUF, 4096)), probe.OUT)

    assert (stopped.trap, probe.state("stop_reason")) == ("UNREACHABLE", StopReason.FILES)
    assert (probe.tmp / "a").stat().st_size == 16_384


def test_append_mode_switched_on_later_is_charged_too(probe):
    probe.begin(quota=16_384)
    made = probe.create("a")
    assert grow_by_write(probe, made, 8192).errno == 0
    assert probe.call("fd_fdstat_set_flags", made, 1).errno == 0
    assert probe.call("fd_seek", made, 0, 0, probe.OUT).errno == 0

    stopped = probe.call("fd_write", made, *probe.iovecs((probe.BUF, 8192)), probe.OUT)

    assert (stopped.trap, probe.state("stop_reason")) == ("UNREACHABLE", StopReason.FILES)
    assert (probe.tmp / "a").stat().st_size == 8192


@pytest.mark.parametrize("grow", [grow_by_pwrite, grow_by_set_size, grow_by_seek])
@pytest.mark.parametrize("size", [(1 << 30) + 1, 1 << 40, (1 << 63) - 1])
def test_a_file_larger_than_1_gib_is_refused_whatever_the_quota(probe, grow, size):
    probe.begin(quota=1 << 62)
    made = probe.create("a")

    assert grow(probe, made, size).errno in (EFBIG, EINVAL)
    assert (probe.tmp / "a").stat().st_size == 0


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_many_empty_files_and_directories_are_charged_until_the_call_ends(probe, kind):
    probe.begin(quota=5 * 4096, open_files=100)

    for number in range(5):
        if kind == "file":
            probe.create(f"f{number}")
        else:
            assert probe.call("path_create_directory", TMP, *probe.path(f"d{number}")).errno == 0
    if kind == "file":
        stopped = probe.call("path_open", TMP, 0, *probe.path("more"), 1, 64, 0, 0, probe.OUT)
    else:
        stopped = probe.call("path_create_directory", TMP, *probe.path("more"))

    assert (stopped.trap, probe.state("stop_reason")) == ("UNREACHABLE", StopReason.FILES)
    assert len(list(probe.tmp.iterdir())) == 5


@pytest.mark.parametrize("whence", [0, 2])
def test_writing_to_a_file_opened_to_be_read_is_an_error_the_guest_can_catch(probe, big, whence):
    probe.begin(quota=0)
    assert probe.call("fd_seek", big, 0, whence, probe.OUT).errno == 0

    assert probe.call("fd_write", big, *probe.iovecs((probe.BUF, 10)), probe.OUT).errno in (EBADF, EROFS)
    assert (probe.root / "big.bin").stat().st_size == 256 * 1024


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_files_and_directories_are_counted_and_one_too_many_ends_the_call(probe, kind):
    probe.begin(entries=3, open_files=100)

    def make(name):
        if kind == "directory":
            return probe.call("path_create_directory", TMP, *probe.path(name))
        return probe.call("path_open", TMP, 0, *probe.path(name), 1, 64, 0, 0, probe.OUT)

    assert [make(name).errno for name in ("a", "b", "c")] == [0, 0, 0]
    assert make("a").errno == (0 if kind == "file" else 20)
    assert probe.state("scratch_entries") == 3
    stopped = make("d")

    assert (stopped.trap, probe.state("stop_reason")) == ("UNREACHABLE", StopReason.ENTRIES)
    assert sorted(p.name for p in probe.tmp.iterdir()) == ["a", "b", "c"]


def test_what_a_call_left_counts_in_the_next_one_of_its_fork(probe):
    probe.begin(quota=40_960)
    made = probe.create("a")
    assert grow_by_pwrite(probe, made, 30_000).errno == 0

    probe.begin(quota=40_960)
    assert probe.state("scratch_used") == 4096 + 32_768
    assert grow_by_pwrite(probe, made, 34_000).errno == 0
    assert grow_by_pwrite(probe, made, 40_000).trap == "UNREACHABLE"


def test_a_file_larger_than_its_bound_is_an_error_the_guest_can_catch(probe):
    probe.begin(file_bytes=10_000)
    made = probe.create("a")

    assert grow_by_pwrite(probe, made, 10_000).errno == 0
    for grow in (grow_by_pwrite, grow_by_set_size, grow_by_seek):
        assert grow(probe, made, 10_001).errno == EFBIG
    assert (probe.tmp / "a").stat().st_size == 10_000


@pytest.mark.parametrize(
    ("path", "errno"),
    [("a/b/c", 0), ("a//./b/./c/", 0), ("a/b/c/d", ENAMETOOLONG), ("a/b/../b/c", ENAMETOOLONG)],
)
def test_directories_nest_to_the_bound_and_no_deeper(probe, path, errno):
    probe.begin(depth=3)
    (probe.tmp / "a" / "b").mkdir(parents=True)

    assert probe.call("path_create_directory", TMP, *probe.path(path)).errno == errno
    assert (probe.tmp / "a" / "b" / "c").is_dir() is (errno == 0)


def test_nothing_is_made_below_an_open_directory_or_outside_the_scratch_space(probe):
    (probe.tmp / "a").mkdir()
    inside = probe.open(TMP, "a", oflags=2, rights=(1 << 13) | (1 << 9) | (1 << 10))

    for directory, errno in ((inside, EPERM), (3, EROFS), (5, EROFS), (1, EROFS), (-1, EPERM)):
        assert probe.call("path_create_directory", directory, *probe.path("b")).errno == errno
        opened = probe.call("path_open", directory, 0, *probe.path("b"), 1, 64, 0, 0, probe.OUT)
        assert opened.errno == errno
    assert list((probe.tmp / "a").iterdir()) == []


def test_a_rename_takes_no_directory_deeper_whatever_the_paths_look_like(probe):
    probe.begin(depth=3)
    (probe.tmp / "a" / "b").mkdir(parents=True)
    (probe.tmp / "c").mkdir()
    (probe.tmp / "file").touch()

    def rename(old, new):
        return probe.call("path_rename", TMP, *probe.path(old), TMP, *probe.path(new, at=0x9000)).errno

    assert rename("a", "c/a") == EPERM
    assert rename("c/../c/../a", "c/a") == EPERM
    assert rename("a", "c/../a2") == EPERM
    assert rename("file", "a/b/c/d") == ENAMETOOLONG
    assert rename("file", "a/b/file") == 0
    assert rename("a", "ab") == rename("ab", "a..b") == rename("a..b", ".a.b") == rename(".a.b", "a.") == 0
    assert rename("a.", "..d") == rename("..d", "...") == rename("...", "d") == 0
    assert sorted(str(p.relative_to(probe.tmp)) for p in probe.tmp.rglob("*")) == [
        "c",
        "d",
        "d/b",
        "d/b/file",
    ]


def test_what_is_truncated_unlinked_or_replaced_is_given_back(probe):
    probe.begin(quota=1 << 20)
    made = probe.create("a")
    assert grow_by_pwrite(probe, made, 100_000).errno == 0
    assert probe.call("fd_filestat_set_size", made, 5_000).errno == 0
    assert probe.state("scratch_used") == 4096 + 8192
    assert probe.call("fd_close", probe.create_again("a")).errno == 0
    assert probe.state("scratch_used") == 4096
    assert grow_by_pwrite(probe, made, 50_000).errno == 0
    assert probe.call("fd_close", made).errno == 0

    assert probe.call("path_rename", TMP, *probe.path("a"), TMP, *probe.path("a", at=0x9000)).errno == 0
    assert probe.state("scratch_used") == 4096 + 53_248
    assert probe.call("path_unlink_file", TMP, *probe.path("a")).errno == 0
    assert (probe.state("scratch_used"), probe.state("scratch_entries")) == (0, 0)


@pytest.mark.parametrize("oflags", [0, 1, 2, 4, 5])
def test_what_is_opened_and_not_emptied_gives_nothing_back(probe, oflags):
    made = probe.create("a")
    assert grow_by_pwrite(probe, made, 100_000).errno == 0
    assert probe.call("fd_close", made).errno == 0
    used = probe.state("scratch_used")

    probe.call("path_open", TMP, 0, *probe.path("a"), oflags, 2, 0, 0, probe.OUT)

    assert probe.state("scratch_used") == used == 4096 + 102_400


def test_a_directory_that_is_replaced_gives_back_no_more_than_it_was_charged(probe):
    probe.begin(quota=1 << 20)
    for _ in range(3):
        for name in ("a", "b"):
            assert probe.call("path_create_directory", TMP, *probe.path(name)).errno == 0
        assert (probe.state("scratch_used"), probe.state("scratch_entries")) == (8192, 2)
        moved = probe.call("path_rename", TMP, *probe.path("a"), TMP, *probe.path("b", at=0x9000))
        assert moved.errno == 0
        assert (probe.state("scratch_used"), probe.state("scratch_entries")) == (4096, 1)
        assert probe.call("path_remove_directory", TMP, *probe.path("b")).errno == 0
        assert (probe.state("scratch_used"), probe.state("scratch_entries")) == (0, 0)


def test_an_unlinked_file_that_is_open_stays_charged(probe):
    probe.begin(quota=60_000)
    for _ in range(2):
        made = probe.create("a")
        grown = grow_by_pwrite(probe, made, 20_000)
        assert grown.errno == 0
        assert probe.call("path_unlink_file", TMP, *probe.path("a")).errno == 0
    made = probe.create("a")

    assert grow_by_pwrite(probe, made, 20_000).trap == "UNREACHABLE"


def test_what_was_never_charged_is_not_given_back(probe):
    """Files that the host put there; what is used never falls below nothing."""
    (probe.tmp / "from-outside").write_bytes(bytes(50_000))
    probe.call("path_create_directory", TMP, *probe.path("a"))
    assert probe.state("scratch_used") == 4096

    assert probe.call("path_unlink_file", TMP, *probe.path("from-outside")).errno == 0
    assert (probe.state("scratch_used"), probe.state("scratch_entries")) == (0, 0)


@pytest.mark.parametrize("name", ["fd_pwrite", "fd_filestat_set_size"])
def test_nothing_is_charged_for_a_descriptor_that_is_not_open(probe, name):
    size = 500_000
    rest = (*probe.iovecs((probe.BUF, 1)), size, probe.OUT) if name == "fd_pwrite" else (size,)

    assert probe.call(name, 11, *rest).errno == EBADF
    assert probe.state("scratch_used") == 0


def test_a_path_in_the_cells_that_the_wrappers_write_to_is_refused(probe):
    arena = probe.state("arena")
    for at in (arena, arena + 64, arena + 4095, arena - 3):
        probe.write(at, b"abcd")
        for call in (
            ("path_open", TMP, 0, at, 4, 1, 64, 0, 0, probe.OUT),
            ("path_create_directory", TMP, at, 4),
            ("path_filestat_get", TMP, 0, at, 4, probe.OUT),
            ("path_unlink_file", TMP, at, 4),
            ("path_remove_directory", TMP, at, 4),
            ("path_rename", TMP, at, 4, TMP, probe.PATH, 4),
            ("path_rename", TMP, probe.PATH, 4, TMP, at, 4),
        ):
            assert probe.call(*call).errno == EFAULT
    assert list(probe.tmp.iterdir()) == []


def test_a_path_beside_those_cells_is_taken(probe):
    arena = probe.state("arena")
    (probe.tmp / "abc").touch()
    for at in (arena - 3, arena + 4096, arena + 100_000, probe.size_bytes - 3):
        probe.write(at, b"abc")
        assert probe.call("path_filestat_get", TMP, 0, at, 3, probe.OUT).errno == 0


# ---------------------------------------------------------------------- metadata


def stat(probe, *, path=None, descriptor=None):
    if descriptor is None:
        answer = probe.call("path_filestat_get", 3, 0, *probe.path(path), probe.OUT)
    else:
        answer = probe.call("fd_filestat_get", descriptor, probe.OUT)
    assert answer.errno == 0
    device, inode, kind, links, size, *times = struct.unpack("<QQB7xQQQQQ", probe.read(probe.OUT, 64))
    return device, inode, kind, links, size, times


def test_a_filestat_tells_type_and_size_and_nothing_of_the_host(probe, big):
    (probe.root / "folder").mkdir()

    by_path, by_file = stat(probe, path="big.bin"), stat(probe, descriptor=big)
    device, inode, kind, links, size, times = by_path

    os.link(probe.root / "big.bin", probe.root / "again.bin")  # as versions of code share their files
    assert stat(probe, path="big.bin") == stat(probe, path="big.bin") == by_path
    assert (device, kind, links, size, times) == (1, 4, 1, 256 * 1024, [START_NS] * 3)
    assert inode not in (0, 1, (probe.root / "big.bin").stat().st_ino)
    assert by_file == (1, 1, 4, 1, 256 * 1024, [START_NS] * 3)
    assert stat(probe, path="folder")[2] == 3
    for name in ("bog.bin", "bin.big"):
        (probe.root / name).touch()
    assert len({stat(probe, path=name)[1] for name in ("folder", "big.bin", "bog.bin", "bin.big")}) == 4
    for stream in (0, 1, 2):
        probe.write(probe.OUT, b"\xff" * 64)
        assert stat(probe, descriptor=stream) == (1, 1, 0, 1, 0, [START_NS] * 3)


def test_the_size_of_a_directory_is_not_that_of_the_hosts_file_system(probe):
    folder = probe.root / "folder"
    folder.mkdir()
    for number in range(1000):  # on any file system its size is another now
        (folder / f"{number}{'x' * 100}").touch()

    assert stat(probe, path="folder")[4] == 4096
    assert stat(probe, descriptor=probe.open(3, "folder", oflags=2))[4] == 4096
    assert [stat(probe, descriptor=d)[4] for d in (3, 4, 5, 6)] == [4096] * 4


def test_an_inode_depends_on_the_path_alone(make_probe):
    seen = set()
    for _ in range(2):
        probe = make_probe()
        (probe.root / "other").touch()
        (probe.root / "file").unlink(missing_ok=True)
        (probe.root / "file").touch()
        seen.add(stat(probe, path="file")[1])

    assert len(seen) == 1


def test_setting_times_is_accepted_and_does_nothing(probe):
    (probe.tmp / "a").touch()
    before = (probe.tmp / "a").stat().st_mtime_ns

    assert probe.call("path_filestat_set_times", TMP, 0, *probe.path("a"), 5, 5, 5).errno == 0
    assert (probe.tmp / "a").stat().st_mtime_ns == before


def test_the_preopens_are_four_in_a_fixed_order(probe):
    found = []
    for descriptor in range(3, 10):
        probe.write(probe.OUT, b"\xff" * 8)
        if probe.call("fd_prestat_get", descriptor, probe.OUT).errno:
            break
        kind, length = probe.u32(probe.OUT), probe.u32(probe.OUT + 4)
        assert kind == 0
        assert probe.call("fd_prestat_dir_name", descriptor, probe.BUF, length - 1).errno == ENAMETOOLONG
        assert probe.call("fd_prestat_dir_name", descriptor, probe.BUF, length).errno == 0
        found.append(probe.read(probe.BUF, length).decode())

    assert tuple(found) == membrane.PREOPENS == ("/", "/app", "/harness", "/tmp")
    for descriptor in (0, 1, 2, 7, -1):
        assert probe.call("fd_prestat_get", descriptor, probe.OUT).errno == EBADF
        assert probe.call("fd_prestat_dir_name", descriptor, probe.BUF, 100).errno == EBADF


# ---------------------------------------------------------------------- directories


def listing(probe, descriptor, *, room=4096):
    """All entries, read through a buffer of `room` bytes as libc would, as (name, cookie, inode, type)."""
    entries, cookie = [], 0
    while True:
        answer = probe.call("fd_readdir", descriptor, probe.BUF, room, cookie, probe.OUT)
        assert answer.errno == 0, answer
        used = probe.u32(probe.OUT)
        raw, at = probe.read(probe.BUF, used), 0
        while at + 24 <= used:
            following, inode, length, kind = struct.unpack_from("<QQII", raw, at)
            if at + 24 + length > used:
                break
            entries.append((raw[at + 24 : at + 24 + length].decode(), following, inode, kind))
            cookie, at = following, at + 24 + length
        if used < room:
            return entries
        assert at, "no entry fits the buffer"


@pytest.mark.parametrize("room", [100, 300, 4096])
def test_a_listing_is_sorted_with_constant_inodes_whatever_the_order_of_creation(probe, room):
    letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
    names = [f"n{n:02}" for n in range(20)] + ["aa", "é", *letters, *(letter + "!" for letter in letters)]
    random.Random(5).shuffle(names)
    for name in names:
        (probe.root / name).touch()

    entries = listing(probe, 3, room=room)
    assert probe.instance.sleeping_ns() == 0  # whose cell lies beside those that sorting uses

    assert [e[0] for e in entries] == sorted([".", "..", *names], key=str.encode)
    assert [e[1] for e in entries] == list(range(1, len(entries) + 1))
    assert {e[2] for e in entries} == {1}


def test_a_listing_costs_the_same_in_whatever_order_the_host_gives_it(probe):
    """The host's order cannot be chosen; but with other names of the same lengths it is another one."""
    lengths = [1, 2, 3, 5, 5, 5, 8, 8, 13, 40, 200]
    costs = set()
    for number in range(8):
        letters, folder = random.Random(number), probe.root / f"{number}"
        folder.mkdir()
        for length in lengths:
            (folder / "".join(letters.choices("abcdefghijklmnopqrstuvwxyz", k=length))).touch()
        opened = probe.open(3, f"{number}", oflags=2, rights=1 << 14)
        costs.add(probe.call("fd_readdir", opened, probe.BUF, 4096, 0, probe.OUT).fuel)
        assert [e[0] for e in listing(probe, opened)][2:] == sorted(p.name for p in folder.iterdir())
        probe.call("fd_close", opened)

    assert len(costs) == 1


@pytest.mark.parametrize("entries", [0, 100, 1500])
def test_a_listing_is_paid_for_by_the_entry(probe, entries):
    for number in range(entries):
        (probe.root / f"{number:04}").touch()

    answer = probe.call("fd_readdir", 3, probe.BUF, 4096, 0, probe.OUT)

    assert answer.fuel >= 430_000 + 7_000 * (entries + 2)


def test_a_listing_of_more_than_64_kib_is_whole_and_sorted(probe):
    names = [f"{n * 7919 % 2000:04}-{'x' * 60}" for n in range(2000)]
    for name in names:
        (probe.root / name).touch()

    entries = listing(probe, 3, room=300_000)

    assert [e[0] for e in entries] == sorted([".", "..", *names])


def test_a_listing_too_large_for_the_membrane_is_refused(probe):
    for number in range(2200):
        (probe.root / f"{number:04}{'x' * 196}").touch()

    assert probe.call("fd_readdir", 3, probe.BUF, 4096, 0, probe.OUT).errno == EOVERFLOW


def test_a_listing_of_more_entries_than_are_indexed_is_refused(probe):
    for number in range(8190):  # and the two dots
        (probe.root / f"{number:04}").touch()

    whole = probe.call("fd_readdir", 3, probe.BUF, 400_000, 0, probe.OUT)
    (probe.root / "more").touch()
    refused = probe.call("fd_readdir", 3, probe.BUF, 400_000, 0, probe.OUT)

    assert (whole.errno, refused.errno) == (0, EOVERFLOW)


@pytest.mark.parametrize("cookie", [3, 1 << 31, 1 << 40, -1])
def test_a_cookie_past_the_end_gives_nothing(probe, cookie):
    probe.write(probe.OUT, b"left")
    assert probe.call("fd_readdir", 3, probe.BUF, 4096, cookie, probe.OUT).errno == 0
    assert probe.u32(probe.OUT) == 0


def test_a_file_cannot_be_listed(probe, big):
    assert probe.call("fd_readdir", big, probe.BUF, 4096, 0, probe.OUT).errno not in (0, None)
    assert probe.call("fd_readdir", 1, probe.BUF, 4096, 0, probe.OUT).errno not in (0, None)


def test_what_is_not_among_the_programs_files_is_in_the_scratch_space(probe):
    (probe.app / "own").write_text("kept")
    own, new, folder, other = (
        probe.path(n, at=probe.PATH + 64 * i) for i, n in enumerate(("own", "new", "folder", "other"))
    )

    assert probe.call("path_open", APP, 0, *new, 1, 64, 0, 0, probe.OUT).errno == 0
    assert probe.call("path_create_directory", APP, *folder).errno == 0
    assert probe.call("path_create_directory", APP, *folder).errno not in (0, None)
    assert probe.call("path_filestat_get", APP, 0, *new, probe.OUT).errno == 0
    assert sorted(p.name for p in probe.tmp.iterdir()) == ["folder", "new"]
    assert probe.call("path_rename", APP, *new, APP, *other).errno == 0
    assert probe.call("path_remove_directory", APP, *folder).errno == 0
    assert [p.name for p in probe.tmp.iterdir()] == ["other"]
    assert probe.call("path_rename", APP, *other, APP, *own).errno not in (0, None)
    assert probe.call("path_unlink_file", APP, *other).errno == 0
    assert probe.call("path_unlink_file", APP, *own).errno not in (0, None)
    assert [p.name for p in probe.app.iterdir()] == ["own"]
    assert list(probe.tmp.iterdir()) == []


def test_without_a_quota_the_programs_directory_is_all_there_is(probe):
    probe.begin(quota=0)
    (probe.tmp / "a").write_text("hidden")

    assert probe.call("path_filestat_get", APP, 0, *probe.path("a"), probe.OUT).errno not in (0, None)
    assert probe.call("path_open", APP, 0, *probe.path("a"), 1, 64, 0, 0, probe.OUT).errno == EROFS


def test_climbing_out_of_the_programs_directory_is_not_led_into_the_scratch_space(probe):
    (probe.tmp / "a").write_text("kept")

    for path in ("../a", "x/../../a", "/a", "../tmp/a"):
        found = probe.call("path_open", APP, 0, *probe.path(path), 1, 64, 0, 0, probe.OUT)
        assert found.errno not in (0, None), path
    assert sorted(p.name for p in probe.tmp.iterdir()) == ["a"]
