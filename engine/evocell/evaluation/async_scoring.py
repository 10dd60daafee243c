"""Scores that are awaited: an ``async`` function of the caller's, on the loop that the engine runs in.

What it raises is data as in `evocell.evaluation.scoring`, and a cancellation goes into it as into any task of
trio. Several run at once, each for one case, as many as the evaluation allows.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import trio
from attrs import define, field

from evocell.concurrency import map_bounded
from evocell.evaluation.scoring import Judged, judge, judge_given, judge_raised
from evocell.models.evaluation import Evaluation, is_async
from evocell.models.outcome import Outcome

__all__ = ["AwaitedScores", "judge_awaiting", "run_scores"]


@define(eq=False)
class AwaitedScores:
    """The calls of an async score function that are under way, over all candidates of an evaluation.

    Attributes:
        evaluation: Whose function.
    """

    evaluation: Evaluation
    _turns: trio.CapacityLimiter = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._turns = trio.CapacityLimiter(self.evaluation.scores_at_once)

    @property
    def wanted(self) -> bool:
        """Whether the score function is async."""
        return is_async(self.evaluation.score)

    @property
    def most(self) -> int:
        """How many may be awaited at once; 0 where none is."""
        return self.evaluation.scores_at_once if self.wanted else 0

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
