"""The part of `AsyncEngine` that hands out sandboxes: creation, copies, evaluation by functions of them."""

from __future__ import annotations

import inspect
import tempfile
import uuid
from collections.abc import Awaitable, Callable, Sequence
from functools import partial, update_wrapper
from itertools import count
from pathlib import Path
from typing import Any, cast

import trio

from evocell.api.arguments import SandboxRef, check_count, file_path, sandbox_id, sandbox_ids
from evocell.api.async_sandboxes import AsyncSandboxes
from evocell.api.portal import TokenPortal
from evocell.api.sandbox import AsyncFitness, AsyncSandbox, Fitness, Sandbox
from evocell.concurrency import map_bounded
from evocell.console.batches import Report
from evocell.console.progress import silent
from evocell.errors import ConfigurationError
from evocell.evaluation.batch import SandboxFunction
from evocell.evaluation.individuals import Progress
from evocell.models.evaluation import Evaluation
from evocell.models.fitness import FitnessResult
from evocell.models.limits import Limits
from evocell.models.references import Source
from evocell.models.security import SecurityProfile
from evocell.models.specs import SandboxSpec
from evocell.models.tables import Results
from evocell.sandboxes.record import SandboxRecord

__all__ = ["AsyncHandles"]

_NAMES = ("__qualname__",)


