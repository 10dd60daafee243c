"""Compiling file by file, and keeping what was compiled."""

from __future__ import annotations

import hashlib

import pytest

from evocell.code.compiler import CompiledVersion
from evocell.code.references import TreeReferences
from evocell.code.snapshots import SnapshotStore
from evocell.code.sources import normalise
from evocell.config import Config
from evocell.errors import StoreError
from evocell.models.limits import Limits
from evocell.models.outcome import Rejected
from evocell.sandboxes.code_versions import Versions
from evocell.store.byte_code import ByteCode
from evocell.store.store import Store

pytestmark = pytest.mark.trio

FILES = {f"m{index}.py": f"def f{index}(): return {index}" for index in range(5)}


@pytest.fixture
def snapshots(tmp_path):
    return SnapshotStore(tmp_path / "code")


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "evocell.db") as made:
        yield made


@pytest.fixture
def make(snapshots, store, make_fake_worker):
    def make(*, durable=False):
        worker = make_fake_worker(snapshots)
        trees = TreeReferences(snapshots)
        stored = ByteCode(store) if durable else None
        return Versions(worker, snapshots, trees, policy=Config().policy, stored=stored), worker

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


async def test_what_another_engine_compiled_is_read_from_the_store(make, store):
    versions, _ = make(durable=True)
    first = await versions.compiled(normalise(FILES))
    alone = await versions.compiled(normalise("x = 1"))
    store.catch_up()

    again, worker = make(durable=True)

    assert await again.compiled(normalise(FILES)) == first
    assert await again.compiled(normalise("x = 1")) == alone
    assert worker.compiled == []


async def test_what_was_compiled_together_is_read_from_the_store(make, store):
    trees = [normalise(f"x = {number}") for number in range(5)]
    versions, _ = make(durable=True)
    await versions.compile_ahead(trees, limits=Limits())
    store.catch_up()

    again, worker = make(durable=True)
    await again.compile_ahead(trees, limits=Limits())
    for tree in trees:
        await again.compiled(tree)

    assert worker.compiled == []


@pytest.mark.parametrize("damage", ["x'00'", "zeroblob(40)"])
async def test_damaged_byte_code_is_compiled_again(make, store, damage):
    versions, _ = make(durable=True)
    await versions.compiled(normalise(FILES))
    store.execute(f"UPDATE byte_code SET unit = {damage} WHERE seq = (SELECT min(seq) FROM byte_code)")
    store.catch_up()

    again, worker = make(durable=True)
    made = await again.compiled(normalise(FILES))

    assert len(worker.compiled) == 1
    assert isinstance(made, CompiledVersion)


async def test_byte_code_that_decodes_to_something_else_is_compiled_again(make, store):
    versions, _ = make(durable=True)
    await versions.compiled(normalise("x = 1"))
    unit = b"\x91\xc0"
    store.execute("UPDATE byte_code SET unit = ?", (hashlib.sha256(unit).digest() + unit,))
    store.catch_up()

    again, worker = make(durable=True)
    await again.compiled(normalise("x = 1"))

    assert worker.compiled == ["program.py"]


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


@pytest.mark.parametrize("damage", ["other", "missing"])
async def test_a_version_is_read_from_any_whole_copy(make_fake_worker, store, tmp_path, damage):
    snapshots, lasting = SnapshotStore(tmp_path / "memory"), SnapshotStore(tmp_path / "disk")
    text, data = normalise("x = 1"), normalise({"a.py": "x = 1", "data.bin": b"\xff"})
    texts = {text.digest: {"program.py": "x = 1"}, data.digest: {"a.py": "x = 1", "data.bin": None}}
    versions = Versions(
        make_fake_worker(snapshots),
        snapshots,
        TreeReferences(snapshots),
        policy=Config().policy,
        lasting=lasting,
        text_of=texts.get,
    )
    for tree in (text, data):
        await versions.compiled(tree)
    assert lasting.digests() == [data.digest]
    lasting.put(text)
    for place in (snapshots, lasting):
        (found,) = place.path_of(text.digest).iterdir()
        found.chmod(0o644)
        found.write_text("y") if damage == "other" else found.unlink()
    assert versions.read(text.digest) == text
    snapshots.remove(data.digest)
    assert versions.read(data.digest) == data
    lasting.remove(data.digest)
    with pytest.raises(StoreError, match=str(tmp_path / "disk")):
        versions.read(data.digest)
    texts[text.digest] = {"program.py": "x = 2"}
    with pytest.raises(StoreError, match="is not all of it"):
        versions.read(text.digest)


async def test_a_tree_that_is_collected_while_it_is_compiled_is_put_again(make, snapshots, monkeypatch):
    versions, worker = make()
    compile_it = worker.compile

    async def compiled_without_its_tree(job):
        made = await compile_it(job)
        snapshots.remove(job.tree.digest)
        return made

    monkeypatch.setattr(worker, "compile", compiled_without_its_tree)
    made = await versions.compiled(normalise("x = 1"))

    assert (made.path / "program.py").read_text() == "x = 1"
