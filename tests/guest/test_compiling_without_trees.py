"""Files that are compiled without a syntax tree, and trees of which only a part is walked: nothing differs."""

from __future__ import annotations

import ast
import marshal
import random
import re
from pathlib import Path

import pytest

import evocell_guest
from evocell.corpus import programs
from evocell.models.security import policy_for
from evocell_guest import compiler
from evocell_guest.answers import packed_answer, packed_time, packed_trees
from evocell_guest.decoding import decode
from evocell_guest.gate import _IMPORTING, _importing, _walk
from evocell_guest.values import encode
from evocell_guest.words import defines_functions_only, text_of, words_of

POLICIES = {
    "none": None,
    "low": policy_for("low", blocked=("socket", "os")).to_wire(),
    "medium": policy_for("medium", blocked=("os",), allowed=("math",)).to_wire(),
    "high": policy_for("high", blocked=("os",)).to_wire(),
    "reported": {**policy_for("high", blocked=("os",)).to_wire(), "enforce": False},
    "odd": {**policy_for("high", blocked=("os",)).to_wire(), "names": ("os.*", "math.", "")},
}
# What a policy speaks of, and what a text can hide it with.
SPICE = """getattr f_back f_globals __code__ __import__ import_module co_code __subclasses__ eval open globals
import\tos|from os import *|from sys import settrace|sys.settrace|.replace(co_code=1)|replace|co_x=1|**{'co_x':1}|
# coding: utf-7|coding|\f|\r|\\\n|;|\t|\n|def f(): pass\n|'''|"|(|)|[|class A: pass|x = 1\n|x = 1;|if 1:|\f\nx = 2\n|
 \\\nx = 3\n|async def g(): pass\n|#|lambda: 0|@f\n|setattr(f, 'f_back', 1)|f_back = 3|f"{x.f_back!r:{y}}"|1if 1else 2|
imp\\\nort os|\u00e9|\ufb01|\uff4f\uff53|import \uff4f\uff53|type X = 1|global y; y = 1|(y := 1)|return 1|'\\d'|1 is 1
"""


def functions() -> list[bytes]:
    """Return the agent's own functions and methods, as modules, and the programs of the corpus."""
    found = [program.source.encode() for program in programs()]
    for place in sorted(Path(evocell_guest.__file__).parent.glob("*.py")):
        lines = place.read_bytes().splitlines(keepends=True)
        found += [
            b"".join(lines[statement.lineno - 1 : statement.end_lineno])
            for statement in ast.parse(b"".join(lines)).body
            if isinstance(statement, ast.FunctionDef)
        ]
    return found


def spiced(source: bytes, chance: random.Random) -> bytes:
    """Return a text with some words replaced, and some put between."""
    choices = re.split(r"[ |]", SPICE.replace("|\n", "|"))
    for _ in range(chance.randrange(4)):
        spans = [word.span() for word in re.finditer(rb"[A-Za-z_]\w*|\n", source)]
        begin, end = chance.choice(spans) if spans else (0, 0)
        if chance.random() < 0.4:
            end = begin
        source = source[:begin] + chance.choice(choices).encode() + source[end:]
    return source


def compiled(source: bytes, policy) -> dict:
    answer = compiler.compile_version([["program.py", source]], policy, own=["program"], units=True)
    for unit in answer.get("units", ()):
        # As the guest's own interpreter gives it, see `tests/unit/workers/test_compiling_together.py`.
        unit[1] = marshal.dumps(marshal.loads(unit[1]))
    return answer


def is_short_way(source: bytes, policy) -> bool:
    text = text_of(source)
    return text is not None and compiler._Sources(policy, -1, "/app", "")._is_plain(text, words_of(text))


@pytest.mark.parametrize("name", POLICIES)
def test_what_a_text_tells_changes_no_answer(monkeypatch, name):
    chance, policy = random.Random(name), POLICIES[name]
    texts = functions()
    sources = [*chance.sample(texts, 60), *(spiced(chance.choice(texts), chance) for _ in range(250))]

    quickly = [compiled(source, policy) for source in sources]
    n_short = sum(is_short_way(source, policy) for source in sources)
    monkeypatch.setattr(compiler, "text_of", lambda _: None)

    for source, answer in zip(sources, quickly, strict=True):
        assert answer == compiled(source, policy), source
    assert n_short > 20 or name == "odd"


@pytest.mark.parametrize(
    "text",
    [
        "x = 1\n",
        "def f(): pass\n\fx = 1\n",
        "def f(): pass\rx = 1\r",
        "def f(): pass\n\\\nx = 1\n",
        "class A: pass\n",
        "@print\ndef f(): pass\n",
        "'text'\n",
        "if 1:\n  x = 1\n",
        "def f(): pass\nx = 1",
    ],
)
def test_a_module_with_more_than_functions_is_recognised(text):
    assert not defines_functions_only(text)


def test_a_module_of_functions_is_recognised_and_text_that_hides_its_names_is_not_read():
    assert defines_functions_only("# c\ndef f(\n  a,\n):\n    return a\n\n\nasync def g(): pass; x = 1")
    assert text_of("def \u00aa(): pass".encode()) is None
    assert text_of(b"# coding: utf-7\n+AG8-s") is None


def test_importing_nodes_are_found_in_the_order_of_the_tree_without_its_expressions():
    text = """
import a
try:
    import b
    with x: import c
except E:
    import d
else:
    from e import f
finally:
    import g
match x:
    case 1: import h
    case _:
        while 1: import i
        else: import j
class A:
    import k
    async def f():
        async for x in y: import l
        async with x: import m
        if x: import n
        elif y: import o
        else: import p
for x in y: import q
else: import r
def f(): import s
"""
    tree = ast.parse(text)

    found = _importing(tree, words_of(text))

    assert len(found) == 18
    assert found == [node for node in _walk(tree) if type(node) in _IMPORTING]
    assert not _importing(tree, words_of("x = 1"))


@pytest.mark.parametrize("seed", range(5))
def test_answers_are_encoded_as_any_value_is(seed):
    chance = random.Random(seed)

    def unit() -> list:
        names = [f"name{n}" for n in range(chance.choice((0, 0, 1, 40)))]
        code = chance.randbytes(chance.choice((0, 5, 255, 256, 70_000)))
        marks = [[name, chance.getrandbits(32)] for name in names]
        return ["p" * chance.choice((1, 31, 32, 300)) + ".py", code, names, marks, names[:3]]

    answers = [
        {"t": "compiled", "units": [unit() for _ in range(chance.choice((0, 1, 15, 16, 20)))]}
        for _ in range(20)
    ]
    answers.append({"t": "rejected", "kind": "syntax", "message": "\u00e9" * 50, "line": None})
    pairs: list[list] = []
    parts: list[bytes] = []
    for number, answer in enumerate(answers):
        units = answer.get("units")
        is_plain = units is not None and not any(unit[2:] != [[], [], []] for unit in units)
        short = [value for unit in units for value in unit[:2]] if is_plain else answer
        assert packed_answer(answer) == encode(short)
        pairs.append([short, number << 40])
        parts += [packed_answer(answer), packed_time(number << 40)]

    for count in (len(answers), 3):
        expected = {"t": "compiled", "trees": pairs[:count]}
        assert decode(packed_trees(parts[: 2 * count])) == expected
