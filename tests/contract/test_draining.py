"""Workers replaced while they are in use: no call fails, and state moves to the successor."""

from __future__ import annotations

import os
import threading
import time

import psutil
import pytest
import trio

import evocell
from evocell import Limits, SandboxNotFound

COUNTER = """
import random
n, drawn = 0, []
def bump(by=1):
    global n
    n += by
    drawn.append(random.random())
    return n
def all_drawn(): return drawn
def hold():
    global stream
    stream = open("/usr/local/lib/python315.zip", "rb")
    return bump()
def note(text=None):
    if text is not None:
        with open("/tmp/note", "w") as out: out.write(text)
    with open("/tmp/note") as file: return file.read()
def long_bump(rounds):
    for i in range(rounds): pass
    return bump()
def spin():
    while True: pass
"""


@pytest.fixture(params=[1, 2])
def engine(request):
    with evocell.Engine(evocell.Config.load(workers=request.param)) as made:
        while any(worker.status != "up" for worker in made.workers()):  # it is open when the first one is up
            time.sleep(0.01)
        yield made


def drain_all(engine):
    for worker in engine.workers():
        engine.drain_worker(worker.name)


def test_state_moves_to_the_successor(engine):
    sandboxes = engine.batch_create([evocell.SandboxSpec(source=COUNTER) for _ in range(12)])
    unmoved = engine.create_sandbox(source=COUNTER)
    for number, sandbox in enumerate(sandboxes):
        assert sandbox.run("bump", kwargs={"by": number}, seed=3).unwrap() == number
    before = {worker.pid: worker.sessions for worker in engine.workers()}
    assert sum(before.values()) == 12

    drain_all(engine)

    after = {worker.pid: worker.sessions for worker in engine.workers()}
    assert not set(before) & set(after)
    assert sum(after.values()) == 12
    assert not any(psutil.pid_exists(pid) for pid in before)
    for number, sandbox in enumerate(sandboxes):
        assert sandbox.run("bump", seed=4).unwrap() == number + 1
        assert sandbox.get_info().restart_count == 0
    # Not only the numbers: what they have drawn, and what they draw now, is what one gets that never moved.
    for seed in (3, 4):
        unmoved.run("bump", seed=seed)
    assert {tuple(sandbox.run("all_drawn").unwrap()) for sandbox in sandboxes} == {
        tuple(unmoved.run("all_drawn").unwrap())
    }


def test_fuel_after_a_move_is_that_of_one_that_stayed(engine):
    def fuel(*, moved):
        with engine.create_sandbox(source=COUNTER) as sandbox:
            used = []
            for _ in range(3):
                used.append(sandbox.run("bump").fuel_used)
                if moved:
                    drain_all(engine)
            return used

    assert fuel(moved=True) == fuel(moved=False)


def test_scratch_files_move_too(engine, tmp_path):
    with engine.create_sandbox(source=COUNTER, limits=Limits(scratch_bytes=1 << 20)) as sandbox:
        assert sandbox.run("note", args=("kept",)).unwrap() == "kept"
        drain_all(engine)
        assert sandbox.run("note").unwrap() == "kept"
        drain_all(engine)
        assert sandbox.run("note", args=("again",)).unwrap() == "again"


def test_a_session_with_a_file_open_is_lost_and_says_so(engine):
    with engine.create_sandbox(source=COUNTER) as holds, engine.create_sandbox(source=COUNTER) as other:
        assert (holds.run("hold").unwrap(), other.run("bump").unwrap()) == (1, 1)
        drain_all(engine)
        assert (holds.run("bump").unwrap(), other.run("bump").unwrap()) == (1, 2)
        assert (holds.get_info().restart_count, other.get_info().restart_count) == (1, 0)


def test_a_call_under_way_comes_to_its_end_and_its_session_moves(engine):
    with engine.create_sandbox(source=COUNTER) as sandbox:
        assert sandbox.run("bump").unwrap() == 1
        came = []
        caller = threading.Thread(
            target=lambda: came.append(sandbox.run("long_bump", args=(3_000_000,)).unwrap())
        )
        caller.start()
        while not any(worker.calls for worker in engine.workers()):
            pass
        drain_all(engine)
        caller.join()
        assert came == [2]
        assert sandbox.run("bump").unwrap() == 3
        assert sandbox.get_info().restart_count == 0


