"""Run one of CPython's test modules with unittest, and say each outcome on standard output as soon as it is known.

The same file runs in the guest and natively, so it imports nothing but the standard library. What a test prints
goes elsewhere; a run that ends early leaves the outcomes until then, and the name of the test that ended it.
"""

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
from typing import TextIO

#: Begins each line, which what a test writes to the descriptor itself does not.
MARK = "\x1e"
_WHY_CHARS = 200


class Recorder(unittest.TestResult):
    """Writes a line when a test starts and one with its kind, and why, when it ends."""

    def __init__(self, out: TextIO) -> None:
        super().__init__()
        self._out = out
        self._now = ""
        self._kind = ("passed", "")

    def startTest(self, test: unittest.TestCase) -> None:
        super().startTest(test)
        self._now = test.id()
        self._kind = ("passed", "")
        self._say(self._now)

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        self._say(self._now, *self._kind)
        self._now = ""

    def addError(self, test, err):  # type: ignore[no-untyped-def]
        self._note(test, "error", err)

    def addFailure(self, test, err):  # type: ignore[no-untyped-def]
        self._note(test, "failed", err)

    def addSubTest(self, test, subtest, err):  # type: ignore[no-untyped-def]  # noqa: ARG002
        if err is not None:
            self._note(test, "failed" if issubclass(err[0], test.failureException) else "error", err)

    def addSkip(self, test, reason):  # type: ignore[no-untyped-def]
        self._note(test, "skipped", (None, reason, None))

    def addExpectedFailure(self, test, err):  # type: ignore[no-untyped-def]
        self._note(test, "xfailed", err)

    def addUnexpectedSuccess(self, test):  # type: ignore[no-untyped-def]
        self._note(test, "xpassed", (None, "", None))

    def _note(self, test, kind, err):  # type: ignore[no-untyped-def]
        text = str(err[1]).strip().splitlines() or [""]
        # A failed comparison begins with what differs and ends with a diff of it.
        why = text[0] if kind == "failed" else text[-1]
        if err[0] is not None:
            why = f"{err[0].__name__}: {why}"
        if not self._now:  # a fixture of a class or module
            self._say(test.id(), kind, why[:_WHY_CHARS])
        elif self._kind[0] in {"passed", "skipped"}:
            self._kind = (kind, why[:_WHY_CHARS])

    def _say(self, *what: str) -> None:
        self._out.write(f"\n{MARK}{json.dumps(what)}\n")
        self._out.flush()


def unpack(packed: bytes, folder: str) -> None:
    """Put the files of a zip below a folder, and that on the path."""
    with zipfile.ZipFile(io.BytesIO(packed)) as files:
        files.extractall(folder)
    sys.path.insert(0, folder)


def prepare() -> None:
    """What `regrtest` sets, and no test left out because the platform is called WebAssembly."""
    support = importlib.import_module("test.support")
    support.use_resources = ()  # type: ignore[attr-defined]
    support.is_wasi = False  # type: ignore[attr-defined]
    if sys.platform == "wasi":  # both ask the module `resource` where there is no WebAssembly
        support.skip_if_unlimited_stack_size = lambda test: test  # type: ignore[attr-defined]
        support.skip_if_huge_c_stack = lambda _=0: lambda test: test  # type: ignore[attr-defined]
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
    os.makedirs(folder, exist_ok=True)
    os.chdir(folder)
    prepare()
    kept = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = (
        io.TextIOWrapper(io.BytesIO(), "utf-8", "backslashreplace", write_through=True) for _ in kept
    )
    try:
        suite = unittest.defaultTestLoader.loadTestsFromName(module)
        unittest.TestSuite([test for test in tests_of(suite) if test.id() not in known]).run(recorder)
    finally:
        sys.stdout, sys.stderr = kept


if __name__ == "__main__":
    run_module(sys.argv[1], sys.argv[2])
