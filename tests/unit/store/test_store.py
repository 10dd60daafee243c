"""The store: written in batches by a thread, read beside it, shared by processes."""

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing

import pytest
import trio

from evocell.errors import StoreError
from evocell.store import store as store_module
from evocell.store.database import LOG_BYTES, open_reader
from evocell.store.inspection import inspect_store
from evocell.store.schema import APPLICATION_ID, MIGRATIONS, VERSION
from evocell.store.store import Store

ROW = "INSERT INTO sources VALUES (?, 1, x'00')"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "evocell.db"


@pytest.fixture
def store(path):
    with Store(path) as made:
        yield made


def digests(store):
    return [row[0] for row in store.query("SELECT version FROM sources ORDER BY version")]


def test_what_was_written_is_there_after_a_flush_and_after_reopening(path):
    with Store(path) as store:
        store.execute(ROW, ("a",))
        store.executemany(ROW, [("b",), ("c",)])
        store.flush_blocking()
        assert digests(store) == ["a", "b", "c"]
    with Store(path) as again:
        assert digests(again) == ["a", "b", "c"]


def test_closing_writes_what_is_left(path):
    store = Store(path)
    store.execute(ROW, ("a",))
    store.close()
    store.close()
    assert [one.name for one in path.parent.iterdir()] == [path.name]  # no write-ahead log is left
    with Store(path) as again:
        assert digests(again) == ["a"]
    with pytest.raises(StoreError, match="closed"):
        store.execute(ROW, ("b",))


@pytest.mark.trio
async def test_flush_waits_for_its_own_and_earlier_writes(store):
    async def write(name):
        store.execute(ROW, (name,))
        await store.flush()
        assert name in digests(store)

    async with trio.open_nursery() as nursery:
        for number in range(50):
            nursery.start_soon(write, f"{number:02}")
    assert len(digests(store)) == 50


def test_many_writes_share_commits(store):
    commits = []
    store._connection.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
    for number in range(1000):
        store.execute(ROW, (f"{number:04}",))
    store.flush_blocking()
    assert len(digests(store)) == 1000
    assert 1 <= len(commits) < 50


def test_a_write_that_fails_takes_no_other_with_it_and_is_reported(store, caplog):
    store.execute(ROW, ("a",))
    store.execute("INSERT INTO nowhere VALUES (1)")
    store.execute(ROW, ("b",))
    with pytest.raises(StoreError, match=r"1 changes could not be written.*no such table: nowhere"):
        store.flush_blocking()
    assert digests(store) == ["a", "b"]
    assert "no such table: nowhere" in caplog.text
    store.flush_blocking()


def test_a_failure_while_nobody_waited_is_reported_to_the_next_who_does(store, monkeypatch):
    monkeypatch.setattr(store_module, "LINGER_S", 0.0)
    tried = threading.Event()

    def fail(connection):
        tried.set()
        raise sqlite3.OperationalError("disk full")

    store.write(fail)
    assert tried.wait(5)
    with pytest.raises(StoreError, match="disk full"):
        store.flush_blocking()


def test_whoever_writes_too_much_waits(store, monkeypatch):
    monkeypatch.setattr(store_module, "MOST_WAITING", 10)
    for number in range(200):
        store.execute(ROW, (f"{number:04}",))
        assert len(store._waiting) <= 10
    store.flush_blocking()
    assert len(digests(store)) == 200


def test_several_processes_may_write_to_one_store(store, path):
    code = (
        "import sys, pathlib\n"
        "from evocell.store.store import Store\n"
        "with Store(pathlib.Path(sys.argv[1])) as store:\n"
        "    for n in range(200): store.execute(sys.argv[2], (f'{sys.argv[3]}{n:03}',)); n % 20 or store.flush_blocking()\n"
    )
    others = [subprocess.Popen([sys.executable, "-c", code, str(path), ROW, name]) for name in "xy"]
    for number in range(200):
        store.execute(ROW, (f"z{number:03}",))
    store.flush_blocking()
    assert [other.wait(60) for other in others] == [0, 0]
    assert len(digests(store)) == 600


