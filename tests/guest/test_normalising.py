"""The text that a program's syntax tree gives: the same for programs that differ in comments and layout."""

from __future__ import annotations

import pytest

PROGRAM = "def solve(n):\n    total = [i * i for i in range(n)]\n    return sum(total)\n"
SAME = (
    "# written by a model\n\n\ndef solve( n ):\n  # squares\n  total = [(i*i)   for i in range(n)]; return (sum(total))",
    "# -*- coding: latin-1 -*-\r\ndef solve(n):\r\n\ttotal=[i*i for i in range(n)]\r\n\r\n\treturn sum(total)\r\n",
)
OTHER = ("def solve(n):\n    'a docstring'\n" + PROGRAM.split("\n", 1)[1], PROGRAM.replace("total", "sums"))


@pytest.fixture
def normal(guest):
    def normal(content):
        answer = guest.ask({"op": "normalise", "files": [["program.py", content]]})
        ((path, text),) = answer["files"]
        assert (answer["t"], path) == ("normalised", "program.py")
        return text

    return normal


def test_comments_and_layout_are_no_part_of_it_and_all_else_is(normal):
    text = normal(PROGRAM.encode())
    assert b"def solve(n):" in text
    assert [normal(same.encode()) for same in SAME] == [text] * 2
    assert normal(text) == text
    assert text not in {normal(other.encode()) for other in OTHER}


def test_what_text_cannot_say_the_same_of_has_none(normal):
    assert normal(b"x = 1\0") is None
    assert normal(b"def f(:") is None
    assert normal(b"x = " + b"(" * 5_000 + b")" * 5_000) is None
    assert normal(b"x = " + b"-" * 3_000 + b"1") is None  # deeper than the writer goes


def test_strings_and_numbers_survive(normal):
    source = r"""x = ["a\
b", "\ud800\0\x85", b"\xff", u'u', f"{1 + 1:>{4}} {'b'!r}", 1e999, -0.0, 10**3, 0x_ff, 1j, ..., "'\""]"""
    found, wanted = {}, {}
    exec(normal(source.encode()), found)
    exec(source, wanted)
    assert repr(found["x"]) == repr(wanted["x"])
