"""Any bytes to an open connection are events or a `ProtocolError`, however they are cut, and nothing else happens.

A frame is a corpus entry that was mutated a few times, by a generator with a seed that is reported. What the
corpus holds is replayed as it is. A finding belongs into the corpus, as a file named after its fault.
"""

import random
import struct
import sys
import time
from itertools import pairwise
from pathlib import Path

import msgpack
import pytest
import trio
import trio.testing
from attrs import evolve

from evocell.config import Config
from evocell.errors import ProtocolError
from evocell.pipe.codec import TypeOptions
from evocell.pipe.limits import PipeLimits
from evocell.pipe.machine import Machine
from evocell.pipe.server import open_server

CORPUS = Path(__file__).parent / "corpus" / "pipe"
SEED = 20260301
SMALL = PipeLimits(
    max_frame_bytes=4096, max_items=200, max_depth=16, max_in_flight=64, max_in_flight_bytes=1 << 16
)
# Room enough that short messages are read in one go, when they come in one piece.
ROOMY = evolve(SMALL, max_frame_bytes=6000, max_items=5000, max_depth=24)
# First bytes that announce something, and lengths that are wrong in an interesting way.
MARKS = bytes([0x80, 0x81, 0x8F, 0x90, 0x91, 0x94, 0x9F, 0xA0, 0xBF, *range(0xC0, 0xE0)])
LENGTHS = [0, 1, 15, 16, 127, 128, 255, 256, 65535, 65536, 2**31 - 1, 2**31, 2**32 - 1]


def corpus():
    return {path.name: path.read_bytes() for path in sorted(CORPUS.glob("*.bin"))}


def opened(role, framing, limits):
    """A machine that has said hello, with two requests of its own under way."""
    machine = Machine(role, limits, framing=framing)
    if role == "server":
        hello = Machine("client", SMALL, framing=framing)
        (greeted,) = machine.receive(hello.request("hello", {})[1])
        machine.accept(greeted.msgid, {}, TypeOptions())
    else:
        server = Machine("server", SMALL, framing=framing)
        (greeted,) = server.receive(machine.request("hello", {})[1])
        list(machine.receive(server.accept(greeted.msgid, {}, TypeOptions())))
    machine.request("call", {})
    machine.request("call", {})
    return machine


class Mutator:
    """Makes frames out of a corpus."""

    def __init__(self, seed, entries):
        self.random = random.Random(seed)
        self.entries = entries

    def frame(self):
        data = bytearray(self.random.choice(self.entries))
        for _ in range(self.random.choice((0, 1, 1, 2, 3, 8))):
            self._mutate(data)
        return bytes(data[:8192])

    def _mutate(self, data):
        rng = self.random
        at = rng.randrange(len(data) + 1)
        match rng.randrange(8):
            case 0 if data:
                data[min(at, len(data) - 1)] ^= 1 << rng.randrange(8)
            case 1:
                data[at:at] = bytes([rng.choice(MARKS)])
            case 2:
                del data[at : at + rng.randrange(1, 9)]
            case 3:
                data[at:] = rng.choice(self.entries)
            case 4:
                data[at:at] = struct.pack(rng.choice((">B", ">H", ">I")), 0)[:-1] + bytes(
                    [rng.choice(LENGTHS) & 0xFF]
                )
            case 5:
                data[at:at] = struct.pack(">I", rng.choice(LENGTHS))
            case 6:
                part = rng.choice(self.entries)
                start = rng.randrange(len(part) + 1)
                data[at:at] = part[start : start + rng.randrange(1, 40)]
            case _:
                data[at:at] = rng.randbytes(rng.randrange(1, 9))


def outcome(machine, pieces):
    """What bytes come to: the events, or what was refused, with the events before it."""
    found = []
    try:
        for piece in pieces:
            found += map(repr, machine.receive(piece))
            assert machine.pending_bytes <= machine.limits.max_frame_bytes + 8192 + 4
    except ProtocolError as error:
        found.append(f"refused: {error}")
    return found


