"""Programs in their normal form: what their syntax trees say, so that a comment more makes no other program.

A guest parses a program and writes it down again, in a fork that runs none of it; the host only compares
and keeps texts. What comes back is a program like any other, which is compiled, gated and stored as such.
"""

from __future__ import annotations

from collections.abc import Mapping

import trio
from attrs import frozen

from evocell.code.compiler import CompiledVersion
from evocell.code.sources import FileTree
from evocell.errors import ConfigurationError, WorkerDied
from evocell.execution.interface import Worker
from evocell.lru import LruCache
from evocell.models.limits import Limits
from evocell.models.outcome import Outcome, WorkerLost
from evocell.models.security import SecurityProfile
from evocell.sandboxes.code_versions import Versions

__all__ = ["NormalForms"]

_KEPT_BYTES = 16 << 20
_ENTRY_BYTES = 256


@frozen
class _Known:
    """The normal form of a version; None if it has none."""

    tree: FileTree | None


class NormalForms:
    """Finds the normal forms of versions, and remembers them.

    Args:
        worker: Where programs are parsed.
        versions: Where they are kept and compiled.
    """

    def __init__(self, worker: Worker, versions: Versions) -> None:
        self._worker = worker
        self._versions = versions
        self._known: LruCache[str, _Known] = LruCache(_KEPT_BYTES, keeps_last=True)

    async def of(
        self, code: CompiledVersion, *, profile: SecurityProfile | None, limits: Limits
    ) -> CompiledVersion | None:
        """Return the normal form of a version, compiled.

        Args:
            code: The version.
            profile: The security profile of its code; None for the engine's.
            limits: Limits of the calls that it is for.

        Returns:
            Its normal form, which is the version itself if it is written so; None if it has none: where text
            made of its tree would have another tree, or its code lies in an image.

        Raises:
            StoreError: The snapshot store cannot be used.
            CapacityError: There is no room for another fork.
            WorkerDied: The workers that parsed it died, one after the other.
        """
        if not code.code:
            return None
        known = self._known.get(code.digest)
        if known is None:
            known = await self._find(code)
            size = 0 if known.tree is None else sum(len(content) for _, content in known.tree.files)
            self._known.put(code.digest, known, _ENTRY_BYTES + size)
        if known.tree is None or known.tree.digest == code.digest:
            return None if known.tree is None else code
        made = await self._versions.compiled(known.tree, profile=profile, limits=limits)
        return made if isinstance(made, CompiledVersion) else None

    async def _find(self, code: CompiledVersion) -> _Known:
        tree = await trio.to_thread.run_sync(self._versions.read, code.digest)
        python = tree.python_files
        answer = await self._worker.inspect(
            {"op": "normalise", "files": [[path, content] for path, content in python]}
        )
        if isinstance(answer, WorkerLost):
            raise WorkerDied(f"the program could not be parsed: {answer.reason}")
        if isinstance(answer, Outcome):
            return _Known(None)
        texts = _texts(answer, [path for path, _ in python])
        if texts is None:
            return _Known(None)
        try:
            return _Known(FileTree(tuple({**dict(tree.files), **texts}.items())))
        except ConfigurationError:  # written out it is too large
            return _Known(None)


def _texts(answer: Mapping[object, object], paths: list[str]) -> dict[str, bytes] | None:
    """Narrow a guest's answer; None if it is not one text for each path."""
    pairs = answer.get("files")
    if answer.get("t") != "normalised" or not isinstance(pairs, list) or len(pairs) != len(paths):
        return None
    texts: dict[str, bytes] = {}
    for path, pair in zip(paths, pairs, strict=True):
        match pair:
            case [str(given), bytes(text)] if given == path:
                texts[path] = text
            case _:
                return None
    return texts
