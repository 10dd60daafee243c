"""A run: one request to a guest, as it travels to where guests live, and what is seen of it there.

Both are plain data, so that a run may happen in this process or in another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import trio
from attrs import asdict, field, fields, frozen

from evocell.errors import EvocellError
from evocell.models.info import WorkerInfo, WorkerKill
from evocell.models.limits import Limits
from evocell_runtime.instance import CallResult
from evocell_runtime.membrane import StopReason
from evocell_runtime.untrusted import GuestBytes

__all__ = [
    "CopyRefused",
    "GuestRequest",
    "GuestResult",
    "Host",
    "ImageRefused",
    "SessionCopy",
    "Sessions",
    "fixed_slots",
]


class CopyRefused(EvocellError):
    """What a session holds cannot be copied, frozen, exported or taken over; the message says why."""


class ImageRefused(CopyRefused):
    """What a session holds makes no image: the one made of it does not answer, or not as it should."""


@frozen(kw_only=True)
class GuestRequest:
    """One request to a guest.

    Attributes:
        session: Name of the fork that keeps its state; None for one that is thrown away.
        parts: What the agent is asked, with the code to load: bytes that make up the request one after
            the other. Arguments and code are parts of their own, since other runs have them too.
        parts_again: What it is asked instead when the session has the code already.
        child_parts: The request of a process of the call, up to its arguments; None if it may have none.
        limits: Bounds of the call.
        seed: Seed of everything random.
        image: Id of the image to fork; None for the host's own.
        app: Directory mounted at ``/app``; None for an empty one.
        harness: Directory mounted at ``/harness``; None for an empty one.
        sandbox_id: Whose call it is. It stays in this process.
        passing: Whether its session serves one evaluation and ends with it: it is neither copied nor frozen,
            and if it is lost it can be made again. It stays in this process, too.
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

    @property
    def body(self) -> bytes:
        """What the agent is asked, in one piece."""
        return b"".join(self.parts)

    @property
    def body_again(self) -> bytes | None:
        """What it is asked when the session has the code already, in one piece."""
        return None if self.parts_again is None else b"".join(self.parts_again)

    def to_wire(self, refer: Callable[[bytes], bytes | str]) -> dict[str, Any]:
        """The run as plain data.

        Args:
            refer: Gives for a part its name, if it need not go along, or else the part itself.
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
        """A run from what `to_wire` made of it.

        Args:
            plain: The plain data.
            find: Gives the part that a name stands for.
        """
        app, harness = plain["app"], plain["harness"]
        again, child = plain["parts_again"], plain["child_parts"]
        return cls(
            session=plain["session"],
            parts=_found(plain["parts"], find),
            parts_again=None if again is None else _found(again, find),
            child_parts=None if child is None else _found(child, find),
            limits=Limits(**plain["limits"]),
            seed=int(plain["seed"]),
            image=plain["image"],
            app=None if app is None else Path(app),
            harness=None if harness is None else Path(harness),
        )


@frozen(kw_only=True)
class GuestResult:
    """What was seen of a run. Exactly one of the first five is set.

    Attributes:
        result: What the host saw of the call, if there was one.
        undelivered: Why the request did not reach the guest: ``"memory"`` if it had no room for it,
            ``"ruined"`` if an earlier call had left its heap unusable.
        unforked: Why there was no fork, in a sentence: the engine's trouble, not the variant's.
        no_image: Why the image could not be loaded, in a sentence.
        lost: Why nothing is known, in a sentence: the process that ran it is gone.
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
        """The guest's answer, if it returned with one in its time."""
        result = self.result
        return None if result is None or self.timed_out or not result.returned else result.response

    def to_wire(self) -> dict[str, Any]:
        """The result as plain data."""
        plain = {name: getattr(self, name) for name in _GUEST_RESULT}
        if self.result is not None:
            seen = plain["result"] = {name: getattr(self.result, name) for name in _RESULT}
            for name in _GUEST_BYTES:
                if isinstance(data := seen[name], GuestBytes):
                    seen[name] = data.unchecked()
            seen["stop_reason"] = int(self.result.stop_reason)
            seen["fuel_used"] = str(self.result.fuel_used)
        return plain

    @classmethod
    def from_wire(cls, plain: Mapping[str, Any]) -> GuestResult:
        """A result from what `to_wire` made of it."""
        seen = plain["result"]
        result = None
        if seen is not None:
            reason, fuel = StopReason(seen["stop_reason"]), int(seen["fuel_used"])
            data = {name: _guest_bytes(seen[name]) for name in _GUEST_BYTES}
            result = CallResult(**{**seen, **data, "stop_reason": reason, "fuel_used": fuel})
        return cls(**{**plain, "result": result})


_GUEST_RESULT = tuple(field.name for field in fields(GuestResult))
_RESULT = tuple(field.name for field in fields(CallResult))
_GUEST_BYTES = ("response", "stdout", "stderr")


def _guest_bytes(data: bytes | None) -> GuestBytes | None:
    return None if data is None else GuestBytes(data)


