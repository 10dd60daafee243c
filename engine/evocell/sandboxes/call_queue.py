"""The queue of one sandbox's calls, and the policy when it is full."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import trio
from attrs import define, field

from evocell.config import BacklogPolicy
from evocell.errors import CapacityError

__all__ = ["CallQueue"]

_log = logging.getLogger("evocell")


@define(eq=False)
class _Call:
    """A call that is waiting or running.

    Attributes:
        scope: Its cancel scope.
        waits: Whether it counts as waiting in the queue.
        killed_by: The error that it raises, if it was killed.
    """

    scope: trio.CancelScope = field(factory=trio.CancelScope)
    waits: bool = True
    killed_by: CapacityError | None = None


@define(eq=False)
class CallQueue:
    """Tracks a sandbox's calls from arrival to end.

    A call in the session waits for its turn. A call in a fork of its own counts as waiting until it has
    ended: only the worker knows when it begins.

    Attributes:
        sandbox_id: The sandbox.
        limit: Most waiting calls.
        policy: ``"reject"`` refuses a further call; ``"kill"`` also ends all others, and the session.
        verdict: Why calls are currently being killed, in a sentence.
    """

    sandbox_id: str
    limit: int
    policy: BacklogPolicy
    verdict: str | None = None
    _waiting: int = 0

    @property
    def waiting(self) -> int:
        """Number of calls that have not begun."""
        return self._waiting

    _calls: set[_Call] = field(factory=set, repr=False)

    @property
    def is_full(self) -> bool:
        """Whether the queue is full."""
        return self._waiting >= self.limit

    @contextmanager
    def call(self) -> Iterator[Callable[[], None]]:
        """Track a call for the duration of the block; raise if the call is killed.

        Yields:
            A function to call when the call begins.

        Raises:
            CapacityError: It was killed because the queue was full.
        """
        call = _Call()
        self._calls.add(call)
        self._waiting += 1
        try:
            with call.scope:
                yield lambda: self._begin(call)
        finally:
            self._begin(call)
            self._calls.discard(call)
        if call.killed_by is not None and call.scope.cancelled_caught:
            raise CapacityError(*call.killed_by.args)

    def refuse(self) -> CapacityError:
        """Return the error of a call over the limit; by policy, kill all other calls first."""
        error = CapacityError(
            f"sandbox {self.sandbox_id!r} has {self._waiting:,} calls waiting, and {self.limit:,} are "
            "allowed; wait for some to end, or raise default_max_message_queue",
            "calls",
            self.limit,
            self._waiting + 1,
        )
        if self.policy == "kill":
            killed = tuple(self._calls)
            _log.warning(
                "sandbox %s: session killed: %d calls wait, default_max_message_queue is %d",
                self.sandbox_id,
                self._waiting + 1,
                self.limit,
            )
            self.verdict = error.message
            for call in killed:
                call.killed_by = error
                self._begin(call)
                call.scope.cancel()
        return error

    def _begin(self, call: _Call) -> None:
        if call.waits:
            call.waits = False
            self._waiting -= 1
