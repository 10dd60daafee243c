"""The part of `AsyncEngine` for code versions, the audit log, records of calls, and revival after a crash."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeAlias

import trio
from attrs import evolve

from evocell.api.arguments import SandboxRef, check_evaluation, sandbox_ids
from evocell.api.lifecycle import EngineLifecycle
from evocell.code.sources import FileTree
from evocell.concurrency import map_bounded
from evocell.errors import ConfigurationError
from evocell.evaluation.head_to_head import check_duel, head_to_head
from evocell.models.evaluation import Evaluation
from evocell.models.measurement import HeadToHead
from evocell.models.outcome import Outcome, Rejected
from evocell.models.recorded import EvaluationRecord, MemoInfo, Replay
from evocell.models.references import Source, optional_id
from evocell.models.references import sandbox_id as id_of
from evocell.models.specs import SandboxSpec, check_id
from evocell.models.versions import ModuleVersion, VersionDiff
from evocell.sandboxes.code_versions import read_source
from evocell.sandboxes.record import SandboxRecord
from evocell.store.audit import AuditEntry, AuditKind
from evocell.store.revival import lost_sandboxes, note_revived
from evocell.store.runs import LostSandbox

__all__ = ["AsyncHistory", "Version"]

Version: TypeAlias = "Source | SandboxRef | ModuleVersion"
"""A version of code: a source, a sandbox's current code, or one from its history."""


