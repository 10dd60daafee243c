"""What a notebook shows: tables in which what guests wrote is text, and nothing that raises."""

from __future__ import annotations

import html
import pickle
from html.parser import HTMLParser

import pytest

from evocell import Case, Comparison, Evaluation, Offspring, best

TASK = Evaluation("f", [Case(())], lambda case, value: value)
HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(1)>"
RAISES = f"def f(): raise ValueError({HOSTILE!r} * 99)"


class Tags(HTMLParser):
    """Collects tags, and refuses what does not close."""

    def __init__(self, text):
        super().__init__()
        self.open, self.seen = [], set()
        self.feed(text)
        assert not self.open

    def handle_starttag(self, tag, attrs):
        assert all(name == "style" for name, _ in attrs)
        self.open.append(tag)
        self.seen.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


@pytest.fixture
def results(fake_engine):
    return fake_engine.evaluate(["def f(): return 3", RAISES], TASK, population=HOSTILE)


def test_a_list_of_results_is_a_table_and_a_list(fake_engine, results):
    shown = results._repr_html_()
    assert Tags(shown).seen <= {"table", "caption", "thead", "tbody", "tr", "th", "td"}
    assert "2 results, 1 valid" in shown
    assert html.escape("<script>") in shown
    assert results == list(results)
    assert isinstance(results, list)
    assert pickle.loads(pickle.dumps(results)) == results
    many = fake_engine.evaluate(["def f(): return 3"] * 60, TASK)
    assert many._repr_html_().count("<tr>") == 51


@pytest.mark.parametrize("kind", ["result", "sandbox", "state", "population", "engine", "closed", "gone"])
def test_everything_that_is_looked_at_has_a_table(fake_engine, results, kind):
    sandbox = fake_engine.create_sandbox("box", source=RAISES, population=HOSTILE)
    things = {
        "result": results[1],
        "sandbox": sandbox,
        "state": sandbox.get_info(),
        "population": fake_engine.get_population(HOSTILE),
        "engine": fake_engine,
        "closed": fake_engine,
        "gone": sandbox,
    }
    if kind == "closed":
        fake_engine.close()
    if kind == "gone":
        sandbox.destroy()
    shown = things[kind]._repr_html_()
    assert Tags(shown).seen <= {"table", "caption", "tbody", "tr", "th", "td"}
    words = {"engine": "sandboxes", "closed": "closed", "gone": "is not there", "population": "members"}
    assert words.get(kind, "fitness") in shown


def test_batches_of_every_kind_are_shown_so(fake_engine):
    fake_engine.create_population("p")
    boxes = fake_engine.next_generation("p", [Offspring("def f(): return 1")])
    for results in (
        fake_engine.evaluate_generation("p", TASK),
        fake_engine.batch_evaluate(boxes, lambda box: 1.0),
    ):
        assert "1 results, 1 valid" in results._repr_html_()


def test_a_comparison_is_a_table(fake_engine):
    compared = fake_engine.compare("def f(): return 1", "def f(): return 2", TASK)
    assert isinstance(compared, Comparison)
    assert "fuel" in compared._repr_html_()
    Tags(compared._repr_html_())


def test_what_best_picks_is_a_table_too(results):
    assert "sandbox-1" in best(results)._repr_html_()
    assert best(results).to_dataframe().fitness_score.tolist() == [3.0]


@pytest.mark.parametrize(
    ("source", "caption", "shown"),
    [
        ("def f(): return [1.5] * 10**5", "completed", "[1.5, 1.5,"),
        (f"def f(): return {HOSTILE!r} * 99", "completed", html.escape("'<script>")),
        (RAISES, "raised", html.escape("ValueError: <script>")),
        ("def f():\n    print('<b>')", "completed", "None"),
    ],
)
def test_an_outcome_is_a_small_table(fake_engine, source, caption, shown):
    text = fake_engine.create_sandbox(source=source).run("f")._repr_html_()
    assert Tags(text).seen <= {"table", "caption", "tbody", "tr", "th", "td"}
    assert f"<caption>{caption}</caption>" in text
    assert shown in text
    assert len(text) < 2_000
