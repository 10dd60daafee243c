"""The default engine: one for each process."""

import os

import pytest

import evocell
from evocell.api import default

TASK = evocell.Evaluation("solve", [evocell.Case((3,), expected=9)])


@pytest.fixture
def defaults(monkeypatch, fake_workers):
    made = default._Default()
    monkeypatch.setattr(default, "_default", made)
    monkeypatch.setattr(default, "Engine", lambda config: evocell.Engine(config, open_worker=fake_workers))
    yield made
    if made.engine is not None:
        made.engine.close()


def test_there_is_one_and_a_closed_one_is_replaced(defaults, fake_workers):
    first = evocell.default_engine()
    assert evocell.default_engine() is first
    assert evocell.evaluate(["def solve(n): return n * n"], TASK)[0].valid
    first.close()
    assert evocell.default_engine() is not first
    assert len(fake_workers.opened) == 2


def test_a_forked_child_forgets_the_parents(defaults):
    evocell.default_engine()
    with defaults.lock:
        pid = os.fork()
        if pid == 0:
            defaults.forget()
            os._exit(0 if defaults.engine is None and not defaults.lock.locked() else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
