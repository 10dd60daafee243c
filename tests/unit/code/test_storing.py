"""Trees on their way to disk: a large one leaves the event loop to the others."""

from __future__ import annotations

import threading

import pytest
import trio
import trio.testing

from evocell.code.snapshots import SnapshotStore, put_tree
from evocell.code.sources import normalise

pytestmark = pytest.mark.trio

FEW = normalise("x = 1")
MANY = normalise({f"m{number}.py": f"x = {number}" for number in range(100)})
LONG = normalise({"data": bytes(3 << 20)})


class SlowStore(SnapshotStore):
    """A store on a disk that takes a tree only when somebody lets it."""

    def __init__(self, root):
        super().__init__(root)
        self.let = threading.Event()
        self.threads = []

    def put(self, tree):
        self.threads.append(threading.get_ident())
        assert self.let.wait(60)
        return super().put(tree)


@pytest.mark.parametrize("tree", [MANY, LONG], ids=["many", "long"])
async def test_others_go_on_while_a_large_tree_is_written(tmp_path, tree):
    store = SlowStore(tmp_path)
    kept = []

    async def put():
        kept.append(await put_tree(store, tree))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(put)
        await trio.testing.wait_all_tasks_blocked()
        store.let.set()
    assert [one.digest for one in kept] == [tree.digest]
    assert store.read(tree.digest) == tree


async def test_a_small_one_is_written_at_once(tmp_path):
    store = SlowStore(tmp_path)
    store.let.set()
    assert (await put_tree(store, FEW)).path.is_dir()
    assert store.threads == [threading.get_ident()]
