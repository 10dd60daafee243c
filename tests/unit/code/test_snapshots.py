from __future__ import annotations

import errno
import multiprocessing
import os
import shutil
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import pytest

from evocell.code.snapshots import SnapshotStore, remove_former
from evocell.code.sources import FileTree, normalise
from evocell.errors import StoreError

TREE = normalise({"program.py": "x = 1", "pkg/sub/data.bin": b"\0\1"})


@pytest.fixture
def store(tmp_path):
    return SnapshotStore(tmp_path / "store")


def held(path):
    return {
        found.relative_to(path).as_posix(): found.read_bytes() for found in path.rglob("*") if found.is_file()
    }


def put_many(root):
    store = SnapshotStore(root)
    trees = [normalise({"program.py": f"x = {index % 10}", "a/b.py": "y"}) for index in range(50)]
    return [str(store.put(tree).path) for tree in trees]


def test_a_snapshot_holds_exactly_the_trees_files(store):
    snapshot = store.put(TREE)

    assert snapshot.digest == TREE.digest
    assert snapshot.path.is_absolute()
    assert held(snapshot.path) == dict(TREE.files)


def test_putting_again_returns_the_same_and_touches_nothing(store):
    first = store.put(TREE)
    inode = first.path.stat().st_ino

    assert store.put(TREE) == first
    assert SnapshotStore(store.root).put(TREE) == first
    assert first.path.stat().st_ino == inode


def test_files_are_not_writable(store):
    path = store.put(TREE).path / "program.py"

    assert path.stat().st_mode & 0o222 == 0


def test_the_empty_snapshot_is_an_empty_directory(store):
    assert list(store.empty.path.iterdir()) == []
    assert store.empty.digest == FileTree().digest


def test_nothing_temporary_is_left(store):
    store.put(TREE)
    SnapshotStore(store.root).put(TREE)

    assert list((store.root / "tmp").iterdir()) == []


@pytest.mark.parametrize("damage", ["truncated", "extra", "missing", "linked"])
def test_a_snapshot_that_a_crash_damaged_is_replaced(store, damage):
    path = store.put(TREE).path
    victim = path / "program.py"
    if damage == "extra":
        (path / "extra.py").write_text("", encoding="utf-8")
    else:
        victim.unlink()
    if damage == "truncated":
        victim.write_bytes(b"")
    elif damage == "linked":
        victim.symlink_to(path / "pkg" / "sub" / "data.bin")

    again = SnapshotStore(store.root).put(TREE)

    assert held(again.path) == dict(TREE.files)


def test_a_snapshot_that_vanished_is_put_again(store):
    first = store.put(TREE)
    store.remove(TREE.digest)
    assert not first.path.exists()
    store.remove(TREE.digest)

    assert held(store.put(TREE).path) == dict(TREE.files)


def test_threads_may_put_the_same_tree_at_once(store):
    with ThreadPoolExecutor(8) as pool:
        snapshots = set(pool.map(lambda _: store.put(TREE), range(64)))

    assert len(snapshots) == 1
    assert held(snapshots.pop().path) == dict(TREE.files)
    assert list((store.root / "tmp").iterdir()) == []


def test_processes_may_put_the_same_trees_at_once(store):
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        first, second = pool.map(put_many, [store.root] * 2)

    assert first == second
    assert len(set(first)) == 10
    assert list((store.root / "tmp").iterdir()) == []


def test_byte_code_of_earlier_versions_is_removed(store):
    former = store.root / "modules" / "ab"
    former.mkdir(parents=True)
    (former / "ab12.msgpack").write_bytes(b"code")

    remove_former(store.root)
    remove_former(store.root)

    assert not (store.root / "modules").exists()


@pytest.mark.parametrize("files", [TREE.files, (("program.py", b"x"),)], ids=["many", "one"])
def test_a_store_that_others_have_emptied_is_made_anew(store, files):
    tree = FileTree(files)
    store.put(tree)
    shutil.rmtree(store.root)

    assert held(store.put(tree).path) == dict(files)


def test_room_is_made_for_a_tree_once(store, monkeypatch):
    made, place = [], store._place

    def full(tree, final):
        if len(made) < needed:
            raise OSError(errno.ENOSPC, "no space left on device")
        place(tree, final)

    monkeypatch.setattr(store, "_place", full)
    needed = 1
    with pytest.raises(StoreError, match="no space left"):
        store.put(TREE)
    store.on_full = lambda: made.append(1)
    assert held(store.put(TREE).path) == dict(TREE.files)
    needed = 3
    with pytest.raises(StoreError, match="no space left"):
        store.put(FileTree((("program.py", b"x"),)))
    assert len(made) == 2


@pytest.mark.parametrize("key", ["", "../x", "a/b", ".hidden", "a\n", "x" * 201])
def test_a_key_cannot_name_a_path(store, key):
    with pytest.raises(ValueError, match="key"):
        store.remove(key)


def test_a_store_that_others_may_write_to_is_refused(tmp_path):
    root = tmp_path / "shared"
    root.mkdir()
    root.chmod(0o777)

    with pytest.raises(StoreError, match="chmod 700"):
        SnapshotStore(root)


def test_the_store_is_private(store):
    assert store.root.stat().st_mode & 0o777 == 0o700
    assert store.root.stat().st_uid == os.geteuid()


def test_a_store_where_a_file_is_in_the_way_is_refused(tmp_path):
    (tmp_path / "file").write_text("", encoding="utf-8")

    with pytest.raises(StoreError, match="file"):
        SnapshotStore(tmp_path / "file")
