"""A store that cannot be written: nobody loses a result, nothing passes for durable that is not."""

import logging
import resource
import shutil
from pathlib import Path

import pytest
import trio

from evocell import AsyncEngine, Case, Config, Engine, Evaluation, Stage, StoreError
from evocell.store import journal as journal_module
from evocell.store import store as store_module
from evocell.store.database import FILE_NAME, open_reader
from evocell.store.store import Store
from evocell.telemetry.catalogue import problems

ROW = "INSERT INTO sources VALUES (?, 1, zeroblob(100000))"
SQUARE = "def solve(n): return n * n"
TASK = Evaluation("solve", [Case((2,), expected=4)])
FULL = "database or disk is full"
NO_ROOM = "disk I/O error"


def fill(store):
    """Have SQLite itself refuse to let the database grow."""
    store.flush_blocking()
    pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
    store._connection.execute(f"PRAGMA max_page_count = {pages}")


def make_room(store):
    store._connection.execute("PRAGMA max_page_count = 1000000")


class Disk:
    """What the operating system lets this process write to one file."""

    def __init__(self):
        self._soft, self._hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    def fill(self, store):
        """Have every further commit fail."""
        store.flush_blocking()
        size = Path(f"{store.path}-wal").stat().st_size
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, self._hard))

    def make_room(self):
        resource.setrlimit(resource.RLIMIT_FSIZE, (self._soft, self._hard))


@pytest.fixture
def disk(monkeypatch):
    monkeypatch.setattr(store_module, "grow_log", lambda *_: None)  # the log has no room from the start
    made = Disk()
    yield made
    made.make_room()


def digests(store):
    return [row[0] for row in store.query("SELECT version FROM sources ORDER BY version")]


@pytest.fixture
def store(tmp_path):
    with Store(tmp_path / "state" / FILE_NAME) as made:
        yield made


@pytest.fixture
async def durable(fake_workers, tmp_path, disk):
    """An engine with a state directory; what it cannot write at its end is no failure of the test."""
    engine = AsyncEngine(Config(state_dir=tmp_path / "state"), open_worker=fake_workers)
    async with engine:
        yield engine
        disk.make_room()


def test_what_cannot_be_written_is_written_once_there_is_room(store, caplog):
    caplog.set_level(logging.WARNING, "evocell")
    told = []
    store.told = lambda trouble, n_waiting: told.append((trouble, n_waiting))
    fill(store)
    for name in "abc":
        store.execute(ROW, (name,))
        with pytest.raises(StoreError, match=f"{FULL}; what is not written stays in memory"):
            store.flush_blocking()
    assert store.trouble == FULL
    assert digests(store) == []
    make_room(store)
    store.execute(ROW, ("d",))
    store.flush_blocking()
    assert digests(store) == ["a", "b", "c", "d"]
    assert told == [(FULL, 1), ("", 0)]
    assert store.trouble == ""
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_it_is_tried_again_without_being_asked(store, monkeypatch):
    monkeypatch.setattr(store_module, "RETRY_S", 0.01)
    recovered = trio.Event()
    store.told = lambda trouble, _: recovered.set() if not trouble else None
    fill(store)
    store.execute(ROW, ("a",))
    with pytest.raises(StoreError):
        store.flush_blocking()
    make_room(store)
    for _ in range(1000):
        if recovered.is_set():
            break
        store._thread.join(0.01)
    assert digests(store) == ["a"]


def test_closing_tries_once_more(tmp_path):
    store = Store(tmp_path / FILE_NAME)
    fill(store)
    store.execute(ROW, ("a",))
    with pytest.raises(StoreError):
        store.flush_blocking()
    make_room(store)
    store.close()
    with Store(tmp_path / FILE_NAME) as again:
        assert digests(again) == ["a"]


def test_what_waits_is_bounded_and_what_is_lost_is_reported(store, monkeypatch):
    monkeypatch.setattr(store_module, "MOST_STUCK", 5)
    fill(store)
    before = store.losses
    for number in range(9):
        store.execute(ROW, (str(number),))
    with pytest.raises(StoreError, match=FULL):
        store.flush_blocking()
    assert store.losses - before == 4
    make_room(store)
    with pytest.raises(StoreError, match="5 changes wait already because of this"):
        trio.run(lambda: store.flush(since=before))
    assert digests(store) == ["0", "1", "2", "3", "4"]
    trio.run(lambda: store.flush(since=store.losses))


def test_a_loss_is_reported_to_everybody_it_concerns(store):
    before = store.losses
    store.execute("INSERT INTO nowhere VALUES (1)")
    with pytest.raises(StoreError, match="nowhere"):
        store.flush_blocking()
    with pytest.raises(StoreError, match="nowhere"):
        trio.run(lambda: store.flush(since=before))
    store.flush_blocking()


def test_what_is_asked_for_and_fails_is_not_done_later(store):
    fill(store)
    with pytest.raises(StoreError, match=FULL):
        store.ask(lambda connection: connection.execute(ROW, ("a",)))
    make_room(store)
    store.execute(ROW, ("b",))
    store.flush_blocking()
    assert digests(store) == ["b"]


