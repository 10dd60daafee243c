"""The engine as most programs use it: blocking, from any thread."""

from __future__ import annotations

import queue
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import nullcontext, suppress
from functools import partial
from types import TracebackType
from typing import Any, NoReturn, Self

from evocell.api.asking import AsyncFitness, Fitness
from evocell.api.async_engine import AsyncEngine
from evocell.api.async_sandbox import AsyncSandbox
from evocell.api.auditing import Auditing
from evocell.api.batch_progress import Report, StreamProgress
from evocell.api.comparing import Comparing
from evocell.api.evaluator import Evaluators
from evocell.api.images import Images
from evocell.api.observing import Observing
from evocell.api.options import Parents, SandboxRef, check_iterable
from evocell.api.populations import Populations
from evocell.api.portal import Task, TrioThread
from evocell.api.replaying import Replaying
from evocell.api.reviving import Reviving
from evocell.api.sandbox import Sandbox
from evocell.api.versioning import Versioning
from evocell.api.workers import Workers
from evocell.config import Config
from evocell.errors import EvocellError, StoreError
from evocell.execution.worker import OpenWorker
from evocell.models.completion import Completable
from evocell.models.evaluation import Evaluation
from evocell.models.fitness import FitnessResult
from evocell.models.html import facts
from evocell.models.limits import Limits
from evocell.models.outcome import Outcome
from evocell.models.security import SecurityProfile
from evocell.models.source import Source
from evocell.models.specs import SandboxSpec
from evocell.models.stages import Stage, StagedResult
from evocell.models.state import SandboxState
from evocell.observability.telemetry import Telemetry
from evocell.orchestration.calls import RunIsolation
from evocell.orchestration.evaluator import Progress

__all__ = ["Engine"]


