"""Requests to guests and their results, the interface of a host, and sessions as data.

Requests and results are plain data, so that a guest may live in this process or in another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any, Protocol

import trio
from attrs import asdict, field, fields, frozen

from evocell.errors import EvocellError
from evocell.execution.rpc import Posted
from evocell.models.info import WorkerInfo, WorkerKill
from evocell.models.limits import Limits
from evocell_runtime.calls import CallResult
from evocell_runtime.membrane import StopReason
from evocell_runtime.untrusted import GuestBytes

__all__ = [
    "COPYING",
    "EXPORT_IMAGE",
    "EXPORT_SESSION",
    "FORK",
    "FREEZE",
    "IMPORT_IMAGE",
    "IMPORT_SESSION",
    "CopyRefused",
    "GuestRequest",
    "GuestResult",
    "Host",
    "ImageRefused",
    "SessionCopy",
    "Sessions",
    "Successor",
    "fixed_slots",
]

FORK, FREEZE = "fork_session", "freeze_session"
EXPORT_SESSION, IMPORT_SESSION = "export_session", "import_session"
EXPORT_IMAGE, IMPORT_IMAGE = "export_image", "import_image"

COPYING = frozenset({FORK, FREEZE, EXPORT_SESSION, IMPORT_SESSION, EXPORT_IMAGE, IMPORT_IMAGE})
"""Methods of requests about copies of sessions, between an engine and its worker processes."""


class CopyRefused(EvocellError):
    """A session cannot be copied, frozen, exported or imported; the message says why."""


class ImageRefused(CopyRefused):
    """The image frozen from a session does not answer, or not as it should."""


class Successor(Protocol):
    """A call to be made right behind a compilation; see `evocell.execution.follow_ups.FollowUp`."""

    note: Callable[[GuestResult], object]
    """Called with its result."""

    sandbox_id: str
    """The calling sandbox."""

    def to_wire(self, behind: int, refer: Callable[[bytes], bytes | str]) -> bytes:
        """Return it as bytes.

        Args:
            behind: Number of the compilation.
            refer: As for `GuestRequest.to_wire`.
        """
        ...

    def sent_with(self, post: Callable[[], Posted]) -> None:
        """Take note of the process that compiles the code.

        Args:
            post: Sends the call to it.
        """
        ...


@frozen(kw_only=True)
class GuestRequest:
    """One request to a guest.

    Attributes:
        session: Name of the fork that keeps its state; None for one that is thrown away.
        parts: The request to the agent, including the code to load, as bytes to concatenate. Arguments
            and code are parts of their own, since other requests share them.
        parts_again: The request without the code, for a session that has it loaded.
        child_parts: A child process's request, up to its arguments; None if processes are not allowed.
        limits: Bounds of the call.
        seed: Seed of all random sources.
        image: Id of the image to fork; None for the host's own.
        app: Directory mounted at ``/app``; None for an empty one.
        harness: Directory mounted at ``/harness``; None for an empty one.
        sandbox_id: The calling sandbox. Not sent to other processes.
        passing: Whether its session serves one evaluation and ends with it: it is neither copied nor frozen,
            and can be recreated if lost. Not sent to other processes.
        follow_up: A call that may be made right behind this compilation.
        sent: Called once the request is on its way to another process; never, where there is none.
        lost: Why it was lost once already, in a sentence; None if it was not. Not sent to other processes.
    """

    session: str | None = None
    parts: tuple[bytes, ...] = field(repr=False)
    parts_again: tuple[bytes, ...] | None = field(default=None, repr=False)
    child_parts: tuple[bytes, ...] | None = field(default=None, repr=False)
    limits: Limits
    seed: int = 0
    image: str | None = None
    app: Path | None = None
    harness: Path | None = None
    sandbox_id: str = ""
    passing: bool = False
    follow_up: Successor | None = field(default=None, repr=False, eq=False)
    sent: Callable[[], object] = field(default=bool, repr=False, eq=False)
    lost: str | None = None

    @property
    def body(self) -> bytes:
        """The request to the agent, concatenated."""
        return b"".join(self.parts)

    @property
    def body_again(self) -> bytes | None:
        """The request without the code, concatenated."""
        return None if self.parts_again is None else b"".join(self.parts_again)

    def to_wire(self, refer: Callable[[bytes], bytes | str]) -> dict[str, Any]:
        """Return the request as plain data.

        Args:
            refer: Returns the name of a part that need not be sent, or else the part itself.
        """
        again, child = self.parts_again, self.child_parts
        return {
            "session": self.session,
            "parts": [refer(part) for part in self.parts],
            "parts_again": None if again is None else [refer(part) for part in again],
            "child_parts": None if child is None else [refer(part) for part in child],
            "limits": _plain_limits(self.limits),
            "seed": str(self.seed),
            "image": self.image,
            "app": None if self.app is None else str(self.app),
            "harness": None if self.harness is None else str(self.harness),
        }

    @classmethod
    def from_wire(cls, plain: Mapping[str, Any], find: Callable[[str], bytes]) -> GuestRequest:
        """Return the request that `to_wire` made plain data of.

        Args:
            plain: The plain data.
            find: Returns the part with a name.
        """
        app, harness = plain["app"], plain["harness"]
        again, child = plain["parts_again"], plain["child_parts"]
        return cls(
            session=plain["session"],
            parts=_found(plain["parts"], find),
            parts_again=None if again is None else _found(again, find),
            child_parts=None if child is None else _found(child, find),
            limits=_limits(**plain["limits"]),
            seed=int(plain["seed"]),
            image=plain["image"],
            app=None if app is None else Path(app),
            harness=None if harness is None else Path(harness),
        )


@frozen(kw_only=True)
class GuestResult:
    """Result of one guest request, as the host observed it. Exactly one of the first five is set.

    Attributes:
        result: The host's observations of the call, if one was made.
        undelivered: Why the request did not reach the guest: ``"memory"`` if it had no room for it,
            ``"ruined"`` if an earlier call had corrupted its heap.
        unforked: Why there was no fork, in a sentence: a failure of the engine, not of the variant.
        no_image: Why the image could not be loaded, in a sentence.
        lost: Why the result is unknown, in a sentence: the process that ran it died.
        timed_out: Whether the host killed the call at its deadline.
        session_alive: Whether the session still holds its state.
        loaded: Whether the fork was a fresh one, into which the code was loaded.
    """

    result: CallResult | None = None
    undelivered: str | None = None
    unforked: str | None = None
    no_image: str | None = None
    lost: str | None = None
    timed_out: bool = False
    session_alive: bool = False
    loaded: bool = True

    @property
    def answer(self) -> GuestBytes | None:
        """The guest's answer, if it returned one in time."""
        result = self.result
        return None if result is None or self.timed_out or not result.returned else result.response

    def to_wire(self) -> dict[str, Any]:
        """Return the result as plain data."""
        plain = dict(zip(_GUEST_RESULT, _guest_result(self), strict=True))
        if self.result is not None:
            seen = plain["result"] = dict(zip(_RESULT, _call_result(self.result), strict=True))
            for name in _GUEST_BYTES:
                if isinstance(data := seen[name], GuestBytes):
                    seen[name] = data.unchecked()
            seen["stop_reason"] = int(self.result.stop_reason)
            seen["fuel_used"] = str(self.result.fuel_used)
        return plain

    @classmethod
    def from_wire(cls, plain: Mapping[str, Any]) -> GuestResult:
        """Return the result that `to_wire` made plain data of."""
        seen = plain["result"]
        result = None
        if seen is not None:
            reason, fuel = StopReason(seen["stop_reason"]), int(seen["fuel_used"])
            data = {name: _guest_bytes(seen[name]) for name in _GUEST_BYTES}
            result = CallResult(**{**seen, **data, "stop_reason": reason, "fuel_used": fuel})
        return cls(**{**plain, "result": result})