class AsyncHistory(EngineLifecycle):
    """The methods of `AsyncEngine` for versions of code, and for records of calls and sandboxes."""

    async def hot_reload_source(
        self,
        sandbox: SandboxRef,
        source: Source,
        *,
        mutation_type: str = "mutation",
        keep_state: bool = False,
    ) -> Outcome:
        """Replace a sandbox's code.

        Args:
            sandbox: Which one.
            source: The new code.
            mutation_type: The kind of mutation that made the new code, for the lineage.
            keep_state: False starts from a fresh fork, so that no state of the former code remains, and
                rejected code leaves the sandbox in status ``error``. True swaps the code in place:
                instances, classes and functions keep their identity and get the new code, and a
                module-level name keeps its value if the module still binds it in the same way. Code that
                is rejected, or whose modules raise, then changes nothing. docs/versions.md lists what
                does not survive.

        Returns:
            `Completed` with the digest of the new version, or the failure of the load.

        Raises:
            SandboxNotFound: There is none, or it was destroyed meanwhile.
            ConfigurationError: The source or an argument is invalid.

        Cancellation: The sandbox keeps its code; with `keep_state` its session may lose its state.
        """
        check_id(mutation_type, "mutation_type")
        with self._request():
            record = self._manager.get(id_of(sandbox))
            return await self._reloading.reload(
                record, source, mutation_type=mutation_type, keep_state=keep_state
            )

    async def hot_reload(
        self,
        sandbox: SandboxRef,
        bundle: bytes,
        *,
        mutation_type: str = "mutation",
        keep_state: bool = False,
    ) -> Outcome:
        """Replace a sandbox's code by that of a zip or wheel; else as `hot_reload_source`.

        Args:
            sandbox: Which one.
            bundle: The new code, the bytes of a zip or wheel.
            mutation_type: As in `hot_reload_source`.
            keep_state: As in `hot_reload_source`.
        """
        if not isinstance(bundle, bytes):
            raise ConfigurationError(
                f"hot_reload takes the bytes of a zip or wheel, not {type(bundle).__name__}; "
                "use hot_reload_source for text and files",
                "bundle",
            )
        return await self.hot_reload_source(
            sandbox, bundle, mutation_type=mutation_type, keep_state=keep_state
        )

    async def rollback_module(
        self, sandbox: SandboxRef, module: str, version: int, *, keep_state: bool = False
    ) -> Outcome:
        """Restore one module's files from an earlier version, as a new version.

        The files of all other modules are unchanged. A package is a module with everything below it.

        Args:
            sandbox: Which one.
            module: The module's dotted name.
            version: Number of the version, as in `history`.
            keep_state: As in `hot_reload_source`.

        Returns:
            `Completed` with the digest of the new version of the whole tree, or the failure of the load.

        Raises:
            SandboxNotFound: There is none, or it was destroyed meanwhile.
            ConfigurationError: The module or version does not exist, or is not kept any more.

        Cancellation: As for `hot_reload_source`.
        """
        with self._request():
            record = self._manager.get(id_of(sandbox))
            return await self._reloading.rollback(record, module, version, keep_state=keep_state)

    async def get_module_version(self, sandbox: SandboxRef, module: str) -> ModuleVersion | None:
        """Return the version of a module that a sandbox has loaded.

        Returns:
            The version; None if the sandbox holds no working code.

        Raises:
            SandboxNotFound: There is no such sandbox.
            ConfigurationError: Its code has no such module.
        """
        with self._request():
            return await self._reloading.module_version(self._manager.get(id_of(sandbox)), module)

    async def history(self, sandbox: SandboxRef, module: str) -> tuple[ModuleVersion, ...]:
        """Return the versions of a module of a sandbox, oldest first.

        The latest `Config.max_module_versions` are kept, also of a removed module.

        Raises:
            SandboxNotFound: There is no such sandbox.
            ConfigurationError: It never had such a module.
        """
        with self._request():
            return await self._reloading.history(self._manager.get(id_of(sandbox)), module)

    async def past_versions(self, sandbox_id: SandboxRef, module: str | None = None) -> list[ModuleVersion]:
        """Return all versions of a sandbox's modules, also of a destroyed sandbox.

        They are read from the store, including those of earlier engines if there is a state directory.
        Versions that are not in `history` cannot be rolled back to, but their text is in the store.

        Args:
            sandbox_id: The sandbox, or its id; it need not exist any more.
            module: Only this module.

        Raises:
            StoreError: The store cannot be read.
        """
        with self._request():
            await self._observer.store.flush()
            find = self._manager.kept_versions.find
            return await trio.to_thread.run_sync(find, id_of(sandbox_id), module)

    async def diff(
        self, sandbox: SandboxRef, module: str, old: int | None = None, new: int | None = None
    ) -> VersionDiff:
        """Return the changes of a module between two versions.

        Args:
            sandbox: Which one.
            module: The module's dotted name.
            old: Number of the version to compare with; None for the one before `new`.
            new: Number of the version to compare; None for the latest.

        Returns:
            The changed lines, and the functions and classes that were added, removed or changed.

        Raises:
            SandboxNotFound: There is no such sandbox.
            ConfigurationError: There is no such module or version, or nothing before the first.
            OutcomeError: The guest could not compare them, for example because its fuel ran out.
        """
        with self._request():
            return await self._reloading.diff(self._manager.get(id_of(sandbox)), module, old, new)

    async def head_to_head(
        self,
        first: Version,
        second: Version,
        evaluation: Evaluation,
        *,
        deadline_s: float | None = None,
    ) -> HeadToHead:
        """Run two versions on the same cases, side by side in one sandbox.

        The modules of both are loaded into one guest, under prefixed names: ``first_program`` and
        ``second_program``. Code that cannot be renamed (imports by names computed at run time, ``exec``) is
        rejected by name.

        Args:
            first: One version, such as the parent: a source, a `Sandbox`, or a `ModuleVersion` of `history`.
            second: The other one.
            evaluation: The cases and their scoring; without harness, stop and total limits.
            deadline_s: Seconds in which everything must be over.

        Returns:
            The fitness of both, and each case side by side. Nothing is recorded for the sandboxes.

        Raises:
            ConfigurationError: The evaluation cannot be shared, or a source is invalid.
            SandboxNotFound: There is no such sandbox.

        Cancellation: Every call is stopped, and there is no result.
        """
        check_duel(check_evaluation(evaluation))
        with self._request():
            # A tree is kept as long as its lease is referenced.
            pairs = [await self._tree(version) for version in (first, second)]
            plan = await self._batches.plan(evaluation, deadline_s=deadline_s)
            return await head_to_head(self._worker, self._versions, plan, [tree for tree, _ in pairs])

    async def _tree(self, version: Version) -> tuple[FileTree, object]:
        if isinstance(version, ModuleVersion):
            lease = self._manager.trees.lease(version.digest)
            return await trio.to_thread.run_sync(self._versions.read, version.digest), lease
        if isinstance(version, str | Mapping | Path | bytes):
            return await read_source(version), None
        record = self._manager.get(id_of(version))
        code = await self._manager.held_code(record)
        if isinstance(code, Rejected):
            raise ConfigurationError(f"sandbox {record.id!r} holds no code that runs: {code.error}", "id")
        return await trio.to_thread.run_sync(self._versions.read, code.digest), code

    async def audit_log(
        self,
        *,
        kind: AuditKind | None = None,
        sandbox_id: SandboxRef | None = None,
        since: float | None = None,
        after: int = 0,
        limit: int = 100,
    ) -> list[AuditEntry]:
        """Return audit entries: decisions of the security gate and stopped guests.

        Args:
            kind: Only entries of this kind: ``"allowed"``, ``"reported"`` (it would have been refused, but
                ``enforcement_enabled`` is off), ``"refused"``, ``"refused_running"`` (by the audit hook),
                ``"killed"``, ``"crashed"`` or ``"worker_lost"``.
            sandbox_id: Only those about this sandbox, which may be destroyed.
            since: Only those from this time on, in seconds since 1970.
            after: Only those with a higher number than this.
            limit: How many at most, from 1 to 10,000.

        Returns:
            The newest matching entries, oldest first. With a ``state_dir`` they include those of earlier
            engines.

        Raises:
            ConfigurationError: An argument cannot be used.
            StoreError: The store cannot be used.
        """
        with self._request():
            return await trio.to_thread.run_sync(
                partial(
                    self._observer.audit.entries,
                    kind=kind,
                    sandbox_id=optional_id(sandbox_id),
                    since=since,
                    after=after,
                    limit=limit,
                )
            )

    async def evaluation_records(
        self, *, sandbox_id: SandboxRef | None = None, key: str | None = None, limit: int = 100
    ) -> list[EvaluationRecord]:
        """Return the records of evaluated calls, which an engine with a ``state_dir`` keeps.

        Args:
            sandbox_id: Only those of this individual, the first to make the call.
            key: Only those whose key has this prefix.
            limit: How many at most, from 1 to 10,000.

        Returns:
            The newest matching records, oldest first. Calls that share a fork
            (``isolation="candidate"``, sessions) depend on each other and have no records.

        Raises:
            ConfigurationError: An argument is invalid, or this engine keeps no records.
            StoreError: The store cannot be used.
        """
        with self._request():
            find = partial(self._pure.find, sandbox_id=optional_id(sandbox_id), key=key, limit=limit)
            return await trio.to_thread.run_sync(find)

    async def replay(self, record: EvaluationRecord) -> Replay:
        """Repeat a recorded call, and compare outcome and fuel bit for bit.

        Args:
            record: One of `evaluation_records`.

        Raises:
            StoreError: Its code or arguments have been removed.
            CapacityError: There is no room for another fork.

        Cancellation: The call is stopped.
        """
        if not isinstance(record, EvaluationRecord):
            raise ConfigurationError(
                f"replay takes one of evaluation_records(), not {type(record).__name__}", "record"
            )
        with self._request():
            return await self._pure.replay(record, self._versions, self._manager.images)

    async def memo_info(self) -> MemoInfo:
        """Return the number of calls that memoised outcomes replaced."""
        with self._request():
            return self._pure.info()

    async def revive_sandboxes(self, ids: Sequence[SandboxRef] | None = None) -> list[str]:
        """Recreate the sandboxes of killed engines, with their code.

        The state of their sessions is lost. A sandbox whose code is not in the store any more, or whose id is
        in use again, is skipped.

        Args:
            ids: Which ones; None for all.

        Returns:
            The ids of the recreated sandboxes.

        Raises:
            ConfigurationError: One of `ids` did not belong to a killed engine, has been revived already, or
                its code is missing; nothing has been revived.
            CapacityError: The sandboxes would exceed the capacity; nothing has been revived.
            StoreError: The store is damaged.

        Cancellation: None of them is created.
        """
        with self._request():
            lost = await trio.to_thread.run_sync(lost_sandboxes, self._store)
            found = {one.id: (one, spec) for one, spec in lost if spec.source is not None}
            wanted = list(dict.fromkeys(found if ids is None else sandbox_ids(ids)))
            if ids is None:
                alive = {record.id for record in self._manager.records()}
                wanted = [one for one in wanted if one not in alive]
            elif missing := [one for one in wanted if one not in found]:
                raise ConfigurationError(
                    f"{missing[0]!r} cannot be brought back: no killed engine held it, somebody brought it "
                    "back, or its code is not in the store",
                    "ids",
                )
            chosen = [found[one] for one in wanted]
            await self._revive(chosen)
            note_revived(self._store, [one for one, _ in chosen], self._observer.journal.run)
            await self._observer.settle()
            return wanted

    async def _revive(self, chosen: Sequence[tuple[LostSandbox, SandboxSpec]]) -> None:
        async def load(pair: tuple[SandboxRecord, SandboxSpec]) -> None:
            await self._manager.load(pair[0], pair[1].source)

        specs = [spec for _, spec in chosen]
        async with self._manager.reserved([evolve(spec, source=None) for spec in specs]) as records:
            await map_bounded(
                load,
                list(zip(records, specs, strict=True)),
                at_once=self.slots + 1,
                grows_with=self._worker.host,
            )
