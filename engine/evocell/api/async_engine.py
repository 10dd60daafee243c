"""The engine as trio programs use it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from functools import partial, update_wrapper
from itertools import count
from typing import Any, cast

import trio

from evocell.api.asking import AsyncFitness, Fitness
from evocell.api.async_auditing import AsyncAuditing
from evocell.api.async_comparing import AsyncComparing
from evocell.api.async_evaluator import AsyncEvaluators
from evocell.api.async_images import AsyncImages
from evocell.api.async_populations import AsyncPopulations
from evocell.api.async_replaying import AsyncReplaying
from evocell.api.async_reviving import AsyncReviving
from evocell.api.async_sandbox import AsyncSandbox
from evocell.api.async_versioning import AsyncVersioning
from evocell.api.async_workers import AsyncWorkers
from evocell.api.batch_progress import Report
from evocell.api.notes import guest_notes
from evocell.api.options import SandboxRef, sandbox_id, sandbox_ids
from evocell.api.portal import TokenPortal
from evocell.api.progress import silent
from evocell.api.sandbox import Sandbox
from evocell.errors import ConfigurationError, SandboxNotFound
from evocell.models.evaluation import Evaluation, check_seed, normalise_entry
from evocell.models.fitness import FitnessResult
from evocell.models.limits import Limits, check_limits
from evocell.models.outcome import Outcome
from evocell.models.results import Results
from evocell.models.security import SecurityProfile
from evocell.models.source import Source
from evocell.models.specs import SandboxSpec
from evocell.models.state import SandboxState
from evocell.orchestration.batch import SandboxFunction
from evocell.orchestration.calls import (
    CallRequest,
    RunIsolation,
    check_deadline,
    encode_arguments,
    run_in_sandbox,
)
from evocell.orchestration.concurrency import map_bounded
from evocell.orchestration.evaluator import Progress
from evocell.orchestration.records import SandboxRecord

__all__ = ["AsyncEngine"]

_NAMES = ("__qualname__",)


class AsyncEngine(
    AsyncAuditing,
    AsyncEvaluators,
    AsyncComparing,
    AsyncImages,
    AsyncPopulations,
    AsyncReplaying,
    AsyncReviving,
    AsyncWorkers,
    AsyncVersioning,
):
    """Runs untrusted Python in sandboxes and scores it; an async context manager for trio.

    Entering it opens the worker, and builds its image if there is none yet (minutes, once). Leaving it
    stops whatever is still running. Its methods may be called from many tasks at once; each of them is a
    request of its own, and cancelling one disturbs no other.

    Args:
        config: Settings; None loads them from environment and file, see `Config.load`.
        progress: Called with each step of an image build, in a thread of its own. None shows it on standard
            error (a start that finds its image shows nothing); `evocell.silent` shows nothing at all.
        open_worker: Opens the worker that runs the guests.
        cluster: Where guests live, if not on this machine: a ``distributed.Client``, or a pool such as
            `evocell.integrations.dask.DaskCluster`. Scoring, expected answers, the store and sandboxes that
            keep state stay on this machine; ``workers`` counts its processes, started when first needed.
        telemetry: Where its events go; None makes one. It is the attribute `telemetry`.

    Raises:
        ImageError: On entering: the image cannot be found, built or trusted.
        ClusterLost: On entering: the cluster cannot be reached, or none of its nodes can be used.
        EngineForked: On entering: this process was forked from one in which an engine has run.
    """

    async def create_sandbox(
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
    ) -> AsyncSandbox:
        """Create a sandbox; see `SandboxSpec` for the arguments.

        Code that is rejected (a syntax error, say) gives a sandbox in status ``error``: `get_info` says why,
        its calls return the `Rejected`, and `hot_reload_source` can mend it.

        Raises:
            ConfigurationError: An argument cannot be used.
            SandboxExists: The id is taken.
            CapacityError: There would be too many sandboxes.

        Cancellation: There is no sandbox.
        """
        spec = SandboxSpec(
            id,
            source=source,
            bundle=bundle,
            image=image,
            limits=limits,
            population=population,
            generation=generation,
            parent_ids=tuple(sandbox_ids(parent_ids)),
            mutation_type=mutation_type,
            security_profile=security_profile,
        )
        return (await self.batch_create([spec], progress=silent))[0]

    async def batch_create(
        self, specs: Sequence[SandboxSpec], *, progress: Report | None = None
    ) -> list[AsyncSandbox]:
        """Create many sandboxes, all or none.

        Args:
            specs: What to create.
            progress: Called in the engine's loop with the id of each that is there, how many there are, and
                how many there will be. None shows a bar on a terminal after two seconds, `evocell.silent`
                nothing.

        Raises:
            SandboxExists: An id is taken or is there twice; nothing has been created.
            CapacityError: There would be too many sandboxes; nothing has been created.

        Cancellation: None of them is created.
        """
        for spec in specs:
            if not isinstance(spec, SandboxSpec):
                raise ConfigurationError(
                    f"batch_create takes SandboxSpecs, not {type(spec).__name__}", "specs"
                )

        n_done = count(1)

        async def load(pair: tuple[SandboxRecord, SandboxSpec]) -> None:
            await self._manager.load(pair[0], pair[1].code)
            if report is not None:
                report(pair[0].id, next(n_done), len(specs))

        about = {"operation": "create", "count": len(specs)}
        shown = self._shown("creating", len(specs), progress)
        with self._request(), self.telemetry.span("sandbox.batch", about), shown as report:
            async with self._manager.reserved(specs) as records:
                pairs = list(zip(records, specs, strict=True))
                await map_bounded(load, pairs, at_once=self._worker.slots + 1, grows_with=self._worker)
                return [AsyncSandbox(self, record.id) for record in records]

    async def destroy_sandbox(self, sandbox: SandboxRef) -> SandboxState:
        """Destroy a sandbox; calls under way in it are stopped and raise `SandboxNotFound`.

        Returns:
            Its last state, ``stopped``.

        Raises:
            SandboxNotFound: There is none, or somebody else is destroying it.
        """
        with self._request():
            return await self._manager.destroy(self._manager.get(sandbox_id(sandbox)))

    async def batch_destroy(
        self, sandboxes: Sequence[SandboxRef], *, missing_ok: bool = False
    ) -> list[SandboxState]:
        """Destroy many sandboxes.

        Args:
            sandboxes: Which ones; one that is named twice is destroyed once.
            missing_ok: Skip the ones that are not there.

        Returns:
            Their last states.

        Raises:
            SandboxNotFound: One of them is not there; nothing has been destroyed.

        Cancellation: Too late: they are destroyed all the same.
        """
        records: dict[str, SandboxRecord] = {}
        wanted_ids = sandbox_ids(sandboxes)
        about = {"operation": "destroy", "count": len(wanted_ids)}
        with self._request(), self.telemetry.span("sandbox.batch", about):
            for wanted in wanted_ids:
                try:
                    records[wanted] = self._manager.get(wanted)
                except SandboxNotFound:
                    if not missing_ok:
                        raise
            await self._manager.destroy_all(list(records.values()))
            return [record.state for record in records.values()]

    async def batch_evaluate(
        self,
        sandboxes: Sequence[SandboxRef],
        fitness: Evaluation | Fitness | AsyncFitness,
        *,
        deadline_s: float | None = None,
        progress: Progress | None = None,
    ) -> list[FitnessResult]:
        """Find the fitness of sandboxes and note it with them.

        Args:
            sandboxes: Which ones.
            fitness: An `Evaluation`, run in fresh forks of their code; or a function of one's own that gets
                a sandbox and returns a number, named numbers, or a `FitnessResult`: a plain one runs in a
                thread with a `Sandbox`, an async one in the engine's loop with an `AsyncSandbox`.
            deadline_s: Seconds in which everything must be over, as in `evaluate`.
            progress: As in `evaluate`.

        Returns:
            One result for each sandbox, in order. One that is destroyed meanwhile is invalid with the reason
            ``"destroyed"``; one that is reloaded meanwhile is evaluated in the version it had or in the new
            one, never in both.

        Raises:
            SandboxNotFound: One of them is not there; nothing has been evaluated.
            ScoringError: The function raised for every sandbox.
        """
        wanted = sandbox_ids(sandboxes)
        with self._request(), self._shown("evaluating", len(wanted), progress) as report:
            records = self._manager.get_all(wanted)
            if isinstance(fitness, Evaluation):
                plan = await self._batches.plan(fitness, deadline_s=deadline_s)
                return Results(await self._batches.sandboxes(plan, records, progress=report))
            if not callable(fitness):
                raise ConfigurationError(
                    f"fitness must be an Evaluation or a function, not {type(fitness).__name__}", "fitness"
                )
            return Results(
                await self._batches.by_function(
                    self._asking(fitness), records, deadline_s=deadline_s, progress=report
                )
            )

    async def run(
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
        """Call a function of a sandbox.

        Args:
            sandbox: Which one.
            entry: The function, as ``"module:qualname"``; ``"f"`` means ``"program:f"``.
            args: Positional arguments.
            kwargs: Arguments by name.
            seed: Reseeds the guest's random sources before the call.
            limits: Bounds of this call; None for the sandbox's own.
            isolation: ``"session"`` keeps what the code leaves behind for the next call, and calls
                take turns; ``"call"`` runs in a fork that is thrown away, beside all others.
            deadline_s: Seconds in which everything must be over, waiting included.

        Returns:
            How it ended. A call that had to be killed leaves the sandbox usable, with a fresh fork.

        Raises:
            SandboxNotFound: There is none, or it was destroyed during the call.
            ConfigurationError: An argument cannot be used or encoded.

        Cancellation: The call is stopped; the session it ran in loses its state.
        """
        seconds = check_deadline(deadline_s)
        check_seed(seed, "seed")
        if isolation not in ("session", "call"):
            raise ConfigurationError(f'isolation must be "session" or "call", not {isolation!r}', "isolation")
        with self._request():
            record = self._manager.get(sandbox_id(sandbox))
            bounds = check_limits(limits) or record.limits
            request = CallRequest(
                entry=normalise_entry(entry),
                payload=encode_arguments(args, kwargs or {}, bounds, ""),
                seed=seed,
                limits=bounds,
                isolation=isolation,
            )
            return await run_in_sandbox(self._worker, record, request, self._observer, deadline_s=seconds)

    async def run_with_timeout(
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
        """Call a function of a sandbox and stop it after `timeout_s` seconds in which it itself ran.

        Otherwise the same as `run`.

        Args:
            sandbox: Which one.
            entry: As in `run`.
            timeout_s: How long the call itself may run, in seconds, instead of what `limits` say.
            args: As in `run`.
            kwargs: As in `run`.
            seed: As in `run`.
            limits: As in `run`.
            isolation: As in `run`.
            deadline_s: As in `run`.
        """
        bounds = check_limits(limits) or self._manager.get(sandbox_id(sandbox)).limits
        return await self.run(
            sandbox,
            entry,
            args=args,
            kwargs=kwargs,
            seed=seed,
            limits=bounds.evolve(timeout_s=timeout_s),
            isolation=isolation,
            deadline_s=deadline_s,
        )

    async def get_info(self, sandbox: SandboxRef) -> SandboxState:
        """Return what is known about a sandbox at this moment.

        Raises:
            SandboxNotFound: There is none.
        """
        with self._request():
            return self._manager.state(self._manager.get(sandbox_id(sandbox)))

    async def list_sandboxes(self, *, population: str | None = None) -> list[SandboxState]:
        """Return the state of every sandbox, oldest first.

        Args:
            population: Only the members of this one.
        """
        with self._request():
            states = self._manager.states()
            return [state for state in states if population is None or state.population == population]

    async def guest_notes(self) -> str:
        """Describe the guest's Python for whoever writes its code: version, packages, what it lacks."""
        with self._request():
            return guest_notes(await self._worker.info(), self.config)

    def _asking(self, fitness: Fitness | AsyncFitness) -> SandboxFunction:
        if inspect.iscoroutinefunction(fitness) or inspect.iscoroutinefunction(type(fitness).__call__):
            ask_async = cast("AsyncFitness", fitness)

            async def ask(record: SandboxRecord) -> object:
                return await ask_async(AsyncSandbox(self, record.id))

            return update_wrapper(ask, fitness, _NAMES, ())
        portal = TokenPortal(trio.lowlevel.current_trio_token())
        threads = trio.CapacityLimiter(self._worker.slots)

        async def ask_in_thread(record: SandboxRecord) -> object:
            handle = Sandbox(portal, AsyncSandbox(self, record.id))
            return await trio.to_thread.run_sync(
                partial(cast("Fitness", fitness), handle), abandon_on_cancel=True, limiter=threads
            )

        return update_wrapper(ask_in_thread, fitness, _NAMES, ())
