"""Marks of a module's names: they change with what a name is made with, and with nothing else."""

from __future__ import annotations

import ast
import random

import pytest

from evocell_guest.marks import marks


def marks_of(statements: list[str]) -> dict[str, int]:
    text = "\n".join(statements)
    return dict(marks(ast.parse(text), text.encode()))


def made_with(uses: list[list[int]], name: int) -> set[int]:
    """All names that one is made with, itself included, by walking what is used."""
    seen, pending = {name}, [name]
    while pending:
        for other in uses[pending.pop()]:
            if other not in seen:
                seen.add(other)
                pending.append(other)
    return seen


@pytest.mark.parametrize("seed", range(40))
def test_a_mark_changes_with_the_statements_that_a_name_is_made_with_and_with_no_others(seed):
    chance = random.Random(seed)
    count = chance.randrange(2, 14)
    uses = [chance.sample(range(count), chance.randrange(min(4, count))) for _ in range(count)]

    def statements(changed: int | None) -> list[str]:
        return [
            f"c{n} = lambda: ({', '.join(f'c{other}' for other in uses[n])}{',' if uses[n] else ''})"
            + (" + (1,)" if n == changed else "")
            for n in range(count)
        ]

    before = marks_of(statements(None))

    assert sorted(before) == sorted(f"c{n}" for n in range(count))
    for changed in range(count):
        after = marks_of(statements(changed))
        differ = {name for name in before if before[name] != after[name]}
        assert differ == {f"c{n}" for n in range(count) if changed in made_with(uses, n)}


def test_names_that_are_made_with_one_another_in_a_long_ring_are_marked():
    ring = [f"c{n} = lambda: c{(n + 1) % 5000}" for n in range(5000)]
    chain = ["d0 = 1", *(f"d{n} = d{n - 1} + 1" for n in range(1, 5000))]

    assert len(marks_of(ring)) == len(marks_of(chain)) == 5000
    assert len(set(marks_of(chain).values())) > 4990
