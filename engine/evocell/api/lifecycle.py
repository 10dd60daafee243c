"""How an engine begins and ends, and how a request is tied to its life."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager, nullcontext
from functools import partial
from types import TracebackType
from typing import NoReturn, Self

import trio

from evocell.api.batch_progress import BatchBar, BatchLines, Report, is_terminal
from evocell.api.portal import bare
from evocell.api.progress import console_progress
from evocell.code.references import TreeReferences
from evocell.code.snapshots import SnapshotStore
from evocell.config import Config
from evocell.errors import ConfigurationError, EngineClosed, EngineForked, EvocellError, StoreError
from evocell.execution.opening import open_on
from evocell.execution.opening import open_worker as open_configured_worker
from evocell.execution.scratch import OwnedDirectory, sweep
from evocell.execution.worker import OpenWorker, Worker
from evocell.models.completion import Completable
from evocell.observability.database import FILE_NAME, store_errors
from evocell.observability.observer import Observer, open_observer
from evocell.observability.populations import PopulationStore
from evocell.observability.store import Store, open_store
from evocell.observability.telemetry import Telemetry
from evocell.orchestration.batch import Batches
from evocell.orchestration.copies import Copies
from evocell.orchestration.garbage import GARBAGE, GarbageCollector, TreeRemoval
from evocell.orchestration.kills import note_decision
from evocell.orchestration.manager import WATCH, Manager
from evocell.orchestration.populations import PopulationRegistry
from evocell.orchestration.pure import PureCalls
from evocell.orchestration.reloading import Reloading
from evocell.orchestration.resources import READINGS, watch_resources
from evocell.orchestration.supervision import running_beside
from evocell.orchestration.versions import Versions
from evocell_runtime.private import make_private

__all__ = ["EngineLifecycle"]


class _Ancestry:
    """Remembers, across ``os.fork``, that an engine has run guests in the calling process.

    The native runtime has threads of its own, which a fork does not copy: in a child of such a process the
    first guest that touches a file would wait for them for ever, and nothing could stop it.
    """

    def __init__(self) -> None:
        self._pid: int | None = None

    def refuse_forked(self) -> None:
        """Note this process, and raise `EngineForked` if it was forked from one that is noted."""
        if self._pid not in {None, os.getpid()}:
            raise EngineForked(
                "this process was forked from one in which an engine has run, and guests do not work after "
                "os.fork; start it with multiprocessing's spawn method (or as a subprocess), or fork before "
                "the first engine is made",
                self._pid,
            )
        self._pid = os.getpid()


_ancestry = _Ancestry()


class EngineLifecycle(Completable):
    """The part of `AsyncEngine` that opens and closes; see there."""

    _worker: Worker
    _manager: Manager
    _reloading: Reloading
    _versions: Versions
    _batches: Batches
    _pure: PureCalls
    _store: Store
    _copies: Copies
    _populations: PopulationRegistry
    _garbage: GarbageCollector
    _observer: Observer

    def __init__(
        self,
        config: Config | None = None,
        *,
        progress: Callable[..., None] | None = None,
        open_worker: OpenWorker | None = None,
        cluster: object | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        if config is not None and not isinstance(config, Config):
            raise ConfigurationError(
                f"config must be a Config, not {config!r:.60}; write Config.load(workers=2), for example",
                "config",
            )
        self.telemetry = telemetry or Telemetry()
        self.config = Config.load() if config is None else config
        self._progress = progress
        if open_worker is not None and cluster is not None:
            raise ConfigurationError("give either open_worker or cluster, not both", "cluster")
        self._cluster = cluster
        self._open_worker = open_worker or (open_configured_worker if cluster is None else open_on(cluster))
        self._resources: AsyncExitStack | None = None
        self._requests: set[trio.CancelScope] = set()
        self._idle = trio.Event()
        self._closed = True

    async def __aenter__(self) -> Self:
        """Open the worker."""
        if not trio.lowlevel.in_trio_run():
            raise ConfigurationError(
                "AsyncEngine runs in trio; from asyncio call the methods of an Engine in threads, as with "
                "await asyncio.to_thread(engine.evaluate, sources, task), or use SandboxExecutor",
                "AsyncEngine",
            )
        if self._resources is not None:
            raise EvocellError("this engine has been entered before; make a new AsyncEngine for each block")
        if self.config.worker_count() == 0 and self._cluster is None:
            _ancestry.refuse_forked()
        async with AsyncExitStack() as opening:
            await trio.to_thread.run_sync(sweep)
            opening.callback(sweep)  # of what killed workers left
            root = self.config.state_dir or opening.enter_context(OwnedDirectory())
            with store_errors(root):
                problem = make_private(root)
            if problem is not None:
                raise StoreError(problem, str(root))
            snapshots = SnapshotStore(root / "code")
            durable = self.config.state_dir is not None
            self._store = await opening.enter_async_context(open_store(root / FILE_NAME, durable=durable))
            with console_progress() if self._progress is None else nullcontext(self._progress) as progress:
                opened = self._open_worker(self.config, snapshots, progress=progress)
                worker = await opening.enter_async_context(opened)
            observing = open_observer(
                self._store,
                self.telemetry,
                image_id=worker.image_id,
                has_version=snapshots.holds,
                durable=durable,
                emit_fitness=self.config.emit_fitness_telemetry,
                event_log=self.config.event_log,
                event_log_max_bytes=self.config.event_log_max_bytes,
                event_log_max_files=self.config.event_log_max_files,
                audit_entries=self.config.audit_max_entries,
            )
            self._start(worker, snapshots, await opening.enter_async_context(observing))
            await opening.enter_async_context(running_beside(self._manager.watch, name=WATCH))
            reading = partial(
                watch_resources,
                worker,
                self._manager,
                self._observer,
                interval_s=self.config.enforcement_poll_interval_ms / 1000,
                emit=self.config.emit_resource_telemetry,
            )
            await opening.enter_async_context(running_beside(reading, name=READINGS))
            await opening.enter_async_context(running_beside(self._garbage.run, name=GARBAGE))
            self._resources = opening.pop_all()
        self._closed = False
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop what is running and give everything back.

        Raises:
            StoreError: Something could not be written to the ``state_dir``, and the block did not raise.
        """
        try:
            await self.aclose()
        finally:
            if self._resources is not None:
                try:
                    await self._resources.aclose()
                except (StoreError, ExceptionGroup) as failure:
                    error = bare(failure)
                    if not isinstance(error, StoreError):
                        raise
                    if exc is None:
                        raise error from None

    async def aclose(self) -> None:
        """Refuse further calls and stop the ones under way, which raise `EngineClosed`. Idempotent.

        The worker itself is given back when the block of the context manager ends.
        """
        self._closed = True
        for scope in tuple(self._requests):
            scope.cancel()
        with trio.CancelScope(shield=True):
            while self._requests:
                self._idle = trio.Event()
                await self._idle.wait()

    @property
    def image_id(self) -> str:
        """Content hash of the image that every sandbox starts from."""
        return self._worker.image_id

    @property
    def slots(self) -> int:
        """How many calls run at once; more of them wait."""
        return self._worker.slots

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} cannot be pickled: it owns running sandboxes; send its Config or the "
            "data classes instead, and make an engine in the other process"
        )

    def _start(self, worker: Worker, snapshots: SnapshotStore, observer: Observer) -> None:
        versions = Versions(
            worker,
            snapshots,
            TreeReferences(snapshots),
            policy=self.config.policy,
            durable=observer.durable,
            seen=observer.journal.source,
            decided=partial(note_decision, observer.audit),
        )
        self._versions = versions
        self._worker = worker
        self._observer = observer
        self._manager = Manager(worker, versions, self.config, observer)
        self._copies = Copies(worker, self._manager)
        self._reloading = Reloading(worker, versions, self._manager)
        kept = PopulationStore(self._store, observer.journal.run)
        self._populations = PopulationRegistry(self._manager, kept, self.config)
        trees = TreeRemoval(versions.trees, snapshots, kept, durable=observer.durable)
        self._garbage = GarbageCollector(self._manager, self._populations, trees, self.config)
        worker.on_kill = self._manager.note_worker_kill
        self._pure = PureCalls(worker, self.config, observer)
        self._batches = Batches(worker, versions, self._manager, self._pure, self.config)

    @contextmanager
    def _shown(self, what: str, total: int, progress: Report | None) -> Iterator[Report | None]:
        """Show a batch to a person, if one is looking and nobody else has been asked to.

        Args:
            what: What is done, such as ``"evaluating"``.
            total: How many there are.
            progress: What the caller wants to be told with.

        Yields:
            What to tell instead.
        """
        if progress is not None and not callable(progress):
            raise ConfigurationError(
                f"progress must be a function, such as evocell.silent, or None, not {progress!r}", "progress"
            )
        if progress is None and self.shows_batches:
            with BatchBar(what, total) as bar:
                yield bar.report
        elif progress is None and self._progress is None and not is_terminal():
            yield BatchLines(what, total).report
        else:
            yield progress

    @property
    def shows_batches(self) -> bool:
        """Whether a batch without a progress function is shown: on a terminal, if the engine has none too."""
        return self._progress is None and is_terminal()

    @contextmanager
    def _request(self) -> Iterator[None]:
        """Do something until it is done or the engine is closed, which raises `EngineClosed`."""
        if self._closed:
            raise EngineClosed(_NOT_OPEN if self._resources is None else _CLOSED)
        with trio.CancelScope() as scope:
            self._requests.add(scope)
            try:
                yield
            finally:
                self._requests.discard(scope)
                if not self._requests:
                    self._idle.set()
        if scope.cancelled_caught:
            raise EngineClosed("the engine was closed during this call")


_NOT_OPEN = "the engine is not open; use it inside `async with AsyncEngine() as engine:`"
_CLOSED = "the engine is closed; create a new one to go on"
