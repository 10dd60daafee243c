"""Code that is compiled in one fork with other code is, byte for byte, what it is by itself."""

from __future__ import annotations

import random

import pytest

from evocell.code.compiler import CompiledVersion
from evocell.code.sources import normalise
from evocell.corpus import programs
from evocell.execution.interface import CompileJob
from evocell.models.outcome import Rejected
from evocell.models.security import SecurityPolicy
from evocell_guest.words import SHORT_CHARS

pytestmark = pytest.mark.trio

STRANGE = {
    "syntax": "def f(:\n",
    "empty": "",
    "nul": "x = 1\0",
    "nested": "x = " + "(" * 5000 + ")" * 5000,
    "deep": "x = " + "-" * 20_000 + "1",
    "long": "x = [" + "1, " * 20_000 + "]",
    "escape": "x = '\\d'\n",
    "blocked": "import socket\n",
    "names": "\n".join(f"name_{n} = {n}" for n in range(2000)),
    "shared": "x = 'abc'; y = 'abc'; z = ('abc', 1.5, 1 << 70)\n",
}


def job(source, policy=None):
    return CompileJob(tree=normalise(source), policy=policy)


def plain(made):
    """What is compared: all but where the tree lies."""
    return (made.code, made.imports, made.findings, made.units) if isinstance(made, CompiledVersion) else made


async def both(call, jobs):
    alone = [await call.worker.compile(one) for one in jobs]
    together = await call.worker.compile_together(jobs)
    return alone, together


async def test_the_corpus_compiles_to_the_same_bytes_in_any_company(call):
    chosen = random.Random(5)
    jobs = [job(program.source) for program in chosen.sample(programs(), 60)]

    alone, together = await both(call, jobs)

    assert all(isinstance(one, CompiledVersion) for one in alone)
    assert [plain(one) for one in together] == [plain(one) for one in alone]


async def test_what_is_refused_is_refused_in_the_same_words_and_costs_the_others_nothing(call):
    policy = SecurityPolicy(profile="medium", blocked=("socket",))
    jobs = [job(source, policy) for source in STRANGE.values()]

    alone, together = await both(call, jobs)

    assert {name for name, one in zip(STRANGE, alone, strict=True) if isinstance(one, Rejected)} >= {
        "syntax",
        "nul",
        "nested",
    }
    for name, one, other in zip(STRANGE, alone, together, strict=True):
        if isinstance(one, Rejected):
            assert (one.kind, one.message, one.line, one.text) == (
                other.kind,
                other.message,
                other.line,
                other.text,
            ), name
        else:
            assert plain(other) == plain(one), name


CHAINS = ["-", "~", "not ", "x.", "1+", "x<", "x**", "x if x else ", "lambda:", "x and "]


async def test_a_file_that_is_compiled_without_a_syntax_tree_has_the_bytes_of_one_with(call):
    """The second of each pair has its tree made, for a word in a comment that may stand for an encoding."""
    chosen = random.Random(6)
    texts = [program.source for program in chosen.sample(programs(), 60)]
    texts += [f"def f():\n return {chain * ((SHORT_CHARS - 60) // len(chain))}x\n" for chain in CHAINS]
    policy = SecurityPolicy(profile="medium", blocked=("socket",))

    without = await call.worker.compile_together([job(text, policy) for text in texts])
    with_tree = await call.worker.compile_together([job(f"{text}\n# coding", policy) for text in texts])

    assert all(isinstance(one, CompiledVersion) for one in without)
    assert [plain(one) for one in without] == [plain(one) for one in with_tree]


async def test_a_tree_that_ends_the_fork_costs_itself_only(call, monkeypatch):
    """Fuel for all is too little for the one that takes long, and so each is compiled by itself."""
    monkeypatch.setattr("evocell.code.compiler._LEAST_FUEL", 1_000_000_000)
    monkeypatch.setattr("evocell.code.compiler._MOST_FUEL_PER_BYTE", 1000)
    endless = "f(" + ", ".join(f"keyword_{number}=1" for number in range(5000)) + ")"
    jobs = [job(source) for source in ("x = 1\n", endless, "def f(): return 2\n")]

    first, second, third = await call.worker.compile_together(jobs)

    assert isinstance(first, CompiledVersion)
    assert isinstance(second, Rejected)
    assert "stopped at the fuel limit" in second.message
    assert isinstance(third, CompiledVersion)
