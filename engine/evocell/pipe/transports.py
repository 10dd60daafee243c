"""Transports of the server: standard input and output, a Unix socket, or loopback TCP with a token."""

from __future__ import annotations

import errno
import logging
import os
import secrets
import socket
import stat
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import trio

from evocell.errors import ConfigurationError
from evocell.pipe.server import PipeServer
from evocell.wire.frames import Framing

__all__ = [
    "listen_tcp",
    "listen_unix",
    "read_token",
    "serve_clients",
    "shown_address",
    "stdio_streams",
    "watch_parent",
]

LOOPBACK = ("127.0.0.1", "::1", "localhost")
_TOKEN_BYTES = 32
_MIN_TOKEN_CHARS = 16
_UCRED = struct.Struct("3i")
_BACKLOG = 64

_log = logging.getLogger("evocell")


@asynccontextmanager
async def stdio_streams() -> AsyncIterator[tuple[trio.abc.ReceiveStream, trio.abc.SendStream]]:
    """Use standard input and output for frames, redirecting other output to standard error.

    Raises:
        ConfigurationError: One of them is a terminal.
    """
    if os.isatty(0) or os.isatty(1):
        raise ConfigurationError(
            "standard input and output carry MessagePack-RPC, so they must be pipes of another program; "
            "see docs/pipe.md, or use --unix or --tcp"
        )
    source, sink = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)
    os.close(null)
    async with trio.lowlevel.FdStream(source) as receive, trio.lowlevel.FdStream(sink) as send:
        yield receive, send


async def watch_parent(gone: Callable[[], None]) -> None:
    """Call `gone` when the parent process has died; other processes may hold its pipes open."""
    descriptor = os.pidfd_open(os.getppid())
    try:
        await trio.lowlevel.wait_readable(descriptor)
    finally:
        os.close(descriptor)
    gone()


@asynccontextmanager
async def listen_unix(path: Path) -> AsyncIterator[list[trio.SocketListener]]:
    """Listen on a Unix socket that only this user can connect to; it is removed at the end of the block.

    Raises:
        ConfigurationError: The path is in use or unusable.
    """
    with _usable(path):
        await _remove_stale(path)
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        with _usable(path):
            before = os.umask(0o177)
            try:
                await listening.bind(str(path))
            finally:
                os.umask(before)
            listening.listen(_BACKLOG)
        inode = path.stat().st_ino
        try:
            yield [trio.SocketListener(listening)]
        finally:
            listening.close()
            with suppress(OSError):
                if path.stat().st_ino == inode:
                    path.unlink()


@asynccontextmanager
async def listen_tcp(address: str) -> AsyncIterator[list[trio.SocketListener]]:
    """Listen on a loopback port.

    Args:
        address: ``PORT`` or ``HOST:PORT``; port 0 takes a free one.

    Raises:
        ConfigurationError: The address is invalid, not a loopback address, or in use.
    """
    host, _, port = address.rpartition(":")
    host = host.strip("[]") or LOOPBACK[0]
    if host not in LOOPBACK:
        raise ConfigurationError(
            f"--tcp listens on loopback addresses only ({', '.join(LOOPBACK)}), not {host!r}; for another "
            "machine forward the port, with ssh -L for one",
            "tcp",
        )
    if not port.isascii() or not port.isdigit() or int(port) > 65535:  # noqa: PLR2004 - ports have 16 bits
        raise ConfigurationError(f"--tcp takes PORT or HOST:PORT, not {address!r}", "tcp")
    try:
        listeners = await trio.open_tcp_listeners(int(port), host=host, backlog=_BACKLOG)
    except OSError as error:
        raise ConfigurationError(f"cannot listen on {address}: {error.strerror or error}", "tcp") from error
    try:
        yield listeners
    finally:
        for listener in listeners:
            await trio.aclose_forcefully(listener)


async def serve_clients(
    server: PipeServer,
    listeners: list[trio.SocketListener],
    *,
    framing: Framing = "stream",
    token: str | None = None,
) -> None:
    """Serve all clients that connect, until cancelled.

    Args:
        server: The server.
        listeners: The listeners. On a Unix socket only this user and root are accepted.
        framing: How messages follow one another.
        token: The required token; None on a Unix socket.
    """

    async def serve_one(stream: trio.SocketStream) -> None:
        async with stream:
            if not _is_ours(stream.socket):
                _log.warning("refused a connection of another user")
                return
            await server.serve(stream, stream, framing=framing, token=token)

    await trio.serve_listeners(serve_one, listeners)


def read_token(path: Path) -> str:
    """Return the token in a file; a missing file is created with a new token.

    Raises:
        ConfigurationError: The file cannot be used, or others can read it.
    """
    with _usable(path):
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            pass
        else:
            with os.fdopen(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(_TOKEN_BYTES) + "\n")
        status = path.stat()
        token = path.read_text(encoding="utf-8").strip()
    if status.st_uid != os.geteuid() or status.st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigurationError(
            f"others can read {path}, so its token is none; run: chmod 600 {path}", "token"
        )
    if len(token) < _MIN_TOKEN_CHARS:
        raise ConfigurationError(
            f"{path} must hold a token of at least {_MIN_TOKEN_CHARS} characters; remove it for a new one",
            "token",
        )
    return token


class _usable:  # noqa: N801 - reads as a word
    """Converts an `OSError` about a path into a `ConfigurationError`."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if isinstance(error, OSError | UnicodeDecodeError):
            why = getattr(error, "strerror", None) or str(error)
            raise ConfigurationError(f"{self._path} cannot be used: {why}", str(self._path)) from error


async def _remove_stale(path: Path) -> None:
    """Remove the socket of a killed server."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(status.st_mode):
        raise ConfigurationError(f"{path} is there already and is no socket; choose another path", str(path))
    with trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            await probe.connect(str(path))
        except OSError as error:
            if error.errno != errno.ECONNREFUSED:
                raise
        else:
            raise ConfigurationError(f"another server listens on {path}; choose another path", str(path))
    path.unlink()


def _is_ours(connected: trio.socket.SocketType) -> bool:
    """Return whether the peer of a Unix socket is this user or root; TCP uses a token instead."""
    if connected.family != socket.AF_UNIX:
        return True
    raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    _, uid, _ = _UCRED.unpack(raw)
    return uid in {0, os.geteuid()}


def shown_address(listeners: list[trio.SocketListener]) -> str:
    """Return the listeners' address, in readable and in machine-readable form."""
    name = listeners[0].socket.getsockname()
    return str(name) if isinstance(name, str) else f"{name[0]}:{name[1]}"
