"""Programs that use an engine from many tasks, cancelled anywhere: no sandbox is ever left in between.

A program is a list of rounds. The steps of a round run at once, on few ids so that they get into each other's
way, and most of them are cancelled after a number of turns of the loop, or of milliseconds. After each round the
engine must look as if nothing had been cancelled: each sandbox works or is not there, its life so far is a
legal one, and the worker holds no sessions but those of the sandboxes.
"""

from __future__ import annotations

import gc
import random
import time
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from functools import partial
from itertools import count, pairwise
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing
from attrs import frozen
from hypothesis import given, settings
from hypothesis import strategies as st

from evocell import (
    AsyncEngine,
    Case,
    Config,
    Evaluation,
    Limits,
    SandboxExists,
    SandboxNotFound,
    SandboxSpec,
    SandboxStatus,
)
from evocell.models.state import ALLOWED_TRANSITIONS

IDS = ("a", "b", "c")
FIRST = "n = 0\ndef bump(by=1):\n    global n\n    n += by\n    return n\n"
SECOND = FIRST + "# another version\n"
BROKEN = "def bump(:"
SPIN = "def spin():\n    while True: pass\n"
TASK = Evaluation("bump", [Case((2,), expected=2), Case((3,), expected=3)])
EXPECTED = (SandboxNotFound, SandboxExists)
"""What a step may raise because of its neighbours; anything else is the engine's fault."""

ACTIONS = (
    "create", "create_many", "destroy", "destroy_many", "run", "run_apart", "run_spin", "die", "reload",
    "reload_broken", "swap", "evaluate", "evaluate_sandbox", "evaluate_kept", "info",
)  # fmt: skip


_numbers = count()


@frozen
class Step:
    """One call of the engine.

    Attributes:
        action: Which one.
        sandbox_id: On what.
        patience: How long until it is cancelled; None for never.
    """

    action: str
    sandbox_id: str
    patience: int | None


async def do(engine: AsyncEngine, step: Step, code: Collection[str]) -> object:
    """Do what a step says, on an engine that is at home with the programs."""
    sandbox_id, first = step.sandbox_id, "\n".join(code)
    match step.action:
        case "create":
            return await engine.create_sandbox(sandbox_id, source=first + FIRST)
        case "create_many":
            # One is ready at once and the other is never known, so that the batch goes on when one runs.
            unknown = f"{first}{SECOND}# {next(_numbers)}"
            return await engine.batch_create(
                [
                    SandboxSpec(sandbox_id, source=first + SECOND, population="p"),
                    SandboxSpec(source=unknown, population="p"),
                ]
            )
        case "destroy":
            return await engine.destroy_sandbox(sandbox_id)
        case "destroy_many":
            return await engine.batch_destroy(IDS, missing_ok=True)
        case "run":
            return await engine.run(sandbox_id, "bump")
        case "run_apart":
            return await engine.run(sandbox_id, "bump", isolation="call")
        case "run_spin":
            return await engine.run(sandbox_id, "spin", deadline_s=0.05)
        case "die":
            return await engine.run(sandbox_id, "die", limits=Limits(fuel=10_000_000))
        case "reload":
            return await engine.hot_reload_source(sandbox_id, first + SECOND)
        case "reload_broken":
            return await engine.hot_reload_source(sandbox_id, BROKEN)
        case "swap":
            return await engine.hot_reload_source(sandbox_id, first + FIRST, keep_state=True)
        case "evaluate":
            return await engine.evaluate([FIRST, BROKEN, SECOND], TASK)
        case "evaluate_sandbox":
            return await engine.batch_evaluate([sandbox_id], TASK)
        case "evaluate_kept":
            return await engine.evaluate([first + FIRST, BROKEN], TASK, population="q", generation=1)
        case _:
            return await engine.get_info(sandbox_id)


