"""How many sandboxes can keep state: the computation, the count, and the refusal over the real image."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest
from attrs import evolve

from evocell.errors import CapacityError
from evocell.guests import host
from evocell.guests.capacity import (
    ASLEEP_BYTES,
    AWAKE_BYTES,
    CHOICE,
    UNLIMITED,
    Capacity,
    IdleSessions,
    Resources,
    capacity,
    finite,
    own_resources,
    read_number,
    weight,
)

MACHINE = Resources(memory_bytes=4 << 30, descriptors=20_000, mappings=65_530)
ROOM = Capacity(awake=3, awake_bound="a test", hibernated_bytes=2 * ASLEEP_BYTES)


@pytest.mark.parametrize(
    ("changes", "awake", "bound"),
    [
        ({}, 256, CHOICE),
        ({"descriptors": 1_200}, 100, "open files (ulimit -n)"),
        ({"descriptors": 100}, 1, "open files (ulimit -n)"),
        ({"descriptors": UNLIMITED, "mappings": None}, 256, CHOICE),
        ({"mappings": 2_070}, 10, "vm.max_map_count"),
        ({"memory_bytes": 100 << 20}, 24, "memory"),
    ],
)
def test_what_bounds_those_that_are_ready(changes, awake, bound):
    found = capacity(evolve(MACHINE, **changes))
    assert (found.awake, found.awake_bound) == (awake, bound)


def test_memory_bounds_how_many_there_can_be():
    found = capacity(MACHINE)
    assert found.sessions == 256 + found.hibernated_bytes // ASLEEP_BYTES > 50_000
    assert found.awake * AWAKE_BYTES + found.hibernated_bytes <= MACHINE.memory_bytes
    assert capacity(evolve(MACHINE, memory_bytes=0)).sessions == 1


def test_what_this_process_may_take():
    found = own_resources(7)
    assert found.memory_bytes == 7
    assert found.descriptors == finite(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    assert finite(resource.RLIM_INFINITY) == UNLIMITED


def test_a_number_in_a_file(tmp_path):
    (tmp_path / "number").write_text("12\n")
    (tmp_path / "word").write_text("max\n")
    assert [read_number(tmp_path / name) for name in ("number", "word", "absent")] == [12, None, None]


def test_a_process_gives_itself_the_descriptors_it_may_have():
    text = """
import resource
from evocell.guests.capacity import raise_descriptor_limit
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 512))
raise_descriptor_limit()
print(resource.getrlimit(resource.RLIMIT_NOFILE))
"""
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert done.stdout == "(512, 512)\n"


# The count


def test_weights():
    assert [weight(files) for files in (0, 1, 4, 5, 64)] == [1, 2, 2, 3, 17]


def test_the_idlest_are_surplus():
    residents = IdleSessions(ROOM)
    for name in "abcde":
        residents.rest(name, 1)
    residents.rest("a", 1)
    assert residents.surplus(3) == ["b", "c"]
    residents.leave("b")
    assert residents.surplus(3) == ["c"]
    residents.rest("e", 5)
    assert residents.surplus(3) == ["c", "d", "a", "e"]


def test_full_of_ones_that_cannot_be_put_aside():
    residents = IdleSessions(ROOM)
    for name in "abc":
        residents.rest(name, 1)
        assert residents.refusal() is None
        residents.stay(name)
    assert residents.surplus(2) == []
    assert "3 sandboxes have files open" in residents.refusal()
    residents.rest("a", 1)  # it was used again, and may have closed them
    assert residents.refusal() is None
    residents.leave("a")
    residents.leave("a")
    assert residents.refusal() is None


def test_full_of_sleepers():
    residents = IdleSessions(ROOM)
    residents.sleep("small", 10)
    assert residents.refusal() is None
    residents.sleep("large", ASLEEP_BYTES + 1)
    assert residents.refusal() is None  # it would be ready, and nobody put aside for it
    for name in "abc":
        residents.rest(name, 1)
    assert "5 sandboxes keep state, of which 2 are put aside" in residents.refusal()
    residents.leave("large")
    assert residents.refusal() is None


# Over the real image

FILES = """
held = []
def hold(n):
    held.extend(open("/usr/local/lib/python315.zip", "rb") for _ in range(n))
    return len(held)
def drop():
    while held: held.pop().close()
    return 0
"""


@pytest.fixture
def narrow(call, monkeypatch):
    """A worker with room for four sessions that are ready and two that are put aside."""
    monkeypatch.setattr(host, "AWAKE_SESSIONS", 4)
    room = Capacity(awake=4, awake_bound="a test", hibernated_bytes=2 * 80_000)
    call.worker.host._residents = IdleSessions(room)
    return call


@pytest.mark.trio
async def test_one_too_many_is_refused_and_the_others_go_on(narrow):
    names = []

    async def fill():
        for n in range(20):
            names.append(f"s{n}")
            await narrow("add", session=names[-1])

    with pytest.raises(CapacityError, match=r"keep state, of which \d+ are put aside") as refused:
        await fill()
    assert refused.value.resource == "sessions"
    assert 5 <= len(names) - 1 <= 8
    for name in names[:-1]:
        assert (await narrow("add", session=name)).unwrap() == 2
    assert (await narrow("add")).unwrap() == 1  # what keeps no state needs no such room
    await narrow.worker.host.end_session(names[0])
    await narrow.worker.host.end_session(names[1])
    assert (await narrow("add", session=names[-1])).unwrap() == 1


@pytest.mark.trio
async def test_open_files_take_the_room_of_others_and_give_it_back(narrow):
    code = await narrow.compile(FILES)
    # One with eight files counts for three, and cannot be put aside.
    for name in ("a", "b"):
        assert (await narrow("hold", 8, session=name, code=code)).unwrap() == 8
    with pytest.raises(CapacityError, match="2 sandboxes have files open, so that they cannot be put aside"):
        await narrow("add", session="c")
    assert (await narrow("drop", session="a", code=code)).unwrap() == 0
    assert (await narrow("add", session="c")).unwrap() == 1
    assert (await narrow("hold", 0, session="b", code=code)).unwrap() == 8
