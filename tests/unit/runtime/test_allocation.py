"""Lists of freed memory in front of malloc, and shorter ways to begin and end an object."""

import pytest

from evocell_runtime.patches import allocation

MEMORY_ENDS = """
def objects():
    x = []
    try:
        while True: x.append(object())
    except MemoryError:
        n = len(x)
        while len(x) > n // 2: x.pop()
    try:
        while True: x.append((1.5, n + len(x)))
    except MemoryError:
        x.clear()
    return len([str(i) * 3 for i in range(1000)])

def lists():
    x = []
    try:
        while True: x.append([1.0 * len(x)] * 7)
    except MemoryError:
        x.clear()
    return len([[n] * 7 for n in range(1000)])

def strings():
    d = {}
    try:
        while True: d[str(len(d))] = bytes(len(d) % 300)
    except MemoryError:
        d.clear()
    return len({n: str(n) for n in range(1000)})
"""
AS_A_WHOLE = """
import numpy as np
for _ in range(4): b = bytearray(40 << 20)
del b
a = np.ones(9_000_000)
del a
x = [i * 0.5 for i in range(2_500_000)]
print(len(x))
"""
WATCHED = """
import tracemalloc
early = [str(i) + "x" for i in range(300)]
tracemalloc.start()
first = [str(i) + "y" for i in range(3000)] + [float(i) for i in range(3000)]
most = tracemalloc.get_traced_memory()[0]
del early
del first
left = tracemalloc.get_traced_memory()[0]
watched = [str(i) for i in range(3000)]
tracemalloc.stop()
del watched
print(most > 120_000, left < most / 10, len([str(i) for i in range(3000)]))
"""
OF_ALL_SIZES = """
import random
r = random.Random(3)
kept = {}
for step in range(60_000):
    key = r.randrange(3000)
    was = kept.pop(key, None)
    if was is not None:
        assert was == bytes([key & 255]) * len(was), (step, key)
    if r.random() < 0.6:
        kept[key] = bytes([key & 255]) * r.choice((0, 1, 11, 12, 13, 60, 200, 490, 500, 508, 509, 512, 524, 3000))
assert all(v == bytes([k & 255]) * len(v) for k, v in kept.items())
print(len(kept))
"""


@pytest.fixture
def fork(image):
    guests = []

    def fork(**limits):
        guests.append(image.fork(**limits))
        return guests[-1]

    yield fork
    for guest in guests:
        guest.close()


@pytest.mark.parametrize("size_mb", [1, 4, 16, 64])
@pytest.mark.parametrize("what", ["objects", "lists", "strings"])
def test_memory_that_is_full_of_small_objects_can_be_freed_and_used_again(fork, run, what, size_mb):
    guest = fork(growth_bytes=size_mb << 20)
    assert run(guest, MEMORY_ENDS + f"print({what}())").stdout.text(99) == "1000\n"


def test_what_the_lists_keep_is_there_for_large_requests(fork, run):
    assert run(fork(growth_bytes=128 << 20), AS_A_WHOLE).stdout.text(99) == "2500000\n"


def test_pieces_of_all_sizes_keep_what_is_written_to_them(fork, run):
    assert run(fork(), OF_ALL_SIZES).stdout.text(99).strip().isdigit()


def test_tracemalloc_is_told_of_each_object_while_it_is_on(fork, run):
    assert run(fork(), WATCHED).stdout.text(99) == "True True 3000\n"


def test_no_list_holds_more_than_its_share(fork, run):
    guest = fork()
    run(
        guest,
        "x = [object() for _ in range(50_000)]\ndel x\ny = [bytes(n % 600) for n in range(90_000)]\ndel y",
    )
    lists = guest.memory.read(allocation.LISTS, allocation.LARGEST // 2 + 8)
    counts = [int.from_bytes(lists[at + 4 : at + 8], "little") for at in range(0, len(lists), 8)]
    assert counts[0] == 0
    assert max(counts) == allocation.LONGEST
    for at, count in zip(range(0, len(lists), 8), counts, strict=True):
        piece, pieces = int.from_bytes(lists[at : at + 4], "little"), 0
        while piece:
            header = int.from_bytes(guest.memory.read(piece - 4, 4), "little")
            assert header & ~7 == 2 * at
            piece, pieces = int.from_bytes(guest.memory.read(piece + 4, 4), "little"), pieces + 1
        assert pieces == count
