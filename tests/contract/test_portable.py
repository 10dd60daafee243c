"""Images and sandboxes as files, and sandboxes that move from one engine to another."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import textwrap

import pytest
import trio
import trio.testing

import evocell
from evocell import Case, Config, Evaluation, Limits
from evocell.cli.main import main
from evocell_runtime.cache import ImageCache

SOURCE = {
    "program.py": """
import random
import numpy as np
import helper
count, seen = 0, []

def step(n=1):
    global count
    count += n
    seen.append(random.random())
    return [count, helper.double(count), sum(seen), float(np.random.rand())]

def grow():
    global big
    big = bytearray(b"x" * (3 << 20))
    return len(big)

def note(text=None):
    if text is not None:
        with open("/tmp/deep.txt", "w") as out:
            out.write(text)
    with open("/tmp/deep.txt") as file:
        return file.read()

def hold():
    global stream
    stream = open("/usr/local/lib/python315.zip", "rb")
""",
    "helper/__init__.py": "def double(x): return 2 * x",
    "data/.hidden": "kept as it is",
}
LIMITS = Limits(scratch_bytes=1 << 20, memory_bytes=32 << 20)


@pytest.fixture(scope="module")
def other_engine(tmp_path_factory, copied_cache):
    """Another engine on this machine, with the same image in a cache of its own."""
    root = tmp_path_factory.mktemp("other") / "cache"
    shutil.copytree(copied_cache, root, copy_function=os.link)
    forget_derived_images(root)
    with evocell.Engine(Config.load(workers=1, cache_dir=root)) as made:
        yield made


@pytest.fixture
def other(other_engine):
    """The same, without a sandbox and with the default image alone."""
    yield other_engine
    other_engine.batch_destroy(other_engine.list_sandboxes())
    forget_derived_images(other_engine.config.cache_dir)


def forget_derived_images(root):
    cache = ImageCache(root)
    for manifest in cache.images():
        if manifest.parent is not None:
            cache.remove(manifest.image_id)


@pytest.fixture
def sandbox(engine_of_one):
    made = engine_of_one.create_sandbox(source=SOURCE, limits=LIMITS, generation=4)
    made.run("step", seed=7)
    made.run("note", args=("a note",))
    yield made
    engine_of_one.batch_destroy([made], missing_ok=True)


def test_an_exported_sandbox_goes_on_elsewhere_where_it_was(engine_of_one, other, sandbox, tmp_path):
    sandbox.run("grow")
    file = engine_of_one.export_sandbox(sandbox, tmp_path / "one.sandbox")
    taken = other.import_sandbox(file, "taken")
    assert file.stat().st_mode & 0o077 == 0
    expected = sandbox.run("step", args=(10,))
    found = taken.run("step", args=(10,))
    assert (found.unwrap(), found.fuel_used) == (expected.unwrap(), expected.fuel_used)
    assert taken.run("note").unwrap() == "a note"
    state, was = taken.get_info(), sandbox.get_info()
    assert (state.version, state.generation, state.id) == (was.version, 4, "taken")
    assert other.import_sandbox(file).id == sandbox.id


def test_a_sandbox_that_was_never_called_is_carried_as_its_code(engine_of_one, other, tmp_path):
    fresh = engine_of_one.create_sandbox(source=SOURCE)
    file = engine_of_one.export_sandbox(fresh, tmp_path / "fresh")
    assert other.import_sandbox(file, "fresh").run("step").unwrap()[0] == 1
    fresh.destroy()


def test_what_cannot_be_exported_says_why(engine_of_one, sandbox, tmp_path):
    (tmp_path / "there").touch()
    with pytest.raises(evocell.ConfigurationError, match=r"there is a file .*there already"):
        engine_of_one.export_sandbox(sandbox, tmp_path / "there")
    with pytest.raises(evocell.StoreError, match="cannot be written: No such file"):
        engine_of_one.export_sandbox(sandbox, tmp_path / "nowhere" / "file")
    with (
        engine_of_one.create_sandbox(source="def f(:") as broken,
        pytest.raises(evocell.ConfigurationError, match="rejected"),
    ):
        engine_of_one.export_sandbox(broken, tmp_path / "broken")
    sandbox.run("hold")
    with pytest.raises(evocell.SandboxBusy, match="files open"):
        engine_of_one.export_sandbox(sandbox, tmp_path / "busy")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_an_exported_image_is_sealed_anew_and_is_the_same(engine_of_one, other, sandbox, tmp_path):
    image = sandbox.freeze("carried", replace=True)
    file = engine_of_one.export_image("carried", tmp_path / "carried.image")
    with pytest.raises(evocell.ConfigurationError, match="there is no image 'carried'"):
        other.create_sandbox(image="carried")
    found = other.import_image(file, "carried")
    assert (found.id, found.snapshot_sha256, found.name) == (image.id, image.snapshot_sha256, "carried")
    assert ImageCache(other.config.cache_dir).verify(found.id) == []
    later = other.create_sandbox(image="carried", limits=LIMITS)
    with engine_of_one.create_sandbox(image="carried", limits=LIMITS) as here:
        assert later.run("step").unwrap() == here.run("step").unwrap()
    task = Evaluation("count", [Case(())], lambda case, value: value, image="carried")
    assert other.evaluate_one("import helper\ndef count(): return helper.double(4)", task).fitness_score == 8


def test_the_command_exports_and_imports_images(engine_of_one, other, sandbox, tmp_path, capsys):
    image = sandbox.freeze("by-command", replace=True)
    file, here, there = tmp_path / "file", engine_of_one.config.cache_dir, other.config.cache_dir
    assert main(["image", "export", "by-command", str(file), "--cache-dir", str(here)]) == 0
    assert main(["image", "import", str(file), "--name", "came", "--cache-dir", str(there)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == image.id
    assert ImageCache(there).id_of("came") == image.id
    assert main(["image", "import", __file__, "--cache-dir", str(there)]) != 0
    assert "is no exported image: it does not begin as one" in capsys.readouterr().err


def test_a_sandbox_of_an_image_needs_that_image(engine_of_one, other, sandbox, tmp_path):
    sandbox.run("step", args=(100,))
    sandbox.freeze("needed", replace=True)
    with engine_of_one.create_sandbox(image="needed", limits=LIMITS) as here:
        here.run("step")
        file = engine_of_one.export_sandbox(here, tmp_path / "file")
        with pytest.raises(evocell.ConfigurationError, match="which is not here; export that one"):
            other.import_sandbox(file, "x")
        other.import_image(engine_of_one.export_image("needed", tmp_path / "image"))
        assert other.import_sandbox(file, "x").run("step").unwrap() == here.run("step").unwrap()


def test_a_sandbox_moves_to_another_engine(engine_of_one, other, sandbox, tmp_path):
    with sandbox.fork() as twin:
        expected = twin.run("step").unwrap()
    moved = engine_of_one.migrate_sandbox(sandbox, other, path=tmp_path / "move")
    assert moved.run("step").unwrap() == expected
    with pytest.raises(evocell.SandboxNotFound):
        sandbox.run("step")
    assert list(tmp_path.iterdir()) == []
    back = other.migrate_sandbox(moved, engine_of_one, new_id="back")
    assert back.run("step").unwrap()[0] == expected[0] + 1
    back.destroy()


def test_a_sandbox_that_is_refused_stays(engine_of_one, other, sandbox, tmp_path):
    with other.create_sandbox(sandbox.id), pytest.raises(evocell.SandboxExists):
        engine_of_one.migrate_sandbox(sandbox, other, path=tmp_path / "move")
    assert sandbox.run("step").unwrap()[0] == 2
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(evocell.ConfigurationError, match="target must be an engine"):
        engine_of_one.migrate_sandbox(sandbox, 5)


def test_calls_wait_while_a_sandbox_moves_and_are_told_when_it_is_gone(copied_cache, tmp_path):
    async def main() -> None:
        async with evocell.AsyncEngine(Config.load(workers=0, cache_dir=copied_cache)) as engine:
            sandbox = await engine.create_sandbox(source=SOURCE)
            under_way, go_on = trio.Event(), trio.Event()
            sizes = []

            async def recreate(path):
                under_way.set()
                await go_on.wait()
                return (tmp_path / "m").stat().st_size

            async def move():
                sizes.append(await engine.migrate_sandbox(sandbox, recreate, path=tmp_path / "m"))

            async def call():
                with pytest.raises(evocell.SandboxNotFound):
                    await sandbox.run("step")

            async with trio.open_nursery() as nursery:
                nursery.start_soon(move)
                await under_way.wait()
                nursery.start_soon(call)
                await trio.testing.wait_all_tasks_blocked()
                go_on.set()
            assert sizes[0] > 0

    trio.run(main)


# ---------------------------------------------------------------------- when a process dies on the way

ORIGIN = """
    import sys, evocell
    cache, file = sys.argv[1:]
    def tell(path):
        print("written", flush=True)
        if sys.stdin.readline().strip() != "there":
            raise RuntimeError("not there")
    with evocell.Engine(evocell.Config.load(workers=1, cache_dir=cache)) as engine:
        source = "n = 0\\ndef bump():\\n  global n\\n  n += 1\\n  return n"
        sandbox = engine.create_sandbox("wanderer", source=source)
        for _ in range(5):
            sandbox.run("bump")
        print("ready", flush=True)
        sys.stdin.readline()
        try:
            engine.migrate_sandbox(sandbox, tell, path=file)
        except RuntimeError:
            print("stayed", sandbox.run("bump").unwrap(), flush=True)
        else:
            print("gone", len(engine.list_sandboxes()), flush=True)
        sys.stdin.readline()
