"""Versions of modules over the real worker: mounted trees, hot code swaps, rollbacks, diffs."""

from __future__ import annotations

import io
import zipfile

from evocell import Limits

FILES = {
    "program.py": "import pkg.rate\nfrom importlib.resources import files\n"
    "def f():\n"
    "  with open('/app/pkg/data.txt') as stream:\n"
    "    return [stream.read(), files('pkg').joinpath('data.txt').read_text(), pkg.rate.rate()]\n"
    "def write():\n"
    "  open('/app/new', 'w')\n",
    "pkg/__init__.py": "",
    "pkg/rate.py": "def rate(): return 1\n",
    "pkg/data.txt": "first",
}

COUNTER = """
class Counter:
    def __init__(self): self.n = 0
    def bump(self):
        self.n += {step}
        return self.n
counter = Counter()
def bump(): return counter.bump()
def data(): return open('/app/data.txt').read()
def fail(): raise ValueError('version {step}')
"""


def bundle(files):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for path, content in files.items():
            archive.writestr(path, content)
    return stream.getvalue()


def test_a_version_is_mounted_read_only(engine):
    with engine.create_sandbox(source=FILES) as sandbox:
        assert sandbox.run("f").unwrap() == ["first", "first", 1]
        assert sandbox.run("write").kind == "raised"


def test_a_bundle_is_loaded_and_one_module_of_it_rolled_back(engine):
    with engine.create_sandbox(bundle=bundle(FILES)) as sandbox:
        second = FILES | {"pkg/rate.py": "def rate(): return 2\n", "pkg/data.txt": "second"}
        assert sandbox.hot_reload(bundle(second), mutation_type="crossover").ok
        assert sandbox.run("f").unwrap() == ["second", "second", 2]

        assert sandbox.rollback_module("pkg.rate", 1).ok

        assert sandbox.run("f").unwrap() == ["second", "second", 1]
        version = sandbox.get_module_version("pkg.rate")
        assert (version.number, version.restores, version.mutation_type) == (3, 1, "rollback")
        assert sandbox.get_module_version("program").dependencies == ("importlib", "pkg")
        assert [one.mutation_type for one in sandbox.history("pkg")] == ["seed", "crossover", "rollback"]
        difference = sandbox.diff("pkg", 1, 2)
        assert difference.changed == ("pkg.rate:rate",)
        assert "-first" in difference.unified

        assert sandbox.rollback_module("pkg", 1).ok
        assert sandbox.run("f").unwrap() == ["first", "first", 1]


def test_a_hot_swap_keeps_instances_and_shows_the_new_files(engine):
    first = {"program.py": COUNTER.format(step=1), "data.txt": "one"}
    second = {"program.py": "# moved by a line\n" + COUNTER.format(step=10), "data.txt": "two"}
    with engine.create_sandbox(source=first) as sandbox:
        assert [sandbox.run("bump").unwrap(), sandbox.run("data").unwrap()] == [1, "one"]

        assert sandbox.hot_reload_source(second, keep_state=True).ok

        assert [sandbox.run("bump").unwrap(), sandbox.run("data").unwrap()] == [11, "two"]
        assert "def fail(): raise ValueError('version 10')" in sandbox.run("fail").traceback
        assert sandbox.rollback_module("program", 1, keep_state=True).ok
        assert [sandbox.run("bump").unwrap(), sandbox.run("data").unwrap()] == [12, "two"]
        assert sandbox.get_info().restart_count == 0


def test_a_hot_swap_that_raises_leaves_everything_as_it_was(engine):
    with engine.create_sandbox(source={"program.py": COUNTER.format(step=1), "data.txt": "one"}) as sandbox:
        sandbox.run("bump")

        outcome = sandbox.hot_reload_source(COUNTER.format(step=5) + "\n1 / 0", keep_state=True)

        assert (outcome.kind, outcome.type_name) == ("raised", "ZeroDivisionError")
        assert [sandbox.run("bump").unwrap(), sandbox.run("data").unwrap()] == [2, "one"]
        assert len(sandbox.history("program")) == 1


def test_a_hot_swap_that_never_ends_is_killed(engine):
    with engine.create_sandbox(source="def f(): return 1", limits=Limits(fuel=10**9)) as sandbox:
        sandbox.run("f")

        assert sandbox.hot_reload_source("while True: pass", keep_state=True).kind == "fuel"

        assert sandbox.run("f").unwrap() == 1
        assert sandbox.get_info().restart_count == 1


def test_a_swap_in_a_guest_with_a_file_open(engine):
    first = "import builtins\nheld = []\ndef f():\n  held.append(open(__file__))\n  return len(held)"
    with engine.create_sandbox(source=first) as sandbox:
        assert sandbox.run("f").unwrap() == 1

        assert sandbox.hot_reload_source(first + "\nx = 1", keep_state=True).ok

        assert sandbox.run("f").unwrap() == 2