def test_destroying_stops_the_call_that_a_worker_waits_for(engine):
    sandbox = engine.create_sandbox(source=COUNTER)
    ends = []

    def spin():
        with pytest.raises(SandboxNotFound):
            sandbox.run("spin", limits=Limits(fuel=10**15))
        ends.append(1)

    threads = [threading.Thread(target=spin), threading.Thread(target=drain_all, args=(engine,))]
    threads[0].start()
    while not any(worker.calls for worker in engine.workers()):
        pass
    threads[1].start()
    while not any(worker.restarts for worker in engine.workers()):
        time.sleep(0.01)
    sandbox.destroy()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    assert ends == [1]
    assert [worker.sessions for worker in engine.workers()] == [0] * len(engine.workers())


def test_calls_all_the_while(engine):
    """Every count arrives, in order, whichever process it came from."""
    over = threading.Event()

    def drain():
        while not over.is_set():
            drain_all(engine)

    with engine.create_sandbox(source=COUNTER) as sandbox:
        thread = threading.Thread(target=drain)
        thread.start()
        try:
            counts = [sandbox.run("bump").unwrap() for _ in range(300)]
        finally:
            over.set()
            thread.join()
        assert counts == list(range(1, 301))
        assert sandbox.get_info().restart_count == 0
    assert sum(worker.restarts for worker in engine.workers()) > 0


@pytest.mark.trio
async def test_a_worker_killed_while_it_is_drained_is_replaced_all_the_same():
    async with evocell.AsyncEngine(evocell.Config.load(workers=1)) as engine:
        sandboxes = [await engine.create_sandbox(source=COUNTER) for _ in range(30)]
        for sandbox in sandboxes:
            await sandbox.run("bump")
        (old,) = await engine.workers()

        async def kill():
            while (await engine.workers())[0].pid == old.pid:  # noqa: ASYNC110 - nobody tells
                await trio.sleep(0.001)
            psutil.Process(old.pid).kill()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(kill)
            await engine.drain_worker(old.name)
        counts = [(await sandbox.run("bump")).unwrap() for sandbox in sandboxes]
        restarts = [(await sandbox.get_info()).restart_count for sandbox in sandboxes]
        assert set(counts) <= {1, 2}
        assert counts == [2 - restart for restart in restarts]


def test_one_whose_successor_does_not_start_goes_on(engine, monkeypatch):

    def refuse():
        raise OSError("no process can be started")

    with engine.create_sandbox(source=COUNTER) as sandbox:
        assert sandbox.run("bump").unwrap() == 1
        before = engine.workers()
        monkeypatch.setattr("evocell.workers.worker_process.WorkerChild", refuse)
        for module in ("concurrency", "workers.pool"):
            monkeypatch.setattr(f"evocell.{module}.BACK_OFF_S", (0.0, 0.01))
        with pytest.raises(
            evocell.EvocellError, match="worker-0 was not replaced: its successor does not start"
        ):
            engine.drain_worker("worker-0")
        assert [(one.pid, one.status) for one in engine.workers()] == [(one.pid, "up") for one in before]
        assert sandbox.run("bump").unwrap() == 2
        monkeypatch.undo()
        engine.drain_worker("worker-0")
        assert sandbox.run("bump").unwrap() == 3


def test_names_that_cannot_be_drained(engine):
    with pytest.raises(evocell.ConfigurationError, match="there is no worker 'nobody'; there are worker-0"):
        engine.drain_worker("nobody")
    with pytest.raises(evocell.ConfigurationError, match="named by a string, not int"):
        engine.drain_worker(0)


def test_in_this_process_there_is_nothing_to_drain():
    with evocell.Engine(evocell.Config.load(workers=0)) as engine:
        (worker,) = engine.workers()
        assert (worker.name, worker.pid, worker.status) == ("local", os.getpid(), "up")
        with pytest.raises(evocell.ConfigurationError, match="'local' cannot be drained: with workers=0"):
            engine.drain_worker("local")