_limits = lru_cache(maxsize=64, typed=True)(Limits)
"""Makes limits; checking them takes as long as some other half of reading a request."""

_GUEST_RESULT = tuple(field.name for field in fields(GuestResult))
_RESULT = tuple(field.name for field in fields(CallResult))
_guest_result, _call_result = attrgetter(*_GUEST_RESULT), attrgetter(*_RESULT)
_GUEST_BYTES = ("response", "stdout", "stderr")


def _guest_bytes(data: bytes | None) -> GuestBytes | None:
    return None if data is None else GuestBytes(data)


@lru_cache(maxsize=64)
def _plain_limits(limits: Limits) -> dict[str, Any]:
    """Return limits as plain data; cached and shared, so do not modify it."""
    return asdict(limits)


def _found(parts: Sequence[bytes | str], find: Callable[[str], bytes]) -> tuple[bytes, ...]:
    return tuple(find(part) if isinstance(part, str) else part for part in parts)


async def fixed_slots(slots: int, seen: int) -> int:
    """Implement `Host.wait_slots` for a constant number of slots."""
    if slots == seen:
        await trio.sleep_forever()
    return slots


@frozen(kw_only=True)
class SessionCopy:
    """State of a session as plain, possibly untrusted, data.

    Attributes:
        guest: The hibernated guest; see `evocell_runtime.hibernation.Hibernated.to_plain`.
        scratch: Its scratch files, encoded.
    """

    guest: Mapping[str, Any] = field(repr=False)
    scratch: bytes = field(repr=False)

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> SessionCopy:
        """Make the copy from the data that `Sessions.export_session` returned."""
        return cls(guest=state["guest"], scratch=state["scratch"])

    def state(self, *, image: str | None, app: Path, limits: Limits) -> dict[str, Any]:
        """Return the state for `Sessions.import_session`.

        Args:
            image: Id of the image it was forked from, here; None for the engine's own.
            app: Directory of the code it has loaded.
            limits: Bounds for its whole life.
        """
        plain = {"guest": dict(self.guest), "scratch": self.scratch}
        return {**plain, "image": image, "app": str(app), "limits": asdict(limits)}


