"""Calls of the caller's own functions: plain ones in a thread, async ones on the loop of the engine.

Plain functions are called one at a time. Handing each call to a thread of the pool costs more than a tiny
candidate does, so calls are queued, and one visit to a thread makes all that have been queued meanwhile.

Of the functions only a score may be async. Several run at once, each for one case, as many as the evaluation
allows; a cancellation goes into them as into any task of trio. What either kind raises is data, as in
`evocell.evaluation.scoring`.
"""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cached_property, partial
from typing import Any, Generic, TypeVar, cast

import trio
from attrs import define, field

from evocell.concurrency import map_bounded
from evocell.evaluation.scoring import Judged, judge, judge_given, judge_raised
from evocell.models.evaluation import Evaluation, is_async
from evocell.models.outcome import Outcome

__all__ = ["AwaitedScores", "HostThread", "judge_awaiting", "run_scores"]

R = TypeVar("R")


class _Asked(Generic[R]):
    """A queued call, and its result or exception."""

    def __init__(self, function: Callable[[], R]) -> None:
        self._function = function
        self._context = contextvars.copy_context()
        self.answered = trio.Event()
        self.given_up = False
        self._value: R | None = None
        self._raised: BaseException | None = None

    def ask(self) -> None:
        """Make the call, in the thread, unless its caller was cancelled."""
        if self.given_up:
            return
        try:
            self._value = self._context.run(self._function)
        except BaseException as error:  # noqa: BLE001 - raised again by the task that waits
            self._raised = error

    def answer(self) -> R:
        """Return what it returned, or raise what it raised."""
        if self._raised is not None:
            raise self._raised
        return cast("R", self._value)


class HostThread:
    """Runs functions of the caller's in a thread, one at a time, in the order in which they come."""

    def __init__(self) -> None:
        self._row: deque[_Asked[Any]] = deque()
        self._done: deque[_Asked[Any]] = deque()
        self._running = False
        self._limiter = trio.CapacityLimiter(1)

    async def run(self, function: Callable[[], R]) -> R:
        """Run a function.

        Args:
            function: What to run.

        Returns:
            What it returned.

        Raises:
            BaseException: What it raised.

        Cancellation: It is not called any more; or, if it is being called, the thread is left to itself, and
            others are called when it has returned.
        """
        asked = _Asked(function)
        self._row.append(asked)
        if not self._running:
            self._start()
        try:
            await asked.answered.wait()
        except trio.Cancelled:
            asked.given_up = True
            raise
        return asked.answer()

    def _start(self) -> None:
        self._running = True
        # No task's own, since the thread serves all who stand in the row; one of trio's, so that the caller's
        # functions may use `trio.from_thread`.
        trio.lowlevel.spawn_system_task(self._stay)

    async def _stay(self) -> None:
        token = trio.lowlevel.current_trio_token()
        try:
            await trio.to_thread.run_sync(self._work, token, abandon_on_cancel=True, limiter=self._limiter)
        finally:
            self._ended()

    def _work(self, token: trio.lowlevel.TrioToken) -> None:
        """Call what stands in the row until it is empty; in the thread."""
        while self._row:
            asked = self._row.popleft()
            asked.ask()
            self._done.append(asked)
            with suppress(trio.RunFinishedError):  # the engine's loop ended without waiting for this thread
                token.run_sync_soon(self._deliver, idempotent=True)

    def _deliver(self) -> None:
        """Wake those whose functions have returned; on the loop."""
        while self._done:
            self._done.popleft().answered.set()

    def _ended(self) -> None:
        """Go on with what came after the thread had looked for the last time; on the loop."""
        self._deliver()
        self._running = False
        if self._row:
            with suppress(RuntimeError):  # the loop is ending
                self._start()


@define(eq=False)
class AwaitedScores:
    """The calls of an async score function that are under way, over all candidates of an evaluation.

    Attributes:
        evaluation: Whose function.
        wanted: Whether the score function is async.
        most: How many may be awaited at once; 0 where none is.
    """

    evaluation: Evaluation
    wanted: bool = field(init=False)
    most: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.wanted = is_async(self.evaluation.score)
        self.most = self.evaluation.scores_at_once if self.wanted else 0

    @cached_property
    def _turns(self) -> trio.CapacityLimiter:
        return trio.CapacityLimiter(self.evaluation.scores_at_once)

    async def judge(self, outcomes: Sequence[tuple[int, Outcome]]) -> list[Judged]:
        """Score outcomes, several at once.

        Args:
            outcomes: The place of each case, and how its call ended.

        Returns:
            Their scores, in the same order.

        Cancellation: Every call of the function is cancelled, and there are no scores.
        """
        return await map_bounded(self._one, outcomes, at_once=max(1, len(outcomes)))

    async def _one(self, case: tuple[int, Outcome]) -> Judged:
        index, outcome = case
        if not outcome.ok:
            return judge(self.evaluation, index, outcome)
        async with self._turns:
            return await judge_awaiting(self.evaluation, index, outcome)


async def judge_awaiting(evaluation: Evaluation, index: int, outcome: Outcome) -> Judged:
    """Score the outcome of a call that went well, with an async function.

    Args:
        evaluation: Whose case it is.
        index: The case's place, from 0.
        outcome: What the call returned.
    """
    assert callable(evaluation.score)
    case = evaluation.cases[index]
    try:
        given: object = await evaluation.score(case, outcome.unwrap())  # type: ignore[misc]  # it is async
    except Exception as error:  # noqa: BLE001 - the caller's function may raise anything
        return judge_raised(case, index, outcome, error)
    return judge_given(case, index, outcome, given)


def run_scores(evaluation: Evaluation, outcomes: Sequence[tuple[int, Outcome]]) -> list[Judged]:
    """Score outcomes in a trio loop of its own, in the calling thread."""
    return trio.run(partial(AwaitedScores(evaluation).judge, outcomes))
