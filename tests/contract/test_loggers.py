"""The ten lines of docs/loggers.md, run as they stand against what is installed."""

from __future__ import annotations

from pathlib import Path

import pytest

from evocell import Case, Evaluation

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
