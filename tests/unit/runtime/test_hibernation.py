"""What is written down of a guest is all there is of it."""

import pytest

from evocell_runtime.calls import CallLimits
from evocell_runtime.errors import ImageError
from evocell_runtime.hibernation import hibernate, wake

LIMITS = CallLimits(fuel=10**11)


def run(instance, program):
    call = instance.start(program, b"", LIMITS, seed=3)
    while not call.poll():
        pass
    result = call.finish()
    assert (result.returned, result.status) == (True, 0), result.stderr
    return result


def test_memory_and_globals_are_the_same_after_waking(image):
    first, second = image.fork(), image.fork()
    try:
        run(
            first,
            b"import random, time; x = [random.random() for _ in range(10_000)]; b = bytearray(9 << 20); time.time()",
        )
        asleep = hibernate(first, image.reference())
        wake(second, asleep, image.reference())

        size = first.memory.size_bytes
        assert second.memory.size_bytes == size > image.memory_bytes
        assert second.memory.read(0, size) == first.memory.read(0, size)
        assert second.state() == first.state()
        again = b"print(sum(x), len(b), random.random(), time.time(), id(x))"
        one, two = run(first, again), run(second, again)
        assert (one.stdout, one.fuel_used) == (two.stdout, two.fuel_used)
        assert len(asleep.packed) < 2 << 20
    finally:
        first.close()
        second.close()
        image.close()


def test_what_cannot_be_put_aside_is_refused(image):
    instance = image.fork()
    try:
        run(instance, b"f = open('/usr/local/lib/python315.zip', 'rb')")
        with pytest.raises(ImageError, match="files open"):
            hibernate(instance, image.reference())
        call = instance.start(b"while True: pass", b"", LIMITS)
        call.poll()
        with pytest.raises(ImageError, match="call in flight"):
            hibernate(instance, image.reference())
        call.abandon()
    finally:
        instance.close()
        image.close()


def test_a_fork_that_may_not_grow_so_far_is_refused(image):
    big, small = image.fork(), image.fork(growth_bytes=1 << 20)
    try:
        run(big, b"b = bytearray(30 << 20)")
        with pytest.raises(ImageError, match="cannot grow"):
            wake(small, hibernate(big, image.reference()), image.reference())
    finally:
        big.close()
        small.close()
        image.close()
