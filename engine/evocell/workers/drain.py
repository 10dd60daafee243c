"""Sessions that go over from a worker to its successor, one by one, while both are in use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext, suppress

import trio

from evocell.execution.rpc import ConnectionLost, RequestFailed
from evocell.workers.session_table import SessionTable
from evocell.workers.worker_process import WorkerProcess

__all__ = ["migrate_sessions"]

_MOVES_AT_ONCE = 4


async def migrate_sessions(
    old: WorkerProcess, new: WorkerProcess, table: SessionTable, free: Callable[[], Sequence[WorkerProcess]]
) -> None:
    """Move the sessions of a worker to its successor, those at rest first, and have it end.

    Args:
        old: The worker; it is given no further sessions.
        new: Its successor.
        table: Where sessions live.
        free: The workers that take sessions at this moment, should the successor be gone.
    """
    old.leaving = True
    room = trio.CapacityLimiter(_MOVES_AT_ONCE)

    async def move(session: str, limit: AbstractAsyncContextManager[object]) -> None:
        async with limit:
            if table.get(session) is old:  # else it has ended
                with table.moving(session):
                    await _move(session, old, new, table, free)

    async with trio.open_nursery() as nursery:
        for session in table.of(old):
            # One in use waits for the end of its run, and is not to keep the others waiting.
            nursery.start_soon(move, session, nullcontext() if session in old.under_way else room)
    old.drain()


async def _move(
    session: str,
    old: WorkerProcess,
    new: WorkerProcess,
    table: SessionTable,
    free: Callable[[], Sequence[WorkerProcess]],
) -> None:
    """Move a session, after the run in it; one that cannot move is lost."""
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
