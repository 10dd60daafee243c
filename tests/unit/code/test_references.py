"""Who uses which tree, and what goes when nobody does."""

from __future__ import annotations

import pytest

from evocell.code.references import TreeReferences
from evocell.code.snapshots import SnapshotStore
from evocell.code.sources import normalise

ONE, TWO = normalise("x = 1"), normalise("x = 2")


@pytest.fixture
def store(tmp_path):
    made = SnapshotStore(tmp_path / "store")
    made.put(ONE)
    made.put(TWO)
    return made


@pytest.fixture
def trees(store):
    return TreeReferences(store)


def test_what_nobody_uses_is_removed(store, trees):
    trees.hold("sandbox:a", ONE.digest)

    assert trees.unused() == [TWO.digest]
    removed = trees.remove_unused()

    assert (removed.trees, removed.files, removed.bytes) == (1, 1, 5)
    assert store.digests() == [ONE.digest]


def test_a_tree_stays_until_its_last_user_lets_go(store, trees):
    trees.hold("sandbox:a", ONE.digest)
    trees.hold("sandbox:a", ONE.digest)
    trees.hold("pin:best", ONE.digest)
    assert trees.users(ONE.digest) == {"sandbox:a", "pin:best"}

    trees.release("sandbox:a", ONE.digest)
    assert trees.users(ONE.digest) == {"sandbox:a", "pin:best"}
    trees.release("sandbox:a", ONE.digest)
    assert trees.users(ONE.digest) == {"pin:best"}
    trees.release("pin:best")

    assert not trees.is_used(ONE.digest)
    assert trees.remove_unused().trees == 2


def test_letting_go_of_what_is_not_held_changes_nothing(trees):
    trees.hold("sandbox:b", ONE.digest)
    trees.release("sandbox:a")
    trees.release("sandbox:a", ONE.digest)
    trees.release("sandbox:b", TWO.digest)

    assert trees.held_by("sandbox:b") == {ONE.digest}
    assert trees.is_used(ONE.digest)


def test_a_lease_keeps_its_tree_as_long_as_it_is_referred_to(store, trees):
    lease = trees.lease(ONE.digest)
    again = trees.lease(ONE.digest)
    assert trees.unused() == [TWO.digest]

    del lease
    assert trees.remove_unused().trees == 1
    assert again.digest == ONE.digest
    del again

    assert trees.remove_unused().trees == 1
    assert store.digests() == []


def test_a_tree_held_before_it_is_put_survives(store, trees):
    store.remove(ONE.digest)
    trees.hold("sandbox:a", ONE.digest)
    store.put(ONE)
    trees.remove_unused()

    assert store.read(ONE.digest) == ONE


def test_what_the_caller_wants_kept_stays(store, trees):
    assert trees.remove_unused(keep={TWO.digest}).trees == 1
    assert store.digests() == [TWO.digest]


def test_leases_that_were_given_up_do_not_pile_up(trees):
    for number in range(1000):
        trees.lease(f"{number:064x}")

    assert len(trees._leases) + len(trees._returned) <= 3


def test_letting_go_forgets_what_nobody_holds(trees):
    for number in range(3):
        trees.hold(f"sandbox:{number}", ONE.digest)
        trees.hold(f"sandbox:{number}", TWO.digest)
    for number in range(3):
        trees.release(f"sandbox:{number}")

    assert (dict(trees._uses), trees._held) == ({}, {})
