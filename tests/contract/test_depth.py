"""How deep programs may recurse: as natively, and the end of it is what Python says, never a trap or another kind."""

from __future__ import annotations

import pytest

import evocell
from evocell import Case, Evaluation, Limits

LIMITS = Limits(fuel=40 * 10**9, memory_bytes=512 << 20)

THROUGH_C = {
    "functools.cache": "import functools\n@functools.cache\ndef f(n): return 1 + f(n - 1) if n else 0",
    "lru_cache": "import functools\n@functools.lru_cache(4)\ndef f(n): return 1 + f(n - 1) if n else 0",
    "an operator": "class A:\n    def __add__(s, n): return 1 + (A() + (n - 1)) if n else 0\ndef f(n): return A() + n",
    "a call": "class A:\n    def __call__(s, n): return 1 + A()(n - 1) if n else 0\ndef f(n): return A()(n)",
    "an item": "class A:\n    def __getitem__(s, n): return 1 + s[n - 1] if n else 0\ndef f(n): return A()[n]",
    "missing attributes": "class A:\n    def __getattr__(s, k):\n        n = int(k[1:])\n        return 1 + getattr(s, f'a{n - 1}') if n else 0\ndef f(n): return getattr(A(), f'a{n}')",
    "map": "def f(n): return 1 + sum(map(f, [n - 1])) if n else 0",
    "max with a key": "def f(n): return 1 + max([n - 1], key=f) * 0 + f2(n) if n else 0\ndef f2(n): return n - 1",
    "sum of a generator": "def f(n): return sum(f(n - 1) + 1 for _ in (1,)) if n else 0",
    "sorted with a key": "def f(n):\n    if n: sorted([n - 1], key=f)\n    return n",
    "a comparison": "class A:\n    def __init__(s, n): s.n = n\n    def __lt__(s, o):\n        if s.n: sorted([A(s.n - 1), A(s.n - 1)])\n        return True\ndef f(n):\n    A(n) < A(n)\n    return n",
    "partial": "import functools\ndef f(n): return 1 + functools.partial(f, n - 1)() if n else 0",
    "reduce": "import functools\ndef f(n): return functools.reduce(lambda a, b: 1 + f(b), [0, n - 1]) if n else 0",
    "re.sub": "import re\ndef f(n):\n    if n: re.sub('a', lambda m: str(f(n - 1)), 'a')\n    return n",
    "hash": "class A:\n    def __init__(s, n): s.n = n\n    def __hash__(s): return 1 + hash(A(s.n - 1)) if s.n else 0\ndef f(n): return hash(A(n))",
    "repr": "class A:\n    def __init__(s, n): s.n = n\n    def __repr__(s): return 'x' + repr(A(s.n - 1)) if s.n else ''\ndef f(n): return len(repr(A(n)))",
    "a constructor": "class A:\n    def __init__(s, n): s.n = 1 + A(n - 1).n if n else 0\ndef f(n): return A(n).n",
    "a property": "class A:\n    def __init__(s, n): s.n = n\n    @property\n    def d(s): return 1 + A(s.n - 1).d if s.n else 0\ndef f(n): return A(n).d",
    "next": "def g(n): yield 1 + next(g(n - 1)) if n else 0\ndef f(n): return next(g(n))",
    "accumulate": "import itertools\ndef f(n): return list(itertools.accumulate([0, n - 1], lambda a, b: 1 + f(b)))[1] if n else 0",
    "numpy's functions of objects": "import numpy as np\ndef f(n): return int(np.frompyfunc(lambda m: 1 + f(m), 1, 1)(np.array([n - 1], object))[0]) if n else 0",
    "json's default": "import json\ndef f(n):\n    if n: json.dumps(object(), default=lambda o: f(n - 1))\n    return n",
    "a defaultdict": "import collections\ndef f(n): return collections.defaultdict(lambda: 1 + f(n - 1))[0] if n else 0",
    "eval": "def f(n): return 1 + eval('f(m)', {'f': f, 'm': n - 1}) if n else 0",
    "isinstance": "class M(type):\n    def __instancecheck__(c, n): return isinstance(n - 1, c) if n else True\nclass A(metaclass=M): pass\ndef f(n):\n    isinstance(n, A)\n    return n",
}
ENDS = "\nimport sys\ndef deep(n):\n    sys.setrecursionlimit(10**6)\n    try: return f(n)\n    except RecursionError: return 'RecursionError'\n"
ENDS += "    except MemoryError as e: return 'RecursionError' if 'Parser stack overflowed' in str(e) else 'memory'\n"


@pytest.fixture(scope="module")
def engine():
    with evocell.Engine(evocell.Config.load(workers=1)) as made:
        yield made


