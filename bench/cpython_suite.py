"""Run CPython's own tests inside the guest, and beside it natively.

The tests are not part of this project. They must be those of the guest's version, which Debian has, with an
interpreter that passes them natively:

    apt install python3.15 libpython3.15-testsuite
    python bench/cpython_suite.py /usr/lib/python3.15/test --python python3.15 --json FILE [--only REGEX]

A test module is a run of its own under unittest, as `regrtest` runs it without resources. A test that ends the call
(a limit, a trap) is one failure, and the module is run again without what is known by then. Each module is kept in the
file as it is done, and a run that is started again goes on after the last one. What passes natively and does not in the
guest is listed by its cause.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import re
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console

import evocell
from guest_suites import LIMITS, WHOLE, Run, keep_runs, kept_runs, line_of, show_runs, table_of
from suite_runner import MARK

#: Modules that are about processes, sockets, other platforms, a compiler, a display or a terminal and nothing else.
LEFT_OUT = re.compile(
    r"test_(multiprocessing\w*|concurrent_futures|subprocess|popen|fork1|wait[34]|socket|socketserver|ssl|ftplib|"
    r"httplib|httpservers|imaplib|poplib|smtplib|smtpnet|urllib2net|urllibnet|urllib2_localnet|xmlrpc|docxmlrpc|"
    r"telnetlib|select|selectors|poll|epoll|kqueue|devpoll|tkinter|ttk|ttk_textonly|tcl|idle|"
    r"turtle|curses|readline|pty|openpty|tty|termios|winreg|winapi|winsound|winconsoleio|wmi|msvcrt|startfile|"
    r"launcher|android|apple|osx_env|_osx_support|gdb|dtrace|cext|cppext|peg_generator|tools|clinic|embed|capi|"
    r"ctypes|stable_abi_ctypes|venv|ensurepip|regrtest|cmd_line|cmd_line_script|faulthandler|eintr|file_eintr|"
    r"signal|threadsignals|fcntl|ioctl|resource|syslog|mmap|pwd|grp|dbm_gnu|dbm_ndbm|perf_profiler|perfmaps|"
    r"samply_profiler|external_inspection|profiling|remote_pdb|interpreters|_interpreters|_interpchannels|"
    r"crossinterp|xpickle|pyrepl|repl|build_details|gc_stats|getpath|bigmem|bigaddrspace|xxlimited|xxtestfuzz|"
    r"c_stack_unwind|atexit_monitoring|script_helper|free_threading|threading|thread|threadedtempfile|"
    r"audit|site|lltrace|optimizer|generated_cases)(\.py)?$"
)
_CALL_S = 150.0
_NATIVE_S = 200.0
_MODULE_S = 200.0
_CRASHES = 20
_SCRATCH = {
    "scratch_bytes": 1 << 33,
    "scratch_file_bytes": 1 << 33,
    "scratch_files": 100_000,
    "open_files": 1_000,
    "scratch_depth": 64,
}
_WORD = re.compile(r"\w+")
_TEST_NAME = re.compile(r"\btest\.(\w+)")
_RUNNER = Path(__file__).with_name("suite_runner.py").read_text(encoding="utf-8")
_DRIVER = """
import suite_runner


def run(packed, module, known):
    suite_runner.unpack(packed, "/tmp/suite")
    suite_runner.run_module(module, "/tmp/work", frozenset(known))
