"""The ModuleTransformer: prefixed code behaves as the original, and what cannot be followed is refused."""

from __future__ import annotations

import inspect
import sys
from importlib import import_module

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from evocell_guest import agent
from evocell_guest.compiler import compile_version
from evocell_guest.decoding import decode
from evocell_guest.packing import module_name, pack_files
from evocell_guest.values import encode


def prefixed(files, prefix, root="/app"):
    """Compile a version with a prefix, as the host does; its packed blob."""
    own = sorted({module_name(path)[0].partition(".")[0] for path in files if path.endswith(".py")} - {""})
    pairs = [[path, text.encode() if isinstance(text, str) else text] for path, text in sorted(files.items())]
    answer = compile_version(pairs, own=own, prefix=prefix, units=True, root=root)
    if answer["t"] != "compiled":
        return answer
    prefixes = [
        prefix if path.partition("/")[0].removesuffix(".py") in own else "" for path, *_ in answer["units"]
    ]
    return pack_files(
        root, [(path, code, marks) for path, code, _, marks, _ in answer["units"]], prefixes=prefixes
    )


def call(code, entry, args=()):
    request = {
        "op": "call",
        "code": code,
        "harness": None,
        "entry": entry,
        "args": encode([list(args), {}]),
        "seed": 0,
        "payload_bytes": 1 << 20,
        "payload_items": 10_000,
        "payload_depth": 64,
    }
    answer = decode(agent.handle(encode(request)))
    answer.pop("traceback", None)
    return answer


def behaviours(files, entry="program:f", args=(), root="/app"):
    """What a version answers as it is, and with a prefix."""
    agent.loader.forget()
    plain = call(prefixed(files, "", root), entry, args)
    agent.loader.forget()
    other = call(prefixed(files, "parent_", root), f"parent_{entry}", args)
    agent.loader.forget()
    return plain, other


PKG = {
    "pkg/__init__.py": "from . import sub\nNAME = __name__",
    "pkg/sub/__init__.py": "x = 'sub'",
    "pkg/sub/deep.py": "from ...pkg import NAME\nfrom ..sub import x\nfrom . import leaf\ny = [NAME, x, leaf.z]",
    "pkg/sub/leaf.py": "z = __name__",
    "helper.py": "import pkg.sub.deep as d\ndef h(): return ['h', d.y, __name__]",
}

CORPUS = {
    "plain import": "import helper\ndef f(): return helper.h()",
    "import as": "import helper as other\ndef f(): return other.h()",
    "dotted import": "import pkg.sub.deep\ndef f(): return [pkg.NAME, pkg.sub.deep.y]",
    "dotted import as": "import pkg.sub.deep as deep\ndef f(): return deep.y",
    "several at once": "import os, helper, pkg.sub.leaf, json as j\ndef f(): return [helper.h(), pkg.sub.leaf.z, j.dumps(1), os.sep]",
    "from": "from helper import h\ndef f(): return h()",
    "from a package": "from pkg.sub import deep, x as w\ndef f(): return [deep.y, w]",
    "star": "from pkg.sub.leaf import *\ndef f(): return z",
    "inside a function": "def f():\n  import pkg.sub.leaf\n  from helper import h\n  return [pkg.sub.leaf.z, h()]",
    "inside a class": "class C:\n  import helper as hh\n  def g(self): return self.hh.h()\ndef f(): return C().g()",
    "in a condition": "if __name__ == 'program': import helper as q\nelse: q = None\ndef f(): return q.h()",
    "in a try": "try:\n  import no_such_module\nexcept ImportError:\n  import helper as no_such_module\ndef f(): return no_such_module.h()",
    "import_module": "import importlib\ndef f(): return importlib.import_module('pkg.sub.leaf').z",
    "import_module, relative": "from importlib import import_module\ndef f(): return import_module('.leaf', 'pkg.sub').z",
    "__import__": "def f(): return [__import__('pkg.sub.leaf').NAME, __import__('json').dumps([1])]",
    "own name": "def f(): return [__name__, __name__ == '__main__', f'{__name__}!']",
    "sys.modules": "import sys\ndef f(): return [sys.modules[__name__].g(), 'helper' in sys.modules, sys.modules.get('pkg') is None]\ndef g(): return 3",
    "dataclass": "from __future__ import annotations\nfrom dataclasses import dataclass\nimport typing\n@dataclass\nclass P:\n  x: int\n  y: typing.ClassVar[int] = 1\ndef f(): return [P(3).x, typing.get_type_hints(P)['x'].__name__]",
    "pickle": "import pickle\nclass C: pass\ndef f(): return type(pickle.loads(pickle.dumps(C()))) is C",
    "enum": "import enum\nclass E(enum.Enum):\n  A = 1\ndef f(): return [E.A.name, E('%d' % 1 and 1).value]",
    "deepcopy": "import copy\nclass C:\n  def __init__(self): self.x = [1]\ndef f(): return copy.deepcopy(C()).x",
    "logging": "import logging\nlog = logging.getLogger(__name__)\ndef f(): return log.name",
    "a name that is shadowed": "def f(helper=5): return helper",
    "a string that is no path": "def f(): return ['helper', 'pkg.sub', '/app', '/app/other.txt']",
    "an exception": "import helper\ndef f(): raise LookupError(helper.h())",
    "state": "n = 0\ndef f():\n  global n\n  n += 1\n  return n",
    "reload": "import importlib, helper\ndef f(): return importlib.reload(helper).h()",
    "package of its own": "def f(): return [__package__, __spec__ is not None]",
    "eval": "def f(): return eval('1 + 2')",
    "nested functions": "def f():\n  def g():\n    from pkg.sub import leaf\n    return leaf.z\n  return g()",
}