@pytest.mark.parametrize("source", THROUGH_C.values(), ids=THROUGH_C.keys())
def test_recursion_through_c_goes_three_hundred_levels_by_default_and_thousands_where_it_is_allowed(
    engine, source
):
    sandbox = engine.create_sandbox(source=source + ENDS, limits=LIMITS)

    levels = 150 if "json" in source else 300  # each takes several functions of json's own
    assert engine.run(sandbox, "f", args=(levels,), isolation="call").unwrap() == levels
    assert engine.run(sandbox, "deep", args=(1500,), isolation="call").unwrap() == 1500
    without_end = engine.run(sandbox, "deep", args=(200_000,), isolation="call")
    assert without_end.unwrap() in ("RecursionError", 200_000), without_end
    assert engine.run(sandbox, "f", args=(10**6,), isolation="call").type_name == "RecursionError"
    engine.destroy_sandbox(sandbox)


NESTED = {"list": ("v = [v]", "["), "dict": ("v = {'k': v}", '{"k":'), "tuple": ("v = (v,)", "[")}
USES = {
    "repr": "repr(v)",
    "str": "str(v)",
    "json.dumps": "json.dumps(v)",
    "json with indents": "json.dumps(v, indent=1)",
    "json.loads": "json.loads(opening * 100_000)",
    "pickle": "pickle.dumps(v)",
    "copy.deepcopy": "copy.deepcopy(v)",
    "equality": "v == w",
    "pprint": "pprint.pformat(v)",
}


@pytest.mark.parametrize("use", USES.values(), ids=USES.keys())
@pytest.mark.parametrize("nested", NESTED.values(), ids=NESTED.keys())
def test_the_use_of_a_deep_value_ends_in_a_recursion_error_that_a_program_can_catch(engine, nested, use):
    step, opening = nested
    levels = 500 if "pprint" in use or "indent" in use else 20_000
    source = (
        "import copy, json, pickle, pprint, sys\n"
        f"opening = {opening!r}\n"
        f"def build():\n    v = 0\n    for _ in range({levels}):\n        {step}\n    return v\n"
        "def f(limit):\n    if limit: sys.setrecursionlimit(limit)\n    v, w = build(), build()\n"
        f"    try:\n        {use}\n        return 'done'\n    except RecursionError: return 'caught'\n"
    )
    sandbox = engine.create_sandbox(source=source, limits=LIMITS)

    assert engine.run(sandbox, "f", args=(0,)).unwrap() in {"caught", "done"}
    assert engine.run(sandbox, "f", args=(1_000_000,)).unwrap() in {"caught", "done"}
    engine.destroy_sandbox(sandbox)


SOURCES = {
    "elif branches": (
        "def f(x):\n    if x < 0: return -1\n"
        + "".join(f"    elif x == {i}: return {i * i}\n" for i in range(600)),
        599,
        599**2,
    ),
    "a sum": ("def f(x):\n    return " + " + ".join(f"{i} * x" for i in range(2000)) + "\n", 1, 1_999_000),
    "chained calls": (
        "class C:\n    n = 0\n    def up(self):\n        self.n += 1\n        return self\ndef f(x):\n    return C()"
        + ".up()" * 1000
        + ".n\n",
        1,
        1000,
    ),
    "a tree": (
        "def add(a, b): return a + b\ndef f(x):\n    return " + "add(" * 180 + "x" + ", 1)" * 180 + "\n",
        1,
        181,
    ),
    "a tree of lambdas": (
        "def f(x):\n    return " + "(lambda y: y + " * 90 + "x" + ")(1)" * 90 + "\n",
        0,
        90,
    ),
    "parentheses": ("def f(x):\n    return " + "(" * 190 + "x" + ")" * 190 + "\n", 5, 5),
    "lists": ("def f(x):\n    return len(str(" + "[" * 180 + "x" + "]" * 180 + "))\n", 5, 361),
    "conditions": (
        "def f(x):\n    return " + "".join(f"{i} if x == {i} else " for i in range(300)) + "-1\n",
        299,
        299,
    ),
    "not": ("def f(x):\n    return " + "not " * 1000 + "x\n", True, True),
    "minus": ("def f(x):\n    return " + "-" * 1000 + "x\n", 3, 3),
    "subscripts": ("def f(x):\n    a = []\n    a.append(a)\n    return len(a" + "[0]" * 1000 + ")\n", 0, 1),
    "comparisons": (
        "def f(x):\n    return " + " and ".join(f"x > {i}" for i in range(1500)) + "\n",
        2000,
        True,
    ),
    "nested ifs": (
        "def f(x):\n" + "".join(" " * (i + 1) + "if x:\n" for i in range(90)) + " " * 91 + "return 1\n",
        1,
        1,
    ),
}


