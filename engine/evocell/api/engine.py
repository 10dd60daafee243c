"""The blocking `Engine`; its methods are derived from those of `AsyncEngine`."""

from __future__ import annotations

import queue
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import nullcontext, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import NoReturn, Self

from evocell.api.arguments import check_iterable
from evocell.api.async_engine import AsyncEngine
from evocell.api.blocking import blocking
from evocell.api.evaluator import Evaluators
from evocell.api.portal import Task, TrioThread
from evocell.api.sandbox import one_sandbox, several_sandboxes
from evocell.config import Config
from evocell.console.batches import StreamProgress
from evocell.errors import EvocellError, StoreError
from evocell.evaluation.individuals import Progress
from evocell.evaluation.own_functions import AwaitedScores
from evocell.execution.interface import OpenWorker
from evocell.models.evaluation import Evaluation
from evocell.models.fitness import FitnessResult
from evocell.models.html import facts
from evocell.models.references import Source
from evocell.models.specs import SandboxSpec
from evocell.page.html import Page, make_page
from evocell.page.search import read_run
from evocell.store.fitness import FitnessRecorder
from evocell.store.inspection import store_reader
from evocell.store.lineage import LineageTracker
from evocell.telemetry.events import Telemetry
from evocell.telemetry.stream import EventStream

__all__ = ["Engine"]


