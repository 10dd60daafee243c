"""Temporary directories of processes that live, that have ended, and that were never ours."""

import fcntl
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from evocell.guests.scratch import MARKER, OwnedDirectory, Scratch, memory_place, sweep


@pytest.fixture(autouse=True)
def place(tmp_path, monkeypatch):
    """Where the directories of a test are, and nobody else's."""
    place = tmp_path / "place"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


@pytest.fixture
def make_orphan(place):
    """Make what a killed process leaves: its directory, marked and not locked."""

    def make_orphan(name="evocell-orphan", marked=True):
        orphan = place / name
        orphan.mkdir(mode=0o700)
        if marked:
            (orphan / MARKER).write_text("made by process 1\n")
        (orphan / "code" / "versions").mkdir(parents=True)
        (orphan / "code" / "versions" / "program.py").write_text("x = 1")
        (orphan / "code" / "versions" / "program.py").chmod(0o444)
        return orphan

    return make_orphan


def left(place):
    return sorted(path.name for path in place.iterdir())


# ---------------------------------------------------------------------- owned


def test_an_owned_directory_is_private_and_goes_with_all_that_is_in_it(place, tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "file").write_text("kept")
    with OwnedDirectory() as path:
        assert path.parent == place
        assert path.name.startswith("evocell-")
        assert stat.S_IMODE(path.stat().st_mode) == 0o700
        (path / "a" / "b").mkdir(parents=True)
        (path / "a" / "link").symlink_to(tmp_path / "kept")
        (path / "link").symlink_to(tmp_path / "kept")
    assert left(place) == []
    assert (tmp_path / "kept" / "file").read_text() == "kept"


def test_closing_twice_is_fine_and_no_descriptor_is_left(place):
    before = len(left(Path("/proc/self/fd")))
    owned = OwnedDirectory()
    owned.close()
    owned.close()
    assert left(place) == []
    assert len(left(Path("/proc/self/fd"))) == before


def test_what_is_in_use_is_not_swept(place):
    owned, scratch = OwnedDirectory(), Scratch()
    made = scratch.make()
    assert sweep() == []
    assert made.is_dir()
    assert len(left(place)) == 2
    owned.close()
    scratch.close()
    assert left(place) == []


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_removes_nothing_of_its_parents(place):
    owned = OwnedDirectory()
    child = os.fork()
    if child == 0:
        try:
            owned.close()
            sweep()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert left(place) == [owned.path.name]
    assert sweep() == []
    owned.close()


def test_without_locks_a_directory_is_never_swept_and_still_goes(place, monkeypatch):
    def refuse(descriptor, operation):
        raise OSError(95, "Operation not supported")

    with monkeypatch.context() as patch:
        patch.setattr(fcntl, "flock", refuse)
        owned = OwnedDirectory()
    assert left(owned.path) == []
    assert sweep() == []
    owned.close()
    assert left(place) == []


# ---------------------------------------------------------------------- sweep


HOLDER = """
import sys, tempfile
from evocell.guests.scratch import OwnedDirectory, Scratch
tempfile.tempdir = sys.argv[1]
owned, scratch = OwnedDirectory(), Scratch()
(scratch.make() / "file").write_text("x")
print("up", flush=True)
sys.stdin.read()
"""


def test_what_a_killed_process_left_is_swept(place):
    owner = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(place)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    with owner:
        assert owner.stdout.readline() == b"up\n"
        names = left(place)
        assert len(names) == 2
        assert sweep() == []
        owner.send_signal(signal.SIGKILL)
    assert left(place) == names
    assert sorted(sweep()) == names
    assert left(place) == []


def test_links_in_an_orphan_are_removed_and_not_followed(place, tmp_path, make_orphan):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("kept")
    orphan = make_orphan()
    (orphan / "directory").symlink_to(precious)
    (orphan / "code" / "file").symlink_to(precious / "file")
    assert sweep() == ["evocell-orphan"]
    assert left(place) == []
    assert (precious / "file").read_text() == "kept"


