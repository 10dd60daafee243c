"""Start and shutdown of an engine, its workers, and the requests that it cancels."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, AsyncExitStack, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

import trio

from evocell.api.portal import bare
from evocell.code.references import TreeReferences
from evocell.code.snapshots import SnapshotStore, remove_former
from evocell.concurrency import running_beside
from evocell.config import Config
from evocell.console.batches import BatchLines, Report, batch_bar, shows_bars
from evocell.console.progress import console_progress
from evocell.errors import ConfigurationError, EngineClosed, EngineForked, EvocellError, StoreError
from evocell.evaluation.batch import Batches
from evocell.evaluation.memo import MemoisingCaller
from evocell.execution.interface import OpenWorker, Worker
from evocell.guests.scratch import OwnedDirectory, memory_place, sweep
from evocell.models.info import WorkerInfo
from evocell.models.references import Completable
from evocell.sandboxes.audit_events import record_decision
from evocell.sandboxes.code_versions import Versions
from evocell.sandboxes.copies import Copies
from evocell.sandboxes.garbage import GARBAGE, GarbageCollector, TreeRemoval
from evocell.sandboxes.manager import WATCH, Manager
from evocell.sandboxes.package_images import PackageImages
from evocell.sandboxes.populations import PopulationRegistry
from evocell.sandboxes.reload import Reloading
from evocell.sandboxes.resources import READINGS, watch_resources
from evocell.store.byte_code import ByteCode
from evocell.store.database import FILE_NAME, store_errors
from evocell.store.fitness import FitnessRecorder
from evocell.store.lineage import LineageTracker
from evocell.store.observer import Observer, open_observer
from evocell.store.populations import PopulationStore
from evocell.store.store import Store, open_store
from evocell.telemetry.events import Telemetry
from evocell.telemetry.stream import EventStream
from evocell.workers.open_worker import open_on
from evocell.workers.open_worker import open_worker as open_configured_worker
from evocell_runtime.build import BuildProgress
from evocell_runtime.private import make_private

__all__ = ["EngineLifecycle"]


class _Ancestry:
    """Record, inherited by ``os.fork``, of whether an engine has run guests in this process.

    The native runtime has threads, which a fork does not copy: in a forked child the first guest that
    accesses a file would wait for them for ever, and could not be stopped.
    """

    def __init__(self) -> None:
        self._pid: int | None = None

    def refuse_forked(self) -> None:
        """Record this process, and raise `EngineForked` if it was forked from a recorded one."""
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
    """Start and shutdown of an `AsyncEngine`, its workers, its requests, and its attributes."""

    _worker: Worker
    _manager: Manager
    _reloading: Reloading
    _versions: Versions
    _batches: Batches
    _pure: MemoisingCaller
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
        self._check_entering()
        async with AsyncExitStack() as opening:
            await trio.to_thread.run_sync(sweep)
            opening.callback(sweep)  # directories of killed workers
            root = self._open_directory(opening)
            durable = self.config.state_dir is not None
            # A new variant is a few small files, and writing them to a disk takes longer than compiling them.
            memory = memory_place()
            code = root if memory is None else opening.enter_context(OwnedDirectory(memory))
            snapshots = SnapshotStore(code / "code")
            lasting = None
            if durable:
                lasting = snapshots if memory is None else SnapshotStore(root / "code")
                await trio.to_thread.run_sync(remove_former, root / "code")
            self._store = await opening.enter_async_context(open_store(root / FILE_NAME, durable=durable))
            with self._showing() as progress:
                opened = self._open_worker(self.config, snapshots, progress=progress)
                worker = await opening.enter_async_context(opened)
            observing = open_observer(
                self._store,
                self.telemetry,
                image_id=worker.image_id,
                has_version=(lasting or snapshots).holds,
                durable=durable,
                emit_fitness=self.config.emit_fitness_telemetry,
                event_log=self.config.event_log,
                event_log_max_bytes=self.config.event_log_max_bytes,
                event_log_max_files=self.config.event_log_max_files,
                audit_entries=self.config.audit_max_entries,
            )
            self._start(worker, snapshots, lasting, await opening.enter_async_context(observing))
            await self._start_tasks(opening)
            self._resources = opening.pop_all()
        self._closed = False
        return self

    def _check_entering(self) -> None:
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

    def _open_directory(self, opening: AsyncExitStack) -> Path:
        """Return the ``state_dir``, or a temporary directory that is removed with the engine."""
        root = self.config.state_dir or opening.enter_context(OwnedDirectory())
        with store_errors(root):
            problem = make_private(root)
        if problem is not None:
            raise StoreError(problem, str(root))
        return root

    async def _start_tasks(self, opening: AsyncExitStack) -> None:
        """Start the background tasks, which run until the engine is closed."""
        reading = partial(
            watch_resources,
            self._worker,
            self._manager,
            self._observer,
            interval_s=self.config.enforcement_poll_interval_ms / 1000,
            emit=self.config.emit_resource_telemetry,
        )
        await opening.enter_async_context(running_beside(self._manager.watch, name=WATCH))
        await opening.enter_async_context(running_beside(reading, name=READINGS))
        await opening.enter_async_context(running_beside(self._garbage.run, name=GARBAGE))

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop running requests and release all resources.

        Raises:
            StoreError: Data could not be written to the ``state_dir``, and the block did not raise.
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
        """Refuse further calls and stop those under way, which raise `EngineClosed`. Idempotent.

        The worker is released when the block of the context manager ends.
        """
        self._closed = True
        for scope in tuple(self._requests):
            scope.cancel()
        with trio.CancelScope(shield=True):
            while self._requests:
                self._idle = trio.Event()
                await self._idle.wait()

    @property
    def event_stream(self) -> EventStream:
        """The engine's events as a numbered stream, for subscribers of any speed."""
        return self._observer.events

    @property
    def fitness(self) -> FitnessRecorder:
        """The fitness of individuals: latest, history, best, and adjustments."""
        return self._observer.fitness

    @property
    def lineage(self) -> LineageTracker:
        """The ancestry of individuals."""
        return self._observer.lineage

    @property
    def repairs(self) -> tuple[str, ...]:
        """Repairs of the state directory made at the start after killed engines, a sentence each."""
        return tuple(self._observer.repairs.sentences())

    @property
    def store_path(self) -> Path:
        """Path of the engine's database: in its ``state_dir``, or in a temporary directory of the engine."""
        return self._observer.store.path

    @property
    def image_id(self) -> str:
        """Content hash of the image that every sandbox starts from."""
        return self._worker.image_id

    @property
    def slots(self) -> int:
        """Number of concurrent calls; further ones wait."""
        return self._worker.host.slots

    async def workers(self) -> list[WorkerInfo]:
        """Return the state of each worker process; with ``workers=0`` that of this process."""
        with self._request():
            return self._worker.host.workers()

    async def drain_worker(self, name: str) -> None:
        """Replace a worker by a new process, without loss of calls or state.

        The new process is started first. Calls under way finish in the old one; sandboxes with a session in
        it move to the new one, each after its current call. A session with open files cannot move: it loses
        its state, as when a worker dies. Returns when the old process has ended, which takes as long as its
        longest call.

        Args:
            name: The worker, as `workers` names it.

        Raises:
            ConfigurationError: No such worker exists; with ``workers=0`` there are none.
            EvocellError: No new process could be started; the old one keeps running.

        Cancellation: The worker is replaced all the same.
        """
        if not isinstance(name, str):
            raise ConfigurationError(f"a worker is named by a string, not {type(name).__name__}", "name")
        with self._request():
            await self._worker.host.drain(name)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{type(self).__name__} cannot be pickled: it owns running sandboxes; send its Config or the "
            "data classes instead, and make an engine in the other process"
        )

    def _start(
        self, worker: Worker, snapshots: SnapshotStore, lasting: SnapshotStore | None, observer: Observer
    ) -> None:
        versions = Versions(
            worker,
            snapshots,
            TreeReferences(snapshots),
            policy=self.config.policy,
            stored=ByteCode(observer.store) if observer.durable else None,
            lasting=lasting,
            text_of=observer.journal.files_of,
            seen=observer.journal.source,
            decided=partial(record_decision, observer.audit),
        )
        self._versions = versions
        self._worker = worker
        self._observer = observer
        images = PackageImages(self.config, self._showing)
        self._manager = Manager(worker, versions, self.config, observer, images)
        self._copies = Copies(worker, self._manager)
        self._reloading = Reloading(worker, versions, self._manager)
        kept = PopulationStore(self._store, observer.journal.run)
        self._populations = PopulationRegistry(self._manager, kept, self.config)
        trees = TreeRemoval(versions.trees, snapshots, lasting, kept)
        snapshots.on_full = partial(trees.remove, rested=False)
        self._garbage = GarbageCollector(self._manager, self._populations, trees, self.config)
        worker.host.on_kill = self._manager.note_worker_kill
        self._pure = MemoisingCaller(worker, self.config, observer)
        self._batches = Batches(
            worker,
            versions,
            self._manager,
            self._pure,
            self.config,
            is_alone=lambda: len(self._requests) == 1,
        )

    def _showing(self) -> AbstractContextManager[Callable[[BuildProgress], None]]:
        """Show the steps of an image's build, as the engine was told to."""
        return console_progress() if self._progress is None else nullcontext(self._progress)

    @contextmanager
    def _shown(self, what: str, total: int, progress: Report | None) -> Iterator[Report | None]:
        """Show a batch's progress on standard error, unless the call or the engine has a progress function.

        Args:
            what: The activity, such as ``"evaluating"``.
            total: The number of items.
            progress: The call's progress function.

        Yields:
            The progress function to call.
        """
        if progress is not None and not callable(progress):
            raise ConfigurationError(
                f"progress must be a function, such as evocell.silent, or None, not {progress!r}", "progress"
            )
        if progress is None and self.shows_batches:
            with batch_bar(what, total) as bar:
                yield bar.report
        elif progress is None and self._progress is None:
            yield BatchLines(what, total).report
        else:
            yield progress

    @property
    def shows_batches(self) -> bool:
        """Whether a batch without a progress function is shown: where it can, if the engine has none too."""
        return self._progress is None and shows_bars()

    @contextmanager
    def _request(self) -> Iterator[None]:
        """Run a request; raises `EngineClosed` if the engine is closed before or during it."""
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
