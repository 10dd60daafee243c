"""Hot reload of sandboxes: new code, rollbacks, and the version history of their modules."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import cast

import trio

from evocell.code.compiler import CompiledVersion
from evocell.code.module_versions import ROLLBACK, module_files
from evocell.code.sources import FileTree
from evocell.errors import ConfigurationError, OutcomeError
from evocell.execution.interface import Worker
from evocell.models.outcome import Completed, Outcome, Rejected
from evocell.models.references import Source
from evocell.models.versions import ModuleVersion, VersionDiff
from evocell.sandboxes.calls import end_session, swap_in_place
from evocell.sandboxes.code_versions import Versions, read_source
from evocell.sandboxes.manager import Manager
from evocell.sandboxes.record import SandboxRecord

__all__ = ["CONTEXT_LINES", "Reloading"]

CONTEXT_LINES = 3
"""Context lines of a diff."""

MakeTree = Callable[[], Awaitable[FileTree]]


class Reloading:
    """Reloads sandboxes, and reads the version history of their modules.

    Args:
        worker: The worker that holds their sessions.
        versions: Compiles their code.
        manager: The manager of the sandboxes.
    """

    def __init__(self, worker: Worker, versions: Versions, manager: Manager) -> None:
        self._worker = worker
        self._versions = versions
        self._manager = manager
        self._modules = manager.modules

    async def reload(
        self, record: SandboxRecord, source: Source, *, mutation_type: str, keep_state: bool
    ) -> Outcome:
        """Load new code into a sandbox.

        Without `keep_state` its session ends, so that no state of the former code remains; rejected code
        leaves the sandbox in ``error``. With it the code is swapped in the running session; code that is
        rejected, or whose modules raise, then changes nothing.

        Returns:
            `Completed` with the version's digest, or the failure of the load.

        Raises:
            ConfigurationError: The source is invalid.
            SandboxNotFound: It was destroyed meanwhile.

        Cancellation: Nothing has changed, except that a session in the middle of a swap loses its state.
        """
        tree = await read_source(source)

        async def given() -> FileTree:
            return tree

        return await self._replace(record, given, mutation_type=mutation_type, keep_state=keep_state)

    async def rollback(self, record: SandboxRecord, module: str, number: int, *, keep_state: bool) -> Outcome:
        """Restore a module's files from an earlier version; all other files are unchanged.

        Returns:
            As `reload`.

        Raises:
            ConfigurationError: There is no such version, or the sandbox holds no code that runs.
            StoreError: The version cannot be read.
            SandboxNotFound: It was destroyed meanwhile.

        Cancellation: As for `reload`.
        """

        async def restored() -> FileTree:
            wanted = self._modules.get(record.id, module, number)
            if record.code is None:
                raise ConfigurationError(
                    f"sandbox {record.id!r} holds no code that runs, so there is nothing to roll {module!r} "
                    "back in; load some with hot_reload_source",
                    "id",
                )
            return await trio.to_thread.run_sync(self._restored, record.code, wanted)

        return await self._replace(record, restored, mutation_type=ROLLBACK, keep_state=keep_state)

    async def module_version(self, record: SandboxRecord, module: str) -> ModuleVersion | None:
        """Return the loaded version of a module; None if the sandbox holds no working code.

        Raises:
            ConfigurationError: Its code has no such module.
        """
        code = await self._manager.held_code(record)
        return None if isinstance(code, Rejected) else self._modules.current(record.id, module)

    async def history(self, record: SandboxRecord, module: str) -> tuple[ModuleVersion, ...]:
        """Return the retained versions of a module, oldest first.

        Raises:
            ConfigurationError: The sandbox never had such a module.
        """
        await record.loaded.wait()
        return self._modules.history(record.id, module)

    async def diff(self, record: SandboxRecord, module: str, old: int | None, new: int | None) -> VersionDiff:
        """Return the difference between two versions of a module; a guest computes it.

        Args:
            record: The sandbox.
            module: The module.
            old: Number of the version to compare with; None for the one before `new`.
            new: Number of the version to compare; None for the latest.

        Raises:
            ConfigurationError: There is no such version.
            StoreError: A version cannot be read.
            OutcomeError: The guest could not compare them, for example for lack of fuel.
        """
        await record.loaded.wait()
        before, after = self._pair(record, module, old, new)
        leases = [self._versions.trees.lease(version.digest) for version in (before, after)]
        request = {
            "op": "diff",
            "old": await trio.to_thread.run_sync(self._files, before),
            "new": await trio.to_thread.run_sync(self._files, after),
            "context": CONTEXT_LINES,
        }
        del leases
        answer = await self._worker.inspect(request)
        if isinstance(answer, Outcome):
            raise OutcomeError(answer)
        return VersionDiff(
            module=module,
            old=before.number,
            new=after.number,
            unified=_text(answer.get("unified")),
            added=_names(answer, "added"),
            removed=_names(answer, "removed"),
            changed=_names(answer, "changed"),
        )

    async def _replace(
        self, record: SandboxRecord, make_tree: MakeTree, *, mutation_type: str, keep_state: bool
    ) -> Outcome:
        about = {"sandbox_id": record.id, "mutation_type": mutation_type, "keep_state": keep_state}
        with self._manager.telemetry.span("sandbox.hot_reload", about) as span, record.in_use():
            await record.loaded.wait()
            async with record.lock:
                tree = await make_tree()
                made = await self._versions.compiled(
                    tree, profile=record.security_profile, limits=record.limits
                )
                self._manager.record_refusal(record, made)
                outcome: Outcome = made if isinstance(made, Rejected) else Completed(value=made.digest)
                span.note(outcome=outcome.kind, version=record.state.version)
                if keep_state and record.code is not None and isinstance(made, Rejected):
                    return outcome
                if isinstance(made, CompiledVersion) and keep_state and record.session_live:
                    swapped = await swap_in_place(self._worker, record, made)
                    if not swapped.ok:
                        span.note(outcome=swapped.kind)
                        return swapped
                else:
                    await end_session(self._worker, record)
                record.refuse_stopped()
                self._manager.install(record, made, mutation_type=mutation_type)
                span.note(version=record.state.version)
                return outcome

    def _pair(
        self, record: SandboxRecord, module: str, old: int | None, new: int | None
    ) -> tuple[ModuleVersion, ModuleVersion]:
        latest = self._modules.history(record.id, module)[-1]
        after = latest if new is None else self._modules.get(record.id, module, new)
        if old is None and after.parent_version is None:
            raise ConfigurationError(
                f"version {after.number} of module {module!r} is the first; say with which to compare it",
                "old",
            )
        number = after.parent_version if old is None else old
        return self._modules.get(record.id, module, cast("int", number)), after

    def _restored(self, code: CompiledVersion, wanted: ModuleVersion) -> FileTree:
        now, then = self._versions.read(code.digest), self._versions.read(wanted.digest)
        gone = set(module_files(code.files).get(wanted.module, ()))
        kept = {path: content for path, content in now.files if path not in gone}
        back = {path: content for path, content in then.files if path in wanted.files}
        return FileTree(tuple({**kept, **back}.items()))

    def _files(self, version: ModuleVersion) -> list[list[object]]:
        tree = self._versions.read(version.digest)
        return [[path, content] for path, content in tree.files if path in version.files]


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _names(answer: Mapping[object, object], key: str) -> tuple[str, ...]:
    value = answer.get(key)
    return tuple(filter(None, map(_text, value))) if isinstance(value, list) else ()
