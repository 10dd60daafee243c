"""Records of real evaluations, replayed here and from the command line; remembered outcomes on real guests."""

from __future__ import annotations

import json

import numpy as np
import pytest

import evocell
from evocell.cli.main import main
from evocell.store.store import Store

SOURCES = {
    "honest": "import random, os, time, uuid\nimport numpy as np\ndef f(x):\n    rng = np.random.default_rng()\n    return [x * random.random(), os.urandom(4), time.time(), str(uuid.uuid4()), rng.normal(size=3), hash('a')]",
    "raises": "def f(x):\n    print('hm')\n    raise ValueError(x)",
    "loops": "def f(x):\n    while True: pass",
    "exits": "import os\ndef f(x): os._exit(3)",
    "hoards": "def f(x): return len(bytearray(1 << 30))",
}
TASK = evocell.Evaluation(
    "f",
    [evocell.Case(args=(2.5,), seed=7)],
    score=lambda case, value: 1.0,
    limits=evocell.Limits(fuel=300_000_000, memory_bytes=64 << 20),
)


@pytest.fixture(scope="module")
def state(tmp_path_factory):
    root = tmp_path_factory.mktemp("state")
    with evocell.Engine(evocell.Config.load(state_dir=root, workers=2)) as engine:
        engine.evaluate(list(SOURCES.values()), TASK)
        harness = {"driver.py": "import program\ndef g(x): return program.f(x) + [x]"}
        driven = evocell.Evaluation("driver:g", TASK.cases, score=TASK.score, harness=harness)
        engine.evaluate(["def f(x): return [x]"], driven)
    return root


@pytest.mark.parametrize("workers", [0, 1])
def test_every_record_replays_bit_for_bit_in_another_engine(state, workers):
    with evocell.Engine(evocell.Config.load(state_dir=state, workers=workers)) as engine:
        records = engine.evaluation_records()
        replays = [engine.replay(record) for record in records]

    assert sorted(record.kind for record in records) == [
        "completed",
        "completed",
        "crashed",
        "fuel",
        "memory",
        "raised",
    ]
    assert [one.differences for one in replays] == [()] * 6
    assert all(one.same and one.fuel_used == one.record.fuel_used for one in replays)


def test_the_command_says_so(state, capsys):
    assert main(["replay", str(state), "--workers", "0"]) == 0
    assert "6 of 6 calls gave the same" in capsys.readouterr().out

    assert main(["replay", str(state), "--workers", "0", "--json", "--last", "2"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["same"] for line in lines] == [True, True]

    assert main(["replay", str(state), "--workers", "0", "--key", "zz"]) == 2
    told = capsys.readouterr()
    assert (told.out, told.err.partition(";")[0]) == ("", "evocell: no recorded call fits --key zz")


def test_a_record_that_lies_is_found_out(state, tmp_path, capsys):
    with Store(state / "evocell.db") as store:
        ((seq, fuel, call),) = store.query(
            "SELECT seq, fuel, call FROM records WHERE kind = 'completed' ORDER BY fuel DESC LIMIT 1"
        )
        store.execute("UPDATE records SET fuel = fuel + 1 WHERE seq = ?", (seq,))
        store.flush_blocking()
        assert main(["replay", str(state), "--workers", "0"]) == 1
        assert f"it took {fuel + 1:,} fuel and takes {fuel:,}" in " ".join(capsys.readouterr().out.split())
        other = json.loads(call) | {"seed": "8"}
        store.execute("UPDATE records SET fuel = ?, call = ? WHERE seq = ?", (fuel, json.dumps(other), seq))
        store.flush_blocking()
        assert main(["replay", str(state), "--workers", "0"]) == 1
        store.execute("UPDATE records SET call = ? WHERE seq = ?", (call, seq))
        store.flush_blocking()


def test_an_engine_without_a_state_dir_keeps_none():
    with (
        evocell.Engine(evocell.Config.load(workers=0)) as engine,
        pytest.raises(evocell.ConfigurationError, match="state_dir"),
    ):
        engine.evaluation_records()


def test_remembered_outcomes_are_what_the_guest_would_give(engine):
    again = evocell.Evaluation("f", TASK.cases, score=TASK.score, limits=TASK.limits, memoise=True)
    sources = [source + f"\n# {engine.slots}" for source in SOURCES.values()]
    plain = engine.evaluate(sources, TASK)
    first, second = engine.evaluate(sources, again), engine.evaluate(sources, again)

    assert [result.n_memoised for result in first + second] == [0] * 5 + [1] * 5
    for one, two, three in zip(plain, first, second, strict=True):
        outcomes = [result.test_results[0].outcome for result in (one, two, three)]
        assert outcomes[0].kind == outcomes[1].kind == outcomes[2].kind
        assert outcomes[0].fuel_used == outcomes[2].fuel_used
        assert outcomes[0] == outcomes[1] == outcomes[2]
    assert isinstance(second[0].test_results[0].outcome.unwrap()[4], np.ndarray)
