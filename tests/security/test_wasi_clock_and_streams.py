"""Time, chance, captured output, the mailbox and the ways a call ends: what the membrane answers by itself."""

from __future__ import annotations

import struct
import time

import pytest

from evocell_runtime import membrane
from evocell_runtime.membrane import ENVIRONMENT, START_NS, StopReason

EINVAL = 28
MONOTONIC, ABSOLUTE, READ = 1, 1, 1
STEP_NS = 50


def now(probe, clock):
    assert probe.call("clock_time_get", clock, 0, probe.OUT).errno == 0
    return probe.u64(probe.OUT)


def random_bytes(probe, size):
    assert probe.call("random_get", probe.BUF, size).errno == 0
    return probe.read(probe.BUF, size)


# ---------------------------------------------------------------------- clock


def test_the_virtual_clock_goes_one_step_a_reading_and_starts_in_2020(probe):
    assert [now(probe, MONOTONIC) for _ in range(3)] == [STEP_NS, 2 * STEP_NS, 3 * STEP_NS]
    assert now(probe, 0) == START_NS + 4 * STEP_NS
    assert now(probe, 2) == 5 * STEP_NS


def test_an_unknown_clock_is_refused(probe):
    for clock in (4, -1, 1 << 30):
        assert probe.call("clock_time_get", clock, 0, probe.OUT).errno == EINVAL
        assert probe.call("clock_res_get", clock, probe.OUT).errno == EINVAL


def test_the_resolution_of_each_clock_is_its_step(probe):
    for clock in range(4):
        probe.write(probe.OUT, b"\xff" * 8)
        assert probe.call("clock_res_get", clock, probe.OUT).errno == 0
        assert probe.u64(probe.OUT) == STEP_NS


def test_a_reading_of_the_real_clock_is_paid(probe):
    virtual = probe.call("clock_time_get", 0, 0, probe.OUT)
    probe.begin(realtime=True)

    assert virtual.fuel == probe.call("clock_time_get", 0, 0, probe.OUT).fuel == 500


def test_the_real_clock_is_for_the_realtime_profile_only(probe):
    probe.begin(realtime=True)

    before = time.time_ns()
    seen = now(probe, 0)

    assert before <= seen <= time.time_ns()
    assert now(probe, MONOTONIC) <= now(probe, MONOTONIC)
    assert now(probe, 3) < START_NS  # processor clocks are the monotonic one
    assert probe.state("clock_ns") == 0


# ---------------------------------------------------------------------- chance


def test_random_bytes_follow_from_the_seed(make_probe):
    first, same, other = make_probe(), make_probe(), make_probe()
    for probe, seed in ((first, 7), (same, 7), (other, 8)):
        probe.begin(seed=seed)

    drawn = random_bytes(first, 1000)

    assert drawn == random_bytes(same, 1000)
    assert drawn != random_bytes(other, 1000)
    assert drawn != random_bytes(first, 1000)
    assert len(set(drawn)) > 200


def test_splitmix64_is_what_its_author_published(probe):
    probe.begin(seed=1234567)

    assert struct.unpack("<3Q", random_bytes(probe, 24)) == (
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    )


def test_realtime_random_bytes_differ_and_large_requests_are_filled_and_paid(make_probe):
    one, two = make_probe(), make_probe()
    for probe in (one, two):
        probe.begin(realtime=True)

    assert random_bytes(one, 32) != random_bytes(two, 32)
    answer = one.call("random_get", one.BUF, 200_000)

    assert answer.errno == 0
    assert answer.fuel >= 200_000
    assert one.read(one.BUF + 199_000, 1000) != bytes(1000)
    assert one.call("random_get", one.BUF, 0).errno == 0


def test_entropy_comes_from_the_host_in_parts_of_64_kib_each_paid_before(probe):
    probe.begin(realtime=True)

    stopped = probe.call("random_get", probe.BUF, 200_000, fuel=150_000)

    assert stopped.trap == "OUT_OF_FUEL"
    assert probe.read(probe.BUF + 65_000, 500) != bytes(500)
    assert probe.read(probe.BUF + 65_536, 500) == bytes(500)


# ---------------------------------------------------------------------- sleeping


def subscribe(probe, *subscriptions):
    """Write subscriptions as (userdata, type, clock, timeout, flags)."""
    raw = b"".join(
        struct.pack("<QB7xIxxxxQQH6x", userdata, kind, clock, timeout, 0, flags)
        for userdata, kind, clock, timeout, flags in subscriptions
    )
    probe.write(probe.BUF, raw)
    probe.write(probe.BUF + 0x10000, b"\xff" * 32 * len(subscriptions))
    return probe.BUF, probe.BUF + 0x10000, len(subscriptions), probe.OUT


