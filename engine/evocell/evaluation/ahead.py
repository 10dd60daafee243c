"""Compilation of a batch's code ahead of its evaluation, many candidates in one fork.

Most of the cost of compiling a small candidate is the fork and the request. A batch therefore compiles its
next candidates together while it evaluates earlier ones. Candidates load their code as usual and find it
compiled; code that could not be compiled ahead is compiled then.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

from evocell.code.sources import FileTree, normalise
from evocell.concurrency import passes_on
from evocell.errors import ConfigurationError
from evocell.models.limits import Limits
from evocell.models.references import Source
from evocell.sandboxes.code_versions import Versions

__all__ = ["CompileAhead"]

TOGETHER = 32
"""Most trees compiled in one fork."""
TOGETHER_BYTES = 256 << 10
"""Most bytes of source compiled in one fork."""
LEAD = 2 * TOGETHER
"""Most candidates by which the compilation may be ahead of the evaluation."""

R = TypeVar("R")


class CompileAhead:
    """Compiles the sources of a batch ahead of its evaluation.

    Args:
        versions: Compiles and caches the code.
        sources: The sources, in the order in which they are evaluated.
        limits: Limits of the later calls.
    """

    def __init__(self, versions: Versions, sources: Sequence[Source], limits: Limits) -> None:
        self._versions = versions
        self._sources = sources
        self._limits = limits
        self._n_done = 0
        self._moved = trio.Event()

    def note_done(self) -> None:
        """Record that one more candidate has been evaluated."""
        self._n_done += 1
        self._moved.set()

    async def compile(self, places: Sequence[int]) -> None:
        """Compile the sources at some places together, as far as they may be.

        Cancellation: Nothing is kept.
        """
        at = 0
        sources = [self._sources[place] for place in places]
        while at < len(sources):
            trees, at = self._next(sources, at)
            await self._versions.compile_ahead(trees, limits=self._limits)

    async def beside(self, evaluate: Callable[[], Awaitable[R]]) -> R:
        """Evaluate while code is compiled ahead.

        Raises:
            BaseException: The exception of `evaluate`, not wrapped in a group.

        Cancellation: Both are cancelled.
        """
        failure: BaseException | None = None
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run)
            try:
                result = await evaluate()
            except BaseException as error:
                if passes_on(error):
                    raise
                failure = error  # raised below, outside the nursery, which would wrap it
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure
        return result

    async def _run(self) -> None:
        at = 0
        while at < len(self._sources):
            while at > self._n_done + LEAD:
                self._moved = trio.Event()
                await self._moved.wait()
            trees, at = self._next(self._sources, max(at, self._n_done))
            await self._versions.compile_ahead(trees, limits=self._limits)
            await trio.lowlevel.checkpoint()

    @staticmethod
    def _next(sources: Sequence[Source], at: int) -> tuple[list[FileTree], int]:
        """Return the next trees to compile together, and the index after them."""
        trees: list[FileTree] = []
        n_bytes = 0
        while at < len(sources) and len(trees) < TOGETHER and n_bytes < TOGETHER_BYTES:
            source = sources[at]
            at += 1
            if isinstance(source, str) and len(source) <= TOGETHER_BYTES // TOGETHER:
                try:
                    trees.append(normalise(source))
                except ConfigurationError:
                    continue  # reported when the candidate is loaded
                n_bytes += len(source)
        return trees, at
