"""Record of one sandbox in the engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import trio
from attrs import Attribute, define, evolve, field

from evocell.code.compiler import CompiledVersion
from evocell.concurrency import Deadline
from evocell.errors import SandboxNotFound
from evocell.models.info import ImageInfo
from evocell.models.limits import Limits
from evocell.models.outcome import Outcome, Rejected
from evocell.models.security import SecurityProfile
from evocell.models.state import SandboxState, SandboxStatus
from evocell.sandboxes.call_queue import CallQueue
from evocell.sandboxes.package_images import OWN, ChosenImage, PackageImages

__all__ = ["KEPT_TRANSITIONS", "SandboxRecord", "Usage"]

KEPT_TRANSITIONS = 100
"""Most transitions that a sandbox records; the oldest are dropped first."""


def _tell(record: Any, _: Attribute[SandboxState], state: SandboxState) -> SandboxState:
    if record.changed is not None:
        record.changed(record.number, state)
    return state


@define(eq=False)
class Usage:
    """Resource usage of a sandbox's calls so far.

    Attributes:
        calls: Number of calls.
        fuel_used: Total fuel.
        run_s: Total run time in seconds.
        peak_memory_bytes: Peak memory of a call above the image.
    """

    calls: int = 0
    fuel_used: int = 0
    run_s: float = 0.0
    peak_memory_bytes: int = 0

    def add(self, outcome: Outcome) -> None:
        """Add the usage of a call."""
        self.calls += 1
        self.fuel_used += outcome.fuel_used
        self.run_s += outcome.wall_s
        self.peak_memory_bytes = max(self.peak_memory_bytes, outcome.peak_memory_bytes)


@define(eq=False)
class SandboxRecord:
    """The record of one sandbox: its state, its code, and its users.

    It owns no resource outside this process's memory unless `session_opened` is set.

    Attributes:
        state: The public state.
        limits: Limits of a call without its own.
        image: The image its forks start from; None for the engine's own, or the one that its code asks for.
        images: Has the images that code asks for.
        session_image: The image that its session was forked from; None if it has had none.
        session: Name of its session in the worker; never reused.
        backlog: The queue of its calls.
        code: Its code; None if it has none, or it was rejected.
        rejected: Why the code was rejected; None if it was not.
        session_opened: Whether the worker may hold the session, so that the engine must end it there.
        session_live: Whether the worker holds a fork with this sandbox's state.
        lock: Held while the sandbox is created, reloaded or destroyed, or a call runs in its session.
        loaded: Set after the first load, successful or not.
        stopping: Whether it is being destroyed; no operation may start any more.
        number: Its number in lineage and store.
        usage: Resource usage of its calls.
        changed: Called with its number and new state after each change.
    """

    state: SandboxState = field(on_setattr=_tell)
    limits: Limits
    session: str
    backlog: CallQueue
    images: PackageImages
    image: ImageInfo | None = None
    session_image: ChosenImage | None = None
    code: CompiledVersion | None = None
    rejected: Rejected | None = None
    session_opened: bool = False
    session_live: bool = False
    lock: trio.Lock = field(factory=trio.Lock)
    loaded: trio.Event = field(factory=trio.Event)
    stopping: bool = False
    number: int = 0
    usage: Usage = field(factory=Usage)
    changed: Callable[[int, SandboxState], None] | None = None
    _scopes: set[trio.CancelScope] = field(factory=set, repr=False)

    @property
    def image_id(self) -> str | None:
        """Id of the image that was asked for; None for the engine's own, or if none was."""
        return None if self.image is None else self.image.id

    @property
    def asked_image(self) -> ChosenImage | None:
        """The image that was asked for; None if its code decides."""
        asked = self.state.config.image
        if self.image is not None:
            return ChosenImage(self.image.id, asked or self.image.id)
        return None if asked is None else OWN

    @property
    def image_name(self) -> str:
        """What the image is called that calls of its code start from."""
        asked = self.asked_image
        return self.images.name(self.code) if asked is None else asked.name

    async def choose_image(self, deadline: Deadline | None = None) -> ChosenImage:
        """Return the image that a fresh fork of its code starts from, built if need be.

        Args:
            deadline: What stands still meanwhile.

        Raises:
            ImageError: It cannot be built.
        """
        meanwhile = nullcontext if deadline is None else deadline.stopped
        return self.asked_image or await self.images.choose(self.code, meanwhile=meanwhile)

    async def choose_session_image(self, deadline: Deadline | None = None) -> ChosenImage:
        """Return the image that its session was forked from; without a session, the one for a new session."""
        if self.session_image is None or not self.session_live:
            self.session_image = await self.choose_image(deadline)
        return self.session_image

    @property
    def id(self) -> str:
        """The sandbox's id."""
        return self.state.id

    @property
    def security_profile(self) -> SecurityProfile | None:
        """Its own security profile; None for the engine's."""
        return self.state.config.security_profile

    @property
    def is_idle(self) -> bool:
        """Whether it is neither in use nor being destroyed."""
        return not (self.stopping or self._scopes or self.lock.locked()) and self.loaded.is_set()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Use the sandbox for the duration of a block; cancel the block if the sandbox is destroyed.

        Raises:
            SandboxNotFound: It was destroyed meanwhile; the block was cancelled.
        """
        if self.stopping:
            raise SandboxNotFound(self.id)
        with trio.CancelScope() as scope:
            self._scopes.add(scope)
            try:
                yield
            finally:
                self._scopes.discard(scope)
        if scope.cancelled_caught:
            raise SandboxNotFound(self.id, "it was destroyed during this call")

    def stop(self) -> None:
        """Enter the final state and cancel all users of the sandbox."""
        self.stopping = True
        self.move(SandboxStatus.STOPPED, "destroyed")
        for scope in tuple(self._scopes):
            scope.cancel()
        self.loaded.set()  # nothing left to wait for

    def move(self, status: SandboxStatus, reason: str = "", **changes: object) -> None:
        """Change the status or other fields of the state."""
        state = self.state.moved_to(status, reason, **changes)
        if len(state.transitions) > KEPT_TRANSITIONS:
            state = evolve(state, transitions=state.transitions[-KEPT_TRANSITIONS:])
        self.state = state

    def refuse_stopped(self) -> None:
        """Raise `SandboxNotFound` if the sandbox is being destroyed.

        Call it before a change that follows shielded work.
        """
        if self.stopping:
            raise SandboxNotFound(self.id, "it was destroyed during this call")

    def note_session(self, *, live: bool) -> None:
        """Record whether the worker holds a fork with this sandbox's state."""
        self.session_live = live
        if live:
            self.session_opened = True

    def note_restart(self, reason: str) -> None:
        """Record that the session was lost and the next call starts from a fresh fork.

        Args:
            reason: How it was lost, in a sentence.
        """
        self.note_session(live=False)
        if self.stopping:
            return
        self.move(SandboxStatus.ERROR, reason)
        self.move(
            SandboxStatus.RUNNING,
            "replaced by a fresh fork",
            restart_count=self.state.restart_count + 1,
        )
