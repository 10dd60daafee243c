"""What an engine leaves in the temporary directory when it is killed, and who removes it."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import textwrap

import psutil
import pytest

import evocell
from evocell.guests.scratch import MARKER

SCRIPT = textwrap.dedent(
    """
    import sys, threading, evocell
    limits = evocell.Limits(scratch_bytes=1 << 20)
    engine = evocell.Engine(evocell.Config.load(workers=int(sys.argv[1])))
    write = "def write(n):\\n    open('/tmp/file', 'w').write('x' * n)\\n    while n == 7: pass\\n    return n"
    sandboxes = [engine.create_sandbox(source=write, limits=limits) for _ in range(4)]
    for sandbox in sandboxes:
        sandbox.run("write", args=(1,)).unwrap()
    threading.Thread(target=sandboxes[0].run, args=("write",), kwargs={"args": (7,)}, daemon=True).start()
    print("up", flush=True)
    sys.stdin.read()
    """
)
TASK = evocell.Evaluation("solve", [evocell.Case((3,), expected=9)])


@pytest.fixture
def place(tmp_path, monkeypatch):
    """The temporary directory of all processes of a test."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path


def kill_an_engine(workers):
    """Start an engine in a process of its own, and kill it with calls under way and sessions at rest."""
    owner = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(workers)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
    )
    with owner:
        try:
            assert owner.stdout.readline() == b"up\n"
            helpers = psutil.Process(owner.pid).children(recursive=True)
        finally:
            owner.kill()
    _, alive = psutil.wait_procs(helpers, timeout=20)
    assert alive == []


@pytest.mark.parametrize("workers", [0, 2])
def test_the_next_engine_removes_what_a_killed_one_left(place, workers):
    kill_an_engine(workers)
    left = list(place.glob("evocell-*"))
    # Its own, and one for each process with scratch space; a worker that sees the end of its input before it
    # sees the end of its parent may have begun to remove what it has.
    assert len(left) >= (1 if workers else 2)
    assert all((path / MARKER).is_file() for path in left)
    files = len(list(place.glob("evocell-*/tmp-*/file")))
    assert files <= 4 if workers else files == 4

    with evocell.Engine(evocell.Config.load(workers=1)) as engine:
        assert engine.evaluate_one("def solve(n): return n * n", TASK).valid
        assert not any(path.exists() for path in left)
    assert list(place.iterdir()) == []


def test_an_engine_leaves_those_of_a_living_one_alone(place):
    limits = evocell.Limits(scratch_bytes=1 << 20)
    source = "def keep(n):\n    with open('/tmp/kept', 'a') as file: file.write('x' * n)\n    return open('/tmp/kept').read()"
    with evocell.Engine(evocell.Config.load(workers=1)) as first:
        sandbox = first.create_sandbox(source=source, limits=limits)
        assert sandbox.run("keep", args=(2,)).unwrap() == "xx"
        with evocell.Engine(evocell.Config.load(workers=1)) as second:
            assert second.evaluate_one("def solve(n): return n * n", TASK).valid
        assert sandbox.run("keep", args=(1,)).unwrap() == "xxx"
        assert len(list(place.glob("evocell-*"))) == 2
    assert list(place.iterdir()) == []


def test_a_killed_worker_leaves_nothing_when_its_engine_is_closed(place):
    limits = evocell.Limits(scratch_bytes=1 << 20)
    source = "def write(n):\n    with open('/tmp/file', 'w') as file: file.write('x' * n)\n    return n"
    with evocell.Engine(evocell.Config.load(workers=1)) as engine:
        sandbox = engine.create_sandbox(source=source, limits=limits)
        for _ in range(3):
            assert sandbox.run("write", args=(2,)).unwrap() == 2
            mine = psutil.Process().children(recursive=True)
            (worker,) = [one for one in mine if one.environ().get("TMPDIR") == str(place)]
            worker.kill()
            worker.wait(20)
        # The worker that came next has removed the one before it.
        assert len(list(place.glob("evocell-*"))) == 2
    assert list(place.iterdir()) == []
