"""The figures of the page: what is told piece by piece adds up to what is there, whatever comes in between."""

from __future__ import annotations

import random
import statistics

import pytest

from evocell.page import figures as module
from evocell.page.figures import Figures
from evocell.page.following import _news
from evocell.page.rows import Member


def member(number, score, generation=0, version=None, *, valid=True, reason=None):
    return Member(number, f"s{number}", generation, score, valid, reason, float(number), 2.0, 10, version)


class Search:
    """What `_news` asks of a search, around figures alone."""

    task = "t"

    def __init__(self, figures):
        self.figures = figures

    def head(self):
        return {"leaders": [{"number": one.number} for one, _ in self.figures.leaders()]}

    def tree(self):
        return [], 0


class Page:
    """What the page keeps of what it is told."""

    def __init__(self):
        self.columns, self.points = {}, {}
        self.known = {"points": "1"}

    def ask(self, figures):
        while True:
            news = _news(Search(figures), self.known)
            if news["epoch"] != self.known.get("epoch"):
                self.columns, self.points = {}, {}
            self.columns |= {column["label"]: column for column in news["columns"]}
            told = news["points"]
            for place, *values in zip(told["place"], told["id"], told["column"], told["score"], strict=True):
                self.points[place] = values
            self.known |= {name: str(news[name]) for name in ("epoch", "revision", "cursor")}
            if not news["more"]:
                return


@pytest.mark.parametrize("seed", range(6))
def test_what_is_told_in_pieces_adds_up(monkeypatch, seed):
    for name, value in {"WINDOWS": 5, "MAX_COLUMNS": 6, "MAX_POINTS": 60}.items():
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr("evocell.page.following.ANSWER_POINTS", 7)
    chance = random.Random(seed)
    figures, page = Figures(chance.choice(("maximize", "minimize"))), Page()
    generations = chance.choice((1, 4, 40))
    for number in range(1, 260):
        again = number > 20 and chance.random() < 0.1
        valid = chance.random() < 0.8
        figures.add(
            member(
                chance.randrange(1, number) if again else number,
                chance.choice((None, 0.0, chance.gauss(0, 100))),
                max(0, number * generations // 260 - chance.choice((0, 0, 2))),
                chance.choice((None, f"v{chance.randrange(30)}")),
                valid=valid,
                reason=None if valid else chance.choice(("fuel", "raised")),
            )
        )
        if chance.random() < 0.05:
            figures.adjust(chance.randrange(1, number + 1), chance.gauss(0, 100), chance.uniform(0, 300))
        if chance.random() < 0.1:
            page.ask(figures)
    page.ask(figures)
    assert [page.columns[label] for label in sorted(page.columns)] == figures.columns()
    assert len(figures.columns()) <= 2 * max(module.WINDOWS, module.MAX_COLUMNS) + 1
    whole, _ = figures.points()
    assert page.points == {
        place: [*values]
        for place, *values in zip(*(whole[key] for key in ("place", "id", "column", "score")), strict=True)
    }
    assert len(page.points) <= module.MAX_POINTS + 1
    check(figures)


def check(figures):
    """Compare the figures with what is worked out from the individuals at once."""
    columns = figures.columns()
    assert sum(one["n"] for one in columns) == len(figures.members)
    good = [one for one in figures.members if one.valid and one.score is not None]
    sign = 1 if figures.direction == "minimize" else -1
    order = sorted(good, key=lambda one: sign * one.score)
    first = {one.version or one.id: one for one in reversed(order)}
    distinct = sorted(first.values(), key=order.index)
    leaders = figures.leaders()
    assert [one.id for one, _ in leaders] == [one.id for one in distinct[: module.LEADERS]]
    for one, copies in leaders:
        same = [other for other in figures.members if one.version and other.version == one.version]
        assert copies == max(1, len(same))
    assert columns[-1]["best"] == (distinct[0].score if distinct else None)
    assert sum(count for _, count in figures.deaths()) == sum(1 for one in figures.members if one.reason)
    assert figures.n_valid == len(good)
    for column in columns:
        inside = sorted(
            one.score
            for one, label in zip(figures.members, figures.points()[0]["column"], strict=False)
            if label == column["label"] and one.valid and one.score is not None
        )
        if len(inside) > 1 and figures.stride == 1:
            wanted = statistics.quantiles(inside, n=4, method="inclusive")
            assert column["quartiles"] == pytest.approx(wanted)


def test_scores_at_the_edge_of_what_floats_hold_are_no_fault():
    figures = Figures("maximize")
    for number, score in enumerate((1.7e308, -1.7e308, 1.7e308, 1.7e308), 1):
        figures.add(member(number, score))
    (column, *_) = figures.columns()
    figures.settle()
    assert all(abs(one) <= 1.7e308 for one in column["quartiles"])


def test_an_adjustment_does_not_outlive_the_next_evaluation():
    figures = Figures("maximize")
    figures.add(member(7, 1.0))
    figures.adjust(7, 5.0, at=8.0)
    assert figures.leaders()[0][0].score == 5.0
    figures.adjust(7, 9.0, at=6.0)
    assert figures.leaders()[0][0].score == 5.0


def test_a_program_that_many_have_is_among_the_fittest_once():
    figures = Figures("maximize")
    for number in range(1, 31):
        figures.add(member(number, float(number // 10), version=f"v{number // 10}"))
    assert [(one.number, copies) for one, copies in figures.leaders()] == [
        (30, 1),
        (20, 10),
        (10, 10),
        (1, 9),
    ]
