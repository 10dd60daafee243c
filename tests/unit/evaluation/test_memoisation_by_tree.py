"""Calls memoised by syntax tree: comments and layout make no other program, and nobody gets foreign lines."""

import pytest
from attrs import evolve

import evocell

PLAIN = "def f(n):\n    return n * n\n"
COMMENTED = "# the same\n\n\ndef f(n):\n    # squares\n    return (n*n)"
OTHER = "def f(n):\n    return n ** 2\n"
RAISES = "def f(n):\n    raise ValueError(n)\n"
RAISES_LATER = "\n\n\n" + RAISES
CASES = [evocell.Case(args=(n,), expected=n * n) for n in range(3)]


def task(**changes):
    return evocell.Evaluation("f", CASES, memoise="tree", **changes)


def test_programs_with_the_same_tree_are_called_once(fake_engine, fake_workers):
    results = fake_engine.evaluate([PLAIN, COMMENTED, OTHER, COMMENTED], task())
    assert fake_workers.last.count["call"] == 6
    assert sum(result.n_memoised for result in results) == 6  # whichever of two comes first at a case
    assert [result.fitness_score for result in results] == [1.0] * 4
    first, *_ = [evolve(result, sandbox_id="") for result in results]
    assert all(evolve(result, sandbox_id="") == first for result in results)
    assert {job.code.path.joinpath("program.py").read_bytes() for job in fake_workers.last.jobs} == {
        PLAIN.encode(),
        OTHER.encode(),
    }


def test_memory_by_text_and_by_tree_is_one_for_what_is_written_in_normal_form(fake_engine):
    fake_engine.evaluate([PLAIN], evocell.Evaluation("f", CASES, memoise=True))
    assert fake_engine.evaluate([COMMENTED], task())[0].n_memoised == 3
    assert fake_engine.evaluate([COMMENTED], evocell.Evaluation("f", CASES, memoise=True))[0].n_memoised == 0


def test_what_may_quote_lines_is_made_again_with_the_programs_own(fake_engine, fake_workers):
    first = fake_engine.evaluate_one(RAISES_LATER, task())
    n_calls = fake_workers.last.count["call"]
    assert (first.reason, n_calls) == ("raised", 6)  # in normal form, and as it is written
    again = fake_engine.evaluate_one(RAISES_LATER, task())
    assert fake_workers.last.count["call"] == n_calls
    assert (again.n_memoised, again.error) == (3, first.error)
    assert fake_engine.evaluate_one(RAISES, task()).n_memoised == 3  # that is the normal form itself


def test_a_program_without_a_normal_form_is_called_as_it_is(fake_engine, fake_workers, monkeypatch):
    async def lost(_request):
        return evocell.GuestCrashed(reason="of the parser")

    fake_engine.evaluate([PLAIN], task())
    monkeypatch.setattr(fake_workers.last, "inspect", lost)
    n_calls = fake_workers.last.count["call"]
    result = fake_engine.evaluate_one(COMMENTED, task())
    assert (result.fitness_score, result.n_memoised) == (1.0, 0)
    assert fake_workers.last.count["call"] == n_calls + 3


@pytest.mark.parametrize(
    "answer",
    [
        {"t": "normalised", "files": []},
        {"t": "normalised", "files": [["other.py", b""]]},
        {"t": "normalised", "files": [["program.py", "text"]]},
        {"t": "normalised", "files": [["program.py", b"x" * (5 << 20)]]},
        {"t": "diff"},
        {},
    ],
    ids=["none", "another", "no bytes", "too large", "another answer", "empty"],
)
def test_a_guest_that_answers_nonsense_changes_nothing(fake_engine, fake_workers, monkeypatch, answer):
    async def asked(_request):
        return answer

    fake_engine.evaluate([], task())
    monkeypatch.setattr(fake_workers.last, "inspect", asked)
    result = fake_engine.evaluate_one(COMMENTED, task())
    assert (result.fitness_score, result.n_memoised) == (1.0, 0)


def test_a_worker_that_is_lost_meanwhile_is_no_fault_of_the_programs(fake_engine, fake_workers, monkeypatch):
    async def lost(_request):
        return evocell.WorkerLost(reason="it died")

    fake_engine.evaluate([], task())
    monkeypatch.setattr(fake_workers.last, "inspect", lost)
    result = fake_engine.evaluate_one(COMMENTED, task())
    assert (result.valid, result.reason, result.deterministic) == (False, "worker_lost", False)


def test_cases_that_share_a_fork_are_not_memoised(fake_engine, fake_workers):
    for _ in range(2):
        assert fake_engine.evaluate([COMMENTED], task(isolation="candidate"))[0].n_memoised == 0
    assert fake_workers.last.count["call"] == 6
    assert fake_workers.last.count["inspect"] == 0


def test_other_words_are_refused():
    with pytest.raises(evocell.ConfigurationError, match='memoise must be True, False, "tree" or None'):
        evocell.Evaluation("f", CASES, memoise="text")
