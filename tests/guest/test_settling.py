"""What a guest holds becomes a part of the image, beneath the versions that come later."""

import pytest

from evocell_guest import agent

BASE = {
    "program.py": "import data\ndef f(): return [data.VALUES, __name__]",
    "data.py": "VALUES = []\ndef fill(): VALUES.append(len(VALUES)); return VALUES",
    "tools/__init__.py": "from . import inner",
    "tools/inner.py": "WHERE = 'base'",
    "late.py": "x = 'late'\ndef f(): return x",
}


@pytest.fixture
def settled(guest, monkeypatch):
    monkeypatch.setattr("gc.freeze", lambda: None)  # of the tests' own interpreter
    guest.run(BASE, "data:fill")
    guest.call("tools.inner:missing")
    assert guest.ask({"op": "settle", "code": None}) == {"t": "settled"}
    return guest


def test_what_was_frozen_goes_on_without_its_code_being_sent(settled):
    assert settled.call("program:f")["v"] == [[0], "program"]
    assert settled.call("data:fill")["v"] == [0, 1]


def test_a_module_that_was_not_imported_is_so_from_the_frozen_code(settled):
    assert settled.call("late:f")["v"] == "late"


def test_a_later_version_finds_the_frozen_modules_as_they_are(settled):
    code = settled.compile("import data\ndef f(): return data.VALUES")["code"]
    assert settled.call("program:f", code=code)["v"] == [0]


def test_a_later_versions_modules_go_before_the_frozen_ones_whole(settled):
    tree = {
        "program.py": "import tools\ndef f(): return [tools.OWN, hasattr(tools, 'inner')]",
        "tools.py": "OWN = 1",
    }
    assert settled.call("program:f", code=settled.compile(tree)["code"])["v"] == [1, False]
    assert "tools.inner" not in agent._MODULES


def test_a_reload_of_a_later_version_leaves_the_frozen_modules_alone(settled):
    first = settled.compile("import data\nn = 0\ndef f(): return [len(data.VALUES), n]")["code"]
    second = settled.compile("import data\nn = 1\ndef f(): return [len(data.VALUES), n]")["code"]
    settled.call("data:fill")
    assert settled.call("program:f", code=first)["v"] == [2, 0]
    assert settled.call("program:f", code=second)["v"] == [2, 1]


def test_tracebacks_show_the_lines_of_frozen_code(settled):
    answer = settled.call("data:fill", 1)
    assert answer["t"] == "raised"
    settled.call("program:f", harness=settled.compile("x = 1", root=settled.harness_root)["code"])
    assert settled.root + "/" in agent.loader.roots


def test_code_that_raises_while_it_is_settled_says_so(guest):
    guest.run("def f(): return 1")
    bad = guest.compile("raise ValueError('no')")["code"]
    assert guest.ask({"op": "settle", "code": bad})["message"] == "no"