def cut(data, rng):
    if len(data) < 64:
        return [data[i : i + 1] for i in range(len(data))]
    places = sorted({0, len(data), *(rng.randrange(len(data)) for _ in range(6))})
    return [data[a:b] for a, b in pairwise(places)]


def check(data, role, framing, limits, rng):
    at_once = outcome(opened(role, framing, limits), [data])
    in_parts = outcome(opened(role, framing, limits), cut(data, rng))
    # The same events; where it is refused the sentence may differ, by how much of the rest was known.
    if at_once and at_once[-1].startswith("refused") and in_parts:
        assert in_parts[-1].startswith("refused"), data.hex()
        assert in_parts[:-1] == at_once[:-1], data.hex()
        return False
    assert in_parts == at_once, data.hex()
    return True


def fuzz(frames, seed):
    mutator = Mutator(seed, list(corpus().values()))
    rng = random.Random(seed + 1)
    n_refused = 0
    for number in range(frames):
        data = mutator.frame()
        role, framing = ("server", "client")[number & 1], ("stream", "packet4")[number >> 1 & 1]
        n_refused += not check(data, role, framing, (SMALL, ROOMY)[number >> 2 & 1], rng)
    return n_refused


@pytest.mark.parametrize("name", corpus())
@pytest.mark.parametrize("role", ["server", "client"])
@pytest.mark.parametrize("framing", ["stream", "packet4"])
@pytest.mark.parametrize("limits", [SMALL, ROOMY], ids=["small", "roomy"])
def test_the_corpus(name, role, framing, limits):
    check(corpus()[name], role, framing, limits, random.Random(SEED))


def test_a_few_thousand_frames():
    n_refused = fuzz(2_000, SEED)
    assert 0 < n_refused < 2_000  # a fuzzer that is always refused, or never, tests nothing


@pytest.mark.soak
def test_a_million_frames(capsys):
    began, n_refused, seeds = time.monotonic(), 0, range(SEED, SEED + 20)

    def say(line):
        with capsys.disabled():
            sys.stderr.write(f"fuzz: {line}\n")

    for seed in seeds:
        n_refused += fuzz(50_000, seed)
        say(f"seed {seed}: {50_000 * (seed - SEED + 1):,} frames so far, {n_refused:,} refused")
    took = time.monotonic() - began
    say(
        f"1,000,000 frames from {len(corpus())} corpus entries, seeds {seeds[0]} to {seeds[-1]}, "
        f"{n_refused:,} refused, in {took:.0f} s"
    )


@pytest.mark.trio
async def test_a_server_that_is_fed_garbage_serves_the_next_client():
    """Frames of the fuzzer on live connections: each ends or goes on, and the server is as before."""

    class Nothing:
        def __call__(self, *_, **__):
            return self

        async def __aenter__(self):
            await trio.sleep_forever()

        async def __aexit__(self, *_):
            pass

    mutator = Mutator(SEED, list(corpus().values()))
    hello = msgpack.packb([0, 0, "hello", [{}]])
    async with open_server(Config(), limits=SMALL, open_worker=Nothing()) as server:
        for _ in range(150):
            ours, theirs = trio.testing.memory_stream_pair()
            async with trio.open_nursery() as nursery:

                async def serve(stream):
                    async with stream:
                        await server.serve(stream, stream)

                nursery.start_soon(serve, theirs)
                await ours.send_all(hello + b"".join(mutator.frame() for _ in range(5)))
                await trio.testing.wait_all_tasks_blocked()
                await ours.aclose()
        assert server.session_names == []
        ours, theirs = trio.testing.memory_stream_pair()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(serve, theirs)
            await ours.send_all(hello)
            assert msgpack.unpackb(await ours.receive_some())[:3] == [1, 0, None]
            await ours.aclose()
