"""Processes of a sandboxed evaluator, each a guest of its own.

`subprocess` and `os` are given what WASI lacks: a Python program that is started runs in a fresh guest, which
has seen nothing of this one and shares only the files with it. Time is the virtual clock, for timeouts too.
"""

from __future__ import annotations

import atexit
import builtins
import errno
import gc
import io
import os
import runpy
import shlex
import subprocess
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from types import ModuleType
from typing import Any, Self

from evocell_guest import processes
from evocell_guest.values import encode

Ask = processes.ask
Refused = processes.Refused

_PYTHON_NAMES = ("python", "pypy")
_WITH_VALUE = ("-W", "-X")
_SHELL_SIGNS = frozenset("|&;<>()$`*?[]#~=%\n")
_SIGKILL, _SIGTERM = 9, 15
_sleep = time.sleep

running: set[int] = set()
"""Processes of this one that have not been waited for."""
ends: dict[int, list[Any]] = {}
"""How processes ended that were waited for by another one's waiter."""
before_waiting: list[Callable[[], object]] = []
"""Called before this process waits for anything."""
next_alarm: list[Callable[[], float | None]] = []
"""Each says when, by `time.monotonic`, something in this process is to be done by `ring`."""
ring: list[Callable[[], object]] = []
"""Do what is due."""


def ask(*question: Any) -> Any:
    """Ask the host, and raise what a program expects if it refuses.

    Raises:
        BlockingIOError: There are as many processes as there may be, or they nest too deeply.
        EOFError: Everybody waits for another.
        OSError: It is refused for another reason.
    """
    try:
        return Ask(*question)
    except Refused as refused:
        if refused.why == "ended":
            raise
        if refused.why == "deadlock":
            message = "it would wait for ever: every process of this call waits for another"
            raise EOFError(message) from None
        number = errno.EAGAIN if refused.why in ("busy", "depth") else errno.EPERM
        said = str(refused) or "there are as many processes as this call may have (evocell.Limits.processes)"
        raise OSError(number, said) from None


def to_ns(seconds: float | None) -> int | None:
    """Turn a timeout into nanoseconds; None for one without end."""
    if seconds is None or seconds == float("inf"):
        return None
    return max(0, int(seconds * 1e9))


def waiting(timeout: float | None, wait: Callable[[int | None], Any]) -> Any:
    """Wait in parts, so that timers of this process ring in between.

    Args:
        timeout: Seconds; None for ever.
        wait: Waits for at most so many nanoseconds; returns None if nothing came.
    """
    for prepare in before_waiting:
        prepare()
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        alarms = [found for when in next_alarm if (found := when()) is not None]
        first = min([*alarms, *([] if deadline is None else [deadline])], default=None)
        found = wait(to_ns(None if first is None else first - time.monotonic()))
        if found is not None or not alarms or (deadline is not None and time.monotonic() >= deadline):
            return found
        for bell in ring:
            bell()


def wait_for(pids: list[int], timeout: float | None) -> int | None:
    """Wait until one of some processes has ended; how it did is then in `ends`.

    Returns:
        Which; None if none has in time.
    """
    for pid in pids:
        if pid in ends:
            return pid
    end = waiting(timeout, lambda left: ask("wait", pids, left))
    if end is None:
        return None
    pid: int = end[0]
    running.discard(pid)
    ends[pid] = end
    return pid


def kill(pid: int, number: int) -> None:
    """End a process of this one.

    Raises:
        ProcessLookupError: It is none.
    """
    if pid in ends or number == 0:
        return
    if pid not in running:
        raise ProcessLookupError(errno.ESRCH, "it is no process of this one", str(pid))
    ask("kill", pid, number)


def sleep(seconds: float, /) -> None:
    """Let time pass, for the processes of this one too."""
    if seconds < 0:
        message = "sleep length must be non-negative"
        raise ValueError(message)
    if running or any(when() is not None for when in next_alarm):
        waiting(seconds, lambda left: ask("wait", [], left))
    else:
        for prepare in before_waiting:
            prepare()
        _sleep(seconds)


