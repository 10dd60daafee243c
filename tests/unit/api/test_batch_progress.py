"""The bar of a batch that takes long, on a terminal and nowhere else."""

from __future__ import annotations

import io
import itertools
import os
import pty
import subprocess
import sys
import textwrap
import threading
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

import evocell
from evocell import Case, Evaluation, Stage
from evocell.console import batches
from evocell.console.batches import BatchBar, StreamProgress, is_terminal, size_of
from evocell.console.progress import Display

TASK = Evaluation("solve", [Case((2,), expected=4)])
SQUARE = "def solve(n): return n * n"


class Terminal:
    def __init__(self):
        self.text = io.StringIO()
        self.display = Display(Console(file=self.text, force_terminal=True, width=100))

    @property
    def shown(self):
        return self.text.getvalue()

    def wait_for(self, words):
        end = time.monotonic() + 20
        while words not in self.shown:
            assert time.monotonic() < end, self.shown
            time.sleep(0.01)


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setattr(batches, "PATIENCE_S", 0.05)
    monkeypatch.setattr(batches, "QUICK_S", 0.05)
    return Terminal()


class Result:
    def __init__(self, valid):
        self.valid = valid


def test_a_bar_appears_says_how_far_it_is_and_goes(terminal):
    with BatchBar("evaluating", 4, display=terminal.display) as bar:
        terminal.wait_for("evaluating")
        bar.report(Result(True), 1, 4)
        bar.report(Result(False), 2, 4)
        terminal.wait_for("2 of 4")
        terminal.wait_for("1 invalid")
        terminal.wait_for("left")
    assert terminal.shown.rindex("\x1b[?25h") > terminal.shown.rindex("\x1b[?25l")


def test_what_is_quick_shows_nothing(terminal, monkeypatch):
    monkeypatch.setattr(batches, "PATIENCE_S", 30.0)
    with BatchBar("evaluating", 2, display=terminal.display) as bar:
        bar.report(Result(True), 1, 2)
    assert terminal.shown == ""
    assert not [
        thread
        for thread in threading.enumerate()
        if isinstance(thread, threading.Timer) and thread.is_alive() and not thread.finished.is_set()
    ]


def test_batches_at_once_share_the_terminal(terminal):
    first, second = (BatchBar(name, 3, display=terminal.display) for name in ("one", "other"))
    with first:
        terminal.wait_for("one")
        with second:
            terminal.wait_for("other")
        first.report(Result(True), 3, 3)
        terminal.wait_for("3 of 3")
    assert terminal.display._progress is None


def test_one_that_fails_gives_the_cursor_back(terminal):
    def fail():
        with BatchBar("evaluating", 1, display=terminal.display):
            terminal.wait_for("evaluating")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert terminal.shown.rindex("\x1b[?25h") > terminal.shown.rindex("\x1b[?25l")


def test_a_stream_is_shown_only_while_it_is_waited_for(terminal, monkeypatch):
    monkeypatch.setattr(batches, "_display", terminal.display)
    stream = StreamProgress(iter("abc"), None, shown=True)
    with stream.waiting():
        terminal.wait_for("0 of ?")
    assert terminal.display._progress is None
    stream.done(Result(True), n_running=1)
    with stream.waiting():
        terminal.wait_for("1 of ?")


def test_a_stream_tells_its_caller_how_far_it_is():
    told = []
    known = StreamProgress("abc", lambda *seen: told.append(seen[1:]), shown=True)
    unknown = StreamProgress(iter("abc"), lambda *seen: told.append(seen[1:]), shown=True)
    for stream in (known, unknown):
        with stream.waiting():
            pass
        stream.done(Result(True), n_running=1)
    assert told == [(1, 3), (1, 2)]
    assert (size_of([1, 2]), size_of(iter([1]))) == (2, None)


def test_no_terminal_no_bar(monkeypatch):
    assert not is_terminal()  # the tests' standard error is a file
    monkeypatch.setattr(sys, "stderr", None)
    assert not is_terminal()


@pytest.fixture
def asked(monkeypatch):
    """What the batches of an engine at a terminal have asked to be shown."""
    asked = []

    class Recorder(BatchBar):
        def __init__(self, what, total):
            super().__init__(what, total)
            asked.append((what, total))

    monkeypatch.setattr(batches, "BatchBar", Recorder)
    monkeypatch.setattr(batches, "is_terminal", lambda: True)
    return asked