class Engine(Evaluators):
    """Runs untrusted Python in sandboxes and scores it; its methods block.

    It owns one thread with a trio loop that runs an `AsyncEngine`; each method waits for the method of the
    same name there. It may be used from any thread, also in notebooks and beside another event loop (which it
    blocks). An interrupt (Ctrl-C) during a call cancels only that call and is re-raised; "Cancellation" in
    each method's docstring states the effects.

    It starts on construction, and builds its image if there is none yet (minutes, once). Close it, or use it
    as a context manager; otherwise it is closed at exit.

    Args:
        config: Settings; None loads them from environment and file, see `Config.load`.
        progress: Called with each step of an image build, in a thread of its own. None shows it on standard
            error (a start that finds its image shows nothing); `evocell.silent` shows nothing at all.
        open_worker: Opens the worker that runs the guests.
        cluster: The cluster that runs guests, if any: a ``distributed.Client``, or a pool such as
            `evocell.integrations.dask.DaskCluster`. Scoring, expected answers, the store and sandboxes that
            keep state stay on this machine; ``workers`` counts its processes, started when first needed.
        telemetry: Receives its events; pass one to attach handlers before the engine opens. None makes one.

    Raises:
        ImageError: The image cannot be found, built or trusted.
        ClusterLost: The cluster cannot be reached, or none of its nodes can be used.
        EngineForked: Also raised by every method in a process that inherited an engine by ``os.fork``.
        EngineClosed: Raised by every method but `close` after closing.
    """

    _thread: TrioThread[AsyncEngine]
    _engine: AsyncEngine

    def __init__(
        self,
        config: Config | None = None,
        *,
        progress: Callable[..., None] | None = None,
        open_worker: OpenWorker | None = None,
        cluster: object | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        opening = partial(
            AsyncEngine,
            config,
            progress=progress,
            open_worker=open_worker,
            cluster=cluster,
            telemetry=telemetry,
        )
        self._thread = TrioThread(opening, name="evocell-engine")
        self._engine = self._thread.resource
        self._async_side = self._thread, self._engine
        # The thread does not reference this object: dropping its last reference ends the thread.
        weakref.finalize(self, self._thread.stop_soon).atexit = False

    def close(self) -> None:
        """Stop running requests, whose callers get `EngineClosed`, and release all resources. Idempotent.

        Raises:
            StoreError: Data could not be written to the ``state_dir``. The engine is closed all the same.
        """
        self._thread.close()

    def __enter__(self) -> Self:
        """Return the engine itself."""
        self._thread.check()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the engine; a `StoreError` of closing is suppressed if the block raised."""
        with nullcontext() if exc is None else suppress(StoreError):
            self.close()

    @property
    def closed(self) -> bool:
        """Whether it is closed, or unusable because it was inherited by ``os.fork``."""
        return not self._thread.usable

    def _repr_html_(self) -> str:
        if self.closed:
            return facts("evocell engine", [("state", "closed")])
        try:
            n_live, populations = len(self.list_sandboxes()), self.list_populations()
        except EvocellError as error:
            return facts("evocell engine", [("state", error.message)])
        return facts(
            "evocell engine",
            [
                ("sandboxes", n_live),
                ("populations", ", ".join(one.id for one in populations) or None),
                ("image", self.image_id[:12]),
                ("calls at once", self._engine.slots),
                ("state_dir", self.config.state_dir),
            ],
        )

    @property
    def config(self) -> Config:
        """The settings it was made with."""
        return self._engine.config

    @property
    def image_id(self) -> str:
        """Content hash of the image that every sandbox starts from."""
        self._thread.check()
        return self._engine.image_id

    @property
    def telemetry(self) -> Telemetry:
        """The engine's events, see docs/telemetry.md; handlers run in the engine's thread."""
        return self._engine.telemetry

    @property
    def event_stream(self) -> EventStream:
        """The engine's events as a numbered stream, for subscribers of any speed."""
        return self._engine.event_stream

    @property
    def fitness(self) -> FitnessRecorder:
        """The fitness of individuals: latest, history, best, and adjustments."""
        return self._engine.fitness

    @property
    def lineage(self) -> LineageTracker:
        """The ancestry of individuals."""
        return self._engine.lineage

    @property
    def repairs(self) -> tuple[str, ...]:
        """Repairs of the state directory made at the start after killed engines, a sentence each."""
        return self._engine.repairs

    @property
    def store_path(self) -> Path:
        """Path of the engine's database: in its ``state_dir``, or in a temporary directory of the engine."""
        return self._engine.store_path

    create_sandbox = one_sandbox(AsyncEngine.create_sandbox)
    batch_create = several_sandboxes(AsyncEngine.batch_create)
    fork_sandbox = one_sandbox(AsyncEngine.fork_sandbox)
    batch_fork = several_sandboxes(AsyncEngine.batch_fork)
    destroy_sandbox = blocking(AsyncEngine.destroy_sandbox)
    batch_destroy = blocking(AsyncEngine.batch_destroy)
    get_info = blocking(AsyncEngine.get_info)
    list_sandboxes = blocking(AsyncEngine.list_sandboxes)
    run = blocking(AsyncEngine.run)
    run_with_timeout = blocking(AsyncEngine.run_with_timeout)
    guest_notes = blocking(AsyncEngine.guest_notes)

    prepare = blocking(AsyncEngine.prepare)
    evaluate = blocking(AsyncEngine.evaluate)
    evaluate_one = blocking(AsyncEngine.evaluate_one)
    evaluate_stages = blocking(AsyncEngine.evaluate_stages)
    batch_evaluate = blocking(AsyncEngine.batch_evaluate)
    measure = blocking(AsyncEngine.measure)
    compare = blocking(AsyncEngine.compare)
    head_to_head = blocking(AsyncEngine.head_to_head)

    hot_reload = blocking(AsyncEngine.hot_reload)
    hot_reload_source = blocking(AsyncEngine.hot_reload_source)
    rollback_module = blocking(AsyncEngine.rollback_module)
    get_module_version = blocking(AsyncEngine.get_module_version)
    history = blocking(AsyncEngine.history)
    past_versions = blocking(AsyncEngine.past_versions)
    diff = blocking(AsyncEngine.diff)

    freeze = blocking(AsyncEngine.freeze)
    list_images = blocking(AsyncEngine.list_images)
    export_image = blocking(AsyncEngine.export_image)
    import_image = blocking(AsyncEngine.import_image)
    export_sandbox = blocking(AsyncEngine.export_sandbox)
    import_sandbox = one_sandbox(AsyncEngine.import_sandbox)
    migrate_sandbox = blocking(AsyncEngine.migrate_sandbox)

    create_population = blocking(AsyncEngine.create_population)
    resume_population = several_sandboxes(AsyncEngine.resume_population)
    get_population = blocking(AsyncEngine.get_population)
    list_populations = blocking(AsyncEngine.list_populations)
    get_members = blocking(AsyncEngine.get_members)
    list_generations = blocking(AsyncEngine.list_generations)
    best = several_sandboxes(AsyncEngine.best)
    next_generation = several_sandboxes(AsyncEngine.next_generation)
    evaluate_generation = blocking(AsyncEngine.evaluate_generation)
    destroy_generation = blocking(AsyncEngine.destroy_generation)
    pin = blocking(AsyncEngine.pin)
    unpin = blocking(AsyncEngine.unpin)
    list_pinned = blocking(AsyncEngine.list_pinned)
    collect_garbage = blocking(AsyncEngine.collect_garbage)

    audit_log = blocking(AsyncEngine.audit_log)
    evaluation_records = blocking(AsyncEngine.evaluation_records)
    replay = blocking(AsyncEngine.replay)
    memo_info = blocking(AsyncEngine.memo_info)
    revive_sandboxes = blocking(AsyncEngine.revive_sandboxes)

    workers = blocking(AsyncEngine.workers)
    drain_worker = blocking(AsyncEngine.drain_worker)

    def report(
        self,
        *,
        run: int | None = None,
        all_runs: bool = False,
        population: str | None = None,
        direction: str | None = None,
        title: str = "",
    ) -> Page:
        """Make the page of `evocell report` about what was evaluated so far: a notebook shows it in a cell.

        Args:
            run: One run; None for the search of the latest.
            all_runs: Whether all runs of the ``state_dir`` are taken together.
            population: Only members of this one.
            direction: ``"maximize"`` or ``"minimize"``; None for what the evaluation said.
            title: What to call it.

        Returns:
            The page, which can be saved: ``engine.report().save("report.html")``.

        Raises:
            ConfigurationError: Nothing has been evaluated, or there is no such run or population.
            StoreError: The store cannot be read.
        """
        self.fitness.history("")  # waits until all is written
        with store_reader(self.store_path) as connection:
            data = read_run(
                connection,
                run=run,
                all_runs=all_runs,
                population=population,
                direction=direction,
                title=title,
            )
            return make_page(data)

    def as_completed(
        self,
        sources: Iterable[Source | SandboxSpec],
        evaluation: Evaluation,
        *,
        population: str | None = None,
        generation: int = 0,
        progress: Progress | None = None,
    ) -> Iterator[tuple[int, FitnessResult]]:
        """Evaluate sources and yield each (index, result) as soon as it arrives, for steady-state loops.

        Sources are consumed in the caller's thread, one at a time, when a slot is free, so that a
        generator may produce them from the results so far.

        Args:
            sources: Any iterable, possibly infinite; a `SandboxSpec` with its source states its parents, its
                id, and its mutation type.
            evaluation: What to run of them and how to score it.
            population: Keep them as sandboxes of this population.
            generation: The generation they belong to, from 0.
            progress: Called with each result, the number of results so far, and the number of sources (of
                those consumed so far, if the total is unknown). None shows a bar on a terminal while the
                loop waits for a result, once it has taken two seconds; `evocell.silent` shows nothing.

        Cancellation: Closing the iterator, or Ctrl-C, stops what is under way.
        """
        check_iterable(sources)
        evaluate = self._thread.call(
            partial(self._engine.open_stream, evaluation, population=population, generation=generation)
        )
        running: dict[Future[FitnessResult], tuple[int, Task[FitnessResult]]] = {}
        finished: queue.SimpleQueue[Future[FitnessResult]] = queue.SimpleQueue()
        waiting = iter(enumerate(sources))
        stream = StreamProgress(sources, progress, shown=self._engine.shows_batches)
        try:
            while True:
                most = self._engine.slots + 1 + AwaitedScores(evaluation).most
                while len(running) < most and (taken := next(waiting, None)) is not None:
                    index, source = taken
                    task = self._thread.submit(partial(evaluate, source))
                    running[task.future] = index, task
                    task.future.add_done_callback(finished.put)
                if not running:
                    return
                with stream.waiting():
                    future = finished.get()
                index, _ = running.pop(future)
                result = future.result()
                stream.done(result, n_running=len(running))
                yield index, result
        finally:
            for _, task in running.values():
                task.cancel()

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "an Engine cannot be pickled: it owns a thread and running sandboxes of this process; send its "
            "config, or the data classes, and make an Engine in the other process"
        )