# ---------------------------------------------------------------------- the other side


def main(options: dict[str, Any]) -> list[Any]:
    """Be a process that was started: run a program as the interpreter's command line has it.

    Args:
        options: ``words`` (the command line after the interpreter), ``cwd``, ``env``, ``merged`` (whether the
            standard error goes to the standard output).

    Returns:
        The exit status, and nothing.
    """
    import evocell_stand_ins

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
    """Run a program to its end, with what it registered for that, and return its exit status."""
    code = _status(run)
    before = code
    try:
        sys.settrace(None)
        sys.setprofile(None)
        for prepare in before_waiting:
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
        text, file = words[1] if len(words) > 1 else "", "<string>"
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
            runpy._run_module_as_main("__main__", alter_argv=False)  # type: ignore[attr-defined]  # noqa: SLF001
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
    """Put a fresh ``__main__`` in the place of the agent's, which goes on without being found by that name."""
    module = ModuleType("__main__")
    module.__dict__["__builtins__"] = builtins
    sys.modules["__main__"] = module
    return module


# ---------------------------------------------------------------------- subprocess


class _Input(io.BytesIO):
    """What a process will read from its standard input: the process starts when it is complete."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self._process = process

    def write(self, data: Any, /) -> int:
        """Add to it.

        Raises:
            BrokenPipeError: The process runs already. What it reads is given to it as a whole.
        """
        if self._process.started:
            message = (
                "a process in a sandbox is given its standard input as a whole, before it runs; it was started "
                "by the first wait for it, and cannot be answered to afterwards"
            )
            raise BrokenPipeError(errno.EPIPE, message)
        return super().write(data)

    def close(self) -> None:
        """Complete it."""
        if not self.closed:
            self._process.launch()
            super().close()


class _Output(io.RawIOBase):
    """What a process writes: read to its end, which waits for the process."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self._process = process
        self.data: bytes | None = None
        self._at = 0

    def readable(self) -> bool:
        """Say that it can be read."""
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Read, after the process has ended."""
        if self.data is None:
            self._process.wait()
        part = (self.data or b"")[self._at : self._at + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)


class Process:
    """A Python program in a guest of its own; stands in for `subprocess.Popen`.

    It starts at once, or, if its standard input is a pipe, when that is complete: closed, or at the first wait.

    Raises:
        FileNotFoundError: It is another program; there is none in a sandbox.
    """

    def __init__(self, args: Any, bufsize: int = -1, executable: Any = None, **options: Any) -> None:
        del bufsize
        self.args = args
        self.returncode: int | None = None
        self.started = False
        self._pid = 0
        self._waited: subprocess.TimeoutExpired | None = None
        words = _command(args, executable, shell=bool(options.get("shell")))
        if options.get("pass_fds"):
            message = "open files cannot be passed to a process in a sandbox; pass their names"
            raise NotImplementedError(message)
        if options.get("preexec_fn") is not None:
            warnings.warn(
                "preexec_fn is not called: a process in a sandbox has its own limits and group",
                RuntimeWarning,
                stacklevel=2,
            )
        environment = os.environ if options.get("env") is None else options["env"]
        out, err = options.get("stdout"), options.get("stderr")
        merged = err == subprocess.STDOUT or (err is not None and err == out and err != subprocess.PIPE)
        cwd = os.getcwd() if options.get("cwd") is None else os.path.abspath(os.fspath(options["cwd"]))
        if not os.path.isdir(cwd):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), cwd)
        self._options = {
            "words": words,
            "cwd": cwd,
            "env": {os.fsdecode(name): os.fsdecode(value) for name, value in environment.items()},
            "merged": merged,
        }
        self._targets = out, (None if merged else err)
        self._merged = merged
        self._text = _encoding(options)
        self.text_mode = self._text is not None
        given = options.get("stdin")
        self._typed = b"" if given == subprocess.PIPE else _read_all(given)
        self._input = _Input(self) if given == subprocess.PIPE else None
        self.stdin = None if self._input is None else self._wrapped(io.BufferedWriter(self._input))  # type: ignore[arg-type]
        self._pipes = tuple(_Output(self) if wanted == subprocess.PIPE else None for wanted in self._targets)
        self.stdout, self.stderr = (
            None if pipe is None else self._wrapped(io.BufferedReader(pipe)) for pipe in self._pipes
        )
        if self._input is None:
            self.launch()

    def _wrapped(self, stream: Any) -> Any:
        if self._text is None:
            return stream
        encoding, errors = self._text
        return io.TextIOWrapper(stream, encoding, errors, write_through=True)

    @property
    def pid(self) -> int:
        """Its number; 0 while it waits for its input."""
        return self._pid

    @property
    def universal_newlines(self) -> bool:
        """Whether its streams are text."""
        return self.text_mode

    def launch(self) -> None:
        """Start, if it has not."""
        if self.started:
            return
        self.started = True
        typed = self._typed if self._input is None or self._input.closed else self._input.getvalue()
        self._pid = ask("start", encode([[self._options], {}]), typed)
        running.add(self._pid)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended.

        Raises:
            subprocess.TimeoutExpired: It has not in time; it goes on the next time that somebody waits.
        """
        if self.returncode is None:
            self._complete_input()
            self.launch()
            if wait_for([self._pid], timeout) is None:
                assert timeout is not None
                self._waited = subprocess.TimeoutExpired(self.args, timeout)
                raise self._waited
            self._take(ends.pop(self._pid))
        assert self.returncode is not None
        return self.returncode

    def _complete_input(self) -> None:
        if self.stdin is not None and not self.stdin.closed:
            try:
                self.stdin.flush()
            except BrokenPipeError:
                pass

    def _take(self, end: list[Any]) -> None:
        """Note how it ended, and hand over what it wrote."""
        _, code, _, out, err, said = end
        if said:
            err = err + said.encode() + b"\n"
        if self._merged:
            out, err = out + err, b""
        self.returncode = code
        for stream, target, pipe in zip((out, err), self._targets, self._pipes, strict=True):
            if pipe is not None:
                pipe.data = stream
        for number, (stream, target) in enumerate(zip((out, err), self._targets, strict=True), 1):
            _write(stream, target, number)
        if self._waited is not None:
            shown = [None if pipe is None else pipe.data for pipe in self._pipes]
            self._waited.output, self._waited.stderr = shown

    def poll(self) -> int | None:
        """Return how it ended; None if it has not by now, the time that it has had considered."""
        if self.returncode is None and self.started:
            try:
                self.wait(0)
            except subprocess.TimeoutExpired:
                self._waited = None
        return self.returncode

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        """Give it its input, wait until it has ended, and return what it wrote.

        Raises:
            subprocess.TimeoutExpired: As for `wait`.
        """
        if input is not None and self.stdin is not None and not self.started:
            self.stdin.write(input)
        if self.stdin is not None and not self.stdin.closed:
            self.stdin.close()
        self.wait(timeout)
        return tuple(None if pipe is None else pipe.read() for pipe in (self.stdout, self.stderr))  # type: ignore[return-value]

    def send_signal(self, number: int) -> None:
        """End it as by this signal; it cannot catch one."""
        self.launch()
        if self.returncode is None and number:
            ask("kill", self._pid, int(number))

    def kill(self) -> None:
        """End it."""
        self.send_signal(_SIGKILL)

    def terminate(self) -> None:
        """End it."""
        self.send_signal(_SIGTERM)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_args: object) -> None:
        for pipe in (self.stdout, self.stderr):
            if pipe is not None:
                pipe.close()
        if self.stdin is not None and not self.stdin.closed:
            self.stdin.close()
        self.wait()

    def __class_getitem__(cls, _item: object) -> type[Process]:
        return cls

    def __repr__(self) -> str:
        return f"<Popen: returncode: {self.returncode} args: {self.args!r}>"