@pytest.fixture(autouse=True)
def clean():
    modules = set(sys.modules)
    yield
    agent.loader.forget()
    for name in set(sys.modules) - modules:
        if name.startswith(("program", "pkg", "helper", "parent_", "child_", "m0", "m1", "m2", "m3")):
            del sys.modules[name]


@pytest.mark.parametrize("name", CORPUS)
def test_prefixed_code_behaves_as_the_original(name):
    plain, other = behaviours({"program.py": CORPUS[name], **PKG})

    assert other == plain


@pytest.mark.parametrize(
    "module",
    [
        "textwrap",
        "heapq",
        "bisect",
        "colorsys",
        "fractions",
        "string",
        "shlex",
        "difflib",
        "statistics",
    ],
)
def test_modules_of_the_standard_library_behave_as_the_original(module):
    source = inspect.getsource(import_module(module))
    drivers = {
        "textwrap": "wrap('the quick brown fox jumps', 9)",
        "heapq": "nsmallest(3, [5, 1, 4, 2])",
        "bisect": "bisect([1, 2, 3], 2)",
        "colorsys": "rgb_to_hsv(.2, .4, .4)",
        "fractions": "Fraction('3/9').limit_denominator(10).denominator",
        "string": "capwords('a b c')",
        "shlex": "split('a \"b c\" d')",
        "difflib": "get_close_matches('appel', ['ape', 'apple', 'peach'])",
        "statistics": "median([1, 3, 2])",
    }
    files = {
        f"{module}.py": source,
        "program.py": f"import {module}\ndef f(): return [{module}.{drivers[module]}, {module}.__file__[-12:]]",
    }
    kept = sys.modules.get(module)
    plain, other = behaviours(files)
    sys.modules[module] = kept

    assert plain["t"] == "completed"
    assert other["v"][0] == plain["v"][0]
    assert f"parent_{module}.py"[-12:] == other["v"][1]


def test_parent_and_child_live_side_by_side(guest):
    versions = [
        {
            "program.py": f"import helper\ndef f(): return [helper.h(), {n}]",
            "helper.py": f"n = {n}\ndef h():\n  global n\n  n += 10\n  return n",
        }
        for n in (1, 2)
    ]
    parts, prefixes = [], []
    for files, prefix in zip(versions, ("parent_", "child_"), strict=True):
        pairs = [[path, text.encode()] for path, text in sorted(files.items())]
        answer = compile_version(pairs, own=["helper", "program"], prefix=prefix, units=True)
        parts += [(path, code, marks) for path, code, _, marks, _ in answer["units"]]
        prefixes += [prefix] * 2
    agent.loader.forget()
    code = pack_files("/app", parts, prefixes=prefixes)

    assert call(code, "parent_program:f")["v"] == [11, 1]
    assert call(None, "child_program:f")["v"] == [12, 2]
    assert call(None, "parent_program:f")["v"] == [21, 1]


