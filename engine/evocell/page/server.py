"""HTTP server of the live page: on the loopback interface only, protected by a token, read-only.

It extends the standard library's server, and relies only on its request parser. The size of a request, the
number and age of connections, and the accepted hosts and paths are limited here, and no file is served. Each
connection has a thread and carries one request.
"""

from __future__ import annotations

import hmac
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.client import HTTP_PORT
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BufferedIOBase
from typing import Any
from urllib.parse import parse_qsl

from evocell.errors import ConfigurationError, EvocellError

__all__ = ["HOST", "PageServer", "open_server"]

_LOGGER = logging.getLogger("evocell")

HOST = "127.0.0.1"
MAX_CONNECTIONS = 24
"""Most concurrent connections; a browser opens six, and may open one speculatively."""
MAX_AGE_S = 20.0
"""Seconds after which a connection is closed in any case."""
PATIENCE_S = 5.0
"""Timeout of one read from a connection, in seconds."""
MAX_REQUEST_BYTES = 16 << 10
MAX_PARAMETERS = 12

Answers = Mapping[str, Callable[[Mapping[str, str]], str]]
"""For each path a function that returns JSON, given the parameters of the query."""


class PageServer(ThreadingHTTPServer):
    """Serves one page and the requests of its script.

    Args:
        port: The port; 0 for a free one.
        token: The secret first part of every path.
        page: The page, and its content security policy.
        answers: The functions that answer requests, by the second part of the path.

    Raises:
        OSError: The port is not available.
    """

    daemon_threads = False
    block_on_close = True
    allow_reuse_address = True
    request_queue_size = 16

    def __init__(self, port: int, token: str, page: tuple[str, str], answers: Answers) -> None:
        self.token = token.encode()
        self.page, self.policy = page[0].encode(), page[1]
        self.answers = answers
        self._lock = threading.Lock()
        self._open: dict[socket.socket, float] = {}
        super().__init__((HOST, port), _Handler)
        names = (HOST, "localhost")
        self.hosts = {f"{name}:{self.server_port}" for name in names}
        if self.server_port == HTTP_PORT:
            self.hosts.update(names)  # which browsers leave out

    @property
    def address(self) -> str:
        """The address of the page, with its token."""
        return f"http://{HOST}:{self.server_port}/{self.token.decode()}/"

    def verify_request(self, request: Any, client_address: Any) -> bool:  # noqa: ARG002 - as it is called
        """Refuse a connection beyond `MAX_CONNECTIONS`."""
        with self._lock:
            if len(self._open) >= MAX_CONNECTIONS:
                return False
            self._open[request] = time.monotonic()
        return True

    def shutdown_request(self, request: Any) -> None:
        """Close a connection."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Close connections that are too old; called between requests, and twice a second at least."""
        super().service_actions()
        self._hang_up(time.monotonic() - MAX_AGE_S)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Log nothing about clients that disconnected or sent no valid request."""

    def server_bind(self) -> None:
        """Bind without a reverse look-up of the host's name."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = HOST, self.server_address[1]

    def server_close(self) -> None:
        """Close every connection, and wait for their threads."""
        self._hang_up(float("inf"))
        super().server_close()

    def _hang_up(self, before: float) -> None:
        with self._lock:
            old = [connection for connection, since in self._open.items() if since < before]
        for connection in old:
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _TooLong(Exception):
    """A request is longer than `MAX_REQUEST_BYTES`."""


