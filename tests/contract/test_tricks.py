"""No trick gets more in a sandbox than natively, none leaves anything behind, and none gets anything from the host."""

from __future__ import annotations

import pytest

import evocell
import tricks
from tricks_tried import EVALUATORS, GOOD, TRICKS

pytestmark = pytest.mark.slow

FORGED_WHERE_THE_EVALUATOR_IMPORTS = {
    "replaces the evaluator's function in `sys.modules`",
    "replaces it by the garbage collector's list of objects",
    "replaces it in its caller's frame",
    "changes its variables by `sys.settrace`",
    "replaces the function from `__del__`",
}
FORGED_WHERE_ANSWERS_ARE_UNPICKLED = {"returns an object that is unpickled"}


@pytest.fixture(scope="module")
def engine():
    """An engine whose gate refuses nothing, so that what isolates is the sandbox alone."""
    with evocell.Engine(evocell.Config.load(workers=1, security_profile="low", blocked_modules=())) as shared:
        yield shared


@pytest.mark.parametrize(
    ("way", "forged"),
    [
        ("imports", FORGED_WHERE_THE_EVALUATOR_IMPORTS),
        ("process", set()),
        ("multiprocessing", FORGED_WHERE_ANSWERS_ARE_UNPICKLED),
    ],
)
def test_a_trick_gets_what_it_gets_natively_and_leaves_nothing_behind(engine, way, forged):
    programs = [text for trick in TRICKS.values() for text in (trick, GOOD)]
    scores = tricks.in_sandboxes(EVALUATORS[way], programs, engine)
    assert {name for name, score in zip(TRICKS, scores[::2], strict=True) if score} == forged
    assert scores[1::2] == [1.0] * len(TRICKS)


def test_no_trick_scores_on_the_host(engine):
    programs = [text for trick in TRICKS.values() for text in (trick, GOOD)]
    assert tricks.on_the_host(programs, engine) == [0.0, 1.0] * len(TRICKS)