def events(probe):
    at, count = probe.BUF + 0x10000, probe.u32(probe.OUT)
    raw = [probe.read(at + 32 * n, 32) for n in range(count)]
    assert all(not any(event[11:]) for event in raw)
    return [struct.unpack_from("<QHB", event) for event in raw]


def test_a_sleep_sets_the_clock_forward_and_returns_at_once(probe):
    answer = probe.call("poll_oneoff", *subscribe(probe, (42, 0, MONOTONIC, 3_600_000_000_000, 0)))

    assert answer.errno == 0
    assert answer.fuel < 10_000
    assert events(probe) == [(42, 0, 0)]
    assert now(probe, MONOTONIC) == 3_600_000_000_000 + STEP_NS


def test_an_absolute_deadline_is_reached_and_a_past_one_is_ready(probe):
    until = START_NS + 500_000

    assert probe.call("poll_oneoff", *subscribe(probe, (1, 0, 0, until, ABSOLUTE))).errno == 0
    assert now(probe, 0) == until + STEP_NS
    assert probe.call("poll_oneoff", *subscribe(probe, (2, 0, 0, until, ABSOLUTE))).errno == 0
    assert events(probe) == [(2, 0, 0)]
    assert now(probe, 0) == until + 3 * STEP_NS  # the question was work, too


def test_a_deadline_on_the_monotonic_clock_is_in_its_own_time(probe):
    assert probe.call("poll_oneoff", *subscribe(probe, (1, 0, MONOTONIC, 700_000, ABSOLUTE))).errno == 0
    assert probe.state("clock_ns") == 700_000


def test_the_earliest_of_several_wins_and_descriptors_are_ready(probe):
    late, early = (1, 0, MONOTONIC, 9_000, 0), (2, 0, MONOTONIC, 4_000, 0)

    probe.call("poll_oneoff", *subscribe(probe, late, early))
    assert (events(probe), probe.state("clock_ns")) == ([(2, 0, 0)], 4_000)
    probe.call("poll_oneoff", *subscribe(probe, late, (3, READ, 0, 0, 0)))

    assert (events(probe), probe.state("clock_ns")) == ([(3, 0, 1)], 4_000)


@pytest.mark.parametrize("count", [0, 1025, -1, 0x7FFFFFFF])
def test_no_or_too_many_subscriptions_are_refused(probe, count):
    assert probe.call("poll_oneoff", probe.BUF, probe.BUF + 0x20000, count, probe.OUT).errno == EINVAL


def test_a_thousand_subscriptions_are_answered(probe):
    answer = probe.call("poll_oneoff", *subscribe(probe, *[(n, 0, MONOTONIC, 7_000, 0) for n in range(1024)]))

    assert answer.errno == 0
    assert events(probe) == [(n, 0, 0) for n in range(1024)]


def test_in_realtime_a_sleep_waits_in_the_guest_for_the_host_to_let_time_pass(probe):
    probe.begin(realtime=True)
    seen = []

    def on_slice():
        seen.append(probe.instance.sleeping_ns())
        if len(seen) == 3:
            probe.instance.wake()

    answer = probe.call(
        "poll_oneoff", *subscribe(probe, (5, 0, MONOTONIC, 60_000_000_000, 0)), on_slice=on_slice
    )

    assert (answer.errno, events(probe)) == (0, [(5, 0, 0)])
    assert seen[:3] == [60_000_000_000] * 3
    assert probe.instance.sleeping_ns() == 0


def test_in_realtime_a_sleep_nobody_ends_uses_up_the_fuel(probe):
    probe.begin(realtime=True)

    answer = probe.call(
        "poll_oneoff", *subscribe(probe, (5, 0, MONOTONIC, 60_000_000_000, 0)), fuel=20_000_000
    )

    assert answer.trap == "OUT_OF_FUEL"


def test_in_realtime_reading_the_clock_for_subscriptions_is_paid(probe):
    probe.begin(realtime=True)
    subscriptions = [(n, 0, MONOTONIC, 1, ABSOLUTE) for n in range(1000)]

    answer = probe.call("poll_oneoff", *subscribe(probe, *subscriptions))

    assert answer.errno == 0
    assert answer.fuel >= 2 * 1000 * membrane.COSTS["COST_CLOCK"]