"""
TARGET = """
    import sys, evocell
    cache, file = sys.argv[1:]
    with evocell.Engine(evocell.Config.load(workers=1, cache_dir=cache)) as engine:
        print("ready", flush=True)
        sys.stdin.readline()
        sandbox = engine.import_sandbox(file)
        print("has", sandbox.run("bump").unwrap(), flush=True)
        sys.stdin.readline()
"""


class Process:
    """An engine in a process of its own, told and asked in lines."""

    def __init__(self, program, *arguments) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(program), *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        )

    def hear(self) -> str:
        return self._process.stdout.readline().strip()

    def say(self, line="") -> None:
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        self._process.send_signal(signal.SIGKILL)
        self.close()

    def close(self) -> None:
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture
def processes(copied_cache, tmp_path):
    """Two engines that are about to hand a sandbox over, in processes of their own."""
    file = tmp_path / "wanderer.sandbox"
    pair = Process(ORIGIN, copied_cache, file), Process(TARGET, copied_cache, file)
    assert [process.hear() for process in pair] == ["ready", "ready"]
    yield *pair, file
    for process in pair:
        process.close()


def revived(copied_cache, file):
    """What a third engine makes of the file."""
    with evocell.Engine(Config.load(workers=1, cache_dir=copied_cache)) as engine:
        return engine.import_sandbox(file).run("bump").unwrap()


def test_a_move_between_two_processes(processes):
    origin, target, file = processes
    origin.say()
    assert origin.hear() == "written"
    target.say()
    assert target.hear() == "has 6"
    origin.say("there")
    assert origin.hear() == "gone 0"
    assert not file.exists()


def test_the_origin_is_killed_before_the_target_has_it(processes, copied_cache):
    origin, target, file = processes
    origin.say()
    assert origin.hear() == "written"
    origin.kill()
    target.say()
    assert target.hear() == "has 6"
    assert revived(copied_cache, file) == 6


def test_the_target_is_killed_while_it_takes_it(processes, copied_cache):
    origin, target, file = processes
    origin.say()
    assert origin.hear() == "written"
    target.say()
    target.kill()
    assert revived(copied_cache, file) == 6
    origin.say("lost")
    assert origin.hear() == "stayed 6"
    assert not file.exists()


def test_both_are_killed_when_the_target_has_it_and_the_origin_as_well(processes, copied_cache):
    origin, target, file = processes
    origin.say()
    assert origin.hear() == "written"
    target.say()
    assert target.hear() == "has 6"
    target.kill()
    origin.kill()
    assert revived(copied_cache, file) == 6


def test_an_origin_killed_at_any_moment_leaves_a_whole_file_or_none(copied_cache, tmp_path):
    for delay_s in (0.0, 0.01, 0.03):
        file = tmp_path / f"{delay_s}.sandbox"
        origin = Process(ORIGIN, copied_cache, file)
        assert origin.hear() == "ready"
        origin.say()
        trio.run(trio.sleep, delay_s)
        origin.kill()
        assert not file.exists() or revived(copied_cache, file) == 6
