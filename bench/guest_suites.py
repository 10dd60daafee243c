"""Run a package's own tests, from its wheel, inside the guest, and beside it natively.

The tests are not part of this project, and need pytest in the guest. Fetch the wheels, the package's at the version that
the image has (`evocell layer packages`), the others in pure Python:

    pip download --no-deps --only-binary :all: -d wheels pytest pluggy iniconfig pygments sortedcontainers 'hypothesis<6.140'
    python3.13 -m pip download --no-deps --only-binary :all: -d wheels numpy==2.5.2
    python bench/guest_suites.py wheels numpy --python VENV/bin/python [--only REGEX] [--json FILE]

Where the tests are not in the wheel, as those of more-itertools, or are CPython's own, `--tests` names their folder:

    python bench/guest_suites.py wheels cpython --tests lib/python3.13/test --python VENV/bin/python

`--python` is an interpreter that has the same package and pytest; without it only the guest runs. A test module is a
run of its own, with large limits. What passes natively and does not in the guest is listed with the last line of its
error. With `--json` each module is kept as it is done, and a run that is started again goes on after the last one.
"""

from __future__ import annotations

import argparse
import json
import re
import subprocess
import sys
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from attrs import field, frozen
from rich.console import Console
from rich.table import Table

import evocell
from suite_causes import cause_of, is_lacking, summary

LIMITS = evocell.Limits(
    fuel=10**13,
    timeout_s=1200.0,
    memory_bytes=3 << 30,
    scratch_bytes=256 << 20,
    payload_bytes=64 << 20,
    payload_items=1_000_000,
)
KINDS = ("passed", "failed", "error", "skipped", "xfailed", "xpassed")
_IMPORTED = re.compile(r"^\s*from (?:(\.)(?=\w)|(?=[\w.]+\.tests\b))([\w.]+) import", re.MULTILINE)
#: Stands for a test that ended before any.
WHOLE = "the whole module"
#: Where unittest notes what is no test: a fixture, or a module that could not be imported.
_FIXTURE = re.compile(r"(?:setUp(?:Class|Module) \(|unittest\.loader\.\w+\.)([\w.]+)\)?$")
_TEST_MODULE = re.compile(r"(?:^|/)tests/test_\w+\.py$")

PLUGIN = '''
import sys
import types

EXTENSIONS = (
    "_multiarray_tests", "_operand_flag_tests", "_rational_tests", "_struct_ufunc_tests", "_umath_tests"
)


class Missing:
    """Part of an extension that exists for tests only: it may be named and given to tests, which then fail."""

    running = False

    def __init__(self, *args, **kwargs):
        if Missing.running:
            name = type(self).__name__
            raise NotImplementedError(f"{name} is not in the interpreter")


def is_missing(value):
    return isinstance(value, Missing) or isinstance(value, type) and issubclass(value, Missing)


def stand_in(name):
    def __getattr__(attribute):
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        return type(f"{name}.{attribute}", (Missing,), {})

    try:
        __import__(name)
    except ImportError:
        module = sys.modules[name] = types.ModuleType(name)
        module.__getattr__ = __getattr__
        package, _, last = name.rpartition(".")
        if package:
            setattr(sys.modules[package], last, module)


def prepare_numpy():
    """What numpy's tests need where they know of WebAssembly only that it had no floating-point errors once."""
    import numpy.testing
    numpy.testing.IS_WASM = numpy.testing._private.utils.IS_WASM = False
    for name in EXTENSIONS:
        stand_in(f"numpy._core.{name}")
    stand_in("multiprocessing")


class Counter:
    """Outcomes of tests by their names, with the last line of what failed."""

    def __init__(self):
        self.seen = {}

    def note(self, name, kind, why=""):
        name = name[name.rfind("/") + 1 :]
        self.seen[name] = (kind, str(why).strip().splitlines()[-1][:200] if str(why).strip() else "")

    def pytest_runtest_call(self, item):
        Missing.running = True
        for value in getattr(getattr(item, "callspec", None), "params", {}).values():
            if is_missing(value):
                raise NotImplementedError("a parameter is not in the interpreter")

    def pytest_runtest_logreport(self, report):
        expected = hasattr(report, "wasxfail")
        if report.failed and report.when != "call":
            self.note(report.nodeid, "error", self.crash(report))
        elif report.skipped:
            why = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
            self.note(report.nodeid, "xfailed" if expected else "skipped", why)
        elif report.when == "call":
            kind = "failed" if report.failed else "xpassed" if expected else "passed"
            self.note(report.nodeid, kind, self.crash(report) if report.failed else "")

    def pytest_collectreport(self, report):
        if report.failed:
            self.note(report.nodeid or "collection", "error", report.longrepr)
        elif report.skipped:
            self.note(report.nodeid or "collection", "skipped", report.longrepr[2])

    @staticmethod
    def crash(report):
        crash = getattr(report.longrepr, "reprcrash", None)
        return crash.message.splitlines()[0] if crash and crash.message else report.longrepr


def run_tests(arguments):
    import pytest
    if sys.platform == "wasi" and "numpy" in sys.modules:
        prepare_numpy()
    counter = Counter()
    quiet = ["-p", "no:cacheprovider", "-p", "no:faulthandler", "-p", "no:terminal", "-p", "no:logging"]
    pytest.main([*quiet, *arguments], plugins=[counter])
    return counter.seen
'''