def _command(args: Any, executable: Any, *, shell: bool) -> list[str]:
    """Return what follows the interpreter on a command line.

    Raises:
        FileNotFoundError: It starts another program.
    """
    if isinstance(args, str | bytes | os.PathLike):
        line = os.fsdecode(args)
        if shell and not _SHELL_SIGNS & set(line.replace(sys.executable, "")):
            words = shlex.split(line)
        else:
            words = ["/bin/sh" if shell else line]
    else:
        words = [os.fsdecode(word) for word in args]
        if shell and len(words) != 1:
            words = ["/bin/sh"]
    program = os.fsdecode(executable) if executable is not None else words[0] if words else ""
    name = os.path.basename(program)
    if not words or (program != sys.executable and not name.startswith(_PYTHON_NAMES)):
        message = "there are no programs in a sandbox, only this interpreter (sys.executable)"
        raise FileNotFoundError(errno.ENOENT, message, program)
    return words[1:]


def _encoding(options: dict[str, Any]) -> tuple[str | None, str | None] | None:
    """Return encoding and error handling of text streams; None for bytes."""
    wanted = ("text", "universal_newlines", "encoding", "errors")
    if not any(options.get(name) for name in wanted):
        return None
    return options.get("encoding") or "utf-8", options.get("errors")