"""
_PROGRAM: dict[str, str | bytes] = {"driver.py": _DRIVER, "suite_runner.py": _RUNNER}

Outcomes = dict[str, tuple[str, str]]


def modules_of(tests: Path, only: str) -> Iterator[Path]:
    """Test modules and packages of a folder, by name."""
    for path in sorted(tests.glob("test_*")):
        is_module = path.suffix == ".py" or (path / "__init__.py").exists()
        if is_module and re.search(only, path.stem) and (only or not LEFT_OUT.match(path.name)):
            yield path


def pack(tests: Path, module: Path) -> bytes:
    """A zip of one test module with what it names of its folder, and what all tests rest on."""
    beside: dict[str, list[Path]] = {}
    for path in tests.iterdir():
        if path.name != "__pycache__":
            beside.setdefault(path.name.partition(".")[0], []).append(path)
    wanted: set[Path] = set()
    todo = [module, tests / "__init__.py", tests / "support"]
    while todo:
        path = todo.pop()
        if path in wanted:
            continue
        wanted.add(path)
        words = _TEST_NAME if path.name == "support" else _WORD
        texts = [file.read_text(encoding="latin-1") for file in _files(path) if file.suffix == ".py"]
        named = {word for text in texts for word in words.findall(text)}
        todo += [path for name in named & beside.keys() for path in beside[name]]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
        for path in sorted(file for one in wanted for file in _files(one)):
            packed.write(path, f"test/{path.relative_to(tests)}")
    return buffer.getvalue()


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return [file for file in path.rglob("*") if file.is_file() and file.suffix != ".pyc"]


def read_lines(text: str) -> tuple[Outcomes, str]:
    """Outcomes that a run said, and the test that was running at its end."""
    seen: Outcomes = {}
    running = ""
    for line in text.split("\n"):
        if not line.startswith(MARK):
            continue
        try:
            name, *rest = json.loads(line[1:])
        except ValueError:  # cut where the call ended
            continue
        if rest:
            seen[name] = (rest[0], rest[1])
        running = "" if rest else name
    return seen, running


def in_guest(engine: evocell.Engine, tests: Path, module: Path) -> Outcomes:
    """Outcomes in the guest; a test that ends the call is one error, and the others are run without it."""
    packed = pack(tests, module)
    seen: Outcomes = {}
    until = time.monotonic() + _MODULE_S
    for _ in range(_CRASHES):
        limits = LIMITS.evolve(timeout_s=_CALL_S, **_SCRATCH)
        case = evocell.Case((packed, f"test.{module.stem}", sorted(seen)))
        task = evocell.Evaluation("driver:run", [case], lambda *_: 1.0, limits=limits)
        result = engine.evaluate([_PROGRAM], task)[0]
        outcome = result.test_results[0].outcome if result.test_results else None
        said, running = read_lines(outcome.stdout if outcome else "")
        seen |= said
        if outcome is not None and outcome.ok:
            return seen
        why = str(outcome.error if outcome else result.error or result.reason).strip().splitlines()
        seen[running or WHOLE] = ("error", f"the call ended: {why[-1][:200] if why else '?'}")
        if not running or time.monotonic() > until:
            return seen
    return seen


def natively(python: str, module: Path) -> Outcomes:
    """Outcomes of the interpreter's own copy of the tests."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        runner = Path(folder, "suite_runner.py")
        runner.write_text(_RUNNER, encoding="utf-8")
        command = ["env", "LC_ALL=C.UTF-8", "PYTHONHASHSEED=0", "PYTHONSAFEPATH=1", python, str(runner)]
        out = Path(folder, "out")
        with out.open("wb") as stdout, contextlib.suppress(subprocess.TimeoutExpired):
            subprocess.run(
                [*command, f"test.{module.stem}", f"{folder}/work"],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=subprocess.DEVNULL,
                check=False,
                timeout=_NATIVE_S,
            )
        seen, running = read_lines(out.read_text(encoding="utf-8", errors="replace"))
    return seen | {running: ("error", "the process ended")} if running else seen


def main() -> int:
    """Run the modules, and show what was counted."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("tests", type=Path, help="the folder of the package `test`")
    parser.add_argument("--python", required=True, help="an interpreter of the same version with these tests")
    parser.add_argument("--only", default="", help="modules in whose name this is found, left out or not")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--table", type=Path, help="where to write a table in Markdown")
    options = parser.parse_args()
    console = Console(soft_wrap=True)
    runs = kept_runs(options.json)
    done = {run.module for run in runs}
    config = evocell.Config(
        warm=(*evocell.Config().warm, "unittest"),
        security_profile="low",
        blocked_modules=("ctypes",),  # what wants a process is to fail there, not at its import
        workers=1,
        record_evaluations=False,
    )
    with evocell.Engine(config) as engine, ThreadPoolExecutor(1) as pool:
        for module in modules_of(options.tests.resolve(), options.only):
            if module.stem in done:
                continue
            beside = pool.submit(natively, options.python, module)
            guest = in_guest(engine, options.tests.resolve(), module)
            runs.append(Run(module.stem, guest, beside.result()))
            console.print(line_of(runs[-1]), markup=False, highlight=False)
            keep_runs(options.json, runs)
    show_runs(console, runs)
    if options.table:
        options.table.write_text(table_of(runs), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