IN_GUEST = """
import importlib
import os
from plugin import run_tests


def run():
    for folder in {folders!r}:
        folder = folder.partition("/tests")[0]
        package = importlib.import_module(folder.replace("/", "."))
        package.__path__.append("/app/suite/" + folder)
    os.chdir("/tmp")
    return run_tests(["-s", "--rootdir", "/app/suite", "-c", "/app/suite/none.ini", "/app/suite/" + {module!r}])
"""

LOOSE = """
import os, sys
from plugin import run_tests


def run():
    sys.path.insert(0, "/app/suite")
    os.chdir("/tmp")
    return run_tests(["-s", "--rootdir", "/app/suite", "-c", "/app/suite/none.ini", "/app/suite/" + {module!r}])
"""

NATIVELY = """
import importlib, json, os, sys
sys.path.insert(0, sys.argv[1])
from plugin import run_tests
if len(sys.argv) > 3:
    path = os.path.join(os.path.dirname(sys.argv[3]), sys.argv[2])
else:
    package = importlib.import_module(sys.argv[2].split("/")[0])
    path = os.path.join(os.path.dirname(os.path.dirname(package.__file__)), sys.argv[2])
os.chdir(sys.argv[1])
open("none.ini", "w").write("[pytest]")
seen = run_tests(["--capture=sys", "--rootdir", os.path.dirname(path), "-c", "none.ini", path])
json.dump(seen, open("seen.json", "w"))
"""


@frozen
class Run:
    """One test module's outcomes: by test, its kind and why."""

    module: str
    guest: dict[str, tuple[str, str]] = field(repr=False)
    native: dict[str, tuple[str, str]] | None = field(repr=False)

    def lost(self) -> dict[str, str]:
        """Tests that pass natively and do not in the guest, with why.

        Parameters have other names where types have: `int32` is a type number of its own in the guest. As many
        passes of the same test as the guest has under names that are not there natively stand for those.
        """
        native = self.native or {}
        passes = [name for name, (kind, _) in native.items() if kind == "passed"]
        renamed = Counter(
            name.partition("[")[0]
            for name, (kind, _) in self.guest.items()
            if kind == "passed" and name not in native
        )
        found: dict[str, str] = {}
        for name in passes:
            kind, why = self.guest.get(name) or self._around(name)
            test = name.partition("[")[0]
            if kind == "missing" and renamed[test]:
                renamed[test] -= 1
            elif kind != "passed":
                found[name] = f"{kind}: {why}"
        return found

    def _around(self, name: str) -> tuple[str, str]:
        """Why a test was not run: the outcome of the fixture or the import before it."""
        for other, (kind, why) in self.guest.items():
            place = _FIXTURE.match(other)
            if place and kind != "passed" and name.startswith((f"{place[1]}.", f"test.{place[1]}.")):
                return kind, why
        if WHOLE in self.guest:
            return self.guest[WHOLE]
        return "missing", f"{name.partition('[')[0].rpartition('.')[0] or name} is not there"


def find_wheel(folder: Path, package: str) -> Path:
    """The package's own wheel."""
    found = sorted(folder.glob(f"{package}-*.whl"))
    if not found:
        sys.exit(f"there is no wheel of {package} in {folder}; see the top of this file for how to get it")
    return found[-1]


def pack_layer(folder: Path, package: str, target: Path) -> Path:
    """What pytest needs, as a layer for the guest."""
    with zipfile.ZipFile(target, "w") as layer:
        for wheel in sorted(folder.glob("*-none-any.whl")):
            if wheel.name.startswith(f"{package}-"):
                continue
            with zipfile.ZipFile(wheel) as packed:
                for name in packed.namelist():
                    if not name.endswith("/"):
                        layer.writestr(zipfile.ZipInfo(name), packed.read(name))
    return target