def test_processes_that_create_it_at_once_agree(path):
    code = (
        "import sys, pathlib\nfrom evocell.store.store import Store\n"
        "print(flush=True)\n"
        "for place in sys.stdin.readline().split(): Store(pathlib.Path(place)).close()\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    makers = [subprocess.Popen([sys.executable, "-c", code], **pipes) for _ in range(6)]
    for maker in makers:
        maker.stdout.readline()  # it has imported what it needs
    places = " ".join(str(path.with_name(f"state{n}") / path.name) for n in range(20))
    for maker in makers:
        maker.stdin.write(places + "\n")
        maker.stdin.flush()
    for maker in makers:
        with maker:
            assert maker.wait(60) == 0


def test_a_file_that_is_no_database_is_refused_and_left_alone(path):
    path.parent.mkdir()
    path.write_text("my diary, which is long enough to be taken for a header" * 20)
    with pytest.raises(StoreError, match="file is not a database") as caught:
        Store(path)
    assert caught.value.path == str(path)
    assert path.read_text().startswith("my diary")


def test_another_programs_database_is_refused(path):
    path.parent.mkdir()
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE theirs (a)")
    other.close()
    with pytest.raises(StoreError, match="database of something else"):
        Store(path)
    with pytest.raises(StoreError, match="database of something else"):
        open_reader(path)


def test_a_store_of_a_later_version_is_refused(path):
    Store(path).close()
    with sqlite3.connect(path) as raw:
        raw.execute(f"PRAGMA user_version = {VERSION + 1}")
    raw.close()
    with pytest.raises(StoreError, match="later evocell"):
        Store(path)
    with pytest.raises(StoreError, match="use a later one"):
        open_reader(path)


def test_a_store_of_the_first_version_is_brought_up_to_date(path):
    path.parent.mkdir(mode=0o700)
    with closing(sqlite3.connect(path, isolation_level=None)) as raw:
        for statement in MIGRATIONS[0].statements:
            raw.execute(statement)
        raw.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        raw.execute("PRAGMA user_version = 1")
        for number in (3, 5):
            raw.execute("INSERT INTO audit VALUES (?, 1, 2.0, 'killed', 's', 'v', '', 'd')", (number,))
            record = (number, f"k{number}")
            raw.execute("INSERT INTO records VALUES (?, ?, 1.0, 's', '{}', 'a', 1, 'ok', 'o', 7)", record)
        raw.execute("DELETE FROM audit WHERE seq = 3")
    path.chmod(0o600)
    with pytest.raises(StoreError, match="open it with an engine once"):
        open_reader(path)

    with Store(path) as store:
        assert store.query("SELECT seq, detail FROM audit") == [(5, "d")]
        assert store.query("SELECT seq, key, fuel FROM records ORDER BY seq") == [(3, "k3", 7), (5, "k5", 7)]
        assert store.query("SELECT count(*) FROM byte_code") == [(0,)]
        store.execute("INSERT INTO audit VALUES (NULL, 1, 2.0, 'killed', 's', 'v', '', 'e')")
        store.flush_blocking()
        assert store.query("SELECT max(seq) FROM audit") == [(6,)]
    with closing(open_reader(path)) as reader:
        assert list(inspect_store(reader, path)) == []


def test_a_reader_sees_a_store_that_is_being_written_and_cannot_write(store, path):
    store.execute(ROW, ("a",))
    store.flush_blocking()
    reader = open_reader(path.parent)
    try:
        assert reader.execute("SELECT version FROM sources").fetchall() == [("a",)]
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            reader.execute(ROW, ("b",))
    finally:
        reader.close()


def test_where_there_is_no_store_a_reader_says_so(tmp_path):
    with pytest.raises(StoreError, match="there is no store at"):
        open_reader(tmp_path)


def test_the_directory_and_the_file_are_private(store, path):
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # forking beside a thread is the point
def test_a_child_that_is_forked_in_mid_write_can_use_a_database(tmp_path):
    rows = [(n, "x" * 100) for n in range(2_000)]
    with Store(tmp_path / "evocell.db", durable=False) as store:
        store.execute("CREATE TABLE many (n INTEGER, text TEXT)")
        store.flush_blocking()
        over = threading.Event()

        def keep_writing():
            while not over.is_set():
                store.executemany("INSERT INTO many VALUES (?, ?)", rows)
                store.execute("DELETE FROM many")
                store.flush_blocking()

        writer = threading.Thread(target=keep_writing)
        writer.start()
        try:
            statuses = []
            for _ in range(60):
                child = os.fork()
                if child == 0:
                    signal.alarm(20)  # one that hangs dies of it
                    try:
                        own = sqlite3.connect(":memory:")
                        own.execute("CREATE TABLE t (x)")
                        own.executemany("INSERT INTO t VALUES (?)", [(n,) for n in range(200)])
                    finally:
                        os._exit(0)
                statuses.append(os.waitpid(child, 0)[1])
        finally:
            over.set()
            writer.join()
    assert set(statuses) == {0}


def test_the_log_of_a_durable_store_has_its_length_from_the_start(path):
    log = path.parent / "evocell.db-wal"
    with Store(path) as store:
        store.execute(ROW, ("a",))
        store.flush_blocking()
        size = log.stat().st_size
        assert size >= LOG_BYTES
        with Store(path) as other:  # finds it long enough
            other.execute(ROW, ("b",))
            other.flush_blocking()
            assert digests(store) == ["a", "b"]
        for number in range(50):
            store.execute(ROW, (str(number),))
            store.flush_blocking()
        assert log.stat().st_size == size
    assert not log.exists()
    with closing(open_reader(path)) as reader:
        assert reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        assert reader.execute("SELECT count(*) FROM sources").fetchone() == (52,)
    assert path.stat().st_size < LOG_BYTES / 4


def test_without_room_for_a_long_log_a_store_works(path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))
    try:
        with Store(path) as store:
            store.execute(ROW, ("a",))
            store.flush_blocking()
            assert digests(store) == ["a"]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    with closing(open_reader(path)) as reader:
        assert reader.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def in_thread(store, seen):
    store.write(lambda _: seen.append(threading.get_ident()))


