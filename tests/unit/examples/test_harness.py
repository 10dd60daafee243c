import numpy as np
import pytest

from bin_packing.harness import pack_online
from bin_packing.problem import best_fit, first_fit, verify, weibull_instance

INSTANCE = weibull_instance(200, 0, label="test")


def pack(priority):
    return pack_online(list(INSTANCE.items), INSTANCE.capacity, priority)


def test_the_fullest_bin_first_is_best_fit():
    assert pack(lambda item, bins: item - bins) == best_fit(INSTANCE)


def test_indifference_is_first_fit():
    assert pack(lambda item, bins: np.zeros(len(bins))) == first_fit(INSTANCE)


def test_a_program_may_open_a_bin_early_and_stays_legal():
    assert verify(INSTANCE, pack(lambda item, bins: bins)) == len(INSTANCE.items)


def test_a_program_cannot_reach_the_room_through_its_argument():
    def greedy(item, bins):
        bins += 1_000_000
        return -bins

    assert pack(greedy) == best_fit(INSTANCE)


@pytest.mark.parametrize("answer", [1.0, [1.0, 2.0] * 900, None])
def test_anything_but_one_number_per_bin_is_an_error(answer):
    with pytest.raises((ValueError, TypeError)):
        pack(lambda item, bins: answer)
