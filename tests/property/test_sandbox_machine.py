"""A model of a sandbox's life, and machines that look for a way to make the engine differ from it.

The model knows for each id what may be true: whether there is a sandbox, which code it holds, and what its counter
may stand at. Hypothesis begins operations, lets several run at once, cancels some of them at any moment, lets
workers die, and shrinks what it finds. An operation that came to its end leaves one possibility; one that was
cancelled leaves two, as if it had never begun or had just ended; for a call in a session, three. Whenever all is at rest
what the engine shows must be among the possibilities, and what it shows is then known.
"""

from __future__ import annotations

import os
from concurrent.futures import Future
from contextlib import suppress
from functools import partial

import psutil
import pytest
import trio
from attrs import define, evolve, field, frozen
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from evocell import AsyncEngine, Config, Limits, SandboxExists, SandboxNotFound, SandboxStatus, WorkerDied
from evocell.api.portal import Task, TrioThread

IDS = ("a", "b")
CODE = {
    "first": "n = 0\ndef bump():\n    global n\n    n += 1\n    return n\n",
    "second": "n = 0\ndef bump():\n    global n\n    n += 1\n    return n + 1000\n",
    "broken": "def bump(:",
}
"""What a sandbox may hold; the second one counts from a thousand, so that a mixture is seen."""

SPIN = "def spin():\n    while True: pass\n"
HANG = "def spin(): return 'hang'\n"
"""What never ends: in a guest, and in the tests' own worker."""

MOST_AT_ONCE = 4
"""Operations that run at once; the model tries every order of them."""

ENDED = (SandboxNotFound, SandboxExists, WorkerDied)


@frozen
class Life:
    """One thing that may be true of an id: no sandbox, or one with this code and this count."""

    code: str | None = None
    count: int = 0


ABSENT = Life()


@define
class Operation:
    """One that is under way.

    Attributes:
        name: What it does.
        sandbox_id: On what.
        code: With which code.
        task: It itself, in the engine's loop.
        cancelled: Whether it was asked to stop.
        refused: Whether it raised that there is no sandbox, or that there is one: then it has changed nothing.
            What was in its way may have been another that was cancelled, and has left no trace.
    """

    name: str
    sandbox_id: str
    code: str
    task: Task[object] = field(repr=False)
    cancelled: bool = False
    refused: bool = False


def may_become(life: Life, operation: Operation, *, mortal: bool) -> set[Life]:
    """What may be true after an operation ran alone, to its end or not, given what was true before.

    Args:
        life: What was true.
        operation: What ran.
        mortal: Whether a worker was killed meanwhile.
    """
    if operation.refused:
        return {life}
    if operation.name == "spin":  # its deadline may have passed before it began
        return {life, evolve(life, count=0)}
    done = apply(life, operation)
    after = {life, done} if operation.cancelled else {done}
    if mortal or (operation.cancelled and operation.name == "bump"):
        after |= {evolve(one, count=0) for one in after}  # the session was lost with the call
    return after


def apply(life: Life, operation: Operation) -> Life:
    """What is true after an operation that came to its end alone."""
    match operation.name:
        case "create":
            return life if life.code is not None else Life(operation.code)
        case "destroy":
            return ABSENT
        case "reload" if life.code is not None:
            return Life(operation.code)
        case "bump" if life.code not in {None, "broken"}:
            return evolve(life, count=life.count + 1)
        case _:
            return life


def outcomes(lives: set[Life], operations: list[Operation], *, mortal: bool) -> set[Life]:
    """All that may be true after operations that ran at once, in any order."""
    if mortal:
        lives = lives | {evolve(life, count=0) for life in lives}
    if not operations:
        return lives
    found: set[Life] = set()
    for index, first in enumerate(operations):
        rest = operations[:index] + operations[index + 1 :]
        after = {new for life in lives for new in may_become(life, first, mortal=mortal)}
        found |= outcomes(after, rest, mortal=mortal)
    return found


