from __future__ import annotations

import marshal
from pathlib import Path

import pytest
from attrs import evolve

from evocell.code.compiler import (
    COMPILE_FUEL,
    CompiledUnit,
    assemble,
    code_key,
    compile_fuel,
    compile_request,
    dump_unit,
    load_unit,
    read_compile_response,
    too_much_code,
)
from evocell.code.snapshots import VersionSnapshot
from evocell.code.sources import normalise
from evocell.errors import ProtocolError
from evocell.models import Limits, Rejected
from evocell.models.security import policy_for

SNAPSHOT = VersionSnapshot("d" * 64, Path("/versions/d"))
TREE = normalise({"program.py": "x", "data.txt": "y", "a/b.py": b"z"})
UNITS = [["a/b.py", b"\1", ["numpy", "math"], [], []], ["program.py", b"\2", ["math"], [["x", 7]], []]]


def read(answer, known=None):
    return read_compile_response(answer, SNAPSHOT, TREE, "/app", known)


def test_a_request_holds_the_python_files_and_what_is_blocked():
    policy = policy_for("medium", blocked=["socket", "ctypes", "socket"])

    assert compile_request(TREE, "/app", policy) == {
        "op": "compile",
        "files": [["a/b.py", b"z"], ["program.py", b"x"]],
        "root": "/app",
        "policy": policy.to_wire(),
        "own": ["a", "program"],
        "prefix": "",
        "optimize": -1,
        "units": True,
    }


def test_a_request_leaves_out_what_is_known():
    assert compile_request(TREE, "/app", None, ["a/b.py"])["files"] == [["program.py", b"x"]]


def test_an_answer_with_byte_code():
    made = read({"t": "compiled", "units": UNITS})

    assert (made.digest, made.path, made.imports) == (SNAPSHOT.digest, SNAPSHOT.path, ("math", "numpy"))
    root, table, marks, policy = marshal.loads(made.code)
    assert policy is None
    assert root == "/app"
    assert table == {
        "a.b": (False, "/app/a/b.py", b"\1"),
        "program": (False, "/app/program.py", b"\2"),
        "a": (True, "/app/a", None),
    }
    assert marshal.loads(marks) == {"a.b": {}, "program": {"x": 7}}


def test_an_answer_of_files_with_nothing_but_code_is_short():
    units = [[path, code, [], [], []] for path, code, *_ in UNITS]

    assert read([part for unit in units for part in unit[:2]]) == read({"t": "compiled", "units": units})


def test_an_answer_is_completed_with_what_is_known():
    known = {"a/b.py": CompiledUnit("a/b.py", b"\1", ("math", "numpy"))}

    assert read({"t": "compiled", "units": UNITS[1:]}, known) == read({"t": "compiled", "units": UNITS})


def test_the_same_files_give_the_same_bytes():
    units = [CompiledUnit(path, code) for path, code, *_ in UNITS]
    again = [CompiledUnit("".join(list(path)), bytes(bytearray(code))) for path, code, *_ in UNITS]

    assert assemble(SNAPSHOT, TREE, "/app", units).code == assemble(SNAPSHOT, TREE, "/app", again).code


def test_an_answer_that_rejects():
    answer = {
        "t": "rejected",
        "kind": "syntax",
        "message": "invalid syntax",
        "path": "program.py",
        "line": 3,
        "column": 7,
        "text": "def (",
    }

    assert read(answer) == Rejected("syntax", "invalid syntax", "program.py", 3, 7, "def (")
    assert read({"t": "rejected", "kind": "compile", "message": "x"}) == Rejected("compile", "x")


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        ["a/b.py", b"\1", "program.py"],
        ["a/b.py", b"\1", b"program.py", b"\2"],
        ["a/b.py", b"\1", "program.py", "text"],
        ["a/b.py", b"\1", "a/b.py", b"\1"],
        ["a/b.py", b"\1", "program.py", b"\2", "other.py", b""],
        {},
        {"t": "completed", "v": 1},
        {"t": "compiled"},
        {"t": "compiled", "units": b""},
        {"t": "compiled", "units": [UNITS[0]]},
        {"t": "compiled", "units": [*UNITS, ["other.py", b"", [], [], []]]},
        {"t": "compiled", "units": [*UNITS, UNITS[0]]},
        {"t": "compiled", "units": [UNITS[0], ["program.py", b"", [], []]]},
        {"t": "compiled", "units": [UNITS[0], ["program.py", "text", [], [], []]]},
        {"t": "compiled", "units": [UNITS[0], ["program.py", b"", "numpy", [], []]]},
        {"t": "compiled", "units": [UNITS[0], ["program.py", b"", [3], [], []]]},
        {"t": "compiled", "units": [UNITS[0], ["program.py", b"", ["a\nb"], [], []]]},
        {"t": "compiled", "units": [UNITS[0], ["program.py", b"", ["a"] * 10_001, [], []]]},
        {"t": "compiled", "units": [UNITS[0], ["program.py", b"", [], [["x"]], []]]},
        {"t": "compiled", "units": [UNITS[0], ["program.py", b"", [], [["x", True]], []]]},
        {"t": "compiled", "units": [UNITS[0], ["program.py", b"", [], [], "x"]]},
        {"t": "compiled", "units": [UNITS[0], ["program.py", b"", [], [], [1]]]},
        {"t": "compiled", "units": [UNITS[0], ["program.py", b"", [], [], ["x"] * 65]]},
        {"t": "rejected", "kind": "syntax"},
        {"t": "rejected", "kind": "fuel", "message": "x"},
        {"t": "rejected", "kind": [], "message": "x"},
        {"t": "rejected", "kind": "syntax", "message": "x", "line": "3"},
        {"t": "rejected", "kind": "syntax", "message": "x", "line": True},
        {"t": "rejected", "kind": "syntax", "message": "x", "path": 3},
    ],
)
def test_any_other_answer_is_a_protocol_error(answer):
    with pytest.raises(ProtocolError):
        read(answer)


