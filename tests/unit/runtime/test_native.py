"""What an upgrade of wasmtime could change under us; each of these says so by name."""

import pytest

from evocell_runtime import native
from evocell_runtime.calls import CallLimits
from evocell_runtime.errors import AbiError
from evocell_runtime.instance import SLICE_FUEL


def test_the_installed_wasmtime_has_all_that_is_needed():
    native.check()


def test_a_missing_call_is_told_by_name_with_the_release_to_install(monkeypatch):
    monkeypatch.setattr(native, "_NEEDED", ("wasmtime_func_call_async", "wasmtime_gone", "wasmtime_lost"))

    with pytest.raises(AbiError, match=r"wasmtime \d+\.\d+\.\d+ lacks wasmtime_gone, wasmtime_lost; install"):
        native.check()


def test_a_call_comes_up_for_air_every_slice_of_fuel(guest):
    slices = 12
    call = guest.start(b"while True: pass", b"", CallLimits(fuel=slices * SLICE_FUEL))
    while not call.poll():
        pass

    assert abs(call.slices - slices) <= 3
    assert call.finish().trap == "OUT_OF_FUEL"


def test_fuel_is_the_same_whatever_the_slice(image):
    used = set()
    for size in (10**4, 3 * 10**5, SLICE_FUEL, 10**9):
        instance = image.fork()
        instance._body.set_slice(size)
        call = instance.start(b"print(sum(n * n for n in range(20_000)))", b"", CallLimits(fuel=10**10))
        while not call.poll():
            pass
        used.add((call.finish().fuel_used, call.slices > 100))
        instance.close()

    assert len({fuel for fuel, _ in used}) == 1
    assert len(used) == 2


def test_deep_recursion_is_a_recursion_error_and_not_the_end_of_the_process(image, run):
    instance = image.fork()

    result = run(instance, "import sys\nsys.setrecursionlimit(10**9)\ndef f(): f()\nf()")

    assert result.trap == "OUT_OF_FUEL"
    instance.close()


def test_an_export_that_is_missing_is_told(guest):
    with pytest.raises(AbiError, match="the module does not export no_such_thing"):
        native.ExportName("no_such_thing").find(guest._body.context, guest._body.outer)