class Sessions(Protocol):
    """Interface to sessions by name: forks that keep their state between calls."""

    async def end_session(self, session: str) -> None:
        """Drop a session and its fork, after its current call if any; idempotent."""
        ...

    async def fork_session(self, session: str, new: str) -> bool:
        """Copy a session into a new one in the same process.

        Returns:
            Whether there was anything to copy.

        Raises:
            CopyRefused: It cannot be copied.
            EngineClosed: The host is closed.

        Cancellation: There may be a copy: end it.
        """
        ...

    async def export_session(self, session: str) -> dict[str, Any] | None:
        """Export a session's state; the session is unchanged.

        Returns:
            Plain data for `import_session`; None if there is no such session.

        Raises:
            CopyRefused: It cannot be copied.
        """
        ...

    async def import_session(self, session: str, state: Mapping[str, Any]) -> None:
        """Create a session from exported state.

        Args:
            session: Its name.
            state: The untrusted data that `export_session` returned, and the local ``"image"``,
                ``"app"`` and ``"limits"``.

        Raises:
            CopyRefused: It cannot be restored here; the message says why.
        """
        ...

    def session_home(self, session: str) -> str | None:
        """Return the name of the process that holds a session; None if none does."""
        ...

    async def wait_session_losses(self, seen: int) -> int:
        """Wait until the count of lost sessions exceeds `seen`; a session is lost with its process.

        Returns:
            The current count, to be passed as `seen` the next time.
        """
        ...


class Host(Sessions, Protocol):
    """Owner of guests: this process or a pool. Every method may be used from many trio tasks at once."""

    on_kill: Callable[[WorkerKill], None] | None
    """Called with each worker that is killed for its memory; None if it is of no interest."""

    @property
    def slots(self) -> int:
        """Number of requests it can usefully have under way; further ones wait inside."""
        ...

    async def wait_slots(self, seen: int) -> int:
        """Wait until `slots` is another number than `seen`, and return it; never, where it cannot change."""
        ...

    async def run(self, request: GuestRequest) -> GuestResult:
        """Run one request to its end or to a limit.

        Raises:
            EngineClosed: The host is closed.

        Cancellation: The fork is discarded. A session it ran in is lost with its state.
        """
        ...

    async def freeze_session(
        self, request: GuestRequest, *, name: str, replace: bool, version: str | None
    ) -> str:
        """Freeze a session into an image; the session is unchanged.

        Args:
            request: The session, and the request that prepares a copy of it for the freeze. Without a
                session a fresh fork is frozen.
            name: Name of the image.
            replace: Whether the name may be taken from another image.
            version: Digest of the code loaded in it.

        Returns:
            The image's id.

        Raises:
            CopyRefused: It cannot be copied, or the copy cannot be prepared.
            EngineClosed: The host is closed.

        Cancellation: The image either exists, complete and named, or does not.
        """
        ...

    async def export_image(self, image: str | None, path: Path) -> str:
        """Write an image to a file; see `evocell.guests.image_files`."""
        ...

    async def import_image(self, path: Path, *, name: str | None, replace: bool) -> str:
        """Make an image from a file; see `evocell.guests.image_files`."""
        ...

    def workers(self) -> list[WorkerInfo]:
        """Return the state of each process, or of this one."""
        ...

    async def drain(self, name: str) -> None:
        """Replace a process by another; its requests finish, and its sessions move.

        Raises:
            ConfigurationError: No such process exists, or it is this one.
        """
        ...

    async def aclose(self) -> None:
        """Kill every request and drop every fork; idempotent."""
        ...
