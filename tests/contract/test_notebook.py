"""A real notebook kernel: the engine in cells, an interrupt in the middle of a batch, and the kernel's end."""

from __future__ import annotations

import os
import sys
import time

import nbclient
import nbformat
import psutil
import pytest

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

CELLS = [
    """
import asyncio, evocell
assert asyncio.get_event_loop().is_running()
engine = evocell.Engine(evocell.Config.load(workers=2))
task = evocell.Evaluation("solve", [evocell.Case((3,), expected=9)])
print([result.fitness_score for result in engine.evaluate(["def solve(n): return n * n", "def solve("], task)])
""",
    """
sandbox = engine.create_sandbox(source="n = 0\\ndef bump():\\n    global n\\n    n += 1\\n    return n")
print(sandbox.run("bump").unwrap(), sandbox.run("bump").unwrap())
""",
    """
results = await asyncio.gather(*(asyncio.to_thread(engine.evaluate_one, "def solve(n): return n * n", task) for _ in range(4)))
print(sum(result.valid for result in results))
""",
    """
import os, signal, threading, time
threading.Timer(0.7, os.kill, (os.getpid(), signal.SIGINT)).start()  # what the kernel does when it is interrupted
try:
    engine.evaluate([f"def solve(n):\\n    while {n}: pass" for n in range(1, 50)], task)
except KeyboardInterrupt:
    print("interrupted")
print(sandbox.run("bump").unwrap(), len(engine.workers()), engine.list_sandboxes()[0].id == sandbox.id)
""",
    "print(evocell.evaluate(['def solve(n): return n * n'], task)[0].valid)",
    """
from evocell.console import batches
batches.PATIENCE_S = batches.QUICK_S = batches.EVERY_S = 0.01
results = engine.evaluate([f"def solve(n):\\n    for i in range({n}00000): pass\\n    return 9" for n in range(1, 9)] + ["def f"], task)
for index, result in engine.as_completed(["def solve(n):\\n    for i in range(900000): pass\\n    return 9"], task): pass
engine.evaluate(["def solve(n): return 9"], task, progress=evocell.silent)
engine.report()
""",
]


def run(cells):
    """What a kernel prints for each cell, and the processes it had started by then."""
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    path = os.pathsep.join(filter(None, sys.path))
    client = nbclient.NotebookClient(book, timeout=120, kernel_name="python3")
    known = {process.pid for process in psutil.Process().children(recursive=True)}
    with client.setup_kernel(env={**os.environ, "PYTHONPATH": path}):
        for index, cell in enumerate(book.cells):
            client.execute_cell(cell, index)
        started = [one for one in psutil.Process().children(recursive=True) if one.pid not in known]
    printed = ["".join(out.get("text", "") for out in cell.outputs).strip() for cell in book.cells]
    return printed, [out.data for cell in book.cells for out in cell.outputs if "data" in out], started


def test_a_notebook(monkeypatch):
    printed, shown, started = run(CELLS)
    assert printed == ["[1.0, 0.0]", "1 2", "4", "interrupted\n3 2 True", "True", ""]
    batch, stream, page = shown
    assert batch["text/plain"].startswith("evaluating 9 of 9, ")
    assert batch["text/plain"].endswith("1 invalid")
    assert '<progress value="9" max="9"' in batch["text/html"]
    assert stream["text/plain"].startswith("evaluating 1 of 1, ")
    assert page["text/html"].startswith("<iframe")
    assert len(started) >= 4  # the kernel, two workers of its engine, and those of the default one
    end = time.monotonic() + 30
    while any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in started):
        assert time.monotonic() < end, "a process outlives its kernel"
        time.sleep(0.05)
