"""Observer of one engine: its telemetry, store, lineage, fitness and audit log, opened together."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import trio
from attrs import frozen

from evocell.errors import StoreError
from evocell.store.audit import AuditLog
from evocell.store.fitness import FitnessRecorder
from evocell.store.inspection import blaming_store
from evocell.store.journal import Journal
from evocell.store.lineage import LineageTracker
from evocell.store.runs import RecoveryReport, is_alive, open_run
from evocell.store.store import Store
from evocell.telemetry.event_log import EventLog
from evocell.telemetry.events import Telemetry
from evocell.telemetry.stream import EventStream

__all__ = ["Observer", "open_observer"]

_LAST_NAME = "SELECT max(CAST(substr(id, 9) AS INTEGER)) FROM sandboxes WHERE id GLOB 'sandbox-[0-9]*'"

_log = logging.getLogger("evocell")


@frozen
class Observer:
    """The recorders of one engine.

    Attributes:
        telemetry: Its events.
        store: Its durable store.
        journal: Writes its run into the store.
        lineage: The lineage of its individuals.
        fitness: The fitness of its individuals.
        events: Its events as a numbered stream.
        audit: Its audit log.
        repairs: What recovery found and repaired in the store at its start.
        durable: Whether results must be on disk before they are returned.
        first_name: The first unused number for a generated name such as ``sandbox-7``.
    """

    telemetry: Telemetry
    store: Store
    journal: Journal
    lineage: LineageTracker
    fitness: FitnessRecorder
    events: EventStream
    audit: AuditLog
    repairs: RecoveryReport
    durable: bool
    first_name: int = 1

    async def settle(self, *, since: int | None = None, alone: bool = False) -> None:
        """Wait until everything recorded is on disk, if the store is durable.

        Args:
            since: As for `Store.flush`.
            alone: As for `Store.flush`.

        Raises:
            StoreError: It could not be written.
        """
        if self.durable:
            await self.store.flush(since=since, alone=alone)


@asynccontextmanager
async def open_observer(
    store: Store,
    telemetry: Telemetry,
    *,
    image_id: str,
    has_version: Callable[[str], bool],
    durable: bool,
    emit_fitness: bool,
    event_log: bool,
    event_log_max_bytes: int,
    event_log_max_files: int,
    audit_entries: int,
) -> AsyncIterator[Observer]:
    """Open the recorders of an engine for a block; the store is first repaired after killed engines.

    Args:
        store: Its store.
        telemetry: Its events.
        image_id: The image its sandboxes are forked from.
        has_version: Returns whether the tree of a version is on disk.
        durable: Whether results must be on disk before they are returned.
        emit_fitness: Whether results become events.
        audit_entries: Number of newest audit entries kept.
        event_log: Whether all events are written to files beside the store.
        event_log_max_bytes: Most bytes of one of these files.
        event_log_max_files: Most of these files, over all runs.

    Raises:
        StoreError: The store cannot be written.
    """
    with blaming_store(store.path):
        run = await trio.to_thread.run_sync(
            partial(open_run, store, image_id=image_id, has_version=has_version)
        )
    for sentence in run.repairs.sentences():
        _log.warning("the store %s: %s", store.path, sentence)
    if run.repairs:
        telemetry.emit("store.repaired", run.repairs.counts())
    store.told = partial(_tell_of_store, telemetry)
    journal = Journal(store, run.number)
    audit = AuditLog(store, run.number, max_entries=audit_entries)
    audit.trim()
    log = _open_log(store, run.number, event_log_max_bytes, event_log_max_files) if event_log else None
    events = EventStream(telemetry, log)
    try:
        yield Observer(
            telemetry=telemetry,
            store=store,
            journal=journal,
            lineage=LineageTracker(journal),
            fitness=FitnessRecorder(journal, telemetry, emit=emit_fitness),
            events=events,
            audit=audit,
            repairs=run.repairs,
            durable=durable,
            first_name=1 + (store.query(_LAST_NAME)[0][0] or 0) if run.number > 1 else 1,
        )
    finally:
        events.close()
        store.told = None
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(run.close)


def _tell_of_store(telemetry: Telemetry, trouble: str, n_waiting: int) -> None:
    if trouble:
        telemetry.emit("store.failed", {"waiting": n_waiting}, {"trouble": trouble})
    else:
        telemetry.emit("store.recovered")


def _open_log(store: Store, run: int, max_bytes: int, max_files: int) -> EventLog:
    directory = store.path.parent / "events"
    try:
        return EventLog(
            directory,
            run,
            max_bytes=max_bytes,
            max_files=max_files,
            is_alive=partial(is_alive, store.path),
        )
    except OSError as error:
        raise StoreError(
            f"the event log in {directory} cannot be written: {error.strerror or error}", str(directory)
        ) from error
