"""Module versions in the store, which outlive their sandbox."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgpack

from evocell.models.versions import ModuleVersion
from evocell.store.inspection import blaming_store
from evocell.store.store import Store

__all__ = ["VersionStore"]

_KEEP = "INSERT INTO module_versions VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_FIND = """
    SELECT sandbox_id, module, number, checksum, digest, files, dependencies, parent_version, restores,
        mutation_type, created_at
    FROM module_versions WHERE sandbox_id = ? AND (? IS NULL OR module = ?)
    ORDER BY created_at, rowid
"""


class VersionStore:
    """Writes and reads module versions.

    Args:
        store: The store.
        run: The number of this engine's run.
    """

    def __init__(self, store: Store, run: int) -> None:
        self._store = store
        self._run = run

    def keep(self, versions: Sequence[ModuleVersion]) -> None:
        """Queue versions to be written; from any thread."""
        if versions:
            self._store.executemany(_KEEP, [(self._run, *_row(version)) for version in versions])

    def find(self, sandbox_id: str, module: str | None = None) -> list[ModuleVersion]:
        """Return the versions of a sandbox's modules, in the order of loading.

        Args:
            sandbox_id: The sandbox, of this run or an earlier one.
            module: Only this module.
        """
        with blaming_store(self._store.path):
            return [_version(row) for row in self._store.query(_FIND, (sandbox_id, module, module))]


def _row(version: ModuleVersion) -> tuple[Any, ...]:
    return (
        version.sandbox_id,
        version.module,
        version.number,
        version.checksum,
        version.digest,
        msgpack.packb(version.files),
        msgpack.packb(version.dependencies),
        version.parent_version,
        version.restores,
        version.mutation_type,
        version.created_at.timestamp(),
    )


def _version(row: Sequence[Any]) -> ModuleVersion:
    sandbox_id, module, number, checksum, digest, files, dependencies, parent, restores, how, at = row
    return ModuleVersion(
        sandbox_id=sandbox_id,
        module=module,
        number=number,
        checksum=checksum,
        digest=digest,
        files=tuple(msgpack.unpackb(files)),
        dependencies=tuple(msgpack.unpackb(dependencies)),
        parent_version=parent,
        restores=restores,
        mutation_type=how,
        created_at=datetime.fromtimestamp(at, UTC),
    )
