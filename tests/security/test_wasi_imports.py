"""Every one of the interpreter's imports: what it answers, what it costs, what it does with hostile arguments."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from attrs import frozen
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evocell_runtime import membrane
from evocell_runtime.membrane import TABLE

EBADF, EINVAL, ENOTSUP = 8, 28, 58
# What was measured, not what the table says: whoever lowers a price must come by here.
DESCRIPTOR, TRANSFER, PATH, WRITE = 20_000, 30_000, 400_000, 200_000
CAPTURE, POLL, YIELD, ENTRY = 500, 500, 500, 7_000
PER_FUEL, CAPTURED = 1, 8
DATA = 10_000
# "ERROR" is how the WASI implementation ends a call that hands it a pointer outside the memory.
TRAPS = {"UNREACHABLE", "MEMORY_OUT_OF_BOUNDS", "OUT_OF_FUEL", "ERROR"}


@frozen
class Case:
    """A plain call of one import: its arguments, the errno it gives (None: it ends the call), its least cost."""

    arguments: Callable
    errno: int | None = 0
    cost: int = 0


def on_file(*rest, write=False):
    def arguments(probe):
        if write:
            return (probe.create("made.bin"), *rest)
        (probe.root / "data.bin").write_bytes(bytes(DATA))
        return (probe.open(3, "data.bin"), *rest)

    return arguments


def moving(*rest, write=False):
    def arguments(probe):
        opened = on_file(write=write)(probe)
        return (*opened, *probe.iovecs((probe.BUF, DATA)), *rest, probe.OUT)

    return arguments


def captured(probe):
    return 1, *probe.iovecs((probe.BUF, 4000)), probe.OUT


def plain(*arguments):
    return lambda probe: tuple(getattr(probe, a) if isinstance(a, str) else a for a in arguments)


def in_tmp(kind, *, twice=False):
    def arguments(probe):
        if kind == "directory":
            (probe.tmp / "there").mkdir()
        elif kind == "file":
            (probe.tmp / "there").touch()
        path = (6, *probe.path("there"))
        return (*path, 6, *probe.path("new", at=probe.PATH + 100)) if twice else path

    return arguments


def sleeping(probe):
    subscription = struct.pack("<QB7xIxxxxQQH6x", 7, 0, 1, 5_000, 0, 0)
    probe.write(probe.BUF, subscription)
    return probe.BUF, probe.BUF + 4096, 1, probe.OUT


CASES: dict[str, Case] = {
    "host.call": Case(plain(0, 0, "OUT", "BUF")),
    "args_get": Case(plain("OUT", "BUF")),
    "args_sizes_get": Case(plain("OUT", "BUF")),
    "environ_get": Case(plain("OUT", "BUF")),
    "environ_sizes_get": Case(plain("OUT", "BUF")),
    "clock_res_get": Case(plain(0, "OUT")),
    "clock_time_get": Case(plain(1, 0, "OUT")),
    "fd_advise": Case(plain(3, 0, 0, 0), cost=DESCRIPTOR),
    "fd_close": Case(on_file(), cost=DESCRIPTOR),
    "fd_datasync": Case(plain(3), cost=DESCRIPTOR),
    "fd_fdstat_get": Case(plain(3, "OUT"), cost=DESCRIPTOR),
    "fd_fdstat_set_flags": Case(on_file(0), cost=DESCRIPTOR),
    "fd_filestat_get": Case(plain(3, "OUT"), cost=DESCRIPTOR),
    "fd_filestat_set_size": Case(on_file(4096, write=True), cost=PATH),
    "fd_filestat_set_times": Case(plain(3, 0, 0, 0), cost=DESCRIPTOR),
    "fd_pread": Case(moving(0), cost=TRANSFER + DATA // PER_FUEL),
    "fd_prestat_get": Case(plain(3, "OUT")),
    "fd_prestat_dir_name": Case(plain(3, "OUT", 1)),
    "fd_pwrite": Case(moving(0, write=True), cost=TRANSFER + DATA // PER_FUEL + WRITE),
    "fd_read": Case(moving(), cost=TRANSFER + DATA // PER_FUEL),
    "fd_readdir": Case(plain(3, "BUF", 4096, 0, "OUT"), cost=PATH + TRANSFER + 65_536 + 2 * ENTRY),
    "fd_seek": Case(on_file(100, 0, 0x10000), cost=DESCRIPTOR),
    "fd_sync": Case(plain(3), cost=DESCRIPTOR),
    "fd_tell": Case(on_file(0x10000), cost=DESCRIPTOR),
    "fd_write": Case(captured, cost=CAPTURE + 4000 // CAPTURED),
    "path_create_directory": Case(in_tmp(None), cost=2 * PATH),
    "path_filestat_get": Case(lambda p: (3, 0, *p.path("."), p.OUT), cost=PATH),
    "path_filestat_set_times": Case(lambda p: (3, 0, *p.path("."), 0, 0, 0), cost=DESCRIPTOR),
    "path_link": Case(lambda p: (6, 0, *p.path("a"), 6, *p.path("b")), ENOTSUP, DESCRIPTOR),
    "path_open": Case(lambda p: (3, 0, *p.path("."), 2, 0, 0, 0, p.OUT), cost=PATH),
    "path_readlink": Case(lambda p: (6, *p.path("a"), p.BUF, 100, p.OUT), EINVAL, DESCRIPTOR),
    "path_remove_directory": Case(in_tmp("directory"), cost=PATH),
    "path_rename": Case(in_tmp("file", twice=True), cost=4 * PATH),
    "path_symlink": Case(lambda p: (*p.path("a"), 6, *p.path("b")), ENOTSUP, DESCRIPTOR),
    "path_unlink_file": Case(in_tmp("file"), cost=2 * PATH),
    "poll_oneoff": Case(sleeping, cost=POLL),
    "proc_exit": Case(plain(3), None),
    "sched_yield": Case(plain()),
    "random_get": Case(plain("BUF", DATA), cost=DATA),
    "sock_accept": Case(plain(3, 0, "OUT"), ENOTSUP, DESCRIPTOR),
    "sock_recv": Case(plain(3, "IOVS", 1, 0, "OUT", "OUT"), ENOTSUP, DESCRIPTOR),
    "sock_send": Case(plain(3, "IOVS", 1, 0, "OUT"), ENOTSUP, DESCRIPTOR),
    "sock_shutdown": Case(plain(3, 0), ENOTSUP, DESCRIPTOR),
}
NAMES = [decision.name for decision in TABLE]


def test_there_is_a_case_for_every_import_the_interpreter_has(workshop):
    assert len(NAMES) == 43
    assert set(NAMES) == set(CASES) == {f.export_name for f in workshop.imports}


def test_what_the_table_refuses_is_refused():
    refused = {d.name for d in TABLE if d.answer == "refused"}

    assert {n for n in NAMES if CASES[n].errno in (EINVAL, ENOTSUP)} == refused
    assert refused == {
        "path_link",
        "path_readlink",
        "path_symlink",
        "sock_accept",
        "sock_recv",
        "sock_send",
        "sock_shutdown",
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_plain_call_gives_its_answer_and_costs_its_fuel(probe, name):
    case = CASES[name]

    answer = probe.call(name, *case.arguments(probe))

    assert answer.errno == case.errno
    assert answer.trap == (None if case.errno is not None else "UNREACHABLE")
    assert answer.fuel >= case.cost


@pytest.mark.parametrize("name", [n for n in NAMES if CASES[n].cost])
def test_a_call_without_the_fuel_for_it_ends_before_the_host_is_asked(probe, name):
    case = CASES[name]
    arguments = case.arguments(probe)
    before = sorted(p.name for p in probe.tmp.iterdir())

    answer = probe.call(name, *arguments, fuel=case.cost - 1)

    assert answer.trap == "OUT_OF_FUEL"
    assert sorted(p.name for p in probe.tmp.iterdir()) == before


def hostile_values(kind, size):
    if kind == "i64":
        return (-1, 2**63 - 1, -(2**63), 1 << 40)
    return (0xFFFFFFFF, 0x80000000, 0x7FFFFFFF, size, size - 1, 0, 7, 200)


def assert_contained(probe, answer):
    """The host saw an errno or a trap, and the books are still right."""
    if answer.trap is None:
        assert answer.errno is None or 0 <= answer.errno <= 76
    else:
        assert answer.trap in TRAPS
    assert 0 <= probe.state("open_files") <= 8


@pytest.mark.parametrize("name", NAMES)
def test_hostile_arguments_give_an_errno_or_a_trap(make_probe, name):
    kinds = make_probe().imports[name].params
    for position, kind in enumerate(kinds):
        for value in hostile_values(kind, 96 << 16):
            probe = make_probe()
            for path in probe.tmp.iterdir():
                path.unlink() if path.is_file() else path.rmdir()
            arguments = list(CASES[name].arguments(probe))
            arguments[position] = value

            answer = probe.call(name, *arguments, fuel=20_000_000)

            assert_contained(probe, answer)
            assert_contained(probe, probe.call(name, *(value for _ in kinds), fuel=20_000_000))
            assert probe.call("fd_tell", probe.open(3, "."), probe.OUT).trap is None  # it lives on
            probe.instance.close()


WORDS = st.sampled_from((0, 1, 2, 3, 4, 6, 7, 8, 64, 255, 4096, 0x1000, 0x8000, 0x10000, 0x20000, 0x100000, 0x200000,
                         0x5FFFFF, 0x600000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFF8, 0xFFFFFFFF))  # fmt: skip
CALLS = st.lists(
    st.tuples(st.sampled_from(NAMES), st.lists(WORDS, min_size=9, max_size=9)), min_size=1, max_size=25
)


@given(realtime=st.booleans(), calls=CALLS, memory=st.binary(max_size=200))
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_calls_in_any_order_are_contained(make_probe, realtime, calls, memory):
    probe = make_probe()
    probe.begin(realtime=realtime, quota=1 << 16)
    for at in (probe.BUF, probe.state("arena")):
        probe.write(at, memory)
    probe.iovecs((probe.BUF, 5000), (probe.BUF, 0xFFFFFFFF))
    probe.path("f")
    before = sum(path.stat().st_size for path in probe.tmp.rglob("*") if path.is_file())

    for name, words in calls:
        given_words = words[: len(probe.imports[name].params)]
        answer = probe.call(name, *given_words, fuel=5_000_000)
        assert_contained(probe, answer)
        assert probe.state("stdout_len") + probe.state("stderr_len") <= 4096
    used = sum(path.stat().st_size for path in probe.tmp.rglob("*") if path.is_file())
    assert used - before <= 1 << 16
    probe.instance.close()


def test_the_table_names_only_real_functions_it_may_need(workshop):
    known = {f.export_name for f in workshop.imports if f.module != "host"}

    assert {name for decision in TABLE for name in decision.real} <= known
    assert set(membrane.COSTS) >= {"COST_PATH", "COST_TRANSFER", "COST_DESCRIPTOR"}
