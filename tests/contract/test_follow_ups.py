"""Calls begun behind their compilation: the results are those of calls that the engine asks for, whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
from collections import Counter

import pytest
import trio
from attrs import evolve

import evocell
from evocell import Case, Config, Evaluation, Limits
from evocell.evaluation.plan import Plan
from evocell.execution.follow_ups import FollowUp
from evocell.workers.pool import _TRIES

LIMITS = Limits(fuel=1_000_000_000, memory_bytes=32 << 20)
SPIN = "def solve(n):\n    while True: pass"
FOREVER = Limits(fuel=10**15)


def task(*cases, entry="solve", **more):
    given = {"limits": LIMITS, "score": "equal"} | more
    return Evaluation(entry, list(cases) or [Case((3,), expected=9), Case((4,), expected=16)], **given)


def any_value(case, value):
    return float(len(repr(value)))


class Used(Counter):
    """How often a follow-up was prepared, sent, and its result taken."""


@pytest.fixture
def used(monkeypatch):
    seen = Used()
    prepare, post, result_of = Plan.follow_up, FollowUp._post_once, FollowUp.result_of

    def prepared(self):
        job = prepare(self)
        seen["prepared"] += job is not None
        return job

    def posted(self):
        before = self._was_posted
        post(self)
        seen["sent"] += self._was_posted and not before

    async def result(self, request):
        found = await result_of(self, request)
        seen["taken"] += found is not None and found.lost is None
        return found

    monkeypatch.setattr(Plan, "follow_up", prepared)
    monkeypatch.setattr(FollowUp, "_post_once", posted)
    monkeypatch.setattr(FollowUp, "result_of", result)
    return seen


@contextlib.contextmanager
def nothing_follows():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Plan, "follow_up", lambda plan: None)
        yield


@pytest.fixture(scope="module", params=["medium", "high"])
def both(request, tmp_path_factory):
    """Two engines with the same settings; each compiles for itself."""
    with contextlib.ExitStack() as stack:
        yield [
            stack.enter_context(
                evocell.Engine(
                    Config.load(
                        workers=1,
                        security_profile=request.param,
                        images="base",
                        state_dir=tmp_path_factory.mktemp(name),
                    )
                )
            )
            for name in ("led", "plain")
        ]


SQUARE = "def solve(n): return n * n"
MANY = Evaluation("solve", [Case((i,), expected=i * i) for i in range(5)], limits=LIMITS)
SAME = {
    # name: source, evaluation, and how often the result of a follow-up is taken, unless it is refused
    "correct": (SQUARE, task(), 1),
    "wrong": ("def solve(n): return n", task(), 1),
    "random": (
        "import random\ndef solve(n): return [random.random(), id(object()), hash('x')]",
        task(score=any_value, seed=9),
        1,
    ),
    "raises": ("def solve(n): return 1 // 0", task(), 1),
    "raises at import": ("1 // 0\ndef solve(n): return n", task(), 1),
    "no such function": ("def other(n): return n", task(), 1),
    "endless": (SPIN, task(limits=LIMITS.evolve(fuel=20_000_000)), 1),
    "endless at import": ("while True: pass", task(limits=LIMITS.evolve(fuel=20_000_000)), 1),
    "memory": ("def solve(n):\n    held = []\n    while True: held.append(bytearray(1 << 20))", task(), 1),
    "prints": ("def solve(n):\n    print('x' * 100)\n    return n * n", task(), 1),
    "prints too much": (
        "def solve(n):\n    while True: print('x' * 10_000)",
        task(limits=LIMITS.evolve(output_bytes=50_000)),
        1,
    ),
    "answers too much": (
        "def solve(n): return b'x' * 100_000",
        task(limits=LIMITS.evolve(payload_bytes=10_000)),
        1,
    ),
    "syntax error": ("def solve(n:", task(), 0),
    "nothing": ("", task(), 1),
    "blocked": ("import ctypes\ndef solve(n): return n * n", task(), 0),
    "blocked while it runs": (
        "import importlib\ndef solve(n):\n    return importlib.import_module('cty' + 'pes') and n * n",
        task(),
        1,
    ),
    "files": ("import os\ndef solve(n): return n * n", task(), 1),
    "math": ("import math\ndef solve(n): return math.prod([n, n])", task(), 1),
    "numpy": ("import numpy as np\ndef solve(n): return int(np.square(n))", task(), 1),
    "constants": (
        "ONE = 1\nTABLE = {i: i * i for i in range(99)}\ndef solve(n): return TABLE[n] * ONE",
        task(),
        1,
    ),
    "class": (
        "class A:\n    x = 1\n    def f(self, n): return n * n\ndef solve(n): return A().f(n)",
        task(),
        1,
    ),
    "harness": (
        "def f(n): return n",
        task(entry="driver:g", harness={"driver.py": "import program\ndef g(n): return program.f(n) * n"}),
        1,
    ),
    "two identical cases": (SQUARE, task(Case((3,), expected=9), Case((3,), expected=9)), 1),
    "own seeds": (
        "import random\ndef solve(n): return random.random()",
        task(Case((3,), seed=5), Case((3,), seed=6), Case((3,), seed=5), score=any_value),
        1,
    ),
    "hidden first": (SQUARE, task(Case((3,), expected=9, public=False), Case((4,), expected=16)), 1),
    "score by a function": (SQUARE, task(score=any_value), 1),
    "many cases": (SQUARE, MANY, 1),
    "large arguments": (
        "def solve(data): return len(data)",
        task(Case((bytes(200_000),), expected=200_000), Case((b"",), expected=0)),
        1,
    ),
    "memoised": (SQUARE, task(memoise=True), 0),
    "shared fork": (SQUARE, task(isolation="candidate"), 0),
    "total limits": (SQUARE, task(total_limits=Limits(fuel=2_000_000_000)), 0),
    "several files": (
        {
            "program.py": "from other import f\ndef solve(n): return f(n)",
            "other.py": "def f(n): return n * n",
        },
        task(),
        0,
    ),
    "a file beside it": (
        {"program.py": "def solve(n): return n * n", "data.txt": "text"},
        task(),
        1,
    ),
    "in a package": ({"a/b.py": SQUARE}, task(entry="a.b:solve"), 1),
    "cannot be imported": ({"a.b.py": SQUARE}, task(), 0),
    "long": (
        "def solve(n): return n * n\n" + "".join(f"def f{i}(): return {i}\n" for i in range(300)),
        task(),
        1,
    ),
}


def told(engine, result, evaluation):
    """Everything that an engine keeps of an individual, without names and times."""
    audit = engine.audit_log(sandbox_id=result.sandbox_id)
    records = engine.evaluation_records(sandbox_id=result.sandbox_id)
    individual = engine.lineage.get(result.sandbox_id)
    keyed = evaluation.total_limits is None  # what is left of the time is part of a call
    cases = [
        (case, case.outcome.kind, case.outcome.fuel_used, case.outcome.peak_memory_bytes)
        for case in result.test_results
    ]
    return (
        evolve(result, sandbox_id=""),
        cases,
        [(one.kind, one.version, one.profile, one.detail) for one in audit],
        sorted((one.key if keyed else "", one.kind, one.outcome, one.fuel_used) for one in records),
        (individual.generation, individual.version),
    )


def at_rest(engine):
    return [worker.calls for worker in engine.workers()] == [0] * len(engine.workers())


@pytest.mark.parametrize("name", SAME)
def test_everything_is_as_without(both, used, name):
    led, plain = both
    given, evaluation, taken = SAME[name]
    files = given if isinstance(given, dict) else {"program.py": given}
    source = {path: f"{text}\n# {name}" for path, text in files.items()}  # so that its code is not known yet
    found = led.evaluate_one(source, evaluation, generation=2)
    with nothing_follows():
        other = plain.evaluate_one(source, evaluation, generation=2)
    assert told(led, found, evaluation) == told(plain, other, evaluation)
    assert (at_rest(led), at_rest(plain)) == (True, True)
    assert used["taken"] == (0 if found.reason == "security" else taken)


def test_code_that_is_known_is_not_followed(both, used):
    source = f"{SQUARE}  # known"
    first = both[0].evaluate_one(source, task())
    assert (used["sent"], used["taken"]) == (1, 1)
    again = both[0].evaluate_one(source, task())
    assert (used["sent"], used["taken"]) == (1, 1)
    assert again.test_results == first.test_results


def test_batches_and_kept_individuals_are_not_followed(both, used):
    both[0].evaluate(["def solve(n): return n * n  # a batch"], task())
    both[0].evaluate_one("def solve(n): return n * n  # kept", task(), population="p")
    assert (used["sent"], used["taken"]) == (0, 0)


def test_functions_of_the_caller_that_raise(both, used):
    def fails(case, value):
        raise ValueError("no score")

    result = both[0].evaluate_one("def solve(n): return n  # to score", task(score=fails))
    assert (result.reason, used["taken"], at_rest(both[0])) == ("score", 1, True)


# ---------------------------------------------------------------------- what ends in the middle


def pool(engine):
    return engine._batches._worker.host


async def calls(engine):
    return [worker.calls for worker in await engine.workers()]


async def check_at_rest(engine):
    """Nothing is under way on this side; and a worker answers, so neither on that side."""
    assert set(await calls(engine)) == {0}
    for process in pool(engine).processes:
        assert (process._owners, dict(process.under_way)) == (Counter(), {})
        with trio.fail_after(5):
            while process._connection.waiting:  # noqa: ASYNC110 - a probe may be under way
                await trio.sleep(0.001)
    result = await engine.evaluate_one(f"def solve(n): return n * n  # {os.urandom(8).hex()}", task())
    assert result.fitness_score == 1.0
    assert set(await calls(engine)) == {0}


@contextlib.asynccontextmanager
async def opened(**more):
    async with evocell.AsyncEngine(Config.load(images="base", **more)) as engine:
        yield engine


async def running(engine, worker=0):
    """Wait until a follow-up alone is under way in a worker: its compilation has ended."""
    process = pool(engine).processes[worker]
    with trio.fail_after(20):
        while process.n_under_way != 1 or "" in process._owners:  # noqa: ASYNC110 - nobody tells
            await trio.sleep(0.001)


ONE = Case((3,), expected=9)
SLOW = "def solve(n):\n    for i in range(12_000_000): pass\n    return n * n"
LARGE = LIMITS.evolve(fuel=100_000_000_000)


@pytest.mark.trio
async def test_what_stops_it_leaves_nothing(used):
    async with opened(workers=1) as engine:
        late = await engine.evaluate_one(SPIN, task(ONE, limits=FOREVER), deadline_s=0.3)
        assert (late.reason, used["sent"], used["taken"]) == ("timeout", 1, 0)
        await check_at_rest(engine)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(engine.evaluate_one, f"{SPIN}  # cancelled", task(ONE, limits=FOREVER))
            await running(engine)
            nursery.cancel_scope.cancel()
        await check_at_rest(engine)

        for turns in range(0, 60, 3):  # cancelled anywhere: while it is read, compiled, sent, and begun
            async with trio.open_nursery() as nursery:
                nursery.start_soon(engine.evaluate_one, f"{SPIN}  # {turns}", task(ONE, limits=FOREVER))
                for _ in range(turns):
                    await trio.lowlevel.checkpoint()
                nursery.cancel_scope.cancel()
            assert await calls(engine) == [0]
        await check_at_rest(engine)


@contextlib.asynccontextmanager
async def slow_call(engine):
    """Enter the block while a slow program's first call runs; its result is in the list behind the block."""
    results = []

    async def evaluate():
        results.append(await engine.evaluate_one(SLOW, task(ONE, limits=LARGE)))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(evaluate)
        await running(engine)
        yield results