class _Bounded:
    """Reads the lines of a request, of at most `MAX_REQUEST_BYTES` in total."""

    def __init__(self, file: BufferedIOBase) -> None:
        self._file = file
        self._left = MAX_REQUEST_BYTES

    def readline(self, limit: int = -1) -> bytes:
        line = self._file.readline(self._left + 1 if limit < 0 else min(limit, self._left + 1))
        self._left -= len(line)
        if self._left < 0:
            raise _TooLong
        return line

    def close(self) -> None:
        self._file.close()


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: PageServer
    timeout = PATIENCE_S
    server_version = "evocell"
    sys_version = ""

    def setup(self) -> None:
        super().setup()
        self.rfile = _Bounded(self.rfile)  # type: ignore[assignment]  # all that is used of it

    def handle(self) -> None:
        try:
            super().handle()
        except _TooLong:
            self.requestline = self.command = ""
            self._send(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "The request is too long.")
        except OSError:
            self.close_connection = True  # it has gone

    def do_GET(self) -> None:
        """Answer with the page, or with the data that its script requests."""
        if not self._is_ours():
            self._send(
                HTTPStatus.MISDIRECTED_REQUEST,
                f"This server answers to {HOST} and localhost with port {self.server.server_port} only; "
                "a forwarded port must have the same number.",
            )
            return
        path, _, query = self.path.partition("?")
        _, token, *names = path.split("/", 3) if path.startswith("/") else ("", "")
        if not hmac.compare_digest(token.encode("utf-8", "replace"), self.server.token) or len(names) != 1:
            self._send(
                HTTPStatus.NOT_FOUND,
                "There is nothing here; open the address that evocell dashboard printed.",
            )
        elif not names[0]:
            self._send(HTTPStatus.OK, self.server.page, "text/html")
        elif (answer := self.server.answers.get(names[0])) is None:
            self._send(HTTPStatus.NOT_FOUND, "There is nothing of this name.")
        else:
            self._answer(answer, query)

    def _is_ours(self) -> bool:
        """Whether the request has one Host header, and it names this server; prevents DNS rebinding."""
        hosts = self.headers.get_all("Host", [])
        return len(hosts) == 1 and hosts[0] in self.server.hosts

    def _answer(self, answer: Callable[[Mapping[str, str]], str], query: str) -> None:
        try:
            wanted = dict(parse_qsl(query, keep_blank_values=True, max_num_fields=MAX_PARAMETERS))
        except ValueError:
            self._send(HTTPStatus.BAD_REQUEST, "The query has too many parameters.")
            return
        try:
            found = answer(wanted)
        except EvocellError as error:
            self._send(HTTPStatus.BAD_REQUEST, str(error))
            return
        except Exception:
            _LOGGER.exception("the dashboard could not answer")
            self._send(HTTPStatus.INTERNAL_SERVER_ERROR, "The server failed; its terminal says why.")
            return
        self._send(HTTPStatus.OK, found.encode(), "application/json")

    def _send(self, status: HTTPStatus, body: str | bytes, kind: str = "text/plain") -> None:
        content = body if isinstance(body, bytes) else f"{body}\n".encode("utf-8", "replace")
        self.request_version = self.protocol_version  # one of 0.9 would get no headers
        self.send_response(status)
        for name, value in {
            "Content-Type": f"{kind}; charset=utf-8",
            "Content-Length": str(len(content)),
            "Content-Security-Policy": f"{self.server.policy}; frame-ancestors 'none'",
            "Cross-Origin-Opener-Policy": "same-origin",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "Cache-Control": "no-store",
            "Connection": "close",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)
        self.close_connection = True

    def send_error(self, code: int, *_: Any) -> None:
        """Answer requests that the library refuses, without quoting them."""
        self._send(HTTPStatus(code), HTTPStatus(code).phrase)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the library has it
        """Write no log: its lines would hold the token."""


@contextmanager
def open_server(port: int, token: str, page: tuple[str, str], answers: Answers) -> Iterator[PageServer]:
    """Open a listening server; the caller runs ``serve_forever``. It is closed at the end of the block.

    Raises:
        ConfigurationError: The port is in use, or not permitted.
    """
    try:
        server = PageServer(port, token, page, answers)
    except OSError as error:
        raise ConfigurationError(
            f"port {port} of {HOST} cannot be had: {error.strerror or error}; choose another with --port, "
            "or leave it out for a free one",
            "port",
        ) from error
    try:
        yield server
    finally:
        server.server_close()
