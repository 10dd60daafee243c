import ast
from pathlib import Path

import pytest

import evocell_guest
from evocell.models.security import policy_for
from evocell_guest.gate import _walk
from evocell_guest.packing import module_name


def blocking(*modules, profile="low", **options):
    return policy_for(profile, blocked=modules, **options).to_wire()


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
        ("class A:\n  from urllib import request", "urllib.request"),
        ("with open('x') as f:\n  import socket", "socket"),
        ("try:\n  import socket\nexcept ValueError: pass", "socket"),
        ("import urllib.request.x", "urllib.request"),
        ("__import__('socket')", "socket"),
        ("from importlib import import_module\nimport_module('socket.x')", "socket"),
        ("import importlib as i\ni.import_module('socket')", "socket"),
    ],
)
def test_a_blocked_import_is_refused_with_its_place(guest, source, module):
    answer = guest.compile(source, policy=blocking("socket", "urllib.request"))

    assert (answer["t"], answer["kind"], answer["path"]) == ("rejected", "security", "program.py")
    assert repr(module) in answer["message"]
    line = next(n for n, text in enumerate(source.splitlines()) if module.rpartition(".")[2] in text) + 1
    line = len(source.splitlines()) if "import_module(" in source else line
    assert answer["line"] == line
    assert answer["text"] == source.splitlines()[line - 1]


UNCERTAIN = {
    "in a function": "def f():\n  import socket",
    "in a method": "class A:\n  def f(self):\n    from socket import socket",
    "in a lambda": "f = lambda: __import__('socket')",
    "under a condition": "import sys\nif sys.platform == 'win32':\n  import socket",
    "under the main guard": "if __name__ == '__main__':\n  import socket",
    "for types": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n  import socket",
    "guarded": "try:\n  import socket\nexcept ImportError:\n  socket = None",
    "guarded by several": "try:\n  import socket\nexcept (OSError, ModuleNotFoundError):\n  socket = None",
    "guarded by all": "try:\n  import socket\nexcept:\n  socket = None",
    "guarded by a wider one": "try:\n  import socket\nexcept Exception as e:\n  socket = None",
    "guarded and finished": "try:\n  import socket\nexcept ImportError:\n  pass\nelse:\n  import socket.x\nfinally:\n  pass",
    "in a handler": "try:\n  import numpy\nexcept ImportError:\n  import socket",
    "suppressed": "import contextlib\nwith contextlib.suppress(ImportError):\n  import socket",
    "in a loop": "for name in []:\n  __import__('socket')",
    "in a match": "match 1:\n  case 2:\n    import socket",
    "through importlib": "import importlib\ndef f(): return importlib.import_module('socket')",
}


@pytest.mark.parametrize("source", UNCERTAIN.values(), ids=UNCERTAIN.keys())
def test_an_import_that_may_not_be_reached_or_is_guarded_is_left_to_run_time_and_told(guest, source):
    answer = guest.compile(source, policy=blocking("socket", profile="medium"), units=True)

    assert answer["t"] == "compiled", answer
    (unit,) = answer["units"]
    assert unit[4], source
    assert all("it raises ImportError if it is reached" in text for text in unit[4])


def test_the_agents_own_modules_are_refused_wherever_they_are_named(guest):
    for source in (
        "def f():\n  import _host",
        "try:\n  import evocell_guest.agent\nexcept ImportError: pass",
    ):
        assert guest.compile(source, policy=blocking("socket"))["kind"] == "security"


def test_a_module_that_may_not_be_imported_at_all_refuses_nothing_before(guest):
    files = {"program.py": "def f(): return 1", "server.py": "import socket"}

    answer = guest.compile(files, policy=blocking("socket"), own=["program", "server"])

    assert answer["t"] == "compiled"


OWN = {
    "assigned": "class A: pass\na = A()\na.f_code = 7\nprint(a.f_code)",
    "assigned in a method": "class A:\n  def __init__(self):\n    self.tb_frame = 1\nprint(A().tb_frame)",
    "a method": "class A:\n  def f_back(self): return 1\nA().f_back()",
    "a property": "class A:\n  @property\n  def gi_frame(self): return 1\nA().gi_frame",
    "a field": "import dataclasses\n@dataclasses.dataclass\nclass A:\n  f_locals: int = 1\nA().f_locals",
    "a class variable": "class A:\n  co_code = b''\nA.co_code",
    "a slot": "class A:\n  __slots__ = ('cr_frame', 'x')\ndef g(a): return a.cr_frame",
    "set by name": "class A: pass\na = A()\nsetattr(a, 'f_code', 7)\nprint(getattr(a, 'f_code'))",
    "a keyword": "import types\nprint(types.SimpleNamespace(f_globals=1).f_globals)",
    "a named tuple's": "from collections import namedtuple\nT = namedtuple('T', 'f_code')\nprint(T(1).f_code)",
    "of another file's class": "import sys\nfrom helper import model\nprint(model.f_code)",
}


@pytest.mark.parametrize("source", OWN.values(), ids=OWN.keys())
def test_attributes_of_ones_own_may_have_any_name(guest, source):
    answer = guest.compile(source, policy=blocking(profile="medium"), own=["helper", "program"])

    assert answer["t"] == "compiled", answer


