from __future__ import annotations

from pathlib import Path

import pytest

from evocell.code.compiler import (
    CompiledVersion,
    code_key,
    compile_request,
    dump_compiled,
    load_compiled,
    read_compile_response,
)
from evocell.code.snapshots import VersionSnapshot
from evocell.code.sources import normalise
from evocell.errors import ProtocolError
from evocell.models import Rejected

SNAPSHOT = VersionSnapshot("d" * 64, Path("/versions/d"))


def test_a_request_holds_the_python_files_and_what_is_blocked():
    tree = normalise({"program.py": "x", "data.txt": "y", "a/b.py": b"z"})

    assert compile_request(tree, "/app", ["socket", "ctypes", "socket"]) == {
        "op": "compile",
        "files": [["a/b.py", b"z"], ["program.py", b"x"]],
        "root": "/app",
        "blocked": ["ctypes", "socket"],
        "optimize": -1,
    }


def test_an_answer_with_byte_code():
    answer = {"t": "compiled", "code": b"\1", "imports": ["numpy", "math", "math"]}

    assert read_compile_response(answer, SNAPSHOT) == CompiledVersion(
        SNAPSHOT.digest, SNAPSHOT.path, b"\1", ("math", "numpy")
    )


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

    assert read_compile_response(answer, SNAPSHOT) == Rejected(
        "syntax", "invalid syntax", "program.py", 3, 7, "def ("
    )
    assert read_compile_response({"t": "rejected", "kind": "compile", "message": "x"}, SNAPSHOT) == Rejected(
        "compile", "x"
    )


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        {"t": "completed", "v": 1},
        {"t": "compiled"},
        {"t": "compiled", "code": "text"},
        {"t": "compiled", "code": b"", "imports": "numpy"},
        {"t": "compiled", "code": b"", "imports": [3]},
        {"t": "compiled", "code": b"", "imports": ["a\nb"]},
        {"t": "compiled", "code": b"", "imports": ["a"] * 10_001},
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
        read_compile_response(answer, SNAPSHOT)


def test_long_texts_are_cut():
    rejected = read_compile_response(
        {"t": "rejected", "kind": "syntax", "message": "x" * 100_000, "text": "y" * 100_000}, SNAPSHOT
    )

    assert len(rejected.message) == len(rejected.text) == 4096


@pytest.mark.parametrize("imports", [(), ("numpy",), ("math", "numpy")])
def test_a_compiled_version_comes_back_as_it_was_kept(imports):
    compiled = CompiledVersion(SNAPSHOT.digest, SNAPSHOT.path, b"\0code\n", imports)

    assert load_compiled(dump_compiled(compiled), SNAPSHOT) == compiled


@pytest.mark.parametrize("data", [b"", b"\0\0\0", b"\0\0\0\5abc", b"\0\0\0\1\xff"])
def test_what_was_kept_otherwise_is_refused(data):
    with pytest.raises(ProtocolError):
        load_compiled(data, SNAPSHOT)


def test_the_key_depends_on_everything_that_the_code_does():
    base = ("image", "digest", "/app", ("a", "b"))
    others = [
        ("image2", "digest", "/app", ("a", "b")),
        ("image", "digest2", "/app", ("a", "b")),
        ("image", "digest", "/harness", ("a", "b")),
        ("image", "digest", "/app", ("a",)),
        ("image", "digest", "/app", ("ab",)),
    ]

    assert len({code_key(*args) for args in [base, *others]}) == 6
    assert code_key("image", "digest", "/app", ["b", "a", "a"]) == code_key(*base)
