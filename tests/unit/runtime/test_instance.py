import gc
from pathlib import Path

import pytest

from evocell_runtime.calls import CallLimits
from evocell_runtime.errors import ImageError
from evocell_runtime.membrane import StopReason

FUEL = CallLimits(fuel=10**10)
ENDLESS = b"while True: pass"
MAIL = """
import _host, sys
answer = _host.call(b'')[::-1]
_host.call(answer)
print(1)
print(2, file=sys.stderr)
"""


def descriptors_and_maps():
    return len(list(Path("/proc/self/fd").iterdir())), Path("/proc/self/maps").read_text().count("\n")


def to_end(call):
    while not call.poll():
        pass
    return call.finish()


# ---------------------------------------------------------------------- calls


def test_a_call_gives_output_response_and_readings(guest, run):
    result = run(guest, MAIL, b"abc")

    assert (result.returned, result.status, result.trap, result.stop_reason) == (
        True,
        0,
        None,
        StopReason.NONE,
    )
    assert (result.response, result.response_bytes) == (b"cba", 3)
    assert (result.stdout, result.stderr) == (b"1\n", b"2\n")
    assert 0 < result.fuel_used < 10**9
    assert result.memory_bytes == guest.memory.size_bytes


ANNOUNCED = """
import _host
from evocell_guest.imports import MARK
message = MARK + ({began}).to_bytes(8, "little") + ({spent}).to_bytes(8, "little")
_host.call(message)
while True: pass
"""


@pytest.mark.parametrize(
    ("began", "spent", "bounds"),
    [
        ("0", "5_000", (5_000, 5_000)),
        ("1 << 63", "7", (7, 7)),
        ("1", "0", (1, 10**7)),
        ("0", "(1 << 64) - 1", (10**7, 10**7)),
        ("1", "(1 << 64) - 1", (10**7, 10**7)),
    ],
)
def test_what_a_stopped_call_says_of_its_imports_is_never_more_than_it_used(guest, run, began, spent, bounds):
    result = run(guest, ANNOUNCED.format(began=began, spent=spent), fuel=10**8)
    assert result.trap == "OUT_OF_FUEL"
    assert bounds[0] <= result.imports_ns <= bounds[1]


@pytest.mark.parametrize("message", ["b'x' * 23", "b''.join([MARK])", "MARK + bytes(17)"])
def test_other_messages_say_nothing_of_imports(guest, run, message):
    text = f"import _host\nfrom evocell_guest.imports import MARK\nkept = {message}\n_host.call(kept)\n"
    result = run(guest, text + "while True: pass", fuel=10**8)
    assert result.imports_ns == 0


def test_forks_do_the_same_for_the_same_fuel(image, run):
    seen = set()
    for _ in range(3):
        instance = image.fork()
        result = run(
            instance,
            "import random, time, uuid\nprint(random.SystemRandom().random(), time.time(), uuid.uuid4())",
        )
        seen.add((result.stdout, result.fuel_used))
        instance.close()

    assert len(seen) == 1


def test_the_seed_decides_what_is_random(image):
    seen = []
    for seed in (1, 1, 2, 2**64 + 1, -1):
        instance = image.fork()
        seen.append(to_end(instance.start(b"import os; print(os.urandom(8))", b"", FUEL, seed=seed)).stdout)
        instance.close()

    assert seen[0] == seen[1] == seen[3]
    assert len(set(seen)) == 3


def test_fuel_is_the_limit_and_what_was_used_is_told(guest, run):
    result = run(guest, "while True: pass", fuel=30_000_000)

    assert (result.returned, result.trap, result.fuel_used) == (False, "OUT_OF_FUEL", 30_000_000)


def test_the_memory_limit_is_a_memory_error_in_the_guest(image, run):
    instance = image.fork(growth_bytes=16 << 20)

    result = run(instance, "try:\n  x = bytearray(64 << 20)\nexcept MemoryError:\n  print('no')")

    assert result.stdout == b"no\n"
    assert result.memory_bytes <= image.memory_bytes + (16 << 20)
    instance.close()


