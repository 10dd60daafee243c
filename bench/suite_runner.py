"""Run one of CPython's test modules with unittest, and say each outcome on standard output as soon as it is known.

The same file runs in the guest and natively, so it imports nothing but the standard library. What a test prints
goes elsewhere; a run that ends early leaves the outcomes until then, and the name of the test that ended it.
"""

# ruff: noqa: N802 - the methods have unittest's names
from __future__ import annotations

import importlib
import io
import json
import os
import random
import sys
import unittest
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, TextIO

#: Begins each line, which what a test writes to the descriptor itself does not.
MARK = "\x1e"
_WHY_CHARS = 200

OptExcInfo = tuple[type[BaseException], BaseException, TracebackType] | tuple[None, None, None]


class Recorder(unittest.TestResult):
    """Writes a line when a test starts and one with its kind, and why, when it ends."""

    def __init__(self, out: TextIO) -> None:
        super().__init__()
        self._out = out
        self._now = ""
        self._kind = ("passed", "")

    def startTest(self, test: unittest.TestCase) -> None:
        """Name the test that runs now."""
        super().startTest(test)
        self._now = test.id()
        self._kind = ("passed", "")
        self._say(self._now)

    def stopTest(self, test: unittest.TestCase) -> None:
        """Write its outcome."""
        super().stopTest(test)
        self._say(self._now, *self._kind)
        self._now = ""

    def addError(self, test: unittest.TestCase, err: OptExcInfo) -> None:
        """An exception that is no failed assertion."""
        self._note(test, "error", _last_line(err))

    def addFailure(self, test: unittest.TestCase, err: OptExcInfo) -> None:
        """A failed assertion."""
        self._note(test, "failed", _first_line(err))

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: OptExcInfo | None) -> None:
        """A part of a test, which decides about the whole if it does not pass."""
        if err is None or err[0] is None:
            return
        if issubclass(err[0], subtest.failureException):
            self.addFailure(test, err)
        else:
            self.addError(test, err)

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        """A test that does not want to run here."""
        self._note(test, "skipped", reason)

    def addExpectedFailure(self, test: unittest.TestCase, err: OptExcInfo) -> None:
        """A test that is known to fail."""
        self._note(test, "xfailed", _last_line(err))

    def addUnexpectedSuccess(self, test: unittest.TestCase) -> None:
        """A test that is known to fail, and passes."""
        self._note(test, "xpassed", "")

    def skip_module(self, module: str, reason: str) -> None:
        """A module that does not want to be imported here."""
        self._say(f"setUpModule ({module})", "skipped", reason[:_WHY_CHARS])

    def _note(self, test: unittest.TestCase, kind: str, why: str) -> None:
        if not self._now:  # a fixture of a class or module
            self._say(test.id(), kind, why[:_WHY_CHARS])
        elif self._kind[0] in {"passed", "skipped"}:
            self._kind = (kind, why[:_WHY_CHARS])

    def _say(self, *what: str) -> None:
        self._out.write(f"\n{MARK}{json.dumps(what)}\n")
        self._out.flush()


def _last_line(err: OptExcInfo) -> str:
    lines = str(err[1]).strip().splitlines() or [""]
    return f"{err[0] and err[0].__name__}: {lines[-1]}"


def _first_line(err: OptExcInfo) -> str:
    """What a failed assertion compared; a diff of it may follow."""
    lines = str(err[1]).strip().splitlines() or [""]
    return f"{err[0] and err[0].__name__}: {lines[0]}"


def unpack(packed: bytes, folder: str) -> None:
    """Put the files of a zip below a folder, and that on the path."""
    with zipfile.ZipFile(io.BytesIO(packed)) as files:
        files.extractall(folder)
    sys.path.insert(0, folder)


def stand_in(name: str, *functions: str) -> None:
    """Let an extension that exists for tests be imported; a test that uses it fails."""

    def absent(*_: object, **__: object) -> None:
        raise NotImplementedError(f"{name} is not in the interpreter")

    module = sys.modules[name] = ModuleType(name)
    for function in functions:
        setattr(module, function, absent)


def prepare_guest(support: Any, module: str) -> None:
    """Keep a whole module of tests from failing for want of what few of them use."""
    sys.modules["ctypes"] = None  # type: ignore[assignment]  # numpy has imported what programs may not
    stand_in("_testlimitedcapi")
    stand_in("_testmultiphase")
    if module == "test.test_class":
        stand_in("_testinternalcapi", "has_inline_values")
    # Both ask the module `resource` where there is no WebAssembly.
    support.skip_if_unlimited_stack_size = lambda test: test
    support.skip_if_huge_c_stack = lambda _=0: lambda test: test
    original, library = os.listdir, str(Path(os.__file__).parent)

    def listdir(path: Any = ".") -> list[Any]:
        """List a directory; the library is an archive without sources, and counts as empty."""
        return [] if path == library else original(path)

    setattr(os, "listdir", listdir)  # noqa: B010 - a checker knows it by all its forms


def prepare(module: str) -> None:
    """What `regrtest` sets, and no test left out because the platform is called WebAssembly."""
    support: Any = importlib.import_module("test.support")
    support.use_resources = ()
    support.is_wasi = False
    support.has_socket_support = support.has_subprocess_support = True  # what wants none of them runs
    if sys.platform == "wasi":
        prepare_guest(support, module)
    random.seed(0)


def tests_of(suite: unittest.TestSuite | unittest.TestCase) -> Iterator[unittest.TestCase]:
    """The tests of a suite in its order."""
    if isinstance(suite, unittest.TestSuite):
        for part in suite:
            yield from tests_of(part)
    else:
        yield suite


def run_module(module: str, folder: str, known: frozenset[str] = frozenset()) -> None:
    """Run the tests of a module but those that are known.

    Args:
        module: Its name, such as `test.test_list`.
        folder: Where the tests may write; it becomes the working directory.
        known: Names of tests that are not to run.
    """
    recorder = Recorder(sys.stdout)
    Path(folder).mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    prepare(module)
    kept = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace", write_through=True) for _ in kept
    )
    try:
        suite = unittest.defaultTestLoader.loadTestsFromName(module)
        unittest.TestSuite([test for test in tests_of(suite) if test.id() not in known]).run(recorder)
    except unittest.SkipTest as skipped:
        recorder.skip_module(module, str(skipped))
    finally:
        sys.stdout, sys.stderr = kept


if __name__ == "__main__":
    run_module(sys.argv[1], sys.argv[2])