@lru_cache(maxsize=64)
def _plain_limits(limits: Limits) -> dict[str, Any]:
    """Limits as plain data; most runs have those of the run before. Not to be changed."""
    return asdict(limits)


def _found(parts: Sequence[bytes | str], find: Callable[[str], bytes]) -> tuple[bytes, ...]:
    return tuple(find(part) if isinstance(part, str) else part for part in parts)


async def fixed_slots(slots: int, seen: int) -> int:
    """What `Host.wait_slots` does where the number never changes."""
    if slots == seen:
        await trio.sleep_forever()
    return slots


@frozen(kw_only=True)
class SessionCopy:
    """What a session held, as plain data that may come from anywhere.

    Attributes:
        guest: The guest, put aside; see `evocell_runtime.hibernation.Hibernated.to_plain`.
        scratch: Its scratch files, encoded.
    """

    guest: Mapping[str, Any] = field(repr=False)
    scratch: bytes = field(repr=False)

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> SessionCopy:
        """The copy in what `Sessions.export_session` returned."""
        return cls(guest=state["guest"], scratch=state["scratch"])

    def state(self, *, image: str | None, app: Path, limits: Limits) -> dict[str, Any]:
        """What `Sessions.import_session` takes.

        Args:
            image: Id of the image it was forked from, here; None for the engine's own.
            app: Directory of the code it has loaded.
            limits: Bounds that hold for its whole life.
        """
        plain = {"guest": dict(self.guest), "scratch": self.scratch}
        return {**plain, "image": image, "app": str(app), "limits": asdict(limits)}


class Sessions(Protocol):
    """The forks that keep their state from call to call, by name."""

    async def end_session(self, session: str) -> None:
        """Drop a session and its fork, after the call in it if there is one; idempotent."""
        ...

    async def fork_session(self, session: str, new: str) -> bool:
        """Copy what a session holds into a new one, in the same process.

        Returns:
            Whether there was anything to copy.

        Raises:
            CopyRefused: It cannot be copied.
            EngineClosed: The host is closed.

        Cancellation: There may be a copy: end it.
        """
        ...

    async def export_session(self, session: str) -> dict[str, Any] | None:
        """Take down what a session holds, which stays as it is.

        Returns:
            Plain data for `import_session`; None if there is no such session.

        Raises:
            CopyRefused: It cannot be copied.
        """
        ...

    async def import_session(self, session: str, state: Mapping[str, Any]) -> None:
        """Begin a session with what one elsewhere held.

        Args:
            session: Its name.
            state: What `export_session` returned there, which is untrusted, and beside it ``"image"``,
                ``"app"`` and ``"limits"`` as they are here.

        Raises:
            CopyRefused: It cannot be had here; the message says why.
        """
        ...

    def session_home(self, session: str) -> str | None:
        """Name of the process that holds a session; None if none does."""
        ...

    async def wait_session_losses(self, seen: int) -> int:
        """Wait until sessions have been lost, with the process that held them, more than `seen` times.

        Returns:
            How often that has happened by now; to be passed as `seen` the next time.
        """
        ...


class Host(Sessions, Protocol):
    """The place of guests: this process or others. Every method may be used from many trio tasks at once."""

    on_kill: Callable[[WorkerKill], None] | None
    """See `Worker`."""

    @property
    def slots(self) -> int:
        """How many runs it can usefully have under way; more of them wait inside."""
        ...

    async def wait_slots(self, seen: int) -> int:
        """Wait until `slots` is another number than `seen`, and return it; never, where it cannot change."""
        ...

    async def run(self, request: GuestRequest) -> GuestResult:
        """Run one request to its end or to a limit.

        Raises:
            EngineClosed: The host is closed.

        Cancellation: The fork is discarded. A session it ran in is gone with its state.
        """
        ...

    async def freeze_session(
        self, request: GuestRequest, *, name: str, replace: bool, version: str | None
    ) -> str:
        """Seal what a session holds as an image; the session stays as it is.

        Args:
            request: The session, and the request that prepares a copy of it for the freeze. Without a
                session a fresh fork is frozen.
            name: What the image will go by.
            replace: Whether the name may be taken from another image.
            version: Digest of the code that is loaded in it.

        Returns:
            The image's id.

        Raises:
            CopyRefused: It cannot be copied, or the copy cannot be prepared.
            EngineClosed: The host is closed.

        Cancellation: There may be an image, complete and with its name, or none.
        """
        ...

    async def export_image(self, image: str | None, path: Path) -> str:
        """Write an image to a file; see `evocell.guests.image_files`."""
        ...

    async def import_image(self, path: Path, *, name: str | None, replace: bool) -> str:
        """Make an image from a file; see `evocell.guests.image_files`."""
        ...

    def workers(self) -> list[WorkerInfo]:
        """What is seen of each process, or of this one."""
        ...

    async def drain(self, name: str) -> None:
        """Replace a process by another; its runs come to their end, and its sessions move.

        Raises:
            ConfigurationError: There is no such process, or it is this one.
        """
        ...

    async def aclose(self) -> None:
        """Kill every run and drop every fork; idempotent."""
        ...