class SandboxMachine(RuleBasedStateMachine):
    """Uses an engine from many tasks; what is common to all kinds of worker."""

    operations = Bundle("operations")
    endless = HANG
    thread: TrioThread[AsyncEngine]

    def __init__(self) -> None:
        super().__init__()
        self.engine = self.thread.resource
        self.lives: dict[str, set[Life]] = {sandbox_id: {ABSENT} for sandbox_id in IDS}
        self.running: list[Operation] = []
        self.killed = False
        type(self).n_machines += 1

    n_machines = 0
    n_operations = 0
    n_cancelled = 0

    def teardown(self):
        try:
            self.settle()
        finally:  # the next machine uses the same engine
            self.thread.call(partial(self.engine.batch_destroy, list(IDS), missing_ok=True))
        self.check_empty()

    def check_empty(self):
        """Nothing is left of what the machine has done."""
        manager = self.engine._manager
        assert not manager.records()
        assert not manager.admission._members
        assert not self.engine._requests

    def is_idle(self):
        return len(self.running) < MOST_AT_ONCE

    def start(self, name, sandbox_id, code="first"):
        source = self.endless + CODE[code] if code != "broken" else CODE[code]
        engine = self.engine
        function = {
            "create": partial(engine.create_sandbox, sandbox_id, source=source),
            "destroy": partial(engine.destroy_sandbox, sandbox_id),
            "reload": partial(engine.hot_reload_source, sandbox_id, source),
            "bump": partial(engine.run, sandbox_id, "bump"),
            "spin": partial(engine.run, sandbox_id, "spin", deadline_s=0.02, limits=Limits(fuel=10**15)),
            "apart": partial(engine.run, sandbox_id, "bump", isolation="call"),
        }[name]
        operation = Operation(name, sandbox_id, code, self.thread.submit(function))
        self.running.append(operation)
        type(self).n_operations += 1
        return operation

    @precondition(is_idle)
    @rule(target=operations, sandbox_id=st.sampled_from(IDS), code=st.sampled_from(sorted(CODE)))
    def create(self, sandbox_id, code):
        return self.start("create", sandbox_id, code)

    @precondition(is_idle)
    @rule(target=operations, sandbox_id=st.sampled_from(IDS))
    def destroy(self, sandbox_id):
        return self.start("destroy", sandbox_id)

    @precondition(is_idle)
    @rule(target=operations, sandbox_id=st.sampled_from(IDS), code=st.sampled_from(sorted(CODE)))
    def reload(self, sandbox_id, code):
        return self.start("reload", sandbox_id, code)

    @precondition(is_idle)
    @rule(target=operations, sandbox_id=st.sampled_from(IDS))
    def bump(self, sandbox_id):
        return self.start("bump", sandbox_id)

    @precondition(is_idle)
    @rule(target=operations, sandbox_id=st.sampled_from(IDS))
    def spin(self, sandbox_id):
        return self.start("spin", sandbox_id)

    @precondition(is_idle)
    @rule(target=operations, sandbox_id=st.sampled_from(IDS))
    def run_apart(self, sandbox_id):
        return self.start("apart", sandbox_id)

    @rule(operation=operations)
    def cancel(self, operation):
        if operation in self.running and not operation.cancelled:
            operation.cancelled = True
            operation.task.cancel()
            type(self).n_cancelled += 1

    @rule(turns=st.integers(0, 12))
    def let_it_turn(self, turns):
        """Let the engine's loop turn some times, so that a cancellation comes at any point."""

        async def turn():
            for _ in range(turns):
                await trio.lowlevel.checkpoint()

        self.thread.call(turn)

    @rule()
    def settle(self):
        """Wait until nothing is under way, and hold what there is against what may be."""
        for operation in self.running:
            try:
                self.result(operation.task.future, operation)
            except ENDED:
                operation.refused = True
        running, self.running = self.running, []
        for sandbox_id in IDS:
            mine = [one for one in running if one.sandbox_id == sandbox_id and one.name != "apart"]
            self.lives[sandbox_id] = outcomes(self.lives[sandbox_id], mine, mortal=self.killed)
        self.killed = False
        for sandbox_id in IDS:
            self.look(sandbox_id)

    def result(self, future: Future[object], operation: Operation):
        try:
            return future.result(60)
        except Exception as error:
            if operation.cancelled and "closed during this call" in str(error):
                return None  # how a task that was cancelled settles
            raise

    def look(self, sandbox_id):
        """See what is true of an id, by asking the engine in two ways."""
        possible = self.lives[sandbox_id]
        try:
            state = self.thread.call(partial(self.engine.get_info, sandbox_id))
        except SandboxNotFound:
            assert ABSENT in possible, possible
            self.lives[sandbox_id] = {ABSENT}
            return
        possible = {life for life in possible if life.code is not None}
        assert possible, "there is a sandbox that cannot be"
        broken = state.status is SandboxStatus.ERROR
        assert broken or state.status is SandboxStatus.RUNNING
        outcome = self.thread.call(partial(self.engine.run, sandbox_id, "bump"))
        if outcome.kind == "worker_lost":  # the one that was killed just now had not ended yet
            possible = {evolve(life, count=0) for life in possible}
            outcome = self.thread.call(partial(self.engine.run, sandbox_id, "bump"))
        if broken:
            assert outcome.kind == "syntax"
            seen = {life for life in possible if life.code == "broken"}
        else:
            value = outcome.unwrap()
            after = {life: apply(life, Operation("bump", sandbox_id, "", None)) for life in possible}
            seen = {
                new
                for new in after.values()
                if new.code != "broken" and value == new.count + (1000 if new.code == "second" else 0)
            }
        assert seen, f"{outcome} is none of {possible}"
        self.lives[sandbox_id] = seen

    @invariant()
    def nothing_grows(self):
        assert len(self.engine._requests) <= len(self.running) + 1
        assert len(self.engine._manager._records) <= len(IDS)


