"""Errors of the pipe, and the conversion of exceptions to `{code, message, data}` and back.

The code is the exception's class, and the data are the arguments that its constructor takes, so that an error
added to `evocell.errors` travels without a line here.
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
        data: The data that it sent besides the message.
    """

    def __init__(self, message: str, code: str = "", data: Mapping[str, Any] | None = None) -> None:
        super().__init__(message, code, data)
        self.code = code
        self.data = dict(data or {})


class ConnectionClosed(EvocellError):
    """The connection is over; nothing more will be answered. Sent as a reason of ``closing`` only."""


class MethodNotFound(EvocellError):
    """There is no method of that name.

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
    """Too many requests wait for an answer; send it again when some are answered.

    Attributes:
        limit: How many may wait, or how many bytes they may have come in.
    """

    def __init__(self, message: str, limit: int = 0) -> None:
        super().__init__(message, limit)
        self.limit = limit


class Unauthorized(EvocellError):
    """The token is missing or wrong; the connection is closed."""


class UnsupportedProtocol(EvocellError):
    """The server does not speak the version that was asked for; the connection is closed.

    Attributes:
        supported: The versions that it speaks.
    """

    def __init__(self, message: str, supported: list[int] | None = None) -> None:
        super().__init__(message, supported)
        self.supported = list(supported or [])


class InternalError(EvocellError):
    """The server met a fault of its own; the request is lost, the connection is not."""


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
    """Return the exception that an error stands for; one that is not understood is a `RemoteError`."""
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
