"""The blocking engine: threads, interrupts, closing, forks, pickles; over a fake worker."""

import asyncio
import gc
import os
import pickle
import signal
import threading
import time
from contextlib import asynccontextmanager

import pytest
import trio

from evocell import (
    AsyncEngine,
    Case,
    Config,
    ConfigurationError,
    Engine,
    EngineClosed,
    EngineForked,
    Evaluation,
    EvocellError,
    FitnessResult,
    ImageError,
    SandboxNotFound,
    ScoringError,
)
from evocell.api import portal

SQUARE = "def solve(n): return n * n"
COUNTER = "n = 0\ndef bump():\n    global n\n    n += 1\n    return n\ndef hang(): return 'hang'"
TASK = Evaluation("solve", [Case((3,), expected=9)])


def interrupt_when(condition):
    """Send this process a Ctrl-C as soon as something is true."""

    def watch():
        while not condition():
            time.sleep(0.001)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def in_child(function):
    """Fork, run a function in the child, and return its exit code."""
    pid = os.fork()
    if pid == 0:
        code = 99
        try:
            code = function()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def test_every_method_from_any_thread(fake_engine):
    sandbox = fake_engine.create_sandbox("a", source=COUNTER)
    values = []

    def work():
        values.extend(sandbox.run("bump").unwrap() for _ in range(10))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(values) == list(range(1, 41))
    assert fake_engine.get_info("a").status.value == "running"
    assert fake_engine.run_with_timeout(sandbox, "bump", timeout_s=1.5).unwrap() == 41
    assert fake_engine.evaluate_one(SQUARE, TASK).fitness_score == 1.0
    assert fake_engine.batch_evaluate(["a"], lambda box: box.run("bump").unwrap())[0].fitness_score == 42
    assert fake_engine.hot_reload_source("a", SQUARE).ok
    assert sandbox.evaluate(TASK).valid
    assert fake_engine.get_module_version("a", "program").digest == sandbox.get_info().version
    assert [state.id for state in fake_engine.list_sandboxes()] == ["a"]
    assert "3.15" in fake_engine.guest_notes()
    assert fake_engine.image_id == "fake"
    with fake_engine.create_sandbox(source=SQUARE) as other:
        assert other.run("solve", args=(2,)).unwrap() == 4
    assert fake_engine.destroy_sandbox("a").status.value == "stopped"
    assert fake_engine.batch_destroy([other], missing_ok=True) == []


def test_timeout_reaches_the_worker(fake_engine, fake_workers):
    sandbox = fake_engine.create_sandbox(source=COUNTER)
    sandbox.run_with_timeout("bump", timeout_s=1.5)
    assert fake_workers.last.jobs[-1].limits.timeout_s == 1.5


def test_ctrl_c_cancels_that_call_alone(fake_engine, fake_workers):
    sandbox = fake_engine.create_sandbox(source=COUNTER)
    neighbour = fake_engine.create_sandbox(source=COUNTER)
    worker = fake_workers.last
    ends = []

    def call_neighbour():
        try:
            neighbour.run("hang")
        except SandboxNotFound as error:
            ends.append(error)

    thread = threading.Thread(target=call_neighbour)
    thread.start()
    watcher = interrupt_when(lambda: worker.running == 2)
    with pytest.raises(KeyboardInterrupt):
        sandbox.run("hang")
    watcher.join()
    assert (worker.running, ends) == (1, [])
    assert sandbox.run("bump").unwrap() == 1
    neighbour.destroy()
    thread.join()
    assert len(ends) == 1


def test_ctrl_c_while_it_opens(fake_workers):
    @asynccontextmanager
    async def slow(config, snapshots, *, progress=None):
        opening.set()
        await trio.sleep_forever()
        yield

    opening = threading.Event()
    watcher = interrupt_when(opening.is_set)
    with pytest.raises(KeyboardInterrupt):
        Engine(Config(), open_worker=slow)
    watcher.join()


def test_an_engine_that_cannot_open_says_why():
    @asynccontextmanager
    async def broken(config, snapshots, *, progress=None):
        async with trio.open_nursery():
            raise ImageError("no image")
        yield

    with pytest.raises(ImageError, match="no image"):
        Engine(Config(), open_worker=broken)


def test_closing(fake_workers):
    engine = Engine(Config(), open_worker=fake_workers)
    sandbox = engine.create_sandbox(source=COUNTER)
    ends = []

    def call():
        try:
            sandbox.run("hang")
        except EngineClosed as error:
            ends.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    while not fake_workers.last.running:
        time.sleep(0.001)
    engine.close()
    engine.close()
    thread.join()
    assert len(ends) == 1
    assert engine.closed
    with pytest.raises(EngineClosed):
        engine.list_sandboxes()
    with pytest.raises(EngineClosed):
        sandbox.run("bump")