def quick(store):
    """A store whose commits have been quick."""
    store.execute(ROW, ("warm",))
    store.flush_blocking()
    store._commit_s = 0.0


@pytest.mark.trio
async def test_a_lone_caller_commits_on_its_own_thread_where_that_is_quick(store, path):
    seen = []
    quick(store)
    in_thread(store, seen)
    store.execute(ROW, ("a",))
    await store.flush(alone=True)
    with closing(open_reader(path)) as reader:
        assert reader.execute("SELECT count(*) FROM sources").fetchone() == (2,)
    in_thread(store, seen)
    await store.flush()
    store._commit_s = 1.0
    in_thread(store, seen)
    await store.flush(alone=True)

    assert [ident == threading.get_ident() for ident in seen] == [True, False, False]


@pytest.mark.trio
async def test_many_writes_and_those_of_others_are_left_to_the_writer(store, monkeypatch):
    seen = []
    quick(store)
    monkeypatch.setattr(store_module, "MOST_HERE", 1)
    in_thread(store, seen)
    in_thread(store, seen)
    await store.flush(alone=True)
    store._commit_s = 0.0
    monkeypatch.setattr(store_module, "MOST_HERE", 32)
    in_thread(store, seen)
    with store._committing:
        with trio.move_on_after(0.05):
            await store.flush(alone=True)
    await store.flush()

    assert threading.get_ident() not in seen
    assert len(seen) == 3


@pytest.mark.trio
async def test_a_caller_does_not_wait_on_the_loop_for_another_process(store, path):
    quick(store)
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store.execute(ROW, ("a",))
    with trio.move_on_after(0.1) as scope:
        await store.flush(alone=True)
    assert scope.cancelled_caught  # it was left to the writer, which waits
    other.execute("ROLLBACK")
    other.close()
    await store.flush()
    assert digests(store) == ["a", "warm"]
    assert store._connection.execute("PRAGMA busy_timeout").fetchone() == (30_000,)


@pytest.mark.trio
async def test_what_fails_on_the_callers_thread_is_told_as_by_the_writer(store):
    quick(store)
    since = store.losses
    store.execute("INSERT INTO missing VALUES (1)")
    store.execute(ROW, ("a",))
    with pytest.raises(StoreError, match="no such table"):
        await store.flush(since=since, alone=True)
    assert digests(store) == ["a", "warm"]
    assert not store._connection.in_transaction
    store.close()
    with pytest.raises(StoreError, match="is closed"):
        await store.flush(alone=True)


@pytest.mark.trio
async def test_order_is_kept_between_the_writer_and_callers(store):
    """Each row has to come after the one before it, whoever commits."""
    quick(store)
    last = [0]

    def after(number):
        def write(connection):
            assert last[0] == number - 1
            last[0] = number
            connection.execute(ROW, (f"{number:05}",))

        return write

    for number in range(1, 2_001):
        store.write(after(number))
        store._commit_s = 0.0
        if number % 3 == 0:
            await store.flush(alone=True)
        elif number % 7 == 0:
            await store.flush()
        elif number % 500 == 1:
            await trio.sleep(store_module.LINGER_S * 1.2)
    await store.flush()

    assert (last[0], store.losses, len(digests(store))) == (2_000, 0, 2_001)
