import pytest

from evocell_guest.packing import module_name


def test_what_is_imported_is_listed_by_its_top_level_name(guest):
    answer = guest.compile(
        "import os.path, json as j\nfrom xml.dom import minidom\nfrom . import x\n__import__('ast')\n"
        "def f():\n  import importlib\n  importlib.import_module('a.b')"
    )

    assert answer["imports"] == ["a", "ast", "importlib", "json", "os", "xml"]


def test_a_syntax_error_is_told_with_its_place(guest):
    answer = guest.compile({"a.py": "x = 1", "b/c.py": "def f():\n  return (\n"})

    assert answer == {
        "t": "rejected",
        "kind": "syntax",
        "message": "'(' was never closed",
        "path": "b/c.py",
        "line": 2,
        "column": 10,
        "text": "  return (",
    }


@pytest.mark.parametrize(
    "source",
    [
        b"x = '\0'",
        b"\xff\xfe",
        b"# coding: no-such\n",
        b"x = '\\N{no such name}'",
        b"\ttab\n  x",
        "x\u00a0=1".encode(),
    ],
)
def test_text_that_is_no_program_is_a_syntax_error(guest, source):
    assert guest.compile({"program.py": source})["kind"] == "syntax"


@pytest.mark.parametrize(
    "source", ["(" * 5000 + ")" * 5000, "-" * 50_000 + "1", "x" + ".a" * 20_000, "a\n" + "if 1:\n" * 1]
)
def test_deep_source_is_refused_and_not_a_crash(guest, source):
    assert guest.compile(source)["kind"] in {"syntax", "compile"}


@pytest.mark.parametrize(
    ("source", "module"),
    [
        ("import socket", "socket"),
        ("import os, socket as s", "socket"),
        ("from socket import create_connection", "socket"),
        ("def f():\n  from urllib import request", "urllib.request"),
        ("import urllib.request.x", "urllib.request"),
        ("__import__('socket')", "socket"),
        ("from importlib import import_module\nimport_module('socket.x')", "socket"),
        ("import importlib as i\ni.import_module('socket')", "socket"),
    ],
)
def test_a_blocked_import_is_refused_with_its_place(guest, source, module):
    answer = guest.compile(source, blocked=("socket", "urllib.request"))

    assert (answer["t"], answer["kind"], answer["path"]) == ("rejected", "security", "program.py")
    assert repr(module) in answer["message"]
    assert answer["line"] == len(source.splitlines())
    assert answer["text"] == source.splitlines()[-1]


def test_what_only_looks_like_a_blocked_import_is_let_through(guest):
    source = "import socketserver\nfrom . import socket\nfrom .socket import x\nsocket = 'socket'\n__import__(socket)"

    assert guest.compile(source, blocked=("socket",))["t"] == "compiled"


def test_files_that_are_not_python_are_left_alone(guest):
    assert guest.compile({"data.txt": "(", "a.pyc": b"\0", "program.py": ""})["t"] == "compiled"


def test_warnings_of_the_compiler_are_nobodys_business(guest):
    assert guest.compile(r"x = '\d' is 'a'; assert (1, 2)")["t"] == "compiled"


def test_the_host_files_future_imports_do_not_leak(guest):
    assert (
        guest.run("def g(x: int): pass\ndef f(): return type(g.__annotations__['x']).__name__")["v"] == "type"
    )


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("program.py", ("program", False)),
        ("a/b.py", ("a.b", False)),
        ("a/__init__.py", ("a", True)),
        ("__init__.py", ("", True)),
        ("a.b.py", ("", False)),
        ("my-tool.py", ("my-tool", False)),
    ],
)
def test_module_names(path, expected):
    assert module_name(path) == expected
