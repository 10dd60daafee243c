"""What does not go with candidates that share a fork is refused with the reason."""

import pytest

import evocell

CASES = [evocell.Case((1,), expected=1)]


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"stop": "first_failure"}, "stop"),
        ({"total_limits": evocell.Limits()}, "total_limits"),
        ({"memoise": True}, "memoise"),
        ({"cases": [evocell.Case((1,), expected=1, public=False)]}, "cases"),
    ],
)
def test_fields_that_do_not_go_with_it(given, word):
    with pytest.raises(evocell.ConfigurationError, match=f'isolation="batch" does not go with {word}: '):
        evocell.Evaluation(**{"entry": "f", "cases": CASES, "isolation": "batch", **given})


@pytest.mark.parametrize("limits", [evocell.Limits(scratch_bytes=4096), evocell.Limits(processes=1)])
def test_limits_that_do_not_go_with_it(fake_engine, limits):
    with pytest.raises(evocell.ConfigurationError, match='isolation="batch" cannot be used here: '):
        fake_engine.evaluate(["x = 1"], evocell.Evaluation("f", CASES, isolation="batch", limits=limits))


def test_it_is_for_new_sources_that_are_not_kept(fake_engine):
    task = evocell.Evaluation("f", CASES, isolation="batch")
    source = "def f(x):\n    return x\n"
    stages = [evocell.Stage(task, keep=0.5), evocell.Stage(task)]
    for wrong in (
        lambda: fake_engine.evaluate([source], task, population="p"),
        lambda: fake_engine.evaluate_stages([source], stages),
    ):
        with pytest.raises(evocell.ConfigurationError, match="new sources in evaluate"):
            wrong()