def test_a_forgotten_engine_ends_its_thread(fake_workers):
    engine = Engine(Config(), open_worker=fake_workers)
    thread = engine._thread._thread
    del engine
    gc.collect()
    thread.join(30)
    assert not thread.is_alive()


def test_at_exit_everything_is_closed(fake_workers):
    engine = Engine(Config(), open_worker=fake_workers)
    assert engine._thread in portal._running
    portal._close_all()
    assert engine.closed


def test_under_a_running_event_loop(fake_engine):
    async def main():
        return fake_engine.evaluate_one(SQUARE, TASK)

    assert asyncio.run(main()).valid
    assert trio.run(main).valid


def test_a_call_from_its_own_thread_is_refused_instead_of_hanging(fake_engine):
    def progress(*_):
        fake_engine.list_sandboxes()

    with pytest.raises(EvocellError, match="own thread"):
        fake_engine.evaluate([SQUARE], TASK, progress=progress)
    sandbox = fake_engine.create_sandbox(source=SQUARE)

    async def fitness(_):
        fake_engine.list_sandboxes()

    with pytest.raises(ScoringError, match="own thread"):
        fake_engine.batch_evaluate([sandbox], fitness)


def test_as_completed(fake_engine):
    def endless():
        while True:
            taken.append(1)
            yield SQUARE

    taken = []
    stream = fake_engine.as_completed(endless(), TASK)
    seen = [next(stream) for _ in range(5)]
    assert all(result.valid for _, result in seen)
    stream.close()
    assert len(taken) <= 5 + 3
    assert sorted(index for index, _ in fake_engine.as_completed([SQUARE] * 4, TASK)) == [0, 1, 2, 3]


def test_a_forked_child_gets_an_error_instead_of_hanging(fake_engine):
    sandbox = fake_engine.create_sandbox(source=SQUARE)

    def child():
        for call in (
            lambda: fake_engine.evaluate([SQUARE], TASK),
            lambda: sandbox.run("solve", args=(3,)),
            lambda: fake_engine.image_id,
            fake_engine.__enter__,
        ):
            with pytest.raises(EngineForked) as caught:
                call()
            assert caught.value.owner_pid == os.getppid()
        fake_engine.close()
        return 0

    assert in_child(child) == 0
    assert sandbox.run("solve", args=(3,)).unwrap() == 9


def test_a_forked_child_cannot_run_guests_itself_either(fake_workers):
    here = Config(workers=0)
    Engine(here, open_worker=fake_workers).close()

    def child():
        try:
            Engine(here, open_worker=fake_workers)
        except EngineForked as error:
            return 0 if "spawn" in str(error) else 1
        return 2

    assert in_child(child) == 0


def test_no_pickling(fake_engine):
    sandbox = fake_engine.create_sandbox(source=SQUARE)
    for thing in (fake_engine, sandbox, sandbox._async_sandbox, AsyncEngine(Config())):
        with pytest.raises(TypeError, match="cannot be pickled"):
            pickle.dumps(thing)
    result = fake_engine.evaluate_one(SQUARE, TASK)
    assert pickle.loads(pickle.dumps(result)) == result
    assert isinstance(result, FitnessResult)


def test_handles_are_names(fake_engine):
    sandbox = fake_engine.create_sandbox("a", source=SQUARE)
    again = fake_engine.batch_evaluate(
        [sandbox], lambda box: float(box == sandbox and hash(box) == hash(sandbox))
    )
    assert again[0].fitness_score == 1.0
    assert repr(sandbox) == "<Sandbox 'a'>"
    assert sandbox != "a"


def test_an_async_engine_in_asyncio_says_what_to_do():
    async def enter():
        async with AsyncEngine(Config(workers=0)):
            pass

    with pytest.raises(ConfigurationError, match="AsyncEngine runs in trio; from asyncio call"):
        asyncio.run(enter())


@pytest.mark.parametrize("config", [2, {"workers": 2}])
def test_what_is_no_config_is_refused(config):
    with pytest.raises(
        ConfigurationError, match=r"config must be a Config, .* write Config\.load\(workers=2\)"
    ):
        Engine(config)


def test_what_a_newcomer_hands_in_by_mistake_is_named(fake_workers):
    with Engine(open_worker=fake_workers) as engine:
        with pytest.raises(ConfigurationError, match="progress must be a function"):
            engine.evaluate([SQUARE], TASK, progress=True)
        with pytest.raises(ConfigurationError, match="sources must be a list of sources, not str"):
            next(engine.as_completed(SQUARE, TASK))
        with pytest.raises(ConfigurationError, match="given by name, as source="):
            engine.create_sandbox("def f():\n    return 1")
        sandbox = engine.create_sandbox(source=SQUARE)
        with pytest.raises(ConfigurationError, match="an image cannot be named 'a b'"):
            sandbox.freeze("a b")
