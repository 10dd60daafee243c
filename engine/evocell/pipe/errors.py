"""Errors of the pipe, and the conversion of exceptions to `{code, message, data}` and back.

The code is the name of the exception's class, and the data are the arguments of its constructor, so that
errors added to `evocell.errors` are supported without a change here.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache
from typing import Any

from attrs import has

from evocell import errors
from evocell.errors import EvocellError
from evocell.pipe.serialization import encode

__all__ = [
    "Busy",
    "ConnectionClosed",
    "InternalError",
    "MethodNotFound",
    "RemoteError",
    "RequestCancelled",
    "Unauthorized",
    "UnsupportedProtocol",
    "error_codes",
    "from_wire",
    "to_wire",
]

_PLAIN = (str, int, float, bool, type(None))
_NEVER_SENT = ("EvocellError", "OutcomeError", "RemoteError")


class RemoteError(EvocellError):
    """The other end answered with an error that has no class here.

    Attributes:
        code: The code that the other end sent.
        data: Its data besides the message.
    """

    def __init__(self, message: str, code: str = "", data: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, code, data)
        self.code = code
        self.data = dict(data or {})


class ConnectionClosed(EvocellError):
    """The connection is over; nothing more will be answered. Sent as a reason of ``closing`` only."""


class MethodNotFound(EvocellError):
    """The requested method does not exist.

    Attributes:
        method: The name.
    """

    def __init__(self, message: str, method: str = "") -> None:
        super().__init__(message, method)
        self.method = method


class RequestCancelled(EvocellError):
    """The request was cancelled by its sender."""

    def __init__(self, message: str = "the request was cancelled") -> None:
        super().__init__(message)


class Busy(EvocellError):
    """Too many requests are unanswered; retry when some have been answered.

    Attributes:
        limit: The limit on unanswered requests, or on the bytes of their messages.
    """

    def __init__(self, message: str, limit: int = 0) -> None:
        super().__init__(message, limit)
        self.limit = limit


class Unauthorized(EvocellError):
    """The token is missing or wrong; the connection is closed."""


class UnsupportedProtocol(EvocellError):
    """The server does not support the requested version; the connection is closed.

    Attributes:
        supported: The supported versions.
    """

    def __init__(self, message: str, supported: list[int] | None = None) -> None:
        super().__init__(message, supported)
        self.supported = list(supported or [])


class InternalError(EvocellError):
    """An internal error of the server; the request failed, the connection stays usable."""


@cache
def error_codes() -> dict[str, type[EvocellError]]:
    """Return every error that the pipe can carry, by its code."""
    found: dict[str, type[EvocellError]] = {}
    for module in (vars(errors), globals()):
        found |= {
            name: value
            for name, value in module.items()
            if isinstance(value, type) and issubclass(value, EvocellError) and name not in _NEVER_SENT
        }
    return dict(sorted(found.items()))


def error_fields(kind: type[EvocellError]) -> tuple[str, ...]:
    """Return the names of an error's fields besides its message."""
    names = tuple(inspect.signature(kind).parameters)
    return tuple(name for name in names if name not in {"message", "details"})


def to_wire(error: EvocellError) -> dict[str, Any]:
    """Return an error in its form on the wire."""
    code = next((kind.__name__ for kind in type(error).__mro__ if kind.__name__ in error_codes()), None)
    if code is None:
        return {"code": "InternalError", "message": str(error), "data": {}}
    data: dict[str, Any] = {}
    for name in error_fields(error_codes()[code]):
        value = getattr(error, name, None)
        if isinstance(value, list | tuple):
            data[name] = [encode(item, None) for item in value if isinstance(item, _PLAIN) or has(type(item))]
        elif isinstance(value, _PLAIN):
            data[name] = value
    return {"code": code, "message": str(error), "data": data}


def from_wire(plain: Mapping[str, Any]) -> EvocellError:
    """Return the exception of an error on the wire; a `RemoteError` if the code is unknown."""
    code, message, data = str(plain.get("code", "")), str(plain.get("message", "")), plain.get("data")
    data = data if isinstance(data, dict) else {}
    kind = error_codes().get(code)
    if kind is None:
        return RemoteError(message, code, data)
    given = {name: data[name] for name in error_fields(kind) if name in data}
    if "message" in inspect.signature(kind).parameters:
        given["message"] = message
    try:
        error = kind(**given)
    except TypeError:
        return RemoteError(message, code, data)
    error.message = message
    return error
