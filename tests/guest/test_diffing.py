"""What changed between two versions, in lines and in definitions."""

from __future__ import annotations

import pytest

from evocell_guest.diffing import MAX_DIFF_BYTES


@pytest.fixture
def diff(guest):
    def diff(old, new):
        def pairs(files):
            files = {"program.py": files} if isinstance(files, str) else files
            return [[path, text.encode() if isinstance(text, str) else text] for path, text in files.items()]

        answer = guest.ask({"op": "diff", "old": pairs(old), "new": pairs(new), "context": 3})
        assert answer.pop("t") == "diff"
        return answer

    return diff


def test_functions_added_removed_and_changed(diff):
    old = "def a(): return 1\ndef b(): return 2\nclass C:\n  def m(self): return 3\n  def n(self): return 4\n"
    new = (
        "def a(): return 1\ndef c(): return 2\nclass C:\n  def m(self): return 33\n  def o(self): return 4\n"
    )

    answer = diff(old, new)

    assert answer["added"] == ["program:C.o", "program:c"]
    assert answer["removed"] == ["program:C.n", "program:b"]
    assert answer["changed"] == ["program:C.m"]
    assert answer["unified"].splitlines()[:6] == [
        "--- a/program.py",
        "+++ b/program.py",
        "@@ -1,5 +1,5 @@",
        " def a(): return 1",
        "-def b(): return 2",
        "+def c(): return 2",
    ]


def test_comments_and_layout_change_lines_and_no_function(diff):
    answer = diff("def f(x):\n    return x\n", "# new\ndef f(x):\n\n    return (x)\n")

    assert (answer["added"], answer["removed"], answer["changed"]) == ([], [], [])
    assert "+# new" in answer["unified"]


@pytest.mark.parametrize(
    ("old", "new", "changed"),
    [
        ("x = 1", "x = 2", ["program"]),
        ("import os", "import sys", ["program"]),
        ("class C(int): pass", "class C(float): pass", ["program:C"]),
        ("class C:\n  x = 1", "class C:\n  x = 2", ["program:C"]),
        ("@a\ndef f(): pass", "@b\ndef f(): pass", ["program:f"]),
        ("def f(x: int): pass", "def f(x: str): pass", ["program:f"]),
        ("async def f(): pass", "def f(): pass", ["program:f"]),
        ("def f(): pass\ndef f(): return 1", "def f(): pass\ndef f(): return 2", ["program:f'"]),
        (
            "def f():\n  def g(): return 1\n  return g",
            "def f():\n  def g(): return 2\n  return g",
            ["program:f"],
        ),
    ],
)
def test_what_counts_as_changed(diff, old, new, changed):
    assert diff(old, new)["changed"] == changed


def test_files_that_come_and_go(diff):
    answer = diff(
        {"a.py": "def f(): pass\n", "x.bin": b"\0\1"}, {"b/c.py": "def f(): pass\n", "x.bin": b"\0\2"}
    )

    assert (answer["added"], answer["removed"]) == (["b.c:f"], ["a:f"])
    assert "--- a/a.py\n+++ /dev/null\n" in answer["unified"]
    assert "--- /dev/null\n+++ b/b/c.py\n" in answer["unified"]
    assert "Binary files a/x.bin and b/x.bin differ\n" in answer["unified"]


def test_a_last_line_without_its_end(diff):
    assert diff("x = 1", "x = 2\n")["unified"].endswith("-x = 1\n\\ No newline at end of file\n+x = 2\n")


def test_equal_versions_have_no_diff(diff):
    assert diff("x = 1", "x = 1") == {"unified": "", "added": [], "removed": [], "changed": []}


def test_a_diff_without_end_is_cut(diff):
    answer = diff("", "".join(f"x{number} = {'1' * 200}\n" for number in range(8000)))

    assert len(answer["unified"]) < MAX_DIFF_BYTES + 200
    assert answer["unified"].endswith("is left out\n")


def test_text_that_is_no_program_is_compared_as_text(diff):
    assert diff("def (", "def )")["changed"] == ["program"]