def test_long_texts_are_cut():
    rejected = read({"t": "rejected", "kind": "syntax", "message": "x" * 100_000, "text": "y" * 100_000})

    assert len(rejected.message) == len(rejected.text) == 4096


def test_a_compiled_file_comes_back_as_it_was_kept():
    unit = CompiledUnit(
        "a/b.py", b"\0code\n", ("math", "numpy"), (("x", 7), ("y", 1 << 31)), ("a/b.py:1:1: no",)
    )

    assert load_unit(dump_unit(unit)) == unit


@pytest.mark.parametrize("data", [b"", b"\0\0\0", dump_unit(CompiledUnit("a", b""))[:-1], b"\x90"])
def test_what_was_kept_otherwise_is_refused(data):
    with pytest.raises(ProtocolError):
        load_unit(data)


def test_the_key_depends_on_everything_that_the_code_does():
    policy = policy_for("medium", blocked=["a", "b"])
    high = policy_for("high", blocked=["a", "b"])
    base = ("image", "digest", "/app", policy)
    others = [
        ("image2", "digest", "/app", policy),
        ("image", "digest2", "/app", policy),
        ("image", "digest", "/harness", policy),
        ("image", "digest", "/app", None),
        ("image", "digest", "/app", policy_for("medium", blocked=["a"])),
        ("image", "digest", "/app", policy_for("medium", blocked=["ab"])),
        ("image", "digest", "/app", policy_for("low", blocked=["a", "b"])),
        ("image", "digest", "/app", high),
        ("image", "digest", "/app", policy_for("medium", blocked=["a", "b"], enforce=False)),
        ("image", "digest", "/app", evolve(policy, events={})),
    ]
    same = policy_for("medium", blocked=["b", "a", "a"])

    keys = {code_key(*args) for args in [base, *others]}
    keys |= {code_key(*base, path="a.py"), code_key("image", "digest", "/app", high, own=("mine",))}
    assert len(keys) == 13
    assert code_key("image", "digest", "/app", same, own=("mine",)) == code_key(*base)


def test_fuel_for_compiling_grows_with_the_python_in_a_tree_up_to_a_cap():
    small = normalise({"program.py": "x = 1\n", "data.bin": b"\0" * 4_000_000})
    large = normalise({"program.py": "x = 1\n" * 10_000})
    huge = normalise({"program.py": "x = 1\n" * 300_000})

    assert compile_fuel(small) < compile_fuel(large) < compile_fuel(huge) == COMPILE_FUEL
    assert compile_fuel(small) < 6_000_000_000


@pytest.mark.parametrize(
    ("n_bytes", "fuel", "fits"),
    [
        (250_000, 1, True),
        (250_001, 1, False),
        (250_001, 5_000_020_000, True),
        (1_600_000, 1_000_000_000, False),
        (1_600_000, Limits().fuel, True),
        (5_000_001, Limits().fuel, False),
    ],
)
def test_a_tree_is_held_against_the_fuel_of_a_call(n_bytes, fuel, fits):
    half = n_bytes // 2
    tree = normalise({"a.py": "#" * half, "b.py": "#" * (n_bytes - half), "c.txt": "#" * 4_000_000})

    refusal = too_much_code(tree, Limits(fuel=fuel))

    assert (refusal is None) is fits
    if refusal is not None:
        assert refusal.kind == "compile"
        assert f"{n_bytes:,} bytes of Python take some" in refusal.message
        assert "raise Limits.fuel" in refusal.message
