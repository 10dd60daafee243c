"""A run: one request to a guest, as it travels to where guests live, and what is seen of it there.

Both are plain data, so that a run may happen in this process or in another.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from attrs import asdict, field, frozen

from evocell.models.limits import Limits
from evocell_runtime.instance import CallResult
from evocell_runtime.membrane import StopReason

__all__ = ["Host", "Run", "Sighting"]


@frozen(kw_only=True)
class Run:
    """One request to a guest.

    Attributes:
        session: Name of the fork that keeps its state; None for one that is thrown away.
        request: What the agent is asked, with the code to load.
        request_again: What it is asked instead when the session has the code already.
        limits: Bounds of the call.
        seed: Seed of everything random.
        app: Directory mounted at ``/app``; None for an empty one.
        harness: Directory mounted at ``/harness``; None for an empty one.
    """

    session: str | None = None
    request: bytes = field(repr=False)
    request_again: bytes | None = field(default=None, repr=False)
    limits: Limits
    seed: int = 0
    app: Path | None = None
    harness: Path | None = None

    def to_wire(self) -> dict[str, Any]:
        """The run as plain data."""
        plain = asdict(self)
        plain["app"] = None if self.app is None else str(self.app)
        plain["harness"] = None if self.harness is None else str(self.harness)
        plain["seed"] = str(self.seed)
        return plain

    @classmethod
    def from_wire(cls, plain: Mapping[str, Any]) -> Run:
        """A run from what `to_wire` made of it."""
        app, harness = plain["app"], plain["harness"]
        return cls(
            session=plain["session"],
            request=plain["request"],
            request_again=plain["request_again"],
            limits=Limits(**plain["limits"]),
            seed=int(plain["seed"]),
            app=None if app is None else Path(app),
            harness=None if harness is None else Path(harness),
        )


@frozen(kw_only=True)
class Sighting:
    """What was seen of a run. Exactly one of the first four is set.

    Attributes:
        result: What the host saw of the call, if there was one.
        undelivered: Why the request did not reach the guest: ``"memory"`` if it had no room for it,
            ``"ruined"`` if an earlier call had left its heap unusable.
        unforked: Why there was no fork, in a sentence: the engine's trouble, not the variant's.
        lost: Why nothing is known, in a sentence: the process that ran it is gone.
        timed_out: Whether the host killed the call at its deadline.
        session_alive: Whether the session still holds its state.
        loaded: Whether the fork was a fresh one, into which the code was loaded.
    """

    result: CallResult | None = None
    undelivered: str | None = None
    unforked: str | None = None
    lost: str | None = None
    timed_out: bool = False
    session_alive: bool = False
    loaded: bool = True

    def to_wire(self) -> dict[str, Any]:
        """The sighting as plain data."""
        plain = asdict(self)
        if self.result is not None:
            plain["result"]["stop_reason"] = int(self.result.stop_reason)
            plain["result"]["fuel_used"] = str(self.result.fuel_used)
        return plain

    @classmethod
    def from_wire(cls, plain: Mapping[str, Any]) -> Sighting:
        """A sighting from what `to_wire` made of it."""
        seen = plain["result"]
        result = None
        if seen is not None:
            reason, fuel = StopReason(seen["stop_reason"]), int(seen["fuel_used"])
            result = CallResult(**{**seen, "stop_reason": reason, "fuel_used": fuel})
        return cls(**{**plain, "result": result})


class Host(Protocol):
    """Where guests live. Its methods may be used from many trio tasks at once."""

    @property
    def slots(self) -> int:
        """How many runs it can usefully have under way; more of them wait inside."""
        ...

    async def run(self, run: Run) -> Sighting:
        """Run one request to its end or to a limit.

        Raises:
            EngineClosed: The host is closed.

        Cancellation: The fork is discarded. A session it ran in is gone with its state.
        """
        ...

    async def end_session(self, session: str) -> None:
        """Drop a session and its fork, after the run in it if there is one; idempotent."""
        ...

    async def aclose(self) -> None:
        """Kill every run and drop every fork; idempotent."""
        ...