def sources_of(wheel: zipfile.ZipFile, module: str) -> dict[str, str | bytes]:
    """The program that runs one test module: the files around it and the tests it imports, and what runs them."""
    wanted = _with_imported(wheel, module)
    folders = {str(PurePosixPath(name).parent) for name in wanted}
    files: dict[str, str | bytes] = {
        f"suite/{name}": wheel.read(name)
        for name in wheel.namelist()
        if any(name.startswith(f"{folder}/") for folder in folders)
        and not name.endswith((".so", "/"))
        and (name in wanted or not _TEST_MODULE.search(name))
    }
    # Only marks, by which pytest finds the full names: the packages themselves are in the library.
    marks = {f"suite/{parent}/__init__.py" for folder in folders for parent in PurePosixPath(folder).parents}
    return {
        **dict.fromkeys(marks - {"suite/./__init__.py"}, ""),
        **files,
        "suite/none.ini": "[pytest]\n",
        "plugin.py": PLUGIN,
        "driver.py": IN_GUEST.format(module=module, folders=sorted(folders)),
    }


def _with_imported(wheel: zipfile.ZipFile, module: str) -> set[str]:
    """A test module and what it, and what those, import of folders of tests, by their paths."""
    names = set(wheel.namelist())
    found: set[str] = set()
    todo = [module]
    while todo:
        path = todo.pop()
        if path in found:
            continue
        found.add(path)
        here = str(PurePosixPath(path).parent)
        for dots, name in _IMPORTED.findall(wheel.read(path).decode(errors="replace")):
            place = f"{here}/{name}" if dots else name.replace(".", "/")
            todo += {f"{place}.py", f"{place}/__init__.py"} & names
    return found


def loose_sources(folder: Path, module: str) -> dict[str, str | bytes]:
    """The program that runs one test module of a folder: what is beside it that is no test, and what it supports."""
    beside = [path for path in folder.glob("*.py") if not path.name.startswith("test_")]
    beside += folder.rglob("support/*.py")
    beside += [folder.parent / module]
    files: dict[str, str | bytes] = {
        f"suite/{path.relative_to(folder.parent)}": path.read_bytes() for path in beside
    }
    return {
        **files,
        "suite/none.ini": "[pytest]\n",
        "plugin.py": PLUGIN,
        "driver.py": LOOSE.format(module=module),
    }


def in_guest(engine: evocell.Engine, source: dict[str, str | bytes]) -> dict[str, tuple[str, str]]:
    """Outcomes in the guest; a run that ends early is one error."""
    task = evocell.Evaluation("driver:run", [evocell.Case()], lambda _, __: 1.0, limits=LIMITS)
    result = engine.evaluate([source], task)[0]
    outcome = result.test_results[0].outcome if result.test_results else None
    if outcome is None or not outcome.ok:
        why = str(result.error or (outcome and outcome.error) or result.reason).strip().splitlines()
        return {WHOLE: ("error", why[-1][:200] if why else "no result")}
    return {str(name): (str(kind), str(why)) for name, (kind, why) in outcome.unwrap().items()}


def natively(python: str, module: str, tests: Path | None) -> dict[str, tuple[str, str]]:
    """Outcomes of the installed package's own copy."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "plugin.py").write_text(PLUGIN, encoding="utf-8")
        arguments = [folder, module, *([str(tests)] if tests else [])]
        done = subprocess.run([python, "-c", NATIVELY, *arguments], capture_output=True, check=False)
        seen = Path(folder, "seen.json")
        if not seen.exists():
            return {WHOLE: ("error", done.stderr.decode(errors="replace")[-200:])}
        loaded = json.loads(seen.read_text(encoding="utf-8"))
    return {name: (kind, why) for name, (kind, why) in loaded.items()}


def main() -> int:
    """Run the modules of one package, and show what was counted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("wheels", type=Path)
    parser.add_argument("package")
    parser.add_argument("--python", help="an interpreter with the same package and pytest")
    parser.add_argument("--only", default="", help="modules in whose path this is found")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", type=Path, help="where to write a table in Markdown")
    parser.add_argument("--tests", type=Path, help="a folder of test modules that are in no wheel")
    options = parser.parse_args()
    console = Console(soft_wrap=True)
    runs = kept_runs(options.json)
    done = {run.module for run in runs}
    with tempfile.TemporaryDirectory() as folder:
        layer = pack_layer(options.wheels, options.package, Path(folder, "pytest.zip"))
        config = evocell.Config(
            layers=(str(layer),),
            warm=(*evocell.Config().warm, "pytest"),
            security_profile="low",
            workers=1,
            record_evaluations=False,
        )
        tests = options.tests.resolve() if options.tests else None
        with evocell.Engine(config) as engine, ThreadPoolExecutor(1) as pool:
            for module, sources in _modules(options.wheels, options.package, tests, options.only):
                if module in done:
                    continue
                beside = pool.submit(natively, options.python, module, tests) if options.python else None
                guest = in_guest(engine, sources)
                runs.append(Run(module, guest, beside.result() if beside else None))
                console.print(line_of(runs[-1]), markup=False, highlight=False)
                keep_runs(options.json, runs)
    show_runs(console, runs)
    if options.table:
        options.table.write_text(table_of(runs), encoding="utf-8")
    return 0


