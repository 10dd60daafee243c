"""Messages of the handshake, and parameters of the pipe's own requests."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from attrs import Attribute, asdict, field, frozen

from evocell.errors import ConfigurationError
from evocell.pipe.codec import TypeOptions
from evocell.pipe.limits import PROTOCOL, PipeLimits

__all__ = ["SERVER_METHODS", "Hello", "Subscription", "shown_limits"]

_NAMESPACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}\Z")

SERVER_METHODS = {
    "hello": "Begins the connection; see the handshake.",
    "ping": "Does nothing; the answer says that the server is there.",
    "describe": "Returns the description of the protocol that `evocell serve --describe` prints.",
    "subscribe": "Has events of this session sent as notifications `event`.",
    "unsubscribe": "Has no more events sent.",
    "shutdown": "Ends the session, a detached one too; answered when its sandboxes are gone.",
}
"""Requests other than methods of the engine."""


def _namespace(_: object, __: Attribute[str | None], value: object) -> None:
    if value is not None and not (isinstance(value, str) and _NAMESPACE.match(value)):
        raise ConfigurationError(
            f"namespace must be 1 to 64 letters, digits, '-' and '_', not {value!r}", "namespace"
        )


@frozen(kw_only=True)
class Hello:
    """The client's first message.

    Attributes:
        protocol: The version of the protocol it speaks.
        client: Its name and version, for the server's log.
        token: The server's token, if it requires one.
        types: The forms of tuples, sets and arrays that it reads.
        detach: Whether its session is to outlive the connection.
        attach: Key of a detached session to resume.
        namespace: Name of its durable state, if the server keeps one; exclusive to one client at a time.
    """

    protocol: int = PROTOCOL
    client: str = ""
    token: str | None = field(default=None, repr=False)
    types: TypeOptions = field(factory=TypeOptions)
    detach: bool = False
    attach: str | None = field(default=None, repr=False)
    namespace: str | None = field(default=None, validator=_namespace)


@frozen(kw_only=True)
class Subscription:
    """The parameters of ``subscribe``.

    Attributes:
        prefix: Only events under this name, such as `"sandbox.create"` or `"sandbox"`; empty for all.
        after: Number of the last event the client knows; only later ones are sent. None for new ones only.
    """

    prefix: str = ""
    after: int | None = None


def shown_limits(limits: PipeLimits) -> Mapping[str, Any]:
    """Return the limits that are sent to a client."""
    hidden = {"hello_s", "max_waiting"}
    return {name: value for name, value in asdict(limits).items() if name not in hidden}
