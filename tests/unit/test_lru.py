from __future__ import annotations

from evocell.lru import LruCache


def test_what_was_used_least_recently_goes_first():
    kept = LruCache(100, keeps_last=True)
    kept.put("a", 1, 40)
    kept.put("b", 2, 40)
    assert kept.get("a") == 1

    kept.put("c", 3, 40)

    assert (kept.get("a"), kept.get("b"), kept.get("c")) == (1, None, 3)


def test_a_value_that_is_replaced_counts_once():
    kept = LruCache(100, keeps_last=True)
    for size in (60, 50, 40):
        kept.put("a", size, size)
    kept.put("b", 0, 60)

    assert (kept.get("a"), kept.get("b"), len(kept)) == (40, 0, 2)


def test_the_last_one_is_kept_however_large_it_is():
    kept = LruCache(100, keeps_last=True)
    kept.put("a", 1, 10)
    kept.put("b", 2, 1000)

    assert (kept.get("a"), kept.get("b")) == (None, 2)