def _modules(
    wheels: Path, package: str, tests: Path | None, only: str
) -> Iterator[tuple[str, dict[str, str | bytes]]]:
    """Test modules by their paths, each with the program that runs it."""
    if tests:
        for path in sorted(tests.glob("test_*.py")):
            if re.search(only, path.name):
                module = str(path.relative_to(tests.parent))
                yield module, loose_sources(tests, module)
        return
    with zipfile.ZipFile(find_wheel(wheels, package)) as wheel:
        for name in wheel.namelist():
            if _TEST_MODULE.search(name) and re.search(only, name):
                yield name, sources_of(wheel, name)


def kept_runs(path: Path | None) -> list[Run]:
    """The modules that an earlier run left in a file."""
    if path is None or not path.exists():
        return []
    return [Run(**run) for run in json.loads(path.read_text(encoding="utf-8"))]


def keep_runs(path: Path | None, runs: list[Run]) -> None:
    """Leave what is known in a file, whole at any moment."""
    if path is None:
        return
    listed = [{"module": run.module, "guest": run.guest, "native": run.native} for run in runs]
    half = path.with_suffix(".part")
    half.write_text(json.dumps(listed), encoding="utf-8")
    half.replace(path)


def line_of(run: Run) -> str:
    """One line for a module."""
    counts = Counter(kind for kind, _ in run.guest.values())
    shown = ", ".join(f"{counts[kind]} {kind}" for kind in KINDS if counts[kind])
    return f"{run.module}: {shown}; {len(run.lost())} pass only natively"


def show_runs(console: Console, runs: list[Run]) -> None:
    """The sums of both sides, the share, and what passes natively alone by its reason."""
    table = Table("", *KINDS)
    for side in ("guest", "native"):
        counts = Counter(kind for run in runs for kind, _ in (getattr(run, side) or {}).values())
        table.add_row(side, *(str(counts[kind]) for kind in KINDS))
    console.print(table)
    lost = [(f"{run.module}::{name}", why) for run in runs for name, why in run.lost().items()]
    console.print(_share(runs))
    for cause in Counter(cause_of(why, name) for name, why in lost):
        of_it = [(name, why) for name, why in lost if cause_of(why, name) == cause]
        console.print(f"{len(of_it)} × {cause}", markup=False, highlight=False)
        for why, many in Counter(why for _, why in of_it).most_common(20):
            names = [name for name, reason in of_it if reason == why]
            console.print(f"    {many} × {why}: {names[0]}", markup=False, highlight=False)


def _passed(outcomes: dict[str, tuple[str, str]] | None) -> int:
    return sum(kind == "passed" for kind, _ in (outcomes or {}).values())


def _share(runs: list[Run]) -> str:
    """The share of all tests, and of those that want nothing that a sandbox lacks."""
    passed = sum(_passed(run.native) for run in runs)
    lost = [(why, name) for run in runs for name, why in run.lost().items()]
    lacking = sum(is_lacking(cause_of(why, name)) for why, name in lost)
    if not passed:
        return "nothing was run natively"
    return (
        f"{100 * (1 - len(lost) / passed):.2f} % of the {passed:,} tests that pass natively pass in the guest, and "
        f"{100 * (1 - (len(lost) - lacking) / max(1, passed - lacking)):.2f} % without the {lacking:,} that want "
        f"what a sandbox lacks"
    )


def table_of(runs: list[Run]) -> str:
    """A table in Markdown of the modules that lost tests, with the causes, and the sums of the others."""
    lines = [
        "| module | passes natively | of these in the guest | share | why not all |",
        "|---|---:|---:|---:|---|",
    ]
    whole = [run for run in runs if not run.lost()]
    for run in runs:
        lost, native = run.lost(), _passed(run.native)
        if lost:
            share = f"{100 * (1 - len(lost) / native):.1f} %"
            lines.append(
                f"| `{run.module}` | {native:,} | {native - len(lost):,} | {share} | {summary(lost)} |"
            )
    rest = sum(_passed(run.native) for run in whole)
    lines.append(f"| {len(whole)} others | {rest:,} | {rest:,} | 100 % | |")
    return "\n".join([*lines, "", _share(runs)])


if __name__ == "__main__":
    sys.exit(main())
