"""Every wrapper of the membrane, called with anything: a guest whose interpreter was taken over can do no less.

The guest is `conftest.Probe`, a hand-written module that exports a caller for each import. Whatever it is given, a
call ends in an errno or in a trap of the guest's own, and nothing outside the guest's memory and scratch space moves.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from evocell_runtime.membrane import TABLE, StopReason
from evocell_runtime.native import I64

NAMES = [decision.name for decision in TABLE]
TRAPS = {None, "UNREACHABLE", "MEMORY_OUT_OF_BOUNDS", "OUT_OF_FUEL", "ERROR"}
FUEL = 60_000_000

SIZE = 96 << 16
pointers = st.one_of(
    st.sampled_from([0, 1, 0x1000, 0x8000, 0x10000, 0x20000, SIZE - 8, SIZE - 1, SIZE, SIZE + 1]),
    st.sampled_from([(1 << 31) - 1, 1 << 31, (1 << 32) - 8, (1 << 32) - 1]),
    st.integers(0x100000, 0x100000 + 0x5000),  # the membrane's own cells, which lie in the guest's memory
    st.integers(0, (1 << 32) - 1),
)
counts = st.one_of(
    st.integers(0, 10), st.sampled_from([1024, 1025, 65_536, (1 << 31) - 1, 1 << 31, (1 << 32) - 1])
)
descriptors = st.one_of(st.integers(0, 12), st.sampled_from([64, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]))
narrow = st.one_of(pointers, counts, descriptors)
wide = st.one_of(
    st.integers(-3, 10),
    st.sampled_from([4096, 1 << 30, (1 << 30) + 1, 1 << 40, (1 << 63) - 1, -(1 << 63), (1 << 64) - 1]),
)
contents = st.one_of(
    st.binary(max_size=64),
    st.lists(st.tuples(pointers, counts), max_size=6).map(
        lambda pairs: b"".join(p.to_bytes(4, "little") + n.to_bytes(4, "little") for p, n in pairs)
    ),
    st.sampled_from(
        [b"a", b"a/b", b"..", b"../x", b"/etc/passwd", b"a\0b", b"\xff\xfe", b".", b"", b"a/../../b", b"//"]
    ),
)


@pytest.fixture
def place(make_probe, tmp_path):
    """Probes over directories with something in them; what lies outside the scratch space must stay as it is."""
    (tmp_path / "outside").write_text("secret")
    for name in ("root", "app", "harness"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "kept").write_text("kept")
        (tmp_path / name / "a").mkdir()
    return make_probe


def around(root: Path) -> dict[str, tuple[int, str]]:
    """All that is not scratch space: names, sizes and contents."""
    found = {}
    for path in sorted(root.rglob("*")):
        if "tmp" not in path.relative_to(root).parts:
            found[str(path.relative_to(root))] = (
                path.stat().st_size,
                path.read_text() if path.is_file() else "",
            )
    return found


def depth(root: Path) -> int:
    return max((len(path.relative_to(root).parts) for path in root.rglob("*")), default=0)


@pytest.mark.parametrize("name", NAMES)
def test_a_wrapper_survives_any_arguments(place, tmp_path, name):
    before = around(tmp_path)
    state = {"probe": place(), "calls": 0, "files": len(list(Path("/proc/self/fd").iterdir()))}

    @settings(
        max_examples=60,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    @given(st.data())
    def attack(data):
        probe = state["probe"]
        for at in (0x1000, 0x8000, probe.state("arena")):
            probe.write(at, data.draw(contents))
        for _ in range(data.draw(st.integers(1, 4))):
            kinds = probe.imports[name].params
            arguments = [data.draw(wide if kind == I64 else narrow) for kind in kinds]
            answer = probe.call(name, *arguments, fuel=FUEL)
            state["calls"] += 1
            assert answer.trap in TRAPS, (name, arguments, answer)
            assert answer.errno is None or 0 <= answer.errno < 77, (name, arguments, answer)
            assert answer.fuel <= FUEL
            if answer.trap is not None:  # such a guest is thrown away
                assert StopReason(probe.state("stop_reason")) in StopReason
                probe.instance.close()
                probe = state["probe"] = place()
        assert 0 <= probe.instance.open_files <= 8
        assert probe.state("scratch_used") <= 1 << 20
        assert probe.state("scratch_entries") <= 100
        assert probe.state("stdout_len") + probe.state("stderr_len") <= 4096

    attack()

    assert state["calls"] >= 60
    assert around(tmp_path) == before
    assert depth(tmp_path / "tmp") <= 4
    state["probe"].instance.close()
    assert len(list(Path("/proc/self/fd").iterdir())) <= state["files"] + 8


PLACES = (b"a", b"b", b"c", b"d", b"e", b"a/c", b"a/d", b"d/e/f", b"../outside", b"a/./c")
OPEN, MAKE, FILE = 0x1000, 0x8000, st.integers(7, 10)
RIGHTS = 2 | 64 | 4 | 32 | (1 << 22)
place_of = st.integers(0, len(PLACES) - 1).map(lambda n: (MAKE + 64 * n, len(PLACES[n])))
steps = st.one_of(
    st.builds(
        lambda p, o, f: ("path_open", 6, 0, *p, o, RIGHTS, 0, f, 0x10000),
        place_of,
        st.sampled_from([1, 1, 1, 9, 0, 8, 5]),
        st.sampled_from([0, 1]),
    ),
    st.builds(lambda p: ("path_create_directory", 6, *p), place_of),
    st.builds(lambda p: ("path_unlink_file", 6, *p), place_of),
    st.builds(lambda p: ("path_remove_directory", 6, *p), place_of),
    st.builds(lambda p, q: ("path_rename", 6, *p, 6, *q), place_of, place_of),
    st.builds(lambda d: ("fd_write", d, OPEN, 1, 0x10000), FILE),
    st.builds(lambda d, n: ("fd_pwrite", d, OPEN, 1, n, 0x10000), FILE, st.sampled_from([0, 9_999, 30_000])),
    st.builds(lambda d, n: ("fd_filestat_set_size", d, n), FILE, st.sampled_from([0, 5_000, 39_000, 60_001])),
    st.builds(lambda d, n: ("fd_seek", d, n, 0, 0x10000), FILE, st.sampled_from([0, 30_000, -1])),
    st.builds(lambda d: ("fd_close", d), FILE),
)


@settings(
    max_examples=250, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True
)
@given(st.lists(steps, min_size=10, max_size=40), st.booleans())
@example(  # two files, each within its bound, are together beyond the quota
    [
        ("path_open", 6, 0, MAKE + 64 * 2, 1, 1, RIGHTS, 0, 0, 0x10000),
        ("fd_filestat_set_size", 7, 39_000),
        ("fd_filestat_set_size", 8, 39_000),
    ],
    False,
)
@example(  # a directory that replaces another, for its quota
    [
        ("fd_filestat_set_size", 7, 39_000),
        ("fd_close", 7),
        *[
            ("path_create_directory", 6, MAKE + 64 * 3, 1),
            ("path_rename", 6, MAKE, 1, 6, MAKE + 64 * 3, 1),
            ("path_create_directory", 6, MAKE, 1),
            ("path_remove_directory", 6, MAKE + 64 * 3, 1),
        ]
        * 12,
        ("path_remove_directory", 6, MAKE, 1),
        ("path_open", 6, 0, MAKE + 64 * 2, 1, 1, RIGHTS, 0, 0, 0x10000),
        ("fd_filestat_set_size", 7, 39_000),
    ],
    False,
)
def test_any_sequence_of_calls_keeps_to_the_bounds(workshop, tmp_path_factory, taken, many):
    from tests.security.conftest import Probe

    root = tmp_path_factory.mktemp("sequence")
    (root / "outside").write_text("secret")
    probe = Probe(workshop, root, scratch=True)
    quota, entries = (60_000, 3) if not many else (1 << 20, 3)
    try:
        probe.begin(quota=quota, entries=entries, file_bytes=40_000, depth=1, open_files=4)
        for number, path in enumerate(PLACES):
            probe.write(MAKE + 64 * number, path)
        probe.iovecs((0x20000, 20_000))
        for step in (
            ("path_create_directory", 6, MAKE, 1),
            ("path_open", 6, 0, MAKE + 64, 1, 1, RIGHTS, 0, 0, 0x10000),
            *taken,
        ):
            answer = probe.call(*step)
            if answer.trap is not None:
                assert probe.state("stop_reason") in (StopReason.FILES, StopReason.ENTRIES)
                break
        found = list((root / "tmp").rglob("*"))
        assert len(found) <= entries
        assert sum(p.stat().st_size for p in found if p.is_file()) + 4096 * len(found) <= quota
        assert all(p.stat().st_size <= 40_000 for p in found if p.is_file())
        assert depth(root / "tmp") <= 1
        assert probe.instance.open_files <= 4
        assert (root / "outside").read_text() == "secret"
    finally:
        probe.instance.close()
