import pytest
from hypothesis import given
from hypothesis import strategies as st

from bin_packing.problem import (
    ForgedPacking,
    best_fit,
    excess,
    first_fit,
    lower_bound,
    make_instance,
    or_instance,
    verify,
    weibull_instance,
)

SMALL = make_instance("small", 10, [6, 5, 4, 5, 3])


@pytest.mark.parametrize(
    ("make", "smallest", "largest", "capacity"),
    [(weibull_instance, 1, 100, 100), (or_instance, 20, 100, 150)],
)
def test_instances_keep_to_their_ranges_and_repeat_by_seed(make, smallest, largest, capacity):
    instance = make(500, 7)
    assert len(instance.items) == 500
    assert instance.capacity == capacity
    assert smallest <= min(instance.items) <= max(instance.items) <= largest
    assert instance == make(500, 7)
    assert instance.items != make(500, 8).items
    assert instance.items != make(500, 7, label="other").items


def test_weibull_sizes_have_the_mean_of_their_distribution():
    items = weibull_instance(5_000, 0).items
    assert 39.0 < sum(items) / len(items) < 41.5  # 45 * gamma(4/3) = 40.2


def test_an_item_larger_than_a_bin_is_refused_by_name():
    with pytest.raises(ValueError, match=r"item 1 of odd has size 11"):
        make_instance("odd", 10, [3, 11])


def test_first_fit_and_best_fit_on_a_case_done_by_hand():
    assert first_fit(SMALL) == [0, 1, 0, 1, 2]
    instance = make_instance("hand", 10, [5, 6, 4, 5])
    assert first_fit(instance) == [0, 1, 0, 2]
    assert best_fit(instance) == [0, 1, 1, 0]


@pytest.mark.parametrize(
    ("items", "capacity", "bound"),
    [
        ([], 10, 0),
        ([10], 10, 1),
        ([6, 6, 6], 10, 3),  # no two share a bin, though their sum would fit into two
        ([5, 5, 5], 10, 2),
        ([7, 7, 3, 3], 10, 2),
        ([6, 6, 5, 5, 5], 10, 4),
    ],
)
def test_lower_bound(items, capacity, bound):
    assert lower_bound(items, capacity) == bound


@given(st.lists(st.integers(1, 30), max_size=60))
def test_baselines_are_legal_and_never_beat_the_bound(items):
    instance = make_instance("any", 30, items)
    for pack in (first_fit, best_fit):
        assert verify(instance, pack(instance)) >= instance.bound >= -(-sum(items) // 30)


def test_excess_is_the_share_beyond_the_bound():
    assert excess(SMALL, SMALL.bound) == 0.0
    assert excess(make_instance("four", 1, [1] * 4), 5) == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        (None, "is a NoneType, not a list"),
        ((0, 1, 0, 1, 2), "is a tuple, not a list"),
        ([0, 1, 0, 1], "places 4 items, the instance has 5"),
        ([0, 1, 0, 1, 2, 3], "places 6 items"),
        ([0, 0, 1, 1, 2], "item 1 overfills bin 0: 11 in 10"),
        ([-1, 1, 0, 1, 2], "not numbered 0 to 4"),
        ([0, 1, 0, 1, 5], "not numbered 0 to 4"),
        ([0, 1, 0, 1, 10**5_000], "not numbered 0 to 4"),
        ([0, 1, 0, 1, 2.0], "put into a float"),
        ([False, 1, 0, 1, 2], "put into a bool"),
        ([0, 1, [0] * 10, 1, 2], "put into a list"),
    ],
)
def test_every_kind_of_forged_packing_is_caught(claim, words):
    with pytest.raises(ForgedPacking, match=words):
        verify(SMALL, claim)


def test_an_honest_packing_is_counted():
    assert verify(SMALL, [0, 1, 0, 1, 4]) == 3
