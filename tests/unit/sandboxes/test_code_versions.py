"""Compiling file by file, and keeping what was compiled."""

from __future__ import annotations

import pytest
import trio
import trio.testing

from evocell.code.compiler import CompiledVersion
from evocell.code.references import TreeReferences
from evocell.code.snapshots import SnapshotStore
from evocell.code.sources import normalise
from evocell.config import Config
from evocell.models.limits import Limits
from evocell.models.outcome import Rejected
from evocell.sandboxes.code_versions import Versions

pytestmark = pytest.mark.trio

FILES = {f"m{index}.py": f"def f{index}(): return {index}" for index in range(5)}


@pytest.fixture
def snapshots(tmp_path):
    return SnapshotStore(tmp_path / "code")


@pytest.fixture
def make(snapshots, make_fake_worker):
    def make(*, durable=False):
        worker = make_fake_worker(snapshots)
        trees = TreeReferences(snapshots)
        return Versions(worker, snapshots, trees, policy=Config().policy, durable=durable), worker

    return make


async def test_only_the_file_that_changed_is_compiled_again(make):
    versions, worker = make()
    first = await versions.compiled(normalise(FILES))
    assert worker.compiled == list(FILES)
    worker.compiled.clear()

    second = await versions.compiled(normalise(FILES | {"m3.py": "def f3(): return 33"}))

    assert worker.compiled == ["m3.py"]
    assert second.code != first.code
    assert b"return 33" in second.code
    assert b"return 4" in second.code


async def test_a_mixture_of_known_files_is_compiled_nowhere(make):
    versions, worker = make()
    one, two = {"a.py": "x = 1", "b.py": "x = 1"}, {"a.py": "x = 2", "b.py": "x = 2"}
    await versions.compiled(normalise(one))
    await versions.compiled(normalise(two))

    crossed = await versions.compiled(normalise({"a.py": "x = 1", "b.py": "x = 2", "data.txt": "new"}))

    assert worker.count["compile"] == 2
    assert isinstance(crossed, CompiledVersion)
    assert (crossed.path / "data.txt").read_text() == "new"


async def test_equal_contents_at_other_paths_are_other_files(make):
    versions, worker = make()
    await versions.compiled(normalise({"a.py": "x = 1"}))
    await versions.compiled(normalise({"b.py": "x = 1"}))

    assert worker.compiled == ["a.py", "b.py"]


async def test_a_rejected_file_leaves_the_others_to_be_compiled_with_it(make):
    versions, _ = make()
    assert isinstance(await versions.compiled(normalise({"a.py": "x = 1", "b.py": "def"})), Rejected)

    made = await versions.compiled(normalise({"a.py": "x = 1", "b.py": "x = 2"}))

    assert isinstance(made, CompiledVersion)


async def test_what_another_engine_compiled_is_read_from_disk(make):
    versions, _ = make(durable=True)
    first = await versions.compiled(normalise(FILES))

    again, worker = make(durable=True)
    second = await again.compiled(normalise(FILES))

    assert worker.compiled == []
    assert second == first


async def test_byte_code_that_is_written_beside_calls_is_on_disk_at_the_end(make, snapshots, nursery):
    versions, _ = make(durable=True)
    nursery.start_soon(versions.files.write)
    await trio.testing.wait_all_tasks_blocked()
    first = await versions.compiled(normalise("x = 1"))
    written = [path for path in (snapshots.root / "modules").rglob("*") if path.is_file()]
    assert not written, "it was written before it could be run"
    await versions.compiled(normalise("x = 2"))
    nursery.cancel_scope.cancel()
    with trio.CancelScope(shield=True):
        await trio.testing.wait_all_tasks_blocked()

        again, worker = make(durable=True)
        assert await again.compiled(normalise("x = 1")) == first
        await again.compiled(normalise("x = 2"))
    assert worker.compiled == []


async def test_damaged_byte_code_on_disk_is_compiled_again(make, snapshots):
    versions, _ = make(durable=True)
    await versions.compiled(normalise(FILES))
    (damaged, *_) = sorted(path for path in (snapshots.root / "modules").rglob("*") if path.is_file())
    damaged.write_bytes(damaged.read_bytes()[:-1])

    again, worker = make(durable=True)
    made = await again.compiled(normalise(FILES))

    assert len(worker.compiled) == 1
    assert isinstance(made, CompiledVersion)


async def test_code_that_somebody_holds_keeps_its_tree(make):
    versions, worker = make()
    made = await versions.compiled(normalise(FILES))
    assert versions.trees.remove_unused().trees == 0
    path = made.path
    del made

    assert versions.trees.remove_unused().trees == 1
    assert not path.exists()

    again = await versions.compiled(normalise(FILES))
    assert again.path.is_dir()
    assert worker.count["compile"] == 1


async def test_whether_there_is_too_much_code_does_not_depend_on_what_is_known(make):
    versions, worker = make()
    tree = normalise({"program.py": "#" * 300_000})
    little, enough = Limits(fuel=1_000_000), Limits()

    refused = await versions.compiled(tree, limits=little)
    assert worker.count["compile"] == 0
    made = await versions.compiled(tree, limits=enough)
    again = await versions.compiled(tree, limits=little)

    assert isinstance(made, CompiledVersion)
    assert isinstance(refused, Rejected)
    assert again == refused
    assert isinstance(await versions.side_by_side({"a_": tree}, limits=little), Rejected)
    assert isinstance(await versions.compiled(tree), CompiledVersion)


@pytest.mark.parametrize("durable", [False, True])
@pytest.mark.parametrize("processes", [0, 2])
async def test_what_was_compiled_ahead_is_compiled_once_and_under_the_policy_it_runs_under(
    make, durable, processes
):
    versions, worker = make(durable=durable)
    decided = []
    versions._decided = lambda digest, policy, made: decided.append(policy)
    trees = [normalise(f"import multiprocessing\nx = {n}") for n in range(3)]
    limits = Limits(processes=processes)

    await versions.compile_ahead(trees, limits=limits)
    ahead = worker.count["compile"]
    made = [await versions.compiled(tree, limits=limits) for tree in trees]

    assert (ahead, worker.count["compile"]) == (3, 3)
    assert all(isinstance(one, CompiledVersion) for one in made)
    assert len(decided) == 3
    assert {"multiprocessing" in policy.blocked for policy in decided} == {processes == 0}
