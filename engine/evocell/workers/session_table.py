"""Where each session lives, which of them are on their way elsewhere, and how often some were lost."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import trio

from evocell.workers.worker_process import WorkerProcess

__all__ = ["SessionTable"]


class SessionTable:
    """Sessions by name, with the worker each lives in."""

    def __init__(self) -> None:
        self._homes: dict[str, WorkerProcess] = {}
        self._counts: Counter[WorkerProcess] = Counter()
        self._moving: dict[str, trio.Event] = {}
        self._losses = 0
        self._loss = trio.Event()

    def __contains__(self, session: str) -> bool:
        return session in self._homes

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._homes))

    def __len__(self) -> int:
        return len(self._homes)

    def get(self, session: str) -> WorkerProcess | None:
        """Where a session lives; None if nowhere."""
        return self._homes.get(session)

    def settle(self, session: str, process: WorkerProcess) -> None:
        """Note that a session lives there from now on."""
        self.forget(session)
        self._homes[session] = process
        self._counts[process] += 1

    def forget(self, session: str) -> WorkerProcess | None:
        """Note that a session is no more; returns where it lived."""
        process = self._homes.pop(session, None)
        if process is not None:
            self._counts[process] -= 1
            if not self._counts[process]:
                del self._counts[process]
        return process

    def count(self, process: WorkerProcess) -> int:
        """How many sessions live there."""
        return self._counts[process]

    def of(self, process: WorkerProcess) -> list[str]:
        """The sessions that live there."""
        return [session for session, home in self._homes.items() if home is process]

    def lose(self, sessions: Iterable[str]) -> None:
        """Note that sessions are gone with their state, and tell whoever waits to know."""
        lost = [session for session in sessions if self.forget(session) is not None]
        if lost:
            self._losses += 1
            self._loss.set()
            self._loss = trio.Event()

    async def wait_losses(self, seen: int) -> int:
        """Wait until sessions have been lost more than `seen` times; returns how often by now."""
        while self._losses <= seen:
            await self._loss.wait()
        return self._losses

    @contextmanager
    def moving(self, session: str) -> Iterator[None]:
        """Have whoever wants to use a session wait until it has arrived elsewhere, or is lost."""
        arrived = self._moving[session] = trio.Event()
        try:
            yield
        finally:
            del self._moving[session]
            arrived.set()

    async def wait_arrived(self, session: str) -> None:
        """Wait until a session is not on its way."""
        while (arrived := self._moving.get(session)) is not None:
            await arrived.wait()