class Program:
    """Runs rounds of steps over an engine and checks it after each.

    Args:
        engine: What is tried.
        code: Put before every program, for the functions that spin and die.
        sessions: Names of the sessions the worker knows.
        stateful: Names of those that hold state; None if that cannot be told.
        wait: Waits as long as a step's patience lasts.
    """

    def __init__(
        self,
        engine: AsyncEngine,
        *,
        code: Sequence[str],
        sessions: Callable[[], Collection[str]],
        stateful: Callable[[], Collection[str]] | None,
        wait: Callable[[int], Any],
    ) -> None:
        self.engine = engine
        self.code = code
        self.sessions = sessions
        self.stateful = stateful
        self.wait = wait
        self.seen: Counter[str] = Counter()

    async def round(self, steps: Sequence[Step]) -> None:
        """Run some steps at once, and check what is left of them."""
        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for step in steps:
                    nursery.start_soon(self._step, step)
            await self.check()

    async def _step(self, step: Step) -> None:
        ended = "cancelled"
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                if step.patience is not None:
                    nursery.start_soon(self._cancel_later, scope, step.patience)
                try:
                    await do(self.engine, step, self.code)
                    ended = "done"
                except EXPECTED as error:
                    ended = type(error).__name__
                nursery.cancel_scope.cancel()
        self.seen[ended] += 1

    async def _cancel_later(self, scope: trio.CancelScope, patience: int) -> None:
        await self.wait(patience)
        scope.cancel()

    async def check(self) -> None:
        """Check everything that must hold while nothing is under way."""
        states = await self.engine.list_sandboxes()
        manager = self.engine._manager
        records = manager._records
        assert [state.id for state in states] == list(records)
        assert len(self.engine._requests) == 1 or not self.engine._requests
        for state in states:
            record = records[state.id]
            assert state.status in {SandboxStatus.RUNNING, SandboxStatus.ERROR}
            assert not record.stopping
            assert not record.lock.locked()
            assert not record._scopes
            assert record.loaded.is_set()
            steps = state.transitions
            assert steps[0].before is None or len(steps) == 100
            assert steps[-1].after is state.status
            for before, after in pairwise(steps):
                assert after.before is before.after
                assert after.after in ALLOWED_TRANSITIONS[before.after]
            assert (state.error is None) == (state.status is SandboxStatus.RUNNING)
            assert (state.version is None) == (record.code is None)
            assert record.session_opened or not record.session_live
        populations = Counter(state.population for state in states if state.population is not None)
        assert manager.admission._members == populations
        opened = {record.session for record in records.values() if record.session_opened}
        alive = {record.session for record in records.values() if record.session_live}
        assert alive <= set(self.sessions()) <= opened
        if self.stateful is not None:
            assert set(self.stateful()) == alive
        assert not self.engine._batches._versions._pending

    async def use_all(self) -> None:
        """Every sandbox that is there can be used; one whose code was rejected says so."""
        for state in await self.engine.list_sandboxes():
            outcome = await self.engine.run(state.id, "bump")
            assert outcome.ok == (state.status is SandboxStatus.RUNNING), outcome
            assert outcome.ok or outcome.kind == "syntax"

    async def destroy_all(self) -> None:
        """Nothing is left in the worker when every sandbox is gone."""
        states = await self.engine.list_sandboxes()
        await self.engine.batch_destroy([state.id for state in states])
        assert not self.engine._manager._records
        assert not self.engine._manager.admission._members
        assert not self.sessions()


async def turns(patience: int) -> None:
    """Let the loop turn some times."""
    for _ in range(patience):
        await trio.lowlevel.checkpoint()


async def milliseconds(patience: int) -> None:
    """Let some time pass, from nothing to what a call takes."""
    await trio.sleep(patience / 1000)


def steps(max_patience: int) -> st.SearchStrategy[Step]:
    patience = st.one_of(st.integers(0, max_patience), st.integers(0, 6), st.none())
    return st.builds(Step, st.sampled_from(ACTIONS), st.sampled_from(IDS), patience)


PROGRAMS = st.lists(st.lists(steps(30), min_size=1, max_size=8), min_size=1, max_size=12)


def _take_time(worker: Any) -> None:
    """Let a fake worker's answers be on their way for some turns, as those of a process are."""
    compiling, calling, ending = worker.compile, worker.call, worker.end_session

    async def compile_slowly(job: object) -> object:
        await turns(12)
        return await compiling(job)

    async def answer_late(job: object) -> object:
        report = await calling(job)
        await turns(3)  # cancelled here, it has run and its session holds state
        return report

    async def end_slowly(session: str) -> None:
        await turns(3)
        await ending(session)
        await turns(3)

    worker.compile, worker.call, worker.end_session = compile_slowly, answer_late, end_slowly