def test_state_stays_between_calls_and_output_does_not(guest, run):
    assert run(guest, "x = 1; print('first')").stdout == b"first\n"
    assert run(guest, "print(x)").stdout == b"1\n"


def test_python_that_raises_outside_the_agent_is_a_status(guest, run):
    result = run(guest, "1 / 0")

    assert (result.returned, result.status) == (True, 1)
    assert b"ZeroDivisionError" in result.stderr
    assert guest.sound


def test_an_exit_is_told_with_its_code(guest, run):
    result = run(guest, "import os; os._exit(3)")

    assert (result.returned, result.stop_reason, result.exit_code) == (False, StopReason.EXIT, 3)


# ---------------------------------------------------------------------- responses


def lie(image, address, size):
    """A call whose guest leaves a response where there is none."""
    instance = image.fork()
    call = instance.start(b"", b"", FUEL)
    while not call.poll():
        pass
    for name, value in (("response", address), ("response_len", size)):
        instance._body.write(name, value)
    return instance, call.finish()


@pytest.mark.parametrize(
    ("address", "size"), [(0xFFFFFFF0, 100), (0, 0x7FFFFFFF), (0xFFFFFFFF, 0xFFFFFFFF), (0x7FFFFFFF, 1)]
)
def test_a_response_outside_the_memory_is_none(image, address, size):
    instance, result = lie(image, address, size)

    assert (result.returned, result.response, result.response_bytes) == (True, None, size)
    instance.close()


def test_a_response_at_the_very_end_of_memory_is_read(image):
    instance, result = lie(image, image.memory_bytes - 4, 4)
    assert len(result.response) == 4
    instance.close()
    instance, result = lie(image, image.memory_bytes - 3, 4)
    assert result.response is None
    instance.close()


KEPT = "import _host\nanswer = bytes({})\n_host.call(answer)"


def test_an_oversized_response_is_not_read_but_told(guest, run):
    result = run(guest, KEPT.format(1001), response_bytes=1000)

    assert (result.returned, result.response, result.response_bytes) == (True, None, 1001)
    assert run(guest, KEPT.format(1000), response_bytes=1000).response == bytes(1000)


def test_a_response_of_a_call_that_did_not_return_is_not_read(guest, run):
    result = run(guest, "import _host, os\n_host.call(b'forged')\nos._exit(0)")

    assert (result.returned, result.response) == (False, None)


def test_a_request_the_guest_has_no_room_for_is_refused(image, run):
    instance = image.fork(growth_bytes=1 << 20)

    with pytest.raises(MemoryError, match=r"the guest has no room for 67,?108,?864 bytes"):
        instance.start(b"", bytes(64 << 20), FUEL)
    assert run(instance, "print('fine')").stdout == b"fine\n"
    instance.close()


# ---------------------------------------------------------------------- ends


def test_abandon_then_close_is_safe_in_every_order(image):
    for steps in ("poll abandon abandon close close", "abandon close", "poll close abandon", "close close"):
        instance = image.fork()
        call = instance.start(ENDLESS, b"", FUEL)
        for step in steps.split():
            {"poll": call.poll, "abandon": call.abandon, "close": instance.close}[step]()
        assert call.poll()
        with pytest.raises(RuntimeError, match="the call was abandoned"):
            call.finish()


def test_finishing_a_call_that_has_not_ended_kills_it(guest):
    call = guest.start(b"print('so far', flush=True)\nwhile True: pass", b"", FUEL)
    for _ in range(5):
        assert not call.poll()

    result = call.finish()

    assert (result.returned, result.trap, result.response) == (False, None, None)
    assert result.stdout == b"so far\n"
    assert call.finish() is result
    assert call.slices == 5
    assert not guest.sound


@pytest.mark.parametrize("end", ["abandon", "finish"])
def test_a_call_on_an_instance_whose_call_was_killed_is_refused(guest, end):
    call = guest.start(ENDLESS, b"", FUEL)
    call.poll()
    getattr(call, end)()

    with pytest.raises(RuntimeError, match="close it and fork another"):
        guest.start(b"", b"", FUEL)


