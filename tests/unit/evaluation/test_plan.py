"""What total limits leave for the next case."""

from evocell.evaluation.plan import Budget
from evocell.models import Completed, LimitExceeded, Limits


def test_without_total_limits_every_case_gets_the_same():
    limits = Limits(fuel=10)
    budget = Budget(limits, None)
    budget.spend(Completed(fuel_used=9), limits)
    assert budget.next_limits() is limits


def test_fuel_time_and_output_add_up():
    budget = Budget(Limits(fuel=100, timeout_s=5.0), Limits(fuel=150, timeout_s=6.0, output_bytes=10))
    first = budget.next_limits()
    assert (first.fuel, first.timeout_s, first.output_bytes) == (100, 5.0, 10)
    budget.spend(Completed(fuel_used=90, wall_s=2.0, stdout="abc", stderr="d"), first)
    second = budget.next_limits()
    assert (second.fuel, second.timeout_s, second.output_bytes) == (60, 4.0, 6)


def test_a_call_that_ends_where_the_total_did_says_so():
    budget = Budget(Limits(fuel=100), Limits(fuel=50))
    given = budget.next_limits()
    outcome = budget.spend(LimitExceeded("fuel", limit=50, reached=50, fuel_used=50), given)
    assert (outcome.limit, outcome.reached) == (50, 50)
    assert "all cases together" in outcome.error
    spent = budget.next_limits()
    assert (spent.kind, spent.deterministic) == ("fuel", True)


def test_used_up_time_is_not_deterministic():
    budget = Budget(Limits(), Limits(timeout_s=1.0))
    budget.spend(Completed(wall_s=1.5), budget.next_limits())
    assert budget.next_limits().kind == "timeout"
    assert not budget.next_limits().deterministic