@pytest.mark.parametrize(("source", "x", "right"), SOURCES.values(), ids=SOURCES.keys())
def test_deep_sources_compile(engine, source, x, right):
    result = engine.evaluate([source], Evaluation("f", [Case((x,), expected=right)]))[0]

    assert (result.fitness_score, result.error) == (1.0, None)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("'(' * 160 + '150' + ')' * 160", 150),
        ("'(' * 199 + '150' + ')' * 199", 150),
        ("'abs(' * 190 + '-1' + ')' * 190", 1),
        ("'(' * 300 + '1' + ')' * 300", "SyntaxError"),
        ("'-' * 100_000 + '1'", "MemoryError"),
        ("'1 if 0 else ' * 50_000 + '1'", "MemoryError"),
        ("'1+' * 100_000 + '1'", "RecursionError"),
        ("'(7)' + '.real' * 10_000", 7),
    ],
)
def test_evaluated_text_may_be_deep_and_one_that_is_too_deep_is_no_matter_of_memory(engine, text, answer):
    sandbox = engine.create_sandbox(source=f"def f(): return eval({text})")

    outcome = engine.run(sandbox, "f")

    assert outcome.kind != "memory"
    assert (outcome.unwrap() if outcome.ok else outcome.type_name) == answer, outcome
    engine.destroy_sandbox(sandbox)


ENDLESS = {
    "a source": "def f(): return eval('a' + '.b' * 500_000)",
    "XML": (
        "import copy, xml.etree.ElementTree as ET\ndef f():\n    root = last = ET.Element('a')\n"
        "    for _ in range(300_000): last = ET.SubElement(last, 'a')\n    copy.deepcopy(root)"
    ),
}


@pytest.mark.parametrize("source", ENDLESS.values(), ids=ENDLESS.keys())
def test_what_is_hundreds_of_thousands_deep_is_too_deep_and_no_more(engine, source):
    sandbox = engine.create_sandbox(source=source, limits=LIMITS)

    assert engine.run(sandbox, "f").type_name == "RecursionError"
    engine.destroy_sandbox(sandbox)


@pytest.mark.parametrize("call", ["issubclass(str, kinds)", "isinstance('', kinds)"])
def test_tuples_of_classes_nested_without_end_are_too_deep_and_no_more(engine, call):
    body = f"    kinds = (int,)\n    while True:\n        for _ in range(20_000): kinds = (kinds,)\n        {call}"
    sandbox = engine.create_sandbox(source=f"def f():\n{body}", limits=LIMITS)

    assert engine.run(sandbox, "f").type_name == "RecursionError"
    engine.destroy_sandbox(sandbox)


CHAINS = {
    "tuples": ("v = (i, v)", "", 1_000_000),
    "lists": ("v = [v]", "", 1_000_000),
    "dicts": ("v = {1: v}", "", 500_000),
    "objects": ("a = A(); a.n = v; v = a", "class A: pass", 200_000),
    "objects with slots": ("a = A(); a.n = v; v = a", "class A: __slots__ = 'n'", 200_000),
    "objects that say good-bye": ("a = A(); a.n = v; v = a", "class A:\n    def __del__(s): pass", 100_000),
    "data classes": (
        "v = A(i, v)",
        "import dataclasses\n@dataclasses.dataclass\nclass A:\n    i: int\n    n: object",
        200_000,
    ),
    "named tuples": ("v = A(i, v)", "import collections\nA = collections.namedtuple('A', 'i n')", 200_000),
    "exceptions": ("e = ValueError(); e.__context__ = v; v = e", "", 300_000),
    "raised exceptions": (
        "v = failing(v)",
        "def failing(v):\n    try: raise ValueError from v\n    except ValueError as e: return e",
        50_000,
    ),
    "generators": ("v = g(v); next(v)", "def g(v):\n    yield 1\n    print(v)", 100_000),
    "iterators": ("v = iter([v])", "", 300_000),
    "maps": ("v = map(str, v or [])", "", 300_000),
    "closures": ("v = (lambda w: lambda: w)(v)", "", 200_000),
    "bound methods": ("v = A(v).m", "class A:\n    def __init__(s, v): s.v = v\n    def m(s): pass", 100_000),
    "partials": ("v = functools.partial(str, v)", "import functools", 200_000),
    "deques": ("v = collections.deque([v])", "import collections", 100_000),
    "weakly referenced": (
        "a = A(); a.n = v; v = a; refs.append(weakref.ref(a))",
        "import weakref\nrefs = []\nclass A: pass",
        100_000,
    ),
}


@pytest.mark.parametrize(("step", "first", "length"), CHAINS.values(), ids=CHAINS.keys())
def test_a_long_chain_is_freed(engine, step, first, length):
    source = (
        f"{first}\ndef f(n):\n    v = None\n    for i in range(n):\n        {step}\n    del v\n    return n\n"
    )
    sandbox = engine.create_sandbox(source=source, limits=LIMITS)

    assert engine.run(sandbox, "f", args=(length,)).unwrap() == length
    assert engine.run(sandbox, "f", args=(3,)).unwrap() == 3
    engine.destroy_sandbox(sandbox)


def test_a_class_whose_call_is_an_instance_of_it_ends_in_a_recursion_error(engine):
    source = "class A: pass\nA.__call__ = A()\ndef f():\n    try: A()()\n    except RecursionError: return 'caught'\n"
    assert engine.run(engine.create_sandbox(source=source, limits=LIMITS), "f").unwrap() == "caught"
