"""Compilation of a batch's code ahead of its evaluation, many candidates in one fork.

Most of the cost of compiling a small candidate is the fork and the request. A batch therefore compiles its
next candidates together while it evaluates earlier ones. Candidates load their code as usual and find it
compiled; code that could not be compiled ahead is compiled then.

How far ahead it is follows the worker's slots: as many candidates may be under way at once, and were it not
further ahead than those, each would compile its own code.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

from evocell.code.sources import FileTree, normalise
from evocell.concurrency import Slots, passes_on
from evocell.errors import ConfigurationError
from evocell.models.limits import Limits
from evocell.models.references import Source
from evocell.sandboxes.code_versions import Versions

__all__ = ["CompileAhead"]

TOGETHER = 32
"""Most trees compiled in one fork."""
TOGETHER_BYTES = 256 << 10
"""Most bytes of source compiled in one fork."""
FIRST_BYTES = 16 << 10
"""Most bytes of source compiled in one fork while the first candidates wait for it: some 10 ms of work."""

R = TypeVar("R")


class CompileAhead:
    """Compiles the sources of a batch ahead of its evaluation.

    Args:
        versions: Compiles and caches the code.
        sources: The sources, in the order in which they are evaluated.
        limits: Limits of the later calls.
        slots: The number of calls that can be under way at once.
    """

    def __init__(self, versions: Versions, sources: Sequence[Source], limits: Limits, slots: Slots) -> None:
        self._versions = versions
        self._sources = sources
        self._limits = limits
        self._slots = slots
        self._n_done = 0
        self._n_groups = 0
        self._most_slots = 0
        self._moved = trio.Event()

    @property
    def _at_once(self) -> int:
        """Most candidates under evaluation at once: what a batch has begun stays when slots become fewer."""
        self._most_slots = max(self._most_slots, self._slots.slots)
        return self._most_slots

    @property
    def _lead(self) -> int:
        """Most candidates by which the compilation may be ahead of the evaluation."""
        return 2 * max(TOGETHER, self._at_once)

    @property
    def _most_groups(self) -> int:
        """Most forks that compile at once; together they hold as many trees as the lead."""
        return max(1, 2 * self._at_once // TOGETHER)

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
            trees, at = _next(sources, at)
            await self._versions.compile_ahead(trees, limits=self._limits)

    async def beside(self, evaluate: Callable[[], Awaitable[R]]) -> R:
        """Evaluate while code is compiled ahead.

        Raises:
            BaseException: The exception of `evaluate`, not wrapped in a group.

        Cancellation: Both are cancelled.
        """
        failure: BaseException | None = None
        async with trio.open_nursery() as nursery:
            await nursery.start(self._run)
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

    async def _run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Compile all sources. Reports started once no more of them can be begun."""
        at, begun = 0, False
        async with trio.open_nursery() as nursery:
            while at < len(self._sources):
                if at > self._n_done + self._lead or self._n_groups >= self._most_groups:
                    if not begun:
                        begun = True
                        task_status.started()
                    self._moved = trio.Event()
                    await self._moved.wait()
                    continue
                at = max(at, self._n_done)
                if at < self._at_once:  # candidates wait for it from the start
                    trees, at = _next(self._sources, at, min(self._at_once, TOGETHER), FIRST_BYTES)
                else:
                    trees, at = _next(self._sources, at)
                self._n_groups += 1
                await nursery.start(self._compile, trees)
            if not begun:
                task_status.started()

    async def _compile(
        self, trees: Sequence[FileTree], *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED
    ) -> None:
        """Compile trees together. Reports started once candidates wait for them."""
        try:
            await self._versions.compile_ahead(trees, limits=self._limits, task_status=task_status)
        finally:
            self._n_groups -= 1
            self._moved.set()


def _next(
    sources: Sequence[Source], at: int, most: int = TOGETHER, most_bytes: int = TOGETHER_BYTES
) -> tuple[list[FileTree], int]:
    """Return the next trees to compile together, and the index after them."""
    trees: list[FileTree] = []
    n_bytes = 0
    while at < len(sources) and len(trees) < most and n_bytes < most_bytes:
        source = sources[at]
        at += 1
        if isinstance(source, str) and len(source) <= TOGETHER_BYTES // TOGETHER:
            try:
                trees.append(normalise(source))
            except ConfigurationError:
                continue  # reported when the candidate is loaded
            n_bytes += len(source)
    return trees, at
