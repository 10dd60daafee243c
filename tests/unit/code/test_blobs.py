"""Files that trees share: each content is on disk once."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor

import pytest

from evocell.code.snapshots import SnapshotStore
from evocell.code.sources import normalise

FILES = {f"pkg/m{index:02}.py": f"# {index}\n" * 500 for index in range(20)}


@pytest.fixture
def store(tmp_path):
    return SnapshotStore(tmp_path / "store")


def inodes(directory):
    return {path.stat().st_ino for path in directory.rglob("*") if path.is_file()}


def held(path):
    return {
        found.relative_to(path).as_posix(): found.read_bytes() for found in path.rglob("*") if found.is_file()
    }


def test_a_hundred_versions_that_differ_in_one_file_take_one_tree_and_a_hundred_files(store):
    trees = [normalise(FILES | {"pkg/m07.py": f"version = {number}\n"}) for number in range(100)]
    for tree in trees:
        store.put(tree)

    assert len(inodes(store.root / "versions")) == 19 + 100
    assert inodes(store.root / "files") == inodes(store.root / "versions")
    assert held(store.put(trees[41]).path) == dict(trees[41].files)


def test_equal_files_of_one_tree_are_one_on_disk(store):
    path = store.put(normalise({"a/__init__.py": "", "b/__init__.py": "", "c.py": "x"})).path

    assert len(inodes(path)) == 2


def test_removing_a_tree_keeps_what_others_hold(store):
    first, second = normalise(FILES), normalise(FILES | {"pkg/m07.py": "changed"})
    store.put(first)
    path = store.put(second).path

    removed = store.remove(first.digest)

    assert (removed.trees, removed.files, removed.bytes) == (1, 1, len(FILES["pkg/m07.py"]))
    assert held(path) == dict(second.files)
    assert store.remove(second.digest).files == 20
    assert inodes(store.root / "files") == set()


def test_a_tree_of_one_file_shares_nothing_and_is_counted_when_it_is_removed(store):
    alone, among = normalise("x = 1"), normalise({"program.py": "x = 1", "other.py": "yy = 2"})
    store.put(alone)
    assert inodes(store.root / "files") == set()
    path = store.put(among).path

    removed = store.remove(alone.digest)

    assert (removed.trees, removed.files, removed.bytes) == (1, 1, 5)
    assert held(path) == dict(among.files)
    assert store.remove(among.digest).files == 2


def test_trees_of_an_earlier_process_are_removed_with_their_files(store):
    trees = [normalise(f"x = {number}") for number in range(5)]
    for tree in trees:
        store.put(tree)

    again = SnapshotStore(store.root)

    assert sorted(again.digests()) == sorted(tree.digest for tree in trees)
    assert again.remove(*again.digests()).files == 5
    assert inodes(store.root / "files") == set()


@pytest.mark.parametrize("damage", ["emptied", "longer", "linked"])
def test_a_content_that_a_crash_damaged_is_replaced(store, damage, tmp_path):
    store.put(normalise({"program.py": "x = 1", "same.py": "x = 1"}))
    (blob,) = [path for path in (store.root / "files").rglob("*") if path.is_file()]
    blob.unlink()
    if damage == "linked":
        (tmp_path / "elsewhere").write_text("x = 1", encoding="utf-8")
        blob.symlink_to(tmp_path / "elsewhere")
    else:
        blob.write_text("" if damage == "emptied" else "x = 1000", encoding="utf-8")

    again = SnapshotStore(store.root)
    tree = normalise({"program.py": "x = 1", "other.py": "y"})

    assert held(again.put(tree).path) == dict(tree.files)
    assert not any(path.is_symlink() for path in store.root.rglob("*"))


@pytest.mark.parametrize("problem", [errno.EMLINK, errno.EPERM, errno.ENOTSUP])
def test_a_file_system_that_makes_no_more_links_gets_copies(store, monkeypatch, problem):
    store.put(normalise({"program.py": "x = 1"}))

    def refuse(*args, **options):
        raise OSError(problem, os.strerror(problem))

    monkeypatch.setattr(os, "link", refuse)
    tree = normalise({"program.py": "x = 1", "other.py": "x = 1"})
    path = store.put(tree).path
    monkeypatch.undo()

    assert held(path) == dict(tree.files)
    again = normalise({"program.py": "x = 1", "third.py": ""})
    assert held(store.put(again).path) == dict(again.files)


def test_threads_may_put_trees_that_share_files_while_others_are_removed(store):
    trees = [normalise(FILES | {"pkg/m07.py": f"v = {number}"}) for number in range(20)]

    def churn(number):
        tree = trees[number % 20]
        if number % 3:
            store.put(tree)
        else:
            store.remove(trees[(number * 7) % 20].digest)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(churn, range(60)))
    for tree in trees:
        assert held(store.put(tree).path) == dict(tree.files)


def test_a_tree_is_read_back(store):
    tree = normalise({"program.py": "x = 1", "pkg/data.bin": b"\0\1"})
    store.put(tree)

    assert store.read(tree.digest) == tree
