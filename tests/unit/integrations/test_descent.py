"""What the directory of a run of ShinkaEvolve, and OpenEvolve's worker, tell of a program."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import openevolve.process_parallel as worker
import pytest
from openevolve.database import Program

from evocell.integrations.descent import of_openevolve, of_shinka


def lay(run: Path, number: int, text: str, *, original: str | None = None, kind: str = "rewrite.txt") -> Path:
    """Lay out what ShinkaEvolve's `apply_full_patch` and `apply_diff_patch` write."""
    directory = run / f"gen_{number}"
    directory.mkdir(parents=True)
    (directory / "main.py").write_text(text)
    if original is not None:
        (directory / "original.py").write_text(original)
        (directory / kind).write_text("the patch")
    return directory / "main.py"


def test_a_program_of_shinkas_has_the_parent_whose_text_lies_beside_it(tmp_path):
    run = tmp_path / "results of circles"
    first = lay(run, 0, "x = 1  \n\n")
    second = lay(run, 1, "x = 2\n", original="x = 1\n", kind="search_replace.txt")
    third = lay(run, 12, "x = 3\n", original="x = 2\n")
    specs = [of_shinka(path).spec for path in (first, second, third)]
    assert [one.id for one in specs] == [f"results-of-circles-gen_{number}" for number in (0, 1, 12)]
    assert [one.parent_ids for one in specs] == [(), (specs[0].id,), (specs[1].id,)]
    assert [one.generation for one in specs] == [0, 1, 12]
    assert [one.mutation_type for one in specs] == ["seed", "diff", "rewrite"]
    assert {one.population for one in specs} == {"results-of-circles"}


def test_the_latest_of_equal_parents_and_the_latest_patch_count(tmp_path):
    for number in (0, 3, 5):
        lay(tmp_path / "run", number, "same\n")
    child = lay(tmp_path / "run", 4, "new\n", original="same\n", kind="search_replace.txt")
    child.with_name("rewrite.txt").write_text("a later try")
    os.utime(child.with_name("search_replace.txt"), (1, 1))
    spec = of_shinka(child).spec
    assert spec.parent_ids == ("run-gen_3",)
    assert spec.mutation_type == "rewrite"


def test_a_program_anywhere_else_has_no_parents(tmp_path):
    program = tmp_path / "main.py"
    program.write_text("x = 1\n")
    spec = of_shinka(program).spec
    assert (spec.id, spec.parent_ids, spec.population) == (None, (), None)


SEED = Program("a", "x = 0\n", metadata={"island": 1})
PARENT = Program("b", "x = 1\n", parent_id="a", generation=1)


@pytest.mark.parametrize(
    ("parent", "above"),
    [
        (PARENT, "b"),
        (Program("c", PARENT.code, parent_id="b", generation=1, metadata={"migrant": True}), "b"),
        (SEED, "seed-"),
        (Program("d", SEED.code, parent_id="a", metadata={"migrant": True}), "seed-"),
    ],
)
def test_a_program_of_openevolves_has_the_parent_of_the_iteration_under_way(tmp_path, parent, above):
    program = tmp_path / "program.py"
    program.write_text("x = 2\n")
    found = []
    # A function with the names of OpenEvolve's, among its globals: what the module reads of a thread.
    made = {}
    exec(
        "def iteration(parent, evaluate):\n"
        "    child_code, child_id, iteration, parent_island, diff_blocks = 'x = 2\\n', 'e', 7, 2, [1]\n"
        "    evaluate()\n",
        vars(worker),
        made,
    )

    def evaluate():
        thread = threading.Thread(target=lambda: found.append(of_openevolve(program)))
        thread.start()
        thread.join()

    made["iteration"](parent, evaluate)
    spec = found[0].spec
    assert spec.id == "e"
    assert spec.parent_ids[0].startswith(above)
    assert (spec.generation, spec.mutation_type) == (parent.generation + 1, "diff")
    assert found[0].notes == {"iteration": 7, "island": 2}


def test_a_program_that_openevolve_began_with_is_called_by_its_text(tmp_path):
    names = []
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text(SEED.code)
        names.append(of_openevolve(tmp_path / name).spec.id)
    assert names[0] == names[1]
    assert names[0].startswith("seed-")
