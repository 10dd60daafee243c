"""Exceptions of evocell.

An individual that fails is data (`evocell.models.outcome.Outcome`); an exception means that
the caller asked for something impossible, or that the engine itself cannot go on.
All derive from `EvocellError`, carry details as attributes, and support pickling: each
constructor passes all its positional arguments to ``super().__init__``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class EvocellError(Exception):
    """Base class of all exceptions that evocell raises on purpose.

    Attributes:
        message: One sentence that states the problem and the remedy.
    """

    def __init__(self, message: str, *details: object) -> None:
        super().__init__(message, *details)
        self.message = message

    def __str__(self) -> str:
        return self.message


class ConfigurationError(EvocellError):
    """A setting, limit, case or source passed by the caller is invalid.

    Attributes:
        key: The offending setting, argument or path; empty if there is no single one.
    """

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message, key)
        self.key = key


class SandboxNotFound(EvocellError):
    """No sandbox of this engine has the given id.

    Attributes:
        sandbox_id: The requested id.
        hint: An optional sentence to add, such as a similar id that exists.
    """

    def __init__(self, sandbox_id: str, hint: str = "") -> None:
        Exception.__init__(self, sandbox_id, hint)
        self.sandbox_id = sandbox_id
        self.hint = hint
        text = f"no sandbox has the id {sandbox_id!r}; it was never created or is destroyed"
        self.message = f"{text}; {hint}" if hint else text


class SandboxExists(EvocellError):
    """A sandbox with the given id exists already; ids are unique within an engine.

    Attributes:
        sandbox_id: The id in use.
        hint: An optional sentence to add.
    """

    def __init__(self, sandbox_id: str, hint: str = "") -> None:
        Exception.__init__(self, sandbox_id, hint)
        self.sandbox_id = sandbox_id
        self.hint = hint
        text = f"a sandbox with the id {sandbox_id!r} exists already; destroy it first or choose another id"
        self.message = f"{text}; {hint}" if hint else text


class SandboxBusy(EvocellError):
    """A sandbox cannot be copied, frozen or exported in its current state.

    Attributes:
        sandbox_id: The sandbox.
        reason: The cause, in a phrase.
    """

    def __init__(self, sandbox_id: str, reason: str) -> None:
        Exception.__init__(self, sandbox_id, reason)
        self.sandbox_id = sandbox_id
        self.reason = reason
        self.message = f"sandbox {sandbox_id!r} cannot be copied now: {reason}"


class CapacityError(EvocellError):
    """The request would exceed a limit on concurrent resources.

    Attributes:
        resource: The exhausted resource, such as ``"sandboxes"``.
        limit: The bound; None if it is not a single number.
        requested: The number that was requested, including existing ones; None if unknown.
    """

    def __init__(
        self,
        message: str,
        resource: str = "",
        limit: int | None = None,
        requested: int | None = None,
    ) -> None:
        super().__init__(message, resource, limit, requested)
        self.resource = resource
        self.limit = limit
        self.requested = requested


class WorkerDied(EvocellError):
    """Worker processes died repeatedly during work that is not a call into a sandbox.

    A call whose worker dies gives an outcome, `WorkerLost`, not an exception.
    """


class ClusterLost(EvocellError):
    """The engine's cluster cannot be reached, or has no node that can take work.

    Finished results are in the store. The engine continues by itself when the cluster is back.
    """


class ImageError(EvocellError):
    """The image that sandboxes fork from is missing, damaged, or cannot be built.

    Attributes:
        path: The file or directory concerned; empty if none is.
    """

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message, path)
        self.path = path


class ProtocolError(EvocellError):
    """A peer or a guest sent bytes that are not a valid message or are over a limit."""


class StoreError(EvocellError):
    """The durable store cannot be read or written.

    Attributes:
        path: The file or directory concerned; empty if none is.
        results: Results that the failed evaluation had so far, in input order, with None for individuals not
            evaluated; empty if there are none, or the failure is not of an evaluation.
    """

    def __init__(self, message: str, path: str = "", results: Sequence[Any] = ()) -> None:
        kept = tuple(results)
        super().__init__(message, path, kept)
        self.path = path
        self.results = kept

    def with_results(self, results: Sequence[Any]) -> StoreError:
        """Return the same error with an evaluation's results attached, if it has any."""
        found = results if any(one is not None for one in results) else ()
        return StoreError(self.message, self.path, found)


class ScoringError(EvocellError):
    """The caller's scoring function failed for every result of a batch, so it is itself broken.

    Attributes:
        failures: The distinct exceptions of the scoring function, one sentence each.
    """

    def __init__(self, message: str, failures: Sequence[str] = ()) -> None:
        kept = tuple(failures)
        super().__init__(message, kept)
        self.failures = kept


class EngineClosed(EvocellError):
    """The engine is closed and accepts no more calls."""

    def __init__(self, message: str = "the engine is closed; create a new Engine to go on") -> None:
        super().__init__(message)


class EngineForked(EvocellError):
    """The engine is used in a process that inherited it by ``os.fork``, where it cannot work.

    Attributes:
        owner_pid: Process id of the process that created the engine; None if unknown.
    """

    def __init__(
        self,
        message: str = (
            "this engine belongs to the process that created it and does not survive os.fork; "
            "create a new Engine in the child process"
        ),
        owner_pid: int | None = None,
    ) -> None:
        super().__init__(message, owner_pid)
        self.owner_pid = owner_pid


class FailedOutcome(Protocol):
    """Protocol of the part of an outcome that `OutcomeError` reads; see `evocell.models.outcome.Outcome`."""

    @property
    def kind(self) -> str:
        """The failure's kind, such as ``"fuel"``."""

    @property
    def error(self) -> str | None:
        """One sentence that describes the failure."""


class OutcomeError(EvocellError):
    """`Outcome.unwrap` was called on an outcome that holds no value.

    Attributes:
        outcome: The outcome, complete with captured output and readings.
    """

    def __init__(self, outcome: FailedOutcome) -> None:
        Exception.__init__(self, outcome)
        self.outcome = outcome
        self.message = outcome.error or f"the call ended as {outcome.kind!r}"
