"""What the store holds of the sandboxes of killed engines, for their revival."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from evocell.errors import StoreError
from evocell.models.specs import SandboxSpec
from evocell.store.encoding import unpack_files
from evocell.store.inspection import blaming_store
from evocell.store.runs import LOST, LostSandbox
from evocell.store.store import Store

__all__ = ["lost_sandboxes", "note_revived", "read_source_text"]

_LOST = """
    SELECT id, sandbox, s.version, population, generation, mutation_type, files
    FROM sandboxes s LEFT JOIN sources USING (version) WHERE kept AND error = ? ORDER BY created_at, sandbox
"""
_LOST_PARENTS = """
    SELECT child, lineage.parent_id FROM lineage JOIN sandboxes ON sandbox = child
    WHERE error = ? ORDER BY child, place
"""


def read_source_text(files: bytes | None, version: str | None, path: Path) -> dict[str, str] | None:
    """Decode the source text of a version; None if the store does not hold the text of all its files.

    Args:
        files: The packed files, as the store holds them; None if it holds none.
        version: Digest of the version, for errors.
        path: The database, for errors.

    Raises:
        StoreError: The packed files are damaged.
    """
    try:
        text = {} if files is None else unpack_files(files)
    except ValueError as error:
        raise StoreError(f"{error} (version {version})", str(path)) from error
    whole = {name: content for name, content in text.items() if content is not None}
    return whole if whole and len(whole) == len(text) else None


def lost_sandboxes(store: Store) -> list[tuple[LostSandbox, SandboxSpec]]:
    """Return the sandboxes of killed engines that have not been revived, with their source text.

    The source is missing if the text is not in the store. The latest holder represents an id.

    Raises:
        StoreError: The store cannot be read, or is damaged.
    """
    store.flush_blocking()
    found: dict[str, tuple[LostSandbox, SandboxSpec]] = {}
    with blaming_store(store.path):
        rows = store.query(_LOST, (LOST,))
        parents: dict[int, list[str]] = {}
        for child, parent_id in store.query(_LOST_PARENTS, (LOST,)):
            parents.setdefault(child, []).append(parent_id)
        for sandbox_id, number, code, population, generation, made_by, files in rows:
            spec = SandboxSpec(
                sandbox_id,
                source=read_source_text(files, code, store.path),
                population=population,
                generation=generation,
                parent_ids=tuple(parents.get(number, ())),
                mutation_type=made_by,
            )
            found[sandbox_id] = LostSandbox(sandbox_id, number, code), spec
    return list(found.values())


def note_revived(store: Store, lost: Iterable[LostSandbox], run: int) -> None:
    """Record that sandboxes have been revived, so that they are not revived again."""
    rows = [(f"brought back in run {run}", one.id, LOST) for one in lost]
    store.executemany("UPDATE sandboxes SET error = ? WHERE id = ? AND error = ?", rows)