def test_what_is_not_certainly_ours_stays(place, tmp_path, make_orphan):
    make_orphan("evocell-unmarked", marked=False)
    make_orphan("evocell-open").chmod(0o755)
    make_orphan("another")
    make_orphan("evocell-link-marked", marked=False).joinpath(MARKER).symlink_to(tmp_path)
    make_orphan("evocell-directory-marked", marked=False).joinpath(MARKER).mkdir()
    (place / "evocell-file").write_text("")
    elsewhere = make_orphan("orphan").rename(tmp_path / "elsewhere")
    (place / "evocell-link").symlink_to(elsewhere)
    before = left(place)

    assert sweep() == []

    assert left(place) == before
    assert (elsewhere / "code" / "versions" / "program.py").is_file()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("whose", [".", MARKER])
def test_another_users_directory_stays(place, make_orphan, whose):
    os.chown(make_orphan() / whose, 12345, 12345)
    assert sweep() == []
    assert left(place) == ["evocell-orphan"]


def test_what_could_not_be_removed_to_its_end_is_found_again(place, make_orphan, monkeypatch):
    orphan = make_orphan()
    (orphan / "a-file").write_text("")

    def refuse(*_, **__):
        raise OSError(16, "Device or resource busy")

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", refuse)
        assert sweep() == []
    assert MARKER in left(orphan)
    assert sweep() == ["evocell-orphan"]


def test_many_may_sweep_at_once(place, make_orphan):
    names = {make_orphan(f"evocell-{number}").name for number in range(40)}
    swept = [[] for _ in range(8)]
    threads = [threading.Thread(target=lambda removed=removed: removed.extend(sweep())) for removed in swept]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert left(place) == []
    assert set().union(*swept) == names


def test_no_place_at_all_is_nothing_to_sweep(place):
    place.rmdir()
    assert sweep() == []


# ---------------------------------------------------------------------- scratch


def test_scratch_directories_lie_in_one_that_is_made_when_it_is_needed(place):
    scratch = Scratch()
    assert left(place) == []
    made = [scratch.make() for _ in range(3)]
    assert len(set(made)) == 3
    assert all(left(path) == [] for path in made)
    assert len(left(place)) == 1
    scratch.close()
    scratch.close()
    assert left(place) == []


def test_making_the_first_one_sweeps(place, make_orphan):
    orphan, scratch = make_orphan(), Scratch()
    scratch.make()
    assert not orphan.exists()
    scratch.close()


def test_what_a_cleaner_took_away_is_made_again(place):
    scratch = Scratch()
    shutil.rmtree(scratch.make().parent)
    assert scratch.make().is_dir()
    scratch.close()
    assert left(place) == []


# ---------------------------------------------------------------------- in memory


def test_a_place_in_memory_is_used_only_where_there_is_room_and_nothing_else_was_asked_for(monkeypatch):
    for name in ("TMPDIR", "TEMP", "TMP"):
        monkeypatch.delenv(name, raising=False)
    room = os.statvfs("/dev/shm").f_bavail * os.statvfs("/dev/shm").f_frsize
    monkeypatch.setattr("evocell.guests.scratch._ROOM_BYTES", room + (1 << 40))
    assert memory_place() is None
    monkeypatch.setattr("evocell.guests.scratch._ROOM_BYTES", 0)
    assert memory_place() == "/dev/shm"
    monkeypatch.setenv("TMPDIR", "/var/tmp")
    assert memory_place() is None


def test_what_a_killed_process_left_in_memory_is_swept(place, make_orphan, monkeypatch, tmp_path):
    memory = tmp_path / "memory"
    memory.mkdir()
    monkeypatch.setattr("evocell.guests.scratch._MEMORY", str(memory))
    orphan = make_orphan("evocell-orphan")
    orphan.rename(memory / "evocell-orphan")

    with OwnedDirectory(str(memory)) as living:
        assert living.parent == memory
        assert sweep() == ["evocell-orphan"]
        assert left(memory) == [living.name]
    assert left(memory) == []
