"""Two versions side by side in one sandbox, over the real worker."""

from __future__ import annotations

import threading

import pytest
import trio

from evocell import Case, ConfigurationError, Evaluation, Limits

PARENT = {
    "program.py": "import helper\nfrom importlib.resources import files\n"
    "def solve(n):\n  return helper.twice(n) + len(files('pkg').joinpath('d.txt').read_text())\n",
    "helper.py": "calls = []\ndef twice(n):\n  calls.append(n)\n  return 2 * n * len(calls)\n",
    "pkg/__init__.py": "",
    "pkg/d.txt": "x",
    "shared.json": "{}",
}
CHILD = PARENT | {"helper.py": "def twice(n): return n + n\n", "pkg/d.txt": "x"}
TASK = Evaluation("solve", [Case(args=(n,), expected=2 * n + 1) for n in range(4)])


def test_both_run_on_the_same_cases(engine):
    found = engine.head_to_head(PARENT, CHILD, TASK)

    assert (found.first.fitness_score, found.second.fitness_score, found.winner) == (1.0, 1.0, "draw")
    assert found.agree
    assert len(found.duels) == 4
    again = engine.head_to_head(PARENT, CHILD, TASK)
    assert [duel.first.outcome.fuel_used for duel in again.duels] == [
        duel.first.outcome.fuel_used for duel in found.duels
    ]


def test_a_score_may_be_awaited(engine):
    async def score(case, value):
        await trio.lowlevel.checkpoint()
        return float(case.expected - value)

    found = engine.head_to_head(PARENT, "def solve(n): return n", Evaluation("solve", TASK.cases, score))
    assert (found.first.objectives, found.second.objectives, found.winner) == ((0.0,), (2.5,), "second")


def test_cases_may_share_one_guest(engine):
    shared = Evaluation("solve", TASK.cases, isolation="candidate")

    found = engine.head_to_head(PARENT, CHILD, shared)

    # The parent counts its calls; the child keeps nothing.
    assert [duel.same for duel in found.duels] == [True, False, False, False]
    assert (found.first.fitness_score, found.second.fitness_score, found.winner) == (0.25, 1.0, "second")


def test_versions_of_a_sandbox_and_sandboxes(engine):
    with engine.create_sandbox(source=PARENT) as sandbox:
        sandbox.hot_reload_source(PARENT | {"helper.py": "def twice(n): return 0\n"})
        first, second = sandbox.history("helper")

        found = engine.head_to_head(first, second, TASK)
        assert (found.winner, found.second.fitness_score) == ("first", 0.25)
        assert engine.head_to_head(sandbox, CHILD, TASK).winner == "second"
        assert sandbox.get_info().fitness is None


@pytest.mark.parametrize(
    "broken", ["def solve(n):\n  while True: pass", "import os\ndef solve(n): os._exit(3)"]
)
def test_one_that_is_killed_takes_nothing_from_the_other(engine, broken):
    task = Evaluation("solve", TASK.cases, limits=Limits(fuel=10**9))

    found = engine.head_to_head({"program.py": broken}, CHILD, task)

    assert (found.first.valid, found.second.valid, found.winner) == (False, True, "second")
    assert found.second.fitness_score == 1.0


def test_what_cannot_be_followed_is_rejected_by_name(engine):
    odd = {"program.py": "name = 'helper'\n__import__(name)\ndef solve(n): return 0", "helper.py": ""}

    found = engine.head_to_head(CHILD, odd, TASK)

    assert (found.first.reason, found.second.reason, found.winner) == ("compile", "compile", "draw")
    assert "program.py:2" in found.second.error
    assert "known only when it runs" in found.second.error


def test_a_version_that_is_no_program_is_to_blame_alone(engine):
    found = engine.head_to_head("def solve(", CHILD, TASK)

    assert (found.first.reason, found.second.reason) == ("syntax", "load")
    assert "other version was rejected" in found.second.error


def test_data_that_is_in_no_module_must_be_equal(engine):
    found = engine.head_to_head(PARENT, CHILD | {"shared.json": "[]"}, TASK)

    assert "'shared.json'" in found.first.error


def test_an_evaluation_that_cannot_be_shared(engine):
    with pytest.raises(ConfigurationError, match="harness"):
        engine.head_to_head(PARENT, CHILD, Evaluation("driver:run", TASK.cases, harness={"driver.py": ""}))
    with pytest.raises(ConfigurationError, match="stop"):
        engine.head_to_head(PARENT, CHILD, Evaluation("solve", TASK.cases, stop="first_failure"))


def test_a_deadline_cuts_the_scoring(engine):
    release = threading.Event()

    def score(case, value):
        assert release.wait(60)
        return 1.0

    found = engine.head_to_head(PARENT, CHILD, Evaluation("solve", TASK.cases, score=score), deadline_s=2.0)
    release.set()
    assert (found.first.reason, found.second.reason, found.winner) == ("timeout", "timeout", "draw")