@pytest.mark.trio
async def test_whoever_evaluates_gets_the_results_with_the_error(durable, disk):
    events = []
    durable.telemetry.attach("test", "store", events.append)
    disk.fill(durable._store)
    with pytest.raises(StoreError, match=NO_ROOM) as caught:
        await durable.evaluate([SQUARE, "def solve(n): return 5"], TASK)
    assert [result.fitness_score for result in caught.value.results] == [1.0, 0.0]
    with pytest.raises(StoreError) as caught:
        await durable.evaluate_one(SQUARE, TASK)
    assert [result.fitness_score for result in caught.value.results] == [1.0]
    with pytest.raises(StoreError) as caught:
        await durable.evaluate_stages([SQUARE], [Stage(TASK), Stage(TASK)])
    assert [(result.stage, result.kept) for result in caught.value.results] == [(1, True)]
    with pytest.raises(StoreError) as caught:
        await durable.evaluate([SQUARE], TASK, population="p")
    (result,) = caught.value.results
    assert [state.id for state in await durable.list_sandboxes()] == [result.sandbox_id]
    with pytest.raises(StoreError) as caught:
        await durable.batch_evaluate([result.sandbox_id], TASK)
    assert caught.value.results[0].valid
    with pytest.raises(StoreError) as caught:
        await durable.batch_evaluate([result.sandbox_id], _half)
    assert caught.value.results[0].fitness_score == 0.5
    disk.make_room()
    await durable.evaluate([SQUARE], TASK)
    assert len(durable.fitness.history(result.sandbox_id)) == 3
    assert [event.name for event in events] == ["store.failed", "store.recovered"]
    assert [problem for event in events for problem in problems(event)] == []


async def _half(_sandbox):
    return 0.5


@pytest.mark.trio
async def test_reads_that_would_not_be_whole_say_so_and_others_answer(durable, disk):
    first = (await durable.evaluate([SQUARE], TASK))[0].sandbox_id
    disk.fill(durable._store)
    with pytest.raises(StoreError):
        await durable.evaluate([SQUARE], TASK, parents=[first])
    with pytest.raises(StoreError, match=NO_ROOM):
        durable.fitness.best(1)
    assert durable.fitness.get(first).score == 1.0
    assert durable.lineage.descendants(first) == ["sandbox-2"]
    assert durable.lineage.ancestors("sandbox-2") == [first]


@pytest.mark.trio
async def test_a_store_that_stays_full_refuses_before_anything_is_computed(
    durable, disk, fake_workers, monkeypatch
):
    monkeypatch.setattr(journal_module, "MOST_BEGUN_IN_TROUBLE", 4)
    disk.fill(durable._store)
    for _ in range(2):
        with pytest.raises(StoreError) as caught:
            await durable.evaluate([SQUARE], TASK)
        assert len(caught.value.results) == 1
    calls = fake_workers.last.count["call"]
    with pytest.raises(StoreError, match="nothing more is begun") as caught:
        await durable.evaluate([SQUARE] * 5, TASK)
    assert caught.value.results == ()
    assert fake_workers.last.count["call"] == calls
    disk.make_room()
    durable._store.flush_blocking()
    assert len(await durable.evaluate([SQUARE] * 5, TASK)) == 5


@pytest.mark.trio
async def test_code_that_cannot_be_kept_takes_no_result_of_others_with_it(durable):
    await durable.evaluate([SQUARE], TASK)
    # A directory of the store is none any more: nothing new goes in.
    temporary = durable._versions.trees._snapshots.root / "tmp"
    shutil.rmtree(temporary)
    temporary.write_bytes(b"")
    with pytest.raises(StoreError, match="version store cannot use") as caught:
        await durable.evaluate([SQUARE, SQUARE, "def solve(n): return 5"], TASK)
    assert [None if one is None else one.valid for one in caught.value.results[:2]] == [True, True]
    assert caught.value.results[2] is None
    with pytest.raises(StoreError) as caught:
        await durable.evaluate_stages([SQUARE, SQUARE, "def solve(n): return 5"], [Stage(TASK), Stage(TASK)])
    assert [one and one.stage for one in caught.value.results] == [0, 0, None]


def test_an_engine_that_could_not_write_all_says_so_when_it_is_closed(fake_workers, tmp_path, disk):
    engine = Engine(Config(state_dir=tmp_path), open_worker=fake_workers)
    engine.evaluate([SQUARE], TASK)
    disk.fill(engine._engine._store)
    with pytest.raises(StoreError):
        engine.evaluate([SQUARE], TASK)
    with pytest.raises(StoreError, match=NO_ROOM):
        engine.close()
    engine.close()
    with Engine(Config(state_dir=tmp_path), open_worker=fake_workers) as again:
        assert list(again.repairs) == ["1 engine had been killed (run 1)"]
        reader = open_reader(tmp_path)
        assert reader.execute("SELECT count(*) FROM evaluations").fetchone() == (1,)
        reader.close()


def test_what_the_block_raised_is_what_leaves_it(fake_workers, tmp_path, disk):
    def use():
        with Engine(Config(state_dir=tmp_path), open_worker=fake_workers) as engine:
            disk.fill(engine._engine._store)
            engine.evaluate([SQUARE], TASK)

    with pytest.raises(StoreError) as caught:
        use()
    assert len(caught.value.results) == 1


def test_an_engine_without_a_state_directory_goes_on_and_closes(fake_workers, disk):
    with Engine(Config(), open_worker=fake_workers) as engine:
        disk.fill(engine._engine._store)
        assert engine.evaluate([SQUARE], TASK)[0].valid


@pytest.mark.trio
async def test_a_trio_engine_says_so_bare_at_the_end_of_its_block(fake_workers, tmp_path, disk):
    engine = AsyncEngine(Config(state_dir=tmp_path), open_worker=fake_workers)

    async def use():
        async with engine:
            disk.fill(engine._store)
            with pytest.raises(StoreError):
                await engine.evaluate([SQUARE], TASK)

    with pytest.raises(StoreError, match=NO_ROOM):
        await use()
