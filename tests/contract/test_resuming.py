"""A search that is killed and started again goes on: generations, best, lineage and counts; and several runs are one."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from evocell import Case, Config, Engine, Evaluation, Offspring, SandboxSpec
from evocell.cli.main import main
from evocell.cli.top import RunWatcher
from evocell.page.search import read_run
from evocell.store.database import open_reader

TASK = Evaluation("f", [Case(())], lambda case, value: float(value))
PAGE = Path(__file__).parents[2] / "docs" / "resuming.md"
PROGRAM = """
import os, sys
sys.path[:0] = {paths!r}
from conftest import FakeWorkers
from evocell import Case, Config, Engine, Evaluation, Offspring, SandboxSpec
task = Evaluation("f", [Case(())], lambda case, value: float(value))
config = Config(state_dir=sys.argv[1])
engine = Engine(config, open_worker=FakeWorkers())
engine.resume_population("p")
for n in range(3):
    best = engine.best("p")
    parents = best or ()
    score = 1 + (best[0].get_info().fitness if best else 0)
    engine.next_generation("p", [Offspring(f"def f(): return {{score}}", parents=parents)])
    engine.evaluate_generation("p", task)
os.kill(os.getpid(), 9)
"""


def run_and_die(state_dir):
    program = PROGRAM.format(paths=[str(Path(__file__).parents[1]), *sys.path])
    done = subprocess.run([sys.executable, "-c", program, str(state_dir)], check=False, capture_output=True)
    assert done.returncode == -9, done.stderr.decode()


def read(state_dir, **more):
    with closing(open_reader(state_dir)) as connection:
        return read_run(connection, **more)


def test_a_killed_search_goes_on_where_it_was(fake_workers, tmp_path):
    run_and_die(tmp_path)
    run_and_die(tmp_path)
    with Engine(Config(state_dir=tmp_path), open_worker=fake_workers) as engine:
        back = engine.resume_population("p")
        assert [one.get_info().generation for one in back] == [3, 4, 5]
        assert engine.get_population("p").generation == 5
        (best,) = engine.best("p")
        assert best.get_info().fitness == 6.0  # each start went on with the best of the one before
        assert best.run("f").unwrap() == 6.0
        assert len(engine.lineage.ancestors(best)) == 5
        assert engine.fitness.best()[0].score == 6.0
        assert engine.fitness.get(best).valid
        assert [len(one.sandbox_ids) for one in engine.list_generations("p")] == [1] * 6
        engine.next_generation("p", [Offspring("def f(): return 7", parents=best)])
        engine.evaluate_generation("p", TASK)
        assert fake_workers.last.count["call"] == 2  # nobody was evaluated again
    data = read(tmp_path)
    assert (data["n_evaluations"], data["runs"]) == (7, [1, 2, 3])
    assert [column["label"] for column in data["columns"]] == list(range(7))
    assert data["n_family"] == 7
    assert data["leaders"][0]["score"] == 7.0
    with closing(open_reader(tmp_path)) as connection:
        picture = RunWatcher(connection, tmp_path / "evocell.db").look()
    assert (picture.n_evaluations, picture.best[1], picture.generation) == (7, 7.0, 6)


def test_resuming_what_is_not_there_enters_it(fake_engine):
    assert fake_engine.resume_population("p", direction="minimize") == []
    assert fake_engine.get_population("p").sandbox_ids == ()


def test_resuming_what_is_there_changes_nothing(fake_engine):
    fake_engine.resume_population("p")
    (one,) = fake_engine.next_generation("p", [Offspring("def f(): return 1")])
    assert fake_engine.resume_population("p") == []
    assert fake_engine.get_members("p") == [one.id]


def test_what_was_destroyed_or_is_held_by_another_engine_stays_so(fake_workers, tmp_path):
    config = Config(state_dir=tmp_path)
    with Engine(config, open_worker=fake_workers) as first:
        first.resume_population("p")
        offspring = [Offspring(f"def f(): return {n}", id=f"s{n}") for n in (1, 2, 3)]
        first.next_generation("p", offspring)
        first.evaluate_generation("p", TASK)
        first.destroy_sandbox("s3")
        with Engine(config, open_worker=fake_workers) as second:
            assert second.resume_population("p") == []
    with Engine(config, open_worker=fake_workers) as third:
        assert [one.id for one in third.resume_population("p")] == ["s1", "s2"]


def test_runs_of_other_searches_stay_apart_and_can_be_chosen(fake_workers, tmp_path, capsys):
    for population in ("a", "b", "a"):
        with Engine(Config(state_dir=tmp_path), open_worker=fake_workers) as engine:
            engine.evaluate(["def f(): return 1"] * 2, TASK, population=population)
    assert read(tmp_path)["runs"] == [1, 3]
    assert read(tmp_path)["n_evaluations"] == 4
    assert read(tmp_path, run=2)["n_evaluations"] == 2
    assert read(tmp_path, population="b")["n_evaluations"] == 2
    assert read(tmp_path, all_runs=True)["n_evaluations"] == 6
    for options, count in ((["--all-runs"], 6), (["--population", "b"], 2), (["--run", "1"], 2), ([], 4)):
        out = tmp_path / "report.html"
        assert main(["report", str(tmp_path), "--out", str(out), *options]) == 0
        assert f'"n_evaluations":{count},' in out.read_text()
        assert main(["top", str(tmp_path), "--once", *options]) == 0
        assert f"{count}, {count} valid" in capsys.readouterr().out
    assert main(["report", str(tmp_path), "--population", "c"]) == 2
    assert "there is no population 'c'" in capsys.readouterr().err


def test_several_engines_at_once_are_one_search(fake_workers, tmp_path):
    config = Config(state_dir=tmp_path)
    with Engine(config, open_worker=fake_workers) as one, Engine(config, open_worker=fake_workers) as other:
        one.evaluate(["def f(): return 1"], TASK)
        other.evaluate(["def f(): return 2"], TASK)
        for engine in (one, other):
            engine.fitness.history("x")  # waits until all is written
        assert [entry.score for entry in one.fitness.best(5)] == [2.0, 1.0]
        assert read(tmp_path)["n_evaluations"] == 2
    with Engine(config, open_worker=fake_workers) as later:
        later.evaluate(["def f(): return 0"], TASK)
        assert [entry.score for entry in later.fitness.best(5)] == [0.0]


@pytest.mark.parametrize("place", range(2))
def test_the_page_is_a_program(place):
    blocks = PAGE.read_text(encoding="utf-8").split("```python\n")[1:]
    compile(blocks[place].partition("```")[0], "page", "exec")


def test_an_engine_learns_ancestors_that_another_made_meanwhile(fake_workers, tmp_path):
    """As the processes of OpenEvolve do: each with an engine of its own, on one directory."""
    config = Config(state_dir=tmp_path)

    def program(name, *parents):
        return SandboxSpec(name, source=f"def f(): return {len(parents)}  # {name}", parent_ids=parents)

    with Engine(config, open_worker=fake_workers) as one, Engine(config, open_worker=fake_workers) as other:
        other.evaluate_one(program("z", "nobody"), TASK)  # what was there before is known now
        for made in (program("a"), program("b", "a"), program("c", "b", "nobody")):
            one.evaluate_one(made, TASK)
        other.evaluate_one(program("d", "c"), TASK)
        assert set(other.lineage.ancestors("d")) == {"a", "b", "c", "nobody"}
        assert other.lineage.depth("d") == 3
        assert [one.id for one in other.lineage.line("d")] == ["a", "b", "c", "d"]
    tree = {entry["id"]: entry for entry in read(tmp_path)["tree"]}
    assert [parent["number"] for parent in tree["d"]["parents"]] == [tree["c"]["number"]]