REFUSED = {
    "import socket": ("'socket' is among the blocked modules", "no network", "except ImportError"),
    "import subprocess": (
        "'subprocess' is among the blocked modules",
        "no processes",
        "do the work in this one",
    ),
    "import multiprocessing.pool": ("'multiprocessing'", "no processes", "do the work in this one"),
    "import ctypes": ("'ctypes'", "no libraries to load", "use struct, array or numpy"),
    "import thatone": ("'thatone'", "blocked_modules", "leave it out"),
    "import sys\nsys._getframe()": ("'medium' does not allow 'sys._getframe'", "frames", "as an argument"),
    "import inspect\ninspect.stack()": ("'inspect.stack'", "frames", "as an argument"),
    "import sys\nsys.settrace(None)": ("'sys.settrace'", "runs code", "time or count inside"),
    "import gc\ngc.get_objects()": ("'gc.get_objects'", "not the program's", "references of your own"),
    "import inspect\nx.f_globals": ("the attribute 'f_globals'", "frames", "may have any other name"),
    "().__subclasses__": ("the attribute '__subclasses__'", "classes", "__init_subclass__"),
    "f.__code__ = 1": ("replacing code objects", "code objects", "define another function"),
}


@pytest.mark.parametrize(("source", "parts"), REFUSED.items(), ids=REFUSED.keys())
def test_a_refusal_says_which_rule_and_why_and_what_to_write_instead(guest, source, parts):
    blocked = ("socket", "subprocess", "multiprocessing", "ctypes", "thatone")

    answer = guest.compile(source, policy=blocking(*blocked, profile="medium"))

    assert answer["kind"] == "security"
    for part in parts:
        assert part in answer["message"], answer["message"]


def test_high_says_what_to_write_instead(guest):
    for source, part in (
        ("eval('1')", "ast.literal_eval"),
        ("open('x')", "pass the data as arguments"),
        ("import sys", "allowed_modules"),
        ("input()", "nobody to ask"),
    ):
        assert part in guest.compile(source, policy=blocking(profile="high"))["message"]


def test_what_only_looks_like_a_blocked_import_is_let_through(guest):
    source = "import socketserver\nfrom . import socket\nfrom .socket import x\nsocket = 'socket'\n__import__(socket)"

    assert guest.compile(source, policy=blocking("socket"))["t"] == "compiled"


MEDIUM = [
    "import sys\nsys._getframe()",
    "import sys as s\ns.settrace(None)",
    "from sys import _getframe as g",
    "import gc\ngc.get_objects()",
    "import sys\ngetattr(sys, '_getframe')",
    "def f(): pass\nf.__code__ = None",
    "def f(): pass\nf.__code__.replace(co_name='g')",
    "object.__subclasses__()",
    "try: 1 / 0\nexcept Exception as e: e.__traceback__.tb_frame",
    "getattr(object, '__subclasses__')",
    "import types\ntypes.CodeType",
    "import evocell_guest.agent",
    "import _host",
]
HIGH = [
    "eval('1')",
    "exec('1')",
    "open('/tmp/x')",
    "import os",
    "import importlib",
    "import sys",
    "f = __builtins__",
    "().__class__.__bases__",
    "def f(): pass\nf.__globals__",
    "import numpy.ctypeslib",
]


@pytest.mark.parametrize("source", MEDIUM + HIGH)
def test_each_profile_refuses_what_it_says_and_the_one_below_does_not(guest, source):
    kinds = {
        profile: guest.compile(source, policy=blocking(profile=profile)).get("kind")
        for profile in ("low", "medium", "high")
    }

    agents = "evocell_guest" in source or "_host" in source
    assert kinds["high"] == "security"
    assert kinds["medium"] == ("security" if source in MEDIUM else None)
    assert kinds["low"] == ("security" if agents else None)


@pytest.mark.parametrize(
    "source",
    [
        "import numpy as np, math, random, heapq\nfrom scipy import stats\nfrom collections import deque",
        "def compile(x): return x\ncompile(1)",
        "class A:\n  def __init__(self): self.x = self.__class__.__name__",
        "def f(input, open=3): return input + open",
        "import helper\nfrom helper.x import y",
        "text = 'a'.replace('a', 'b')",
    ],
)
def test_ordinary_code_passes_every_profile(guest, source):
    files = {"program.py": source, "helper/__init__.py": "", "helper/x.py": "y = 1"}

    for profile in ("low", "medium", "high"):
        answer = guest.compile(files, policy=blocking(profile=profile), own=["helper", "program"])
        assert answer["t"] == "compiled", profile


def test_high_lets_in_what_the_caller_adds(guest):
    assert guest.compile("import shapely.ops", policy=blocking(profile="high"))["kind"] == "security"
    policy = blocking(profile="high", allowed=["shapely"])
    assert guest.compile("import shapely.ops", policy=policy)["t"] == "compiled"


def test_a_policy_that_only_reports_compiles_and_tells(guest):
    policy = blocking("socket", profile="medium", enforce=False)

    answer = guest.compile({"a.py": "import socket\nimport sys\nsys._getframe()"}, policy=policy, units=True)

    (unit,) = answer["units"]
    assert [text.partition(": ")[0] for text in unit[4]] == ["a.py:1:1", "a.py:3:1"]


def test_a_module_of_ones_own_does_not_open_a_blocked_one(guest):
    files = {"program.py": "import _host", "_host.py": "x = 1"}

    assert guest.compile(files, policy=blocking(), own=["_host", "program"])["kind"] == "security"


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


def test_the_gates_walk_sees_what_the_standard_one_sees():
    text = Path(evocell_guest.__file__).with_name("gate.py").read_text()
    tree = ast.parse(text)
    leaves = (ast.expr_context, ast.operator, ast.unaryop, ast.cmpop, ast.boolop)
    expected = [node for node in ast.walk(tree) if not isinstance(node, leaves)]
    seen = [node for node in _walk(tree) if not isinstance(node, leaves)]

    assert seen == expected
