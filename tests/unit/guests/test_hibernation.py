"""Sessions put aside go on as if nothing had been."""

import pytest

from evocell.errors import CapacityError
from evocell.guests import host

pytestmark = pytest.mark.trio

STATEFUL = """
import random, time
import numpy as np

seen = []
kept = None

def step(n):
    global kept
    seen.append(random.random() + n)
    if n == 1:
        kept = bytearray(b"x" * (3 << 20))
    return [sum(seen), len(seen), id(seen), hash("a"), np.random.rand(), time.time(), kept and kept[n]]

def hold():
    global stream
    stream = open("/usr/local/lib/python315.zip", "rb")
    return 1

def next_bytes():
    return stream.read(2)

def scratch(text=None):
    if text is not None:
        with open("/tmp/file", "w") as out:
            out.write(text)
    with open("/tmp/file") as file:
        return file.read()
"""


async def steps(call, code, sessions, rounds=4):
    """What each session's calls gave, with their fuel."""
    seen = {name: [] for name in sessions}
    for n in range(rounds):
        for name in sessions:
            outcome = await call("step", n, session=name, code=code)
            seen[name].append((outcome.unwrap(), outcome.fuel_used))
    return seen


@pytest.fixture
async def code(call):
    return await call.compile(STATEFUL)


async def test_the_same_results_and_fuel_as_if_they_had_never_slept(call, code, monkeypatch, descriptors):
    sessions = [f"s{n}" for n in range(5)]
    awake = await steps(call, code, sessions)
    for name in sessions:
        await call.worker.host.end_session(name)
    before = descriptors()

    monkeypatch.setattr(host, "AWAKE_SESSIONS", 1)
    assert await steps(call, code, sessions) == awake
    held = [session.fork for session in call.worker.host._sessions.values()]
    assert sum(fork._hibernated is not None for fork in held) == 4
    assert descriptors() <= before + 2 * 4  # one session and the reference

    for name in sessions:
        await call.worker.host.end_session(name)
    assert descriptors() <= before + 4


async def test_a_session_with_a_file_open_stays_ready(call, code, monkeypatch):
    monkeypatch.setattr(host, "AWAKE_SESSIONS", 0)
    assert (await call("hold", session="s", code=code)).unwrap() == 1
    assert call.worker.host._sessions["s"].fork._hibernated is None
    assert (await call("next_bytes", session="s", code=code)).unwrap() == b"PK"


async def test_scratch_files_outlive_a_sleep_and_go_with_the_session(call, code, monkeypatch):
    monkeypatch.setattr(host, "AWAKE_SESSIONS", 0)
    asked = {"session": "s", "code": code, "scratch_bytes": 1 << 20}
    assert (await call("scratch", "text", **asked)).unwrap() == "text"
    fork = call.worker.host._sessions["s"].fork
    assert fork._hibernated is not None
    assert (await call("scratch", **asked)).unwrap() == "text"
    await call.worker.host.end_session("s")
    assert not fork.scratch.exists()


async def test_one_that_cannot_be_woken_for_want_of_room_is_not_lost(call, code, monkeypatch):
    from evocell_runtime.errors import ImageError

    monkeypatch.setattr(host, "AWAKE_SESSIONS", 0)
    first = (await call("step", 0, session="s", code=code)).unwrap()
    fork = call.worker.host._sessions["s"].fork
    make = fork._new_instance

    def refuse():
        raise ImageError("no memory")

    fork._new_instance = refuse
    with pytest.raises(CapacityError):
        await call("step", 0, session="s", code=code)
    fork._new_instance = make

    second = (await call("step", 0, session="s", code=code)).unwrap()
    assert (first[1], second[1]) == (1, 2)


async def test_many_sessions_hold_few_descriptors(call, monkeypatch, descriptors):
    monkeypatch.setattr(host, "AWAKE_SESSIONS", 4)
    before = descriptors()
    for _ in range(2):
        for n in range(60):
            await call("add", session=f"s{n}")
    assert [(await call("add", session=f"s{n}")).unwrap() for n in (0, 30, 59)] == [3, 3, 3]
    assert descriptors() <= before + 6 * 4