class Engine(
    Auditing,
    Comparing,
    Completable,
    Evaluators,
    Images,
    Observing,
    Populations,
    Replaying,
    Reviving,
    Versioning,
    Workers,
):
    """Runs untrusted Python in sandboxes and scores it; blocks until there is an answer.

    It owns one thread with a trio loop in which an `AsyncEngine` lives; every method is that one's, waited
    for. It may be used from any thread, also in notebooks and where another event loop runs (which then
    waits as well). An interrupt (Ctrl-C) during a call cancels that call alone and is raised again.

    It begins to work when it is made, and builds its image if there is none yet (minutes, once). Close it,
    or use it as a context manager; what is forgotten is closed at exit.

    Args:
        config: Settings; None loads them from environment and file, see `Config.load`.
        progress: Called with each step of an image build, in a thread of its own. None shows it on standard
            error (a start that finds its image shows nothing); `evocell.silent` shows nothing at all.
        open_worker: Opens the worker that runs the guests.
        cluster: Where guests live, if not on this machine: a ``distributed.Client``, or a pool such as
            `evocell.integrations.dask.DaskCluster`. Scoring, expected answers, the store and sandboxes that
            keep state stay on this machine; ``workers`` counts its processes, started when first needed.
        telemetry: Where its events go, to attach to it before the engine opens; None makes one.

    Raises:
        ImageError: The image cannot be found, built or trusted.
        ClusterLost: The cluster cannot be reached, or none of its nodes can be used.
        EngineForked: Also by every method, in a process that inherited an engine by ``os.fork``.
        EngineClosed: By every method but `close`, once it is closed.
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
        # The thread does not know this object: dropping the last reference to it ends the thread.
        weakref.finalize(self, self._thread.stop_soon).atexit = False

    def close(self) -> None:
        """Stop what is running, whose callers get `EngineClosed`, and give everything back. Idempotent.

        Raises:
            StoreError: Something could not be written to the ``state_dir``. All else is done.
        """
        self._thread.close()

    def __enter__(self) -> Self:
        """Return the engine itself, which is open already."""
        self._thread.check()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it; what could not be written is no news if the block raised."""
        with nullcontext() if exc is None else suppress(StoreError):
            self.close()

    @property
    def closed(self) -> bool:
        """Whether it is closed, or cannot work here because it was inherited by ``os.fork``."""
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

    def evaluate(
        self,
        sources: Sequence[Source],
        evaluation: Evaluation,
        *,
        population: str | None = None,
        generation: int = 0,
        parents: Parents | None = None,
        deadline_s: float | None = None,
        progress: Progress | None = None,
    ) -> list[FitnessResult]:
        """Evaluate many sources; see `AsyncEngine.evaluate`.

        Cancellation: Ctrl-C stops every call; nothing is kept.
        """
        return self._thread.call(
            partial(
                self._engine.evaluate,
                sources,
                evaluation,
                population=population,
                generation=generation,
                parents=parents,
                deadline_s=deadline_s,
                progress=progress,
            )
        )

    def evaluate_stages(
        self,
        sources: Sequence[Source],
        stages: Sequence[Stage],
        *,
        total_limits: Limits | None = None,
        population: str | None = None,
        generation: int = 0,
        parents: Parents | None = None,
        deadline_s: float | None = None,
        progress: Progress | None = None,
    ) -> list[StagedResult]:
        """Evaluate many sources in stages, each pruning the next; see `AsyncEngine.evaluate_stages`."""
        return self._thread.call(
            partial(
                self._engine.evaluate_stages,
                sources,
                stages,
                total_limits=total_limits,
                population=population,
                generation=generation,
                parents=parents,
                deadline_s=deadline_s,
                progress=progress,
            )
        )

    def evaluate_one(
        self,
        source: Source,
        evaluation: Evaluation,
        *,
        population: str | None = None,
        generation: int = 0,
        parents: Sequence[SandboxRef] | SandboxRef | None = None,
        deadline_s: float | None = None,
    ) -> FitnessResult:
        """Evaluate one source; see `AsyncEngine.evaluate_one`."""
        return self._thread.call(
            partial(
                self._engine.evaluate_one,
                source,
                evaluation,
                population=population,
                generation=generation,
                parents=parents,
                deadline_s=deadline_s,
            )
        )

    def as_completed(
        self,
        sources: Iterable[Source | SandboxSpec],
        evaluation: Evaluation,
        *,
        population: str | None = None,
        generation: int = 0,
        progress: Progress | None = None,
    ) -> Iterator[tuple[int, FitnessResult]]:
        """Evaluate sources and hand out (index, result) as soon as each is there, for steady-state loops.

        Sources are taken in the caller's thread, one at a time, when there is room for one, so that a
        generator may make them from the results so far.

        Args:
            sources: Any iterable, even an endless one; also of `SandboxSpec`, see `AsyncEngine.as_completed`.
            evaluation: What to run of them and how to score it.
            population: Keep them as sandboxes of this population.
            generation: The generation they belong to, from 0.
            progress: Called with each result, how many there are, and how many sources there are (or have
                been taken, if no more is known). None shows a bar on a terminal while the loop waits for a
                result, once it has taken two seconds; `evocell.silent` shows nothing.

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
                while len(running) < self._engine.slots + 1 and (taken := next(waiting, None)) is not None:
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

    def create_sandbox(
        self,
        id: str | None = None,  # noqa: A002 - the word the architecture has for it
        *,
        source: Source | None = None,
        bundle: bytes | None = None,
        image: str | None = None,
        limits: Limits | None = None,
        population: str | None = None,
        generation: int = 0,
        parent_ids: Sequence[SandboxRef] = (),
        mutation_type: str = "seed",
        security_profile: SecurityProfile | None = None,
    ) -> Sandbox:
        """Create a sandbox; see `AsyncEngine.create_sandbox`."""
        return self._handle(
            self._thread.call(
                partial(
                    self._engine.create_sandbox,
                    id,
                    source=source,
                    bundle=bundle,
                    image=image,
                    limits=limits,
                    population=population,
                    generation=generation,
                    parent_ids=parent_ids,
                    mutation_type=mutation_type,
                    security_profile=security_profile,
                )
            )
        )

    def batch_create(self, specs: Sequence[SandboxSpec], *, progress: Report | None = None) -> list[Sandbox]:
        """Create many sandboxes, all or none; see `AsyncEngine.batch_create`."""
        made = self._thread.call(partial(self._engine.batch_create, specs, progress=progress))
        return [self._handle(twin) for twin in made]

    def destroy_sandbox(self, sandbox: SandboxRef) -> SandboxState:
        """Destroy a sandbox and return its last state; see `AsyncEngine.destroy_sandbox`."""
        return self._thread.call(partial(self._engine.destroy_sandbox, sandbox))

    def batch_destroy(
        self, sandboxes: Sequence[SandboxRef], *, missing_ok: bool = False
    ) -> list[SandboxState]:
        """Destroy many sandboxes and return their last states; see `AsyncEngine.batch_destroy`."""
        return self._thread.call(partial(self._engine.batch_destroy, sandboxes, missing_ok=missing_ok))

    def batch_evaluate(
        self,
        sandboxes: Sequence[SandboxRef],
        fitness: Evaluation | Fitness | AsyncFitness,
        *,
        deadline_s: float | None = None,
        progress: Progress | None = None,
    ) -> list[FitnessResult]:
        """Find the fitness of sandboxes; see `AsyncEngine.batch_evaluate`.

        A plain function runs in a thread with a `Sandbox`; an async one in the engine's trio loop with an
        `AsyncSandbox`.
        """
        return self._thread.call(
            partial(self._engine.batch_evaluate, sandboxes, fitness, deadline_s=deadline_s, progress=progress)
        )

    def run(
        self,
        sandbox: SandboxRef,
        entry: str,
        *,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        seed: int = 0,
        limits: Limits | None = None,
        isolation: RunIsolation = "session",
        deadline_s: float | None = None,
    ) -> Outcome:
        """Call a function of a sandbox; see `AsyncEngine.run`.

        Cancellation: Ctrl-C stops the call; the session it ran in loses its state.
        """
        return self._thread.call(
            partial(
                self._engine.run,
                sandbox,
                entry,
                args=args,
                kwargs=kwargs,
                seed=seed,
                limits=limits,
                isolation=isolation,
                deadline_s=deadline_s,
            )
        )

    def run_with_timeout(
        self,
        sandbox: SandboxRef,
        entry: str,
        *,
        timeout_s: float,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        seed: int = 0,
        limits: Limits | None = None,
        isolation: RunIsolation = "session",
        deadline_s: float | None = None,
    ) -> Outcome:
        """Call a function of a sandbox for a limited time; see `AsyncEngine.run_with_timeout`."""
        return self._thread.call(
            partial(
                self._engine.run_with_timeout,
                sandbox,
                entry,
                timeout_s=timeout_s,
                args=args,
                kwargs=kwargs,
                seed=seed,
                limits=limits,
                isolation=isolation,
                deadline_s=deadline_s,
            )
        )

    def get_info(self, sandbox: SandboxRef) -> SandboxState:
        """Return what is known about a sandbox at this moment; see `AsyncEngine.get_info`."""
        return self._thread.call(partial(self._engine.get_info, sandbox))

    def list_sandboxes(self, *, population: str | None = None) -> list[SandboxState]:
        """Return the state of every sandbox, oldest first; see `AsyncEngine.list_sandboxes`."""
        return self._thread.call(partial(self._engine.list_sandboxes, population=population))

    def guest_notes(self) -> str:
        """Describe the guest's Python for whoever writes its code; see `AsyncEngine.guest_notes`."""
        return self._thread.call(self._engine.guest_notes)

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            "an Engine cannot be pickled: it owns a thread and running sandboxes of this process; send its "
            "config, or the data classes, and make an Engine in the other process"
        )

    def _handle(self, twin: AsyncSandbox) -> Sandbox:
        return Sandbox(self._thread, twin)
