"""Sandboxes over the real worker: state between calls, reloads, many at once."""

import threading

import pytest

from evocell import Limits, SandboxNotFound, SandboxSpec
from evocell.guests.capacity import AWAKE_SESSIONS

COUNTER = "n = 0\ndef bump(by=1):\n    global n\n    n += by\n    return n\ndef spin():\n    while True: pass"


def test_state_stays_in_the_session_and_nowhere_else(engine):
    with engine.create_sandbox(source=COUNTER) as sandbox, engine.create_sandbox(source=COUNTER) as other:
        assert [sandbox.run("bump").unwrap() for _ in range(3)] == [1, 2, 3]
        assert sandbox.run("bump", isolation="call").unwrap() == 1
        assert other.run("bump", kwargs={"by": 10}).unwrap() == 10
        assert sandbox.run("bump").unwrap() == 4


def test_a_fresh_load_forgets_and_a_hot_swap_remembers(engine):
    tenfold = "def bump(by=1):\n    global n\n    n += 10 * by\n    return n"
    with engine.create_sandbox(source=COUNTER) as sandbox:
        sandbox.run("bump")
        assert sandbox.hot_reload_source(tenfold, keep_state=True).ok
        assert sandbox.run("bump").unwrap() == 11
        assert sandbox.run("bump").unwrap() == 21
        assert sandbox.hot_reload_source(COUNTER).ok
        assert sandbox.run("bump").unwrap() == 1


def test_packages_and_bundles(engine):
    files = {"pack/__init__.py": "from .inner import f", "pack/inner.py": "def f(): return __name__"}
    with engine.create_sandbox(source=files) as sandbox:
        assert sandbox.run("pack:f").unwrap() == "pack.inner"
        assert sandbox.get_module_version("pack.inner").digest == sandbox.get_info().version
        assert sandbox.get_module_version("pack").digest == sandbox.get_info().version


def test_seeds(engine):
    source = "import random\ndef draw(): return random.random()"
    with engine.create_sandbox(source=source) as sandbox:
        draws = [sandbox.run("draw", seed=seed).unwrap() for seed in (1, 2, 1)]
    assert draws[0] == draws[2] != draws[1]


def test_destroying_stops_a_running_call(engine):
    sandbox = engine.create_sandbox(source=COUNTER)
    ends = []

    def call():
        try:
            sandbox.run("spin", limits=Limits(fuel=10**15))
        except SandboxNotFound as error:
            ends.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    while sandbox.get_info().supervisor is None:
        pass
    sandbox.destroy()
    thread.join()
    assert len(ends) == 1


def test_a_thousand_sandboxes_live_at_once(engine):
    """Some of them with state, more than one process keeps ready; `test_ten_thousand` is the whole of it."""
    sandboxes = engine.batch_create([SandboxSpec(source=COUNTER, population="thousand") for _ in range(1000)])
    try:
        stateful = sandboxes[::3]
        assert len(stateful) > AWAKE_SESSIONS
        for number, sandbox in enumerate(stateful):
            assert sandbox.run("bump", kwargs={"by": number}).unwrap() == number
        for number, sandbox in enumerate(stateful):
            assert sandbox.run("bump", kwargs={"by": 1}).unwrap() == number + 1
        assert len(engine.list_sandboxes(population="thousand")) == 1000
        assert sum(worker.sessions for worker in engine.workers()) >= len(stateful)
    finally:
        engine.batch_destroy(sandboxes)
    with pytest.raises(SandboxNotFound):
        sandboxes[0].get_info()