def test_a_second_call_while_one_is_in_flight_is_refused_and_the_first_goes_on(guest):
    call = guest.start(b"print('done')", b"", FUEL)

    with pytest.raises(RuntimeError, match="has a call in flight"):
        guest.start(b"", b"", FUEL)

    assert to_end(call).stdout == b"done\n"


def test_a_call_on_a_closed_instance_is_refused(image):
    instance = image.fork()
    instance.close()

    with pytest.raises(RuntimeError, match="is closed"):
        instance.start(b"", b"", FUEL)


def test_memory_is_only_reached_within_its_bounds(guest):
    size = guest.memory.size_bytes
    for offset, length in ((size, 1), (-1, 1), (0, size + 1), (0, -1), (2**40, 0)):
        with pytest.raises(IndexError, match="outside the guest's memory"):
            guest.memory.read(offset, length)
    with pytest.raises(IndexError):
        guest.memory.write(size - 2, b"123")
    with pytest.raises(IndexError):
        guest.memory.clear(size, 1)
    assert guest.memory.read(size, 0) == b""


def test_a_directory_that_is_missing_is_an_error_and_leaves_nothing(image, tmp_path):
    gc.collect()
    before = descriptors_and_maps()

    for _ in range(5):
        with pytest.raises(ImageError, match="the image cannot be forked"):
            image.fork(app=tmp_path / "missing")

    gc.collect()
    descriptors, maps = descriptors_and_maps()
    assert descriptors <= before[0]
    assert maps <= before[1]


# ---------------------------------------------------------------------- leaks


def test_many_forks_leave_no_descriptors_and_no_mappings(image, run):
    def life(kind):
        instance = image.fork()
        if kind == "called":
            run(
                instance,
                "import os; f = os.open('/usr/local/lib/python315.zip', os.O_RDONLY); x = bytearray(1 << 20)",
            )
        elif kind == "abandoned":
            instance.start(ENDLESS, b"", FUEL).poll()
        elif kind == "trapped":
            run(instance, "import os; os._exit(1)")
        instance.close()

    kinds = ("idle", "called", "abandoned", "trapped")
    for kind in kinds:  # what is made once, for the first of its kind, is no leak
        life(kind)
    gc.collect()
    descriptors, maps = descriptors_and_maps()

    for _ in range(30):
        for kind in kinds:
            life(kind)
    gc.collect()

    after = descriptors_and_maps()
    assert after[0] <= descriptors  # one that an earlier test left may go meanwhile
    assert after[1] <= maps + 20  # the allocator may keep a few areas, not one a fork


def test_many_forks_at_once_are_apart(image, run):
    instances = [image.fork() for _ in range(50)]

    for number, instance in enumerate(instances):
        run(instance, f"x = {number}")

    assert [run(i, "print(x)").stdout for i in instances] == [b"%d\n" % n for n in range(50)]
    for instance in instances:
        instance.close()


SHAPES = {
    "apart": "''.join(f'c{i} = {i}\\n' for i in range(n))",
    "in a chain": "'c0 = 1\\n' + ''.join(f'c{i} = c{i - 1} + 1\\n' for i in range(1, n))",
    "in a ring": "''.join(f'def c{i}(): return c{(i + 1) % n}\\n' for i in range(n)) + 'x = c1\\n'",
    "sharing one": "'k = 1\\n' + ''.join(f'c{i} = [k, {i}]\\n' for i in range(n))",
}


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
def test_marking_names_costs_twice_the_fuel_for_twice_the_names(image, run, shape):
    fuel = []
    for n in (0, 1000, 2000, 4000):
        guest = image.fork()
        program = (
            "import ast, sys\nsys.setrecursionlimit(100_000)\n"
            f"n = {n or 1}\ntext = {shape}\ntree = ast.parse(text)\n"
            f"marks = sys.modules['evocell_guest.marks'].marks\nassert {n} == 0 or marks(tree, text.encode())\n"
            f"assert {n} or ast.parse(text)\n"
        )
        result = run(guest, program, fuel=10**11)
        assert (result.returned, result.status) == (True, 0), result.stderr
        fuel.append(result.fuel_used)
        guest.close()

    one, two, four = (used - fuel[0] for used in fuel[1:])
    assert two < 2.4 * one
    assert four < 2.4 * two
