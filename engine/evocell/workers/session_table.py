"""Table of sessions by worker, and migration of sessions from a drained worker to its successor."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, contextmanager, nullcontext, suppress

import trio

from evocell.execution.rpc import ConnectionLost, RequestFailed
from evocell.workers.worker_process import WorkerProcess

__all__ = ["SessionTable", "migrate_sessions"]

_MOVES_AT_ONCE = 4


class SessionTable:
    """Maps the name of each session to the worker that holds it."""

    def __init__(self) -> None:
        self._homes: dict[str, WorkerProcess] = {}
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
        """Return the worker that holds a session; None if none does."""
        return self._homes.get(session)

    def settle(self, session: str, process: WorkerProcess) -> None:
        """Record that a worker holds a session from now on."""
        self.forget(session)
        self._homes[session] = process
        process.n_sessions += 1

    def forget(self, session: str) -> WorkerProcess | None:
        """Remove a session; returns the worker that held it."""
        process = self._homes.pop(session, None)
        if process is not None:
            process.n_sessions -= 1
        return process

    def of(self, process: WorkerProcess) -> list[str]:
        """Return the sessions on a worker."""
        return [session for session, home in self._homes.items() if home is process]

    def lose(self, sessions: Iterable[str]) -> None:
        """Record that sessions were lost with their state, and wake the tasks that wait for losses."""
        lost = [session for session in sessions if self.forget(session) is not None]
        if lost:
            self._losses += 1
            self._loss.set()
            self._loss = trio.Event()

    async def wait_losses(self, seen: int) -> int:
        """Wait until the count of losses exceeds `seen`; returns the count."""
        while self._losses <= seen:
            await self._loss.wait()
        return self._losses

    @contextmanager
    def moving(self, session: str) -> Iterator[None]:
        """Block the users of a session until it has moved or is lost."""
        arrived = self._moving[session] = trio.Event()
        try:
            yield
        finally:
            del self._moving[session]
            arrived.set()

    async def wait_arrived(self, session: str) -> None:
        """Wait until a session is not moving."""
        while (arrived := self._moving.get(session)) is not None:
            await arrived.wait()


async def migrate_sessions(
    old: WorkerProcess, new: WorkerProcess, table: SessionTable, free: Callable[[], Sequence[WorkerProcess]]
) -> None:
    """Move the sessions of a worker to its successor, idle ones first, then end the worker.

    Args:
        old: The worker; it gets no further sessions.
        new: Its successor.
        table: The session table.
        free: Returns the workers that accept sessions, used if the successor has died.
    """
    old.leaving = True
    room = trio.CapacityLimiter(_MOVES_AT_ONCE)

    async def move(session: str, limit: AbstractAsyncContextManager[object]) -> None:
        async with limit:
            if table.get(session) is old:  # else the session has ended
                with table.moving(session):
                    await _move(session, old, new, table, free)

    async with trio.open_nursery() as nursery:
        for session in table.of(old):
            # A session in use moves after its current request, without delaying the others.
            nursery.start_soon(move, session, nullcontext() if session in old.under_way else room)
    old.drain()


async def _move(
    session: str,
    old: WorkerProcess,
    new: WorkerProcess,
    table: SessionTable,
    free: Callable[[], Sequence[WorkerProcess]],
) -> None:
    """Move a session after its current request; a session that cannot move is lost."""
    await old.wait_without(session)
    state = None
    with suppress(ConnectionLost, RequestFailed):
        state = await old.request("release_session", {"session": session})
    if state is not None:
        for target in (new, *(process for process in free() if process is not new)):
            with suppress(ConnectionLost, RequestFailed):
                await target.request("adopt_session", {"session": session, "state": state})
                table.settle(session, target)
                if not target.over.is_set():
                    return
    table.lose([session])
