from bin_packing.evolve import Generation, Individual, Scored, Verdict
from bin_packing.progress import Reporter
from bin_packing.saboteurs import SABOTEURS


def individual(number, place, source="def priority(item, bins): ...", tree=("left",)):
    return Individual(
        id=f"g{number:02}-{place:03}", generation=number, source=source, tree=tree, operator="random"
    )


def test_each_verdict_and_each_generation_is_told():
    told = []
    reporter = Reporter(told.append, population=2, baseline=0.05)
    bomb = next(one for one in SABOTEURS if one.label == "memory bomb")
    hostile = individual(0, 0, bomb.source, None)
    good = Scored(individual=individual(0, 1), verdict=Verdict(excess=0.04))
    reporter.judged(hostile, Verdict(excess=None, death="memory"))
    reporter.judged(good.individual, good.verdict)
    reporter.over(Generation(number=0, born=(good,), survivors=(good,)))
    reporter.judged(individual(1, 0), Verdict(excess=0.06))
    assert [(one.number, one.judged, one.evaluations, one.complete) for one in told] == [
        (0, 1, 1, False),
        (0, 2, 2, False),
        (0, 2, 2, True),
        (1, 1, 3, False),
    ]
    assert told[0].history == ()
    assert told[0].best_source is None
    assert told[3].history == (0.04,)
    assert told[3].mean_excess == 0.04
    assert told[3].best_source == good.individual.source
    assert told[3].deaths == {"memory": 1}
    assert told[0].saboteurs == {**dict.fromkeys(one.label for one in SABOTEURS), "memory bomb": "memory"}


def test_what_was_told_does_not_change_later():
    told = []
    reporter = Reporter(told.append, population=2, baseline=0.05)
    reporter.judged(individual(0, 0), Verdict(excess=None, death="fuel"))
    reporter.judged(individual(0, 1), Verdict(excess=None, death="fuel"))
    assert [one.deaths for one in told] == [{"fuel": 1}, {"fuel": 2}]


def test_without_a_watcher_it_only_counts():
    reporter = Reporter(None, population=2, baseline=0.05)
    reporter.judged(individual(0, 0), Verdict(excess=None, death="fuel"))
    assert (reporter.evaluations, dict(reporter.deaths)) == (1, {"fuel": 1})
