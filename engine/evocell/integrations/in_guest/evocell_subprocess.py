"""`subprocess` in a sandbox: a Python program that is started runs in a fresh guest.

It shares only the files with this guest.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import re
import shlex
import subprocess
import sys
import warnings
from typing import Any, Self

import evocell_processes as processes
from evocell_refusals import broken_pipe

from evocell_guest.values import encode

_PYTHON_NAMES = ("python", "pypy")
_SHELL_SIGNS = frozenset("|&;<>()$`*?[]#~=%\n")
_QUOTED = re.compile(r"""'[^']*'|"[^"$`\\]*\"""")
_SIGKILL, _SIGTERM = 9, 15


class _Input(io.BytesIO):
    """Standard input of a process, which starts when the input is complete."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self._process = process

    def write(self, data: Any, /) -> int:
        """Append to the input.

        Raises:
            BrokenPipeError: The process runs already. Its input is passed as a whole.
        """
        if self._process.started:
            raise broken_pipe()
        return super().write(data)

    def close(self) -> None:
        """Complete the input."""
        if not self.closed:
            self._process.launch()
            super().close()


class _Output(io.RawIOBase):
    """Output of a process; reading waits for the end of the process."""

    def __init__(self, process: Process) -> None:
        super().__init__()
        self._process = process
        self.data: bytes | None = None
        self._at = 0

    def readable(self) -> bool:
        """Return True."""
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

    It starts at once, or, if its standard input is a pipe, when that is complete: closed, or at the first
    wait.

    Raises:
        FileNotFoundError: It is another program; a sandbox has only Python.
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
        self.stdin = None
        if self._input is not None:
            self.stdin = self._wrapped(io.BufferedWriter(self._input))
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
        """Its process id; 0 while it waits for its input."""
        return self._pid

    @property
    def universal_newlines(self) -> bool:
        """Whether its streams are text."""
        return self.text_mode

    def launch(self) -> None:
        """Start it, if it has not been started."""
        if self.started:
            return
        self.started = True
        typed = self._typed if self._input is None or self._input.closed else self._input.getvalue()
        self._pid = processes.ask("start", encode([[self._options], {}]), typed)
        processes.running.add(self._pid)

    def wait(self, timeout: float | None = None) -> int:
        """Wait until it has ended.

        Raises:
            subprocess.TimeoutExpired: It has not ended in time; it continues at the next wait.
        """
        if self.returncode is None:
            self._complete_input()
            self.launch()
            if processes.wait_for([self._pid], timeout) is None:
                assert timeout is not None
                self._waited = subprocess.TimeoutExpired(self.args, timeout)
                raise self._waited
            self._take(processes.ends.pop(self._pid))
        assert self.returncode is not None
        return self.returncode

    def _complete_input(self) -> None:
        if self.stdin is not None and not self.stdin.closed:
            with contextlib.suppress(BrokenPipeError):
                self.stdin.flush()

    def _take(self, end: list[Any]) -> None:
        """Record its exit status, and deliver its output."""
        _, code, _, out, err, said = end
        if said:
            err = err + said.encode() + b"\n"
        if self._merged:
            out, err = out + err, b""
        self.returncode = code
        for stream, pipe in zip((out, err), self._pipes, strict=True):
            if pipe is not None:
                pipe.data = stream
        for number, (stream, target) in enumerate(zip((out, err), self._targets, strict=True), 1):
            processes.write_out(stream, target, number)
        if self._waited is not None:
            shown = [None if pipe is None else pipe.data for pipe in self._pipes]
            self._waited.output, self._waited.stderr = shown

    def poll(self) -> int | None:
        """Return its exit status; None if it has not ended within its virtual time so far."""
        if self.returncode is None and self.started:
            try:
                self.wait(0)
            except subprocess.TimeoutExpired:
                self._waited = None
        return self.returncode

    def communicate(self, input: Any = None, timeout: float | None = None) -> tuple[Any, Any]:
        """Pass the input, wait until it has ended, and return its output.

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
        """End it as if by this signal, which it cannot catch."""
        self.launch()
        if self.returncode is None and number:
            processes.ask("kill", self._pid, int(number))

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
    """Return the arguments after the interpreter in a command line.

    Raises:
        FileNotFoundError: It starts another program.
    """
    if isinstance(args, str | bytes | os.PathLike):
        line = os.fsdecode(args)
        if shell and not _SHELL_SIGNS & set(_QUOTED.sub("", line.replace(sys.executable, ""))):
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
    """Read the whole standard input for a process; of a file, from its current position."""
    if given is None or given == subprocess.DEVNULL:
        return b""
    if isinstance(given, int):
        parts = []
        while part := os.read(given, 1 << 16):
            parts.append(part)
        return b"".join(parts)
    found = given.read()
    return found.encode() if isinstance(found, str) else bytes(found)


def _system(command: str) -> int:
    """Run a command, and return its status as `os.wait` would."""
    code = Process(command, shell=True).wait()  # noqa: S604 - there is no shell
    return -code if code < 0 else code << 8


def install() -> None:
    """Install it into the standard library's module."""
    if not hasattr(os, "system"):
        os.system = _system  # type: ignore[assignment]
    subprocess.Popen = Process  # type: ignore[misc,assignment]
    subprocess._USE_POSIX_SPAWN = False  # type: ignore[misc]  # noqa: SLF001
