"""Directories of the engine are closed to others before there is anything in them, whatever the umask."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest

import evocell
from evocell.code.snapshots import SnapshotStore
from evocell.guests.scratch import Scratch
from evocell.store.store import Store
from evocell.telemetry.event_log import EventLog
from evocell_runtime.cache import ImageCache
from evocell_runtime.errors import ImageError
from evocell_runtime.private import make_below, make_private, shared_file

TASK = evocell.Evaluation("f", [evocell.Case(expected=1)])
MODULE = {"program.py": "def f(): return 1", "pkg/deep/__init__.py": ""}


@contextmanager
def umask(mask):
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def open_to_others(root):
    """What others may write to, below a directory and with it, whether or not they can get there."""
    found = [root, *root.rglob("*")]
    return [str(path) for path in found if not path.is_symlink() and mode(path) & 0o022]


@pytest.mark.parametrize("mask", [0o000, 0o022, 0o077])
@pytest.mark.parametrize("workers", [0, 1])
def test_an_engine_with_a_state_dir(tmp_path, mask, workers):
    state = tmp_path / "made" / "also" / "state"
    with umask(mask):
        config = evocell.Config.load(workers=workers, state_dir=state, event_log=True)
        with evocell.Engine(config) as engine:
            # Threads share the umask, and the engine's make directories as long as it is open.
            assert engine.evaluate_one(MODULE, TASK).valid
            with engine.create_sandbox(source=MODULE):
                assert mode(state) == 0o700
    assert mode(tmp_path / "made") == mode(tmp_path / "made" / "also") == mode(state) == 0o700
    assert open_to_others(tmp_path / "made") == []


def test_no_moment_in_which_it_is_open(tmp_path, monkeypatch):
    seen = []
    really = os.mkdir

    def watched(path, mode=0o777, **named):
        really(path, mode, **named)
        seen.append((path, stat.S_IMODE(os.stat(path, **named).st_mode)))  # noqa: PTH116 - as `os.mkdir`

    monkeypatch.setattr(os, "mkdir", watched)
    with umask(0):
        make_private(tmp_path / "a" / "b" / "c")
        SnapshotStore(tmp_path / "code" / "deep")
        Store(tmp_path / "state" / "evocell.db").close()
        EventLog(tmp_path / "log" / "events", 1).close()
        ImageCache(tmp_path / "cache" / "images").prepare()
        scratch = Scratch()
        scratch.make()
        scratch.close()
    assert len(seen) > 15
    assert [one for one in seen if one[1] != 0o700] == []


@pytest.mark.parametrize("bits", [0o777, 0o770, 0o720, 0o702, 0o1777])
@pytest.mark.parametrize("below", ["", "code", "runs", "events", "code/versions", "code/files", "code/tmp"])
def test_one_that_others_may_write_to_is_refused(tmp_path, bits, below):
    state = tmp_path / "state"
    make_below(state / below)
    (state / below).chmod(bits)
    with pytest.raises(evocell.StoreError, match=r"others may write to .*chmod 700"):
        evocell.Engine(evocell.Config.load(workers=0, state_dir=state, event_log=True))
    assert mode(state / below) == bits
    (state / below).chmod(0o755)
    with evocell.Engine(evocell.Config.load(workers=0, state_dir=state, event_log=True)):
        pass


def test_a_database_that_others_may_write_to_is_refused(tmp_path):
    state = tmp_path / "state"
    with evocell.Engine(evocell.Config.load(workers=0, state_dir=state)):
        pass
    (state / "evocell.db").chmod(0o666)
    with pytest.raises(evocell.StoreError, match=r"others may write to .*evocell\.db; .*chmod 600"):
        evocell.Engine(evocell.Config.load(workers=0, state_dir=state))


def test_one_of_another_user_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(evocell.StoreError, match="belongs to another user"):
        evocell.Engine(evocell.Config.load(workers=0, state_dir=tmp_path))
    file = tmp_path / "file"
    file.touch()
    assert "belongs to another user" in shared_file(file)
    link = tmp_path / "link"
    link.symlink_to(tmp_path)
    if os.getuid():
        assert "a link that another user made" in make_private(link)


def test_a_file_in_its_place_is_an_error(tmp_path):
    (tmp_path / "state").touch()
    with pytest.raises(evocell.StoreError, match="Not a directory"):
        evocell.Engine(evocell.Config.load(workers=0, state_dir=tmp_path / "state"))


@pytest.mark.parametrize("below", ["", "code", "images", "names"])
def test_a_cache_that_others_may_write_to_is_refused(tmp_path, below):
    cache = ImageCache(tmp_path / "cache")
    make_below(cache.root / below)
    (cache.root / below).chmod(0o777)
    with pytest.raises(ImageError, match=r"open to others|others may write"):
        cache.prepare()


def test_a_temporary_directory_whose_name_was_taken_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    scratch = Scratch()
    for number, take in enumerate((Path.mkdir, lambda home: home.symlink_to(tmp_path))):
        home = scratch.make().parent
        home.rename(tmp_path / f"away-{number}")
        take(home)
        assert scratch.make().parent != home
    scratch.close()
