"""Child side of a started process: the interpreter's command line in a fresh guest."""

from __future__ import annotations

import atexit
import builtins
import gc
import io
import os
import runpy
import sys
import traceback
from collections.abc import Callable
from types import ModuleType
from typing import Any

import evocell_processes as processes
import evocell_stand_ins

_WITH_VALUE = ("-W", "-X")


def main(options: dict[str, Any]) -> list[Any]:
    """Run a program as the interpreter's command line would.

    Args:
        options: ``words`` (the command line after the interpreter), ``cwd``, ``env``, ``merged`` (whether the
            standard error goes to the standard output).

    Returns:
        The exit status, and nothing.
    """
    evocell_stand_ins.install()
    os.environ.clear()
    os.environ.update(options["env"])
    if options["merged"]:
        sys.stderr = io.TextIOWrapper(
            io.FileIO(1, "w", closefd=False), "utf-8", "backslashreplace", line_buffering=True
        )
    code = _finished(lambda: _run_python(options["words"], options["cwd"]))
    return [code, b""]


def _finished(run: Callable[[], object]) -> int:
    """Run a program and its exit handlers; return its exit status."""
    code = _status(run)
    before = code
    try:
        sys.settrace(None)
        sys.setprofile(None)
        for prepare in processes.before_waiting:
            prepare()
        atexit._run_exitfuncs()  # noqa: SLF001 - what the interpreter calls
        vars(sys.modules["__main__"]).clear()
        gc.collect()
    except SystemExit as end:
        code = _exit_code(end)
    except BaseException:
        traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:
            code = before or 120
    return code


def _status(run: Callable[[], object]) -> int:
    try:
        run()
    except SystemExit as end:
        return _exit_code(end)
    except BaseException as error:
        trace = error.__traceback__
        while trace is not None and trace.tb_frame.f_code.co_filename in (__file__, runpy.__file__):
            trace = trace.tb_next
        sys.excepthook(type(error), error.with_traceback(trace), trace)
        return -2 if isinstance(error, KeyboardInterrupt) else 1
    return 0


def _exit_code(end: SystemExit) -> int:
    if end.code is None:
        return 0
    if isinstance(end.code, int):
        return end.code & 0xFF
    print(end.code, file=sys.stderr)
    return 1


def _run_python(words: list[str], cwd: str) -> None:
    os.chdir(cwd)
    while words and words[0].startswith("-") and words[0] not in ("-", "-c", "-m"):
        if words[0] in ("-V", "--version"):
            print("Python", sys.version.split()[0])
            return
        words = words[2 if words[0] in _WITH_VALUE else 1 :]
    extra = os.environ.get("PYTHONPATH", "")
    sys.path[:0] = [part for part in extra.split(":") if part]
    if words[:1] == ["-m"]:
        sys.argv[:] = words[1:]
        sys.path.insert(0, cwd)
        _become_main()
        runpy._run_module_as_main(words[1])  # type: ignore[attr-defined]  # noqa: SLF001 - the interpreter's own
        return
    if words[:1] == ["-c"]:
        sys.argv[:] = ["-c", *words[2:]]
        sys.path.insert(0, "")
        text: str | bytes = words[1] if len(words) > 1 else ""
        file = "<string>"
    elif not words or words[0] == "-":
        sys.argv[:] = words or [""]
        sys.path.insert(0, "")
        text, file = sys.stdin.read(), "<stdin>"
    else:
        file = words[0]
        sys.argv[:] = words
        if os.path.isdir(file):
            sys.path.insert(0, file)
            _become_main()
            run = runpy._run_module_as_main  # type: ignore[attr-defined]  # noqa: SLF001
            run("__main__", alter_argv=False)
            return
        try:
            with io.open_code(os.path.abspath(file)) as opened:
                text = opened.read()
        except OSError as error:
            said = f"can't open file {os.path.abspath(file)!r}: [Errno {error.errno}] {error.strerror}"
            print(f"{sys.executable}: {said}", file=sys.stderr)
            sys.exit(2)
        sys.path.insert(0, os.path.dirname(os.path.abspath(file)))
    module = _become_main()
    if file not in ("<string>", "<stdin>"):
        module.__file__ = file
    exec(compile(text, file, "exec"), module.__dict__)


def _become_main() -> ModuleType:
    """Install a fresh ``__main__`` in place of the agent's, which continues in the background."""
    module = ModuleType("__main__")
    module.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = module
    return module