class AsyncHandles(AsyncSandboxes):
    """The methods of `AsyncEngine` that return sandboxes, or pass them to functions of the caller."""

    async def create_sandbox(
        self,
        id: str | None = None,  # noqa: A002 - the name that the whole API uses for it
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

        Rejected code (for example a syntax error) gives a sandbox in status ``error``: `get_info` returns the
        reason, its calls return the `Rejected`, and `hot_reload_source` can replace the code.

        Raises:
            ConfigurationError: An argument cannot be used.
            SandboxExists: The id is taken.
            CapacityError: There would be too many sandboxes.

        Cancellation: No sandbox is created.
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
            specs: The specifications.
            progress: Called in the engine's loop after each with its id, the number created so far, and the
                total. None shows a bar on a terminal after two seconds, `evocell.silent` nothing.

        Raises:
            SandboxExists: An id is in use or given twice; nothing has been created.
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
                await map_bounded(load, pairs, at_once=self.slots + 1, grows_with=self._worker.host)
                return [AsyncSandbox(self, record.id) for record in records]

    async def batch_evaluate(
        self,
        sandboxes: Sequence[SandboxRef],
        fitness: Evaluation | Fitness | AsyncFitness,
        *,
        deadline_s: float | None = None,
        progress: Progress | None = None,
    ) -> list[FitnessResult]:
        """Evaluate sandboxes, and record the results as their fitness.

        Args:
            sandboxes: The sandboxes.
            fitness: An `Evaluation`, run in fresh forks of their code; or a function that takes a
                sandbox and returns a number, named numbers, or a `FitnessResult`: a plain one runs in a
                thread with a `Sandbox`, an async one in the engine's loop with an `AsyncSandbox`.
            deadline_s: Overall deadline in seconds, as in `evaluate`.
            progress: As in `evaluate`.

        Returns:
            One result for each sandbox, in order. One that is destroyed meanwhile is invalid with the reason
            ``"destroyed"``; one that is reloaded meanwhile is evaluated in its old or in its new version,
            never in both.

        Raises:
            SandboxNotFound: One of them does not exist; nothing has been evaluated.
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

    async def fork_sandbox(self, sandbox: SandboxRef, new_id: str | None = None) -> AsyncSandbox:
        """Copy a sandbox: its code and the current state of its session.

        The two share no mutable state: modules, objects, random state and scratch files are copies. The fork
        joins the population and generation of its parent, with the mutation type ``"fork"``, and lives in the
        same worker.

        Args:
            sandbox: The sandbox to copy. A call that runs in its session is waited for.
            new_id: Id of the fork; None generates one.

        Raises:
            SandboxBusy: Its code has files open, or the worker has no room for the copy.
            SandboxNotFound: The sandbox does not exist, or was destroyed meanwhile.
            SandboxExists: The new id is in use.
            CapacityError: There would be too many sandboxes.

        Cancellation: No sandbox is created.
        """
        with self._request():
            made = await self._copies.fork(self._manager.get(sandbox_id(sandbox)), [new_id])
            return AsyncSandbox(self, made[0].id)

    async def batch_fork(self, sandbox: SandboxRef, count: int) -> list[AsyncSandbox]:
        """Fork a sandbox many times, all from the same state; see `fork_sandbox`.

        Args:
            sandbox: The sandbox.
            count: Number of forks, from 1.

        Raises:
            ConfigurationError: The count is not a positive integer.

        Cancellation: No fork remains.
        """
        n_forks = check_count(count, "count")
        with self._request():
            made = await self._copies.fork(self._manager.get(sandbox_id(sandbox)), [None] * n_forks)
            return [AsyncSandbox(self, record.id) for record in made]

    async def import_sandbox(
        self, path: str | Path, new_id: str | None = None, *, limits: Limits | None = None
    ) -> AsyncSandbox:
        """Create a sandbox from a file that `export_sandbox` wrote; the file is untrusted.

        Its session continues from its exported state. The code is recompiled here; byte code and native code
        are never taken from the file.

        Args:
            path: The file.
            new_id: The sandbox's id; None for its former one.
            limits: Its limits; None for its former ones, which the file's author chose.

        Raises:
            ProtocolError: The file is not an exported sandbox, is damaged, or holds an impossible state.
            ConfigurationError: The file does not exist, or the sandbox's image is not available here.
            SandboxExists: The id is taken.
            CapacityError: There would be too many sandboxes.

        Cancellation: No sandbox remains.
        """
        with self._request():
            record = await self._copies.take(file_path(path), new_id, limits)
            return AsyncSandbox(self, record.id)

    async def migrate_sandbox(
        self,
        sandbox: SandboxRef,
        target: object,
        *,
        new_id: str | None = None,
        path: str | Path | None = None,
    ) -> object:
        """Move a sandbox to another engine: write it to a file, recreate it there, destroy it here.

        Calls of the sandbox wait meanwhile, and then raise `SandboxNotFound`. If either engine's process dies
        during the migration, nothing is lost: the sandbox is destroyed here only after it exists there, and
        the file, from which `import_sandbox` recreates it, is removed last.

        Args:
            sandbox: The sandbox.
            target: An `AsyncEngine` of this loop, an `Engine` (whose work is waited for in a thread), or a
                function of the file's path, async or not, that makes some other engine import it and
                    returns when that is done.
            new_id: Its id there; None keeps its id.
            path: The intermediate file, removed at the end; None makes one in the temporary directory.

        Returns:
            The sandbox as returned by the target's `import_sandbox`, or the value of the function.

        Raises:
            SandboxBusy: Its code has files open; nothing has changed.
            Exception: The failure of the target; the sandbox is unchanged.

        Cancellation: The sandbox stays here; it may exist at the target as well.
        """
        with self._request():
            record = self._manager.get(sandbox_id(sandbox))
            name = f"evocell-{uuid.uuid4().hex}.sandbox"
            file = file_path(Path(tempfile.gettempdir()) / name if path is None else path)
            return await self._copies.migrate(record, file, recreation(target, new_id))

    def _asking(self, fitness: Fitness | AsyncFitness) -> SandboxFunction:
        if inspect.iscoroutinefunction(fitness) or inspect.iscoroutinefunction(type(fitness).__call__):
            ask_async = cast("AsyncFitness", fitness)

            async def ask(record: SandboxRecord) -> object:
                return await ask_async(AsyncSandbox(self, record.id))

            return update_wrapper(ask, fitness, _NAMES, ())
        portal = TokenPortal(trio.lowlevel.current_trio_token())
        threads = trio.CapacityLimiter(self.slots)

        async def ask_in_thread(record: SandboxRecord) -> object:
            handle = Sandbox(portal, AsyncSandbox(self, record.id))
            return await trio.to_thread.run_sync(
                partial(cast("Fitness", fitness), handle), abandon_on_cancel=True, limiter=threads
            )

        return update_wrapper(ask_in_thread, fitness, _NAMES, ())


def recreation(target: object, new_id: str | None) -> Callable[[Path], Awaitable[object]]:
    """Return a function that makes a target import a sandbox from a file.

    Args:
        target: An engine of either kind, or a function.
        new_id: The sandbox's id there; None keeps its id.

    Raises:
        ConfigurationError: It is neither.
    """
    function: Any = target
    if isinstance(target, AsyncHandles):
        return partial(_import_there, target, new_id)
    if (method := getattr(target, "import_sandbox", None)) is not None:
        function = partial(_call_import, method, new_id)
    elif not callable(target):
        raise ConfigurationError(
            f"target must be an engine or a function, not {type(target).__name__}", "target"
        )
    if inspect.iscoroutinefunction(function):
        return cast("Callable[[Path], Awaitable[object]]", function)
    return partial(trio.to_thread.run_sync, function)


async def _import_there(target: AsyncHandles, new_id: str | None, path: Path) -> object:
    return await target.import_sandbox(path, new_id)


def _call_import(method: Callable[..., object], new_id: str | None, path: Path) -> object:
    return method(path, new_id)