@pytest.mark.trio
async def test_a_worker_killed_meanwhile(used):
    async with opened(workers=1) as engine:
        async with slow_call(engine) as results:
            os.kill((await engine.workers())[0].pid, signal.SIGKILL)
        (result,) = results
        assert (result.fitness_score, result.valid, used["sent"], used["taken"]) == (1.0, True, 1, 0)
        await check_at_rest(engine)


@pytest.mark.trio
async def test_a_worker_drained_meanwhile(used):
    async with opened(workers=1) as engine:
        (before,) = await engine.workers()
        async with slow_call(engine) as results:
            await engine.drain_worker("worker-0")
        (after,) = await engine.workers()
        assert (results[0].fitness_score, used["taken"]) == (1.0, 1)
        assert after.pid != before.pid
        await check_at_rest(engine)


@pytest.mark.trio
async def test_an_engine_closed_meanwhile():
    with trio.fail_after(20):
        async with trio.open_nursery() as nursery, opened(workers=1) as engine:
            ends = []

            async def evaluate():
                try:
                    await engine.evaluate_one(SPIN, task(ONE, limits=FOREVER))
                except evocell.EngineClosed as error:
                    ends.append(error)

            nursery.start_soon(evaluate)
            await running(engine)
            processes = list(pool(engine).processes)
        assert len(ends) == 1
        assert [process.n_under_way for process in processes] == [0]


