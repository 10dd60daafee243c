"""The ten lines of docs/loggers.md, run as they stand against what is installed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import evocell
from evocell import Case, Evaluation, Offspring

PAGE = (Path(__file__).parents[2] / "docs" / "loggers.md").read_text(encoding="utf-8")
BLOCKS = [part.partition("```")[0] for part in PAGE.split("```python\n")[1:]]
TASK = Evaluation("f", [Case(())], lambda case, value: float(value))


def block(word):
    (found,) = [one for one in BLOCKS if word in one]
    return found


@pytest.mark.parametrize("place", range(len(BLOCKS)))
def test_each_is_a_program_of_some_ten_lines(place):
    compile(BLOCKS[place], "page", "exec")
    assert len([line for line in BLOCKS[place].splitlines() if line.strip()]) <= 12


def test_tensorboard_gets_every_score_and_the_fuel(fake_engine, tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import masked_crc32c  # noqa: F401 - there is a writer, and no reader

    monkeypatch.chdir(tmp_path)
    names = {"engine": fake_engine}
    exec(block("tensorboardX"), names)
    fake_engine.evaluate(["def f(): return 3", "def f(): raise KeyError", "def f(): return 5"], TASK)
    names["writer"].close()
    (file,) = (tmp_path / "runs/packing/tensorboard").iterdir()
    data, at, found = file.read_bytes(), 0, {}
    while at < len(data):
        size = int.from_bytes(data[at : at + 8], "little")
        event = Event.FromString(data[at + 12 : at + 12 + size])
        at += 12 + size + 4
        for value in event.summary.value:
            found.setdefault(value.tag, []).append(value.simple_value)
    assert sorted(found["fitness/score"]) == [3.0, 5.0]
    assert found["cost/fuel"] == [7.0, 7.0, 7.0]


def test_a_progress_function_gets_every_result(fake_engine):
    told = []

    class Run:
        def log(self, facts):
            told.append(facts)

        def finish(self):
            told.append("finished")

    program = (
        block("wandb")
        .replace("import wandb", "")
        .replace('wandb.init(project="packing", mode="offline")', "Run()")
    )
    exec(program, {"Run": Run, "engine": fake_engine, "sources": ["def f(): return 3"], "task": TASK})
    assert told == [{"score": 3.0, "valid": True, "fuel": 7}, "finished"]


@pytest.mark.filterwarnings("ignore")
def test_mlflow_gets_a_metric_of_each_generation_and_the_best(fake_engine, tmp_path, monkeypatch):
    """Runs where mlflow or mlflow-skinny is installed; it would take the other packages to older versions."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    fake_engine.create_population("packing")
    fake_engine.next_generation(
        "packing", [Offspring("def f(): return 3"), Offspring("def f(): raise KeyError")]
    )
    names = {"engine": fake_engine, "task": TASK, "evocell": evocell, "breed": breed}
    exec(block("mlflow").replace("range(50)", "range(3)"), names)
    (run,) = mlflow.search_runs(search_all_experiments=True, output_format="list")
    best = mlflow.MlflowClient().get_metric_history(run.info.run_id, "best")
    assert [(metric.step, metric.value) for metric in best] == [(0, 3.0), (1, 4.0), (2, 5.0)]
    assert mlflow.artifacts.load_dict(f"{run.info.artifact_uri}/best.json")["fitness_score"] == 5.0


def breed(parents):
    (value,) = {parent.run("f").unwrap() for parent in parents[:1]}
    return [Offspring(f"def f(): return {value + 1}", parents=parents[0])]


@pytest.mark.filterwarnings("ignore")
def test_wandb_writes_a_run_without_a_network(fake_engine, tmp_path, monkeypatch, capfd):
    """Runs where wandb is installed, which brings a program of its own."""
    pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    exec(block("wandb"), {"engine": fake_engine, "sources": ["def f(): return 3"], "task": TASK})
    summary = dict(re.findall(r"^wandb: +(score|fuel|valid) (\w+)$", capfd.readouterr().err, re.MULTILINE))
    assert summary == {"score": "3", "fuel": "7", "valid": "True"}
    assert len(list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))) == 1