# ---------------------------------------------------------------------- output


def write(probe, descriptor, data):
    probe.write(probe.BUF, data)
    return probe.call("fd_write", descriptor, *probe.iovecs((probe.BUF, len(data))), probe.OUT)


def test_both_streams_are_captured_apart(probe):
    write(probe, 1, b"out ")
    write(probe, 2, b"err")
    write(probe, 1, b"more")

    assert probe.captured() == (b"out more", b"err")
    assert probe.u32(probe.OUT) == 4


def test_output_past_the_limit_is_kept_up_to_it_and_ends_the_call(probe):
    probe.begin(output=10)
    assert write(probe, 1, b"12345").errno == 0

    stopped = write(probe, 2, b"abcdefgh")

    assert (stopped.trap, probe.state("stop_reason")) == ("UNREACHABLE", StopReason.OUTPUT)
    assert probe.captured() == (b"12345", b"abcde")
    assert write(probe, 1, b"x").trap == "UNREACHABLE"
    assert write(probe, 1, b"").errno == 0


def test_the_whole_buffer_can_be_filled_and_not_one_byte_more(probe):
    probe.begin(output=membrane.OUTPUT_BYTES)
    for _ in range(16):
        assert write(probe, 2, b"e" * 65536).errno == 0

    assert write(probe, 1, b"o").trap == "UNREACHABLE"
    out, err = probe.captured()
    assert (out, len(err), set(err)) == (b"", membrane.OUTPUT_BYTES, {ord("e")})


def test_output_from_outside_the_memory_ends_the_call(probe):
    answer = probe.call("fd_write", 1, *probe.iovecs((probe.size_bytes - 5, 10)), probe.OUT)

    assert answer.trap == "MEMORY_OUT_OF_BOUNDS"


# ---------------------------------------------------------------------- mailbox, arguments, end


def test_the_mailbox_gives_the_request_once_and_takes_a_response(probe):
    probe.begin(request=(0x30000, 77))

    assert probe.call("host.call", 0, 0, probe.OUT, probe.OUT + 4).errno == 0
    assert (probe.u32(probe.OUT), probe.u32(probe.OUT + 4)) == (0x30000, 77)
    probe.call("host.call", 0, 0, probe.OUT, probe.OUT + 4)
    assert (probe.u32(probe.OUT), probe.u32(probe.OUT + 4)) == (0, 0)
    probe.write(probe.OUT, b"\xff" * 8)
    probe.call("host.call", probe.BUF, 5, probe.OUT, probe.OUT + 4)
    assert probe.u64(probe.OUT) == 0
    assert (probe.state("response"), probe.state("response_len")) == (probe.BUF, 5)


def test_there_are_no_arguments_and_the_environment_is_fixed(probe):
    probe.write(probe.OUT, b"\xff" * 8)
    assert probe.call("args_sizes_get", probe.OUT, probe.OUT + 4).errno == 0
    assert (probe.u32(probe.OUT), probe.u32(probe.OUT + 4)) == (0, 0)
    assert probe.call("environ_sizes_get", probe.OUT, probe.OUT + 4).errno == 0
    count, size = probe.u32(probe.OUT), probe.u32(probe.OUT + 4)
    assert probe.call("environ_get", probe.OUT, probe.BUF).errno == 0

    starts = [probe.u32(probe.OUT + 4 * n) for n in range(count)]
    strings = [probe.read(at, 200).split(b"\0")[0].decode() for at in starts]

    assert strings == [f"{key}={value}" for key, value in ENVIRONMENT]
    assert size == sum(len(s) + 1 for s in strings)


@pytest.mark.parametrize("code", [0, 1, 255, 0xFFFFFFFF])
def test_an_exit_ends_the_call_with_its_code(probe, code):
    answer = probe.call("proc_exit", code)

    assert answer.trap == "UNREACHABLE"
    assert (probe.state("stop_reason"), probe.state("exit_code")) == (StopReason.EXIT, code)


def test_begin_clears_what_the_last_call_left(probe):
    write(probe, 1, b"left")
    write(probe, 2, b"over")
    probe.call("host.call", probe.BUF, 5, probe.OUT, probe.OUT)
    probe.call("proc_exit", 3)

    probe.begin()

    assert probe.captured() == (b"", b"")
    names = ("response", "response_len", "stop_reason", "exit_code", "request", "request_len")
    assert [probe.state(name) for name in names] == [0] * 6
