"""Code of a batch compiled ahead of its evaluation, many candidates in one fork.

Compiling a small candidate costs mostly the fork and the request around it. A batch therefore has the code
of its next candidates compiled together while it evaluates the ones before. Candidates load their code as
ever, and find it made; what could not be made ahead they make themselves.
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
"""Trees that are compiled in one fork at most."""
TOGETHER_BYTES = 256 << 10
"""Bytes of source in one fork at most."""
LEAD = 2 * TOGETHER
"""How many candidates the compilation may be ahead of the evaluation."""

R = TypeVar("R")


class CompileAhead:
    """Compiles the sources of a batch ahead of its evaluation.

    Args:
        versions: What compiles, and keeps what it compiled.
        sources: The sources, in the order in which they are evaluated.
        limits: Limits of the calls that they are for.
    """

    def __init__(self, versions: Versions, sources: Sequence[Source], limits: Limits) -> None:
        self._versions = versions
        self._sources = sources
        self._limits = limits
        self._n_done = 0
        self._moved = trio.Event()

    def note_done(self) -> None:
        """Note that one more candidate has been evaluated."""
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
            BaseException: What `evaluate` raised, bare.

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
        """The next trees to compile together, and the place after them."""
        trees: list[FileTree] = []
        n_bytes = 0
        while at < len(sources) and len(trees) < TOGETHER and n_bytes < TOGETHER_BYTES:
            source = sources[at]
            at += 1
            if isinstance(source, str) and len(source) <= TOGETHER_BYTES // TOGETHER:
                try:
                    trees.append(normalise(source))
                except ConfigurationError:
                    continue  # the candidate is told when it is loaded
                n_bytes += len(source)
        return trees, at