async def _over_fakes(rounds, fake_workers) -> Counter[str]:
    # In the fake worker a guest that returns "hang" never ends, and one that is interrupted has no fuel left.
    code = ["def spin(): return 'hang'", "def die(): raise KeyboardInterrupt", ""]
    async with AsyncEngine(Config(), open_worker=fake_workers) as engine:
        worker = fake_workers.last
        _take_time(worker)
        program = Program(
            engine, code=code, sessions=lambda: worker.sessions, stateful=lambda: worker.sessions, wait=turns
        )
        for number, steps_of_round in enumerate(rounds):
            await program.round(steps_of_round)
            assert worker.running == 0
            if number % 5 == 4:
                worker.lose()
                await trio.testing.wait_all_tasks_blocked()
                await program.check()
                assert not any(record.session_live for record in engine._manager._records.values())
        await program.use_all()
        await program.destroy_all()
    return program.seen


def _run(function: Callable[..., Any], *args: object) -> Any:
    return trio.run(function, *args, clock=trio.testing.MockClock(autojump_threshold=0.005))


@settings(max_examples=60, deadline=None)
@given(PROGRAMS)
def test_programs_found_by_hypothesis(make_fake_workers, rounds):
    _run(_over_fakes, rounds, make_fake_workers())


@pytest.mark.soak
@settings(max_examples=5_000, deadline=None)
@given(PROGRAMS)
def test_many_programs_found_by_hypothesis(make_fake_workers, rounds):
    _run(_over_fakes, rounds, make_fake_workers())


def random_rounds(seed: int, n_rounds: int, max_patience: int) -> list[list[Step]]:
    dice = random.Random(seed)
    return [
        [
            Step(
                dice.choice(ACTIONS),
                dice.choice(IDS),
                dice.choice([None, dice.randrange(max_patience), dice.randrange(max_patience)]),
            )
            for _ in range(dice.randrange(1, 10))
        ]
        for _ in range(n_rounds)
    ]


@pytest.mark.parametrize("seed", range(4))
def test_thousands_of_operations_over_fakes(make_fake_workers, seed):
    seen = _run(_over_fakes, random_rounds(seed, 300, 25), make_fake_workers())
    assert seen.total() > 1_000
    assert min(seen["done"], seen["cancelled"], seen["SandboxNotFound"], seen["SandboxExists"]) > 20


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(100, 130))
def test_many_thousands_of_operations_over_fakes(make_fake_workers, seed):
    _run(_over_fakes, random_rounds(seed, 3_000, 40), make_fake_workers())


def descriptors() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def settle_at(most: int) -> bool:
    """Whether the descriptors come down to so many; other engines of this run look into /proc now and then."""
    for _ in range(100):
        if descriptors() <= most:
            return True
        time.sleep(0.05)
    return False


KEPT_DESCRIPTORS = 4
"""What an open engine may have come to hold: a fork to compare idle ones with, or the pipes of a worker."""


async def _over_guests(rounds, *, workers: int) -> Counter[str]:
    code = [SPIN, "def die():\n    while True: pass\n"]
    async with AsyncEngine(Config.load(workers=workers)) as engine:
        manager, host = engine._manager, engine._worker.host
        known = host._table if workers else host._sessions

        def stateful() -> set[str]:
            return {name for name, session in known.items() if session.fork is not None}

        program = Program(
            engine,
            code=code,
            sessions=lambda: known,
            stateful=None if workers else stateful,
            wait=milliseconds,
        )
        await program.round([Step("create", "a", None), Step("evaluate", "a", None)])
        await program.destroy_all()
        before = descriptors()
        for steps_of_round in rounds:
            await program.round(steps_of_round)
            if workers == 0:
                assert not host._running
        await program.use_all()
        await program.destroy_all()
        assert not manager._records
        assert descriptors() <= before + KEPT_DESCRIPTORS
    return program.seen


def warm_up(workers: int) -> None:
    """Have the process open what it keeps: the native code, and the native runtime's own threads and polls."""
    trio.run(partial(_over_guests, random_rounds(1, 10, 12), workers=workers))


@pytest.mark.parametrize("workers", [0, 1])
def test_hundreds_of_operations_over_guests(workers):
    warm_up(workers)
    before = descriptors()
    seen = trio.run(partial(_over_guests, random_rounds(7, 60, 12), workers=workers))
    assert seen.total() > 200
    assert min(seen["done"], seen["cancelled"], seen["SandboxNotFound"], seen["SandboxExists"]) > 5
    assert settle_at(before)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("workers", [0, 2])
def test_thousands_of_operations_over_guests(workers, seed):
    warm_up(workers)
    before = descriptors()
    seen = trio.run(partial(_over_guests, random_rounds(seed, 800, 15), workers=workers))
    assert seen.total() > 3_000
    assert settle_at(before)