def use_all(engine):
    engine.evaluate([SQUARE] * 3, TASK)
    made = engine.batch_create([evocell.SandboxSpec(source=SQUARE)] * 2)
    engine.batch_evaluate(made, TASK)
    engine.batch_evaluate(made, lambda sandbox: 1.0)
    engine.evaluate_stages([SQUARE], [Stage(TASK)])
    list(engine.as_completed([SQUARE] * 4, TASK))


EACH = [
    ("evaluating", 3),
    ("creating", 2),
    ("evaluating", 2),
    ("evaluating", 2),
    ("evaluating in stages", 1),
    ("evaluating", 4),
]


def test_every_batch_of_an_engine_is_shown(fake_engine, asked):
    use_all(fake_engine)
    assert asked == EACH


def test_not_if_the_caller_has_a_function_of_his_own(fake_engine, asked):
    fake_engine.evaluate([SQUARE] * 3, TASK, progress=evocell.silent)
    fake_engine.batch_create([evocell.SandboxSpec(source=SQUARE)], progress=evocell.silent)
    list(fake_engine.as_completed([SQUARE], TASK, progress=evocell.silent))
    fake_engine.create_sandbox(source=SQUARE)
    assert asked == []


def test_not_if_the_engine_is_to_be_silent(fake_workers, asked):
    with evocell.Engine(evocell.Config(), open_worker=fake_workers, progress=evocell.silent) as engine:
        use_all(engine)
    assert asked == []


def test_batch_create_tells_of_each(fake_engine):
    told = []
    specs = [evocell.SandboxSpec(f"s{n}", source=SQUARE) for n in range(3)]
    fake_engine.batch_create(specs, progress=lambda *seen: told.append(seen))
    assert [seen[1:] for seen in told] == [(1, 3), (2, 3), (3, 3)]
    assert sorted(seen[0] for seen in told) == ["s0", "s1", "s2"]


def test_on_a_real_terminal():
    """A batch of a process whose standard error is a terminal, and whose standard output is not."""
    text = textwrap.dedent(
        """
        import time, evocell
        from evocell.console import batches
        batches.PATIENCE_S = 0.2
        with evocell.console.batches.BatchBar("evaluating", 7) as bar:
            assert batches.is_terminal()
            bar.report(None, 3)
            time.sleep(1.0)
        print("over")
        """
    )
    ours, theirs = pty.openpty()
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "TERM": "xterm",
        "COLUMNS": "80",
    }
    with subprocess.Popen(
        [sys.executable, "-c", text], stdout=subprocess.PIPE, stderr=theirs, env=env
    ) as run:
        os.close(theirs)
        seen = b""
        try:
            while part := os.read(ours, 1 << 16):
                seen += part
        except OSError:  # the other end is closed
            pass
        assert run.stdout.read() == b"over\n"
    os.close(ours)
    assert b"3 of 7" in seen
    assert seen.rindex(b"\x1b[?25h") > seen.rindex(b"\x1b[?25l")


def test_where_there_is_no_terminal_a_line_is_written_every_few_seconds(fake_workers, monkeypatch, capsys):
    moments = itertools.count(step=4.0)
    clock = SimpleNamespace(monotonic=lambda: next(moments))
    monkeypatch.setattr(batches, "time", clock)
    with evocell.Engine(evocell.Config(), open_worker=fake_workers) as engine:
        task = evocell.Evaluation("f", [evocell.Case((), expected=None)])
        engine.evaluate(["def f(): return 1"] * 2 + ["def f(): raise KeyError"] * 4, task)
        lines = capsys.readouterr().err.splitlines()
        assert [line.split(",")[0] for line in lines] == [
            "evocell: evaluating 3 of 6",
            "evocell: evaluating 6 of 6",
        ]
        assert "to go" in lines[0]
        assert "4 invalid" in lines[1]
        engine.evaluate(["def f(): return 1"] * 6, task, progress=evocell.silent)
    with evocell.Engine(evocell.Config(), open_worker=fake_workers, progress=evocell.silent) as engine:
        engine.evaluate(["def f(): return 1"] * 6, task)
    assert capsys.readouterr().err == ""
