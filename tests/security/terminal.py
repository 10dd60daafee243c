"""Commands on a pseudo-terminal, each in a process of its own.

Most are forked from one process that has imported everything, where a fresh interpreter would spend half a second
on imports; after the fork they run as `python -m evocell` does, to the end of the interpreter.
"""

from __future__ import annotations

import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from importlib import import_module

FIXED = {"PYTHONIOENCODING": "utf-8:surrogateescape"}
SECONDS = 120


def environment(term: str, env: Iterable[tuple[str, str]] = ()) -> dict[str, str]:
    """What a command finds in `os.environ`."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    return {**os.environ, "PYTHONPATH": path, "TERM": term, **FIXED, **dict(env)}


class Forker:
    """A process that forks commands; it ends when its socket is closed."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                env=environment("dumb"),
                pass_fds=[theirs.fileno()],
            )

    def start(self, words: list[str], env: dict[str, str], cwd: str, tty: int, *, before: str = "") -> int:
        """Start a command on a terminal, after a text of Python; its process id. It is reaped over there."""
        order = json.dumps([words, env, cwd, before]).encode()
        socket.send_fds(self._socket, [len(order).to_bytes(4, "big")], [tty])
        self._socket.sendall(order)
        return int.from_bytes(self._socket.recv(4, socket.MSG_WAITALL), "big")

    def close(self) -> None:
        self._socket.close()
        assert self._process.wait(30) == 0


def start_fresh(words: list[str], env: dict[str, str], cwd: str, tty: int) -> int:
    """As `Forker.start`, in a new interpreter."""
    pid = os.fork()
    if pid == 0:
        os.login_tty(tty)
        os.chdir(cwd)
        os.execve(sys.executable, [sys.executable, "-m", "evocell", *words], env)
    return pid


def seen_on(terminal: int, pid: int, *, until: bytes | None, talk: Callable[[], None] | None) -> str:
    """All that reaches a terminal until nobody holds it; at `until`, `talk` and then interrupt the command."""
    seen, over = b"", time.monotonic() + SECONDS
    while time.monotonic() < over:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            part = os.read(terminal, 65536)
        except OSError:
            break
        if not part:
            break
        seen += part
        if until is not None and until in seen:
            until = None
            if talk is not None:
                talk()
            os.kill(pid, signal.SIGINT)
    else:
        os.kill(pid, signal.SIGKILL)
    return seen.decode("utf-8", "surrogateescape")


def _serve(orders: socket.socket) -> None:
    """Fork a process for each order. Returns in the forked ones, and when there will be no more."""
    while True:
        head, ttys, _, _ = socket.recv_fds(orders, 4, 1)
        if not head:
            return
        words, env, cwd, before = json.loads(orders.recv(int.from_bytes(head, "big"), socket.MSG_WAITALL))
        pid = os.fork()
        if pid == 0:
            orders.close()
            _become(words, env, cwd, ttys[0])
            exec(before, {})
            runpy.run_module("evocell", run_name="__main__", alter_sys=True)
            return
        os.close(ttys[0])
        orders.sendall(pid.to_bytes(4, "big"))
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _become(words: list[str], env: dict[str, str], cwd: str, tty: int) -> None:
    """Be as a process whose interpreter has just started on a terminal."""
    os.login_tty(tty)
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    encoding, errors = FIXED["PYTHONIOENCODING"].split(":")
    sys.stdin = open(0, encoding=encoding, errors=errors, closefd=False)  # noqa: SIM115
    sys.stdout = open(1, "w", 1, encoding, errors, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", 1, encoding, "backslashreplace", closefd=False)  # noqa: SIM115
    sys.__stdin__, sys.__stdout__, sys.__stderr__ = sys.stdin, sys.stdout, sys.stderr
    sys.argv = ["evocell", *words]


def _import_all() -> None:
    """What the commands import, late or early."""
    for name in ("evocell", "evocell_runtime", "rich"):
        package = import_module(name)
        for module in pkgutil.walk_packages(package.__path__, f"{name}."):
            if not {"integrations", "__main__", "_windows", "_win32_console"} & set(module.name.split(".")):
                with suppress(ImportError):
                    import_module(module.name)


if __name__ == "__main__":
    sys.path.pop(0)  # this directory
    _import_all()
    _serve(socket.socket(fileno=int(sys.argv[1])))