def test_lines_stay_where_they_were():
    source = "import pkg.sub\n\n\ndef f():\n    raise ValueError\n"
    agent.loader.forget()
    code = prefixed({"program.py": source, **PKG}, "parent_")

    request = {
        "op": "call",
        "code": code,
        "harness": None,
        "entry": "parent_program:f",
        "args": encode([[], {}]),
        "seed": 0,
        "payload_bytes": 1 << 20,
        "payload_items": 1000,
        "payload_depth": 9,
    }
    traceback = decode(agent.handle(encode(request)))["traceback"]

    assert 'File "/app/parent_program.py", line 5, in f' in traceback


def test_resources_of_a_package_and_paths_below_it(tmp_path):
    root = str(tmp_path)
    source = (
        "from importlib.resources import files\nfrom pathlib import Path\nHERE = Path(__file__).parent\n"
        "def f():\n  return [files('pkg').joinpath('d.txt').read_text(), "
        f"Path('{root}/pkg/d.txt').read_text(), HERE.joinpath('shared.txt').read_text()]"
    )
    (tmp_path / "parent_pkg").mkdir()
    (tmp_path / "parent_pkg" / "d.txt").write_text("data")
    (tmp_path / "pkg").mkdir()
    (tmp_path / "pkg" / "d.txt").write_text("data")
    (tmp_path / "shared.txt").write_text("shared")

    plain, other = behaviours({"program.py": source, "pkg/__init__.py": ""}, root=root)

    assert plain == other == {"t": "completed", "v": ["data", "data", "shared"]}


@pytest.mark.parametrize(
    ("source", "line", "what"),
    [
        ("def f(name):\n  return __import__(name)", 2, "a name that is known only when it runs"),
        ("import importlib\nimportlib.import_module('hel' + 'per')", 2, "import_module with a name"),
        ("x = 1\nexec('import helper')", 2, "runs text with exec"),
        ("code = compile('1', '', 'eval')", 1, "runs text with compile"),
        ("import sys\nfor m in sys.modules: pass", 2, "sys.modules"),
        ("import sys\nsys.modules[name] = 1", 2, "sys.modules"),
        ("import sys\ndef f(n): return n in sys.modules", 2, "sys.modules"),
        ("from sys import modules", 1, "sys.modules"),
        ("import json\nimport runpy", 2, "runpy"),
    ],
)
def test_what_cannot_be_followed_is_refused_with_its_place(source, line, what):
    answer = prefixed({"program.py": source, "helper.py": ""}, "parent_")

    assert (answer["t"], answer["kind"], answer["path"], answer["line"]) == (
        "rejected",
        "compile",
        "program.py",
        line,
    )
    assert what in answer["message"]
    assert answer["text"] == source.splitlines()[line - 1]


IMPORTS = [
    "import {m}",
    "import {m} as {a}",
    "from {m} import value",
    "from {m} import value as {a}",
    "from {m} import *",
    "import os, {m}, re as {a}",
    "try:\n  import {m} as {a}\nfinally:\n  pass",
    "def late():\n  import {m}\n  from {m} import value as {a}\n  return {a}()",
    "{a} = __import__('{m}', fromlist=['value'])",
]


@st.composite
def trees(draw):
    """Modules that import earlier ones in all manners, flat or in a package."""
    packed = draw(st.booleans())
    names = [f"m{number}" for number in range(4)]
    files = {}
    for number, name in enumerate(names):
        lines = [f"seen = [__name__, {number}]"]
        for place, other in enumerate(names[:number]):
            form = draw(st.sampled_from(IMPORTS))
            full = f"pkg.{other}" if packed else other
            lines.append(form.format(m=full, a=f"alias{place}"))
            if packed and draw(st.booleans()):
                lines.append(
                    draw(
                        st.sampled_from(["from . import {o} as rel{p}", "from .{o} import value as rel{p}"])
                    ).format(o=other, p=place)
                )
        lines.append(
            "def value():\n  return seen + sorted(n for n in globals() if n[0] in 'amr' and n != 'rel')"
        )
        files[f"pkg/{name}.py" if packed else f"{name}.py"] = "\n".join(lines) + "\n"
    if packed:
        files["pkg/__init__.py"] = draw(st.sampled_from(["", "from .m0 import value as first\n"]))
    return files, f"{'pkg.' if packed else ''}m3:value"


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(trees())
def test_any_manner_of_importing_binds_the_same_names(drawn):
    files, entry = drawn
    plain, other = behaviours(files, entry)

    assert plain["t"] == "completed", plain
    assert other == plain