@pytest.mark.trio
async def test_many_at_a_time(used):
    """Of different and of equal sources."""
    async with opened(workers=2) as engine:
        results = {}

        async def evaluate(number):
            source = f"def solve(n): return n * n + {number % 10} - {number % 10}"
            results[number] = await engine.evaluate_one(source, task())

        with trio.fail_after(60):
            async with trio.open_nursery() as nursery:
                for number in range(30):
                    nursery.start_soon(evaluate, number)
        assert [results[number].fitness_score for number in range(30)] == [1.0] * 30
        assert [results[n].fuel_used for n in range(30)] == [results[n % 10].fuel_used for n in range(30)]
        assert used["sent"] == 10
        await check_at_rest(engine)


@pytest.mark.trio
async def test_many_stopped_at_a_time():
    async with opened(workers=2) as engine:
        for pause in (0.01, 0.05, 0.2):
            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    for number in range(20):
                        nursery.start_soon(
                            engine.evaluate_one, f"{SPIN}  # {pause} {number}", task(ONE, limits=FOREVER)
                        )
                    await trio.sleep(pause)
                    nursery.cancel_scope.cancel()
            await check_at_rest(engine)


# ---------------------------------------------------------------------- whom a dying worker takes along


@pytest.mark.slow
def test_a_worker_that_holds_too_much_names_the_sandbox(used):
    bound = 300 << 20
    config = Config.load(workers=1, worker_max_memory=bound, enforcement_poll_interval_ms=20)
    hungry = (
        "def solve(n):\n    held = b'x' * (600 << 20)\n    for i in range(20_000_000): pass\n    return n"
    )
    limits = Limits(memory_bytes=1 << 30, fuel=30_000_000_000)
    events = []
    with evocell.Engine(config) as engine:
        engine.telemetry.attach("kills", "sandbox.killed", events.append)
        result = engine.evaluate_one(hungry, task(Case((1,), expected=1), limits=limits))
        assert (result.reason, used["sent"], used["taken"]) == ("worker_lost", 1, 0)
        assert {event.metadata["sandbox_id"] for event in events} == {result.sandbox_id}
        assert {event.metadata["kind"] for event in events} == {"worker_memory"}
        killed = engine.audit_log(kind="killed", sandbox_id=result.sandbox_id)
        assert len(killed) == len(events) == _TRIES  # the one behind the compilation is one of them
        assert at_rest(engine)
