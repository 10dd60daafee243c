"""As many sandboxes as the engine is made for, live at once over two workers."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest

import evocell

N_SANDBOXES = 10_000
N_STATEFUL = 1_000
MOST_BYTES = 2 * 10**9
COUNTER = "count = 0\ndef bump():\n    global count\n    count += 1\n    return count\n"


def private_bytes():
    """Unique set size of this process and its workers together."""
    here = psutil.Process()
    return sum(process.memory_full_info().uss for process in [here, *here.children()])


@pytest.mark.soak
def test_ten_thousand_answer_twice_and_a_thousand_remember(tell):
    """The stateful ones keep their session between the calls; the others answer in forks of their own."""
    with evocell.Engine(evocell.Config.load(workers=2)) as engine, ThreadPoolExecutor(8) as callers:
        before = private_bytes()
        specs = [evocell.SandboxSpec(source=f"{COUNTER}# {n}\n") for n in range(N_SANDBOXES)]
        made = engine.batch_create(specs, progress=evocell.silent)
        stateful, others = made[:N_STATEFUL], made[N_STATEFUL:]
        for expected in (1, 2):
            answers = callers.map(lambda one: engine.run(one, "bump").unwrap(), stateful)
            assert list(answers) == [expected] * N_STATEFUL
            answers = callers.map(lambda one: engine.run(one, "bump", isolation="call").unwrap(), others)
            assert set(answers) == {1}
        assert sum(worker.sessions for worker in engine.workers()) == N_STATEFUL
        assert len(engine.list_sandboxes()) == N_SANDBOXES
        weight = private_bytes()
        tell(
            f"{N_SANDBOXES:,} sandboxes, {N_STATEFUL:,} with state: {weight / 1e6:,.0f} MB "
            f"({(weight - before) / 1e6:,.0f} MB more than none)"
        )
        assert weight <= MOST_BYTES
        assert {state.restart_count for state in engine.list_sandboxes()} == {0}
        descriptors = [len(list(Path(f"/proc/{one.pid}/fd").iterdir())) for one in engine.workers()]
        assert max(descriptors) < 3_000


@pytest.mark.soak
def test_ten_thousand_with_state(tell):
    with evocell.Engine(evocell.Config.load(workers=2)) as engine, ThreadPoolExecutor(8) as callers:
        made = engine.batch_create(
            [evocell.SandboxSpec(source=COUNTER)] * N_SANDBOXES, progress=evocell.silent
        )
        for expected in (1, 2):
            answers = callers.map(lambda one: engine.run(one, "bump").unwrap(), made)
            assert list(answers) == [expected] * N_SANDBOXES
        weight = private_bytes()
        tell(f"{N_SANDBOXES:,} sandboxes, all with state: {weight / 1e6:,.0f} MB")
        assert weight <= MOST_BYTES