def run_machine(machine, **options):
    """Have Hypothesis look for a program after which the engine differs from the model."""
    found = settings(
        deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much], **options
    )
    run_state_machine_as_test(machine, settings=found)
    assert machine.n_operations >= options["max_examples"]
    assert machine.n_cancelled > 0


class LosesSessions(SandboxMachine):
    """Over the tests' own worker, whose sessions can be lost at will."""

    workers: object

    @rule()
    def lose_all_sessions(self):
        """As when a worker dies."""

        async def lose():
            self.workers.last.lose()
            await trio.lowlevel.checkpoint()

        self.thread.call(lose)
        self.killed = True

    def check_empty(self):
        super().check_empty()
        assert not self.workers.last.sessions
        assert not self.workers.last.running


class OverGuests(SandboxMachine):
    """Over the real image, in this process or in others, which can be killed."""

    endless = SPIN

    @rule()
    def kill_a_worker(self):
        for worker in self.thread.call(self.engine.workers):
            if worker.pid not in {None, os.getpid()}:
                with suppress(psutil.NoSuchProcess):
                    psutil.Process(worker.pid).kill()
                self.killed = True
                return

    @precondition(lambda self: self.thread.call(self.engine.workers)[0].name != "local")
    @rule()
    def drain_a_worker(self):
        """Nothing is to be seen of it."""
        self.thread.call(partial(self.engine.drain_worker, "worker-0"))

    def check_empty(self):
        super().check_empty()
        assert {worker.sessions for worker in self.thread.call(self.engine.workers)} == {0}


def over_fakes(make_fake_workers, **options):
    workers = make_fake_workers()
    thread = TrioThread(partial(AsyncEngine, Config(), open_worker=workers), name="machine")
    try:
        run_machine(type("Machine", (LosesSessions,), {"thread": thread, "workers": workers}), **options)
    finally:
        thread.close()


def over_guests(n_workers, **options):
    thread = TrioThread(partial(AsyncEngine, Config.load(workers=n_workers)), name="machine")
    try:
        run_machine(type("Machine", (OverGuests,), {"thread": thread}), **options)
    finally:
        thread.close()


def test_over_fakes(make_fake_workers):
    over_fakes(make_fake_workers, max_examples=100, stateful_step_count=40)


@pytest.mark.parametrize("n_workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_over_guests(n_workers):
    over_guests(n_workers, max_examples=12, stateful_step_count=20)


@pytest.mark.soak
def test_thousands_over_fakes(make_fake_workers):
    over_fakes(make_fake_workers, max_examples=3_000, stateful_step_count=60)


@pytest.mark.soak
@pytest.mark.parametrize("n_workers", [0, 1, 2])
def test_hundreds_over_guests(n_workers):
    over_guests(n_workers, max_examples=200, stateful_step_count=50)