def _read_all(given: Any) -> bytes:
    """Read what a process is to have as its standard input: of a file, what is left in it."""
    if given is None or given == subprocess.DEVNULL:
        return b""
    if isinstance(given, int):
        parts = []
        while part := os.read(given, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    found = given.read()
    return found.encode() if isinstance(found, str) else bytes(found)


def _write(stream: bytes, target: Any, number: int) -> None:
    """Write what a process wrote where its parent wanted it; in the parent's own stream by default."""
    if not stream or target in (subprocess.PIPE, subprocess.DEVNULL):
        return
    if target is None:
        own = sys.stdout if number == 1 else sys.stderr
        own.flush()
        target = number
    elif not isinstance(target, int):
        target.flush()
        target = target.fileno()
    while stream:
        stream = stream[os.write(target, stream) :]


after_fork: list[Callable[[], object]] = []
"""Called in a copy of this process."""


def _register_at_fork(
    *,
    before: Callable[[], object] | None = None,
    after_in_parent: Callable[[], object] | None = None,
    after_in_child: Callable[[], object] | None = None,
) -> None:
    del before, after_in_parent
    if after_in_child is not None:
        after_fork.append(after_in_child)


def _no_fork() -> int:
    message = "a process in a sandbox cannot return twice; start multiprocessing.Process(target=...)"
    raise OSError(errno.ENOSYS, message)


def _waitpid(pid: int, options: int, /) -> tuple[int, int]:
    found = wait_for([pid] if pid > 0 else sorted(running), 0 if options & 1 else None)
    if found is None:
        return 0, 0
    code = ends.pop(found)[1]
    return found, -code if code < 0 else code << 8


def install() -> None:
    """Put it where programs look for it."""
    subprocess.Popen = Process  # type: ignore[misc,assignment]
    subprocess._USE_POSIX_SPAWN = False  # type: ignore[attr-defined]  # noqa: SLF001
    time.sleep = sleep
    own: dict[str, Any] = {
        "kill": kill,
        "killpg": kill,
        "getpgid": lambda pid: pid,
        "getppid": lambda: 1,
        "setsid": lambda: None,
        "setpgrp": lambda: None,
        "nice": lambda increment: 0,
        "fork": _no_fork,
        "register_at_fork": _register_at_fork,
        "waitpid": _waitpid,
        "WNOHANG": 1,
        "WIFEXITED": lambda status: not status & 0x7F,
        "WEXITSTATUS": lambda status: status >> 8 & 0xFF,
        "WIFSIGNALED": lambda status: bool(status & 0x7F),
        "WTERMSIG": lambda status: status & 0x7F,
    }
    for name, value in own.items():
        if not hasattr(os, name):
            setattr(os, name, value)
