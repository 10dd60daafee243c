"""Equal outcomes and equal fuel: over runs, processes, worker counts, order, neighbours, and what was cached."""

from __future__ import annotations

import json
import threading

import pytest
from attrs import evolve

import evocell
from evocell.cli.main import main
from evocell.cli.verify_determinism import LIMITS, verify
from evocell.corpus import programs

SOME = programs()[::12]
ENDLESS = "def run():\n    while True: pass"
TASK = evocell.Evaluation("run", [evocell.Case(seed=5)], score=lambda case, value: 1.0, limits=LIMITS)


def outcomes(engine, chosen=SOME):
    results = engine.evaluate([program.source for program in chosen], TASK)
    return [result.test_results[0].outcome for result in results]


def test_the_corpus_is_what_it_says():
    found = programs()
    groups = {program.name.partition("/")[0] for program in found}

    assert len(found) == len({program.name for program in found}) == 265
    assert len(groups) == 10
    for program in found:
        assert "def run():" in program.source


def test_some_of_the_corpus_on_every_kind_of_worker():
    verdict = verify(evocell.Config.load(), SOME, runs=2, workers=[0, 2])

    assert (verdict.different, verdict.programs, verdict.runs) == ({}, len(SOME), 4)
    assert verdict.kinds["completed"] > len(SOME) // 2


@pytest.mark.soak
def test_the_whole_corpus_three_times_on_each_of_two_worker_counts():
    verdict = verify(evocell.Config.load(), programs(), runs=3, workers=[1, 2])

    assert verdict.different == {}


@pytest.mark.soak
def test_the_whole_corpus_in_the_portable_profile():
    config = evocell.Config.load(profile="portable")
    verdict = verify(config, programs(), runs=2, workers=[1, 2])
    plain = verify(evocell.Config.load(), programs(), runs=1, workers=[2])

    assert verdict.different == {}
    assert verdict.image_id != plain.image_id
    assert verdict.kinds == plain.kinds


def test_cold_and_warm_byte_code_caches_give_the_same(tmp_path):
    seen = []
    for _ in range(2):  # the second engine finds the byte code of the first
        with evocell.Engine(evocell.Config.load(workers=1, state_dir=tmp_path)) as engine:
            seen += [outcomes(engine, SOME[::2]), outcomes(engine, SOME[::2])]
    with evocell.Engine(evocell.Config.load(workers=1)) as engine:
        seen.append(outcomes(engine, SOME[::2]))

    assert all(one == seen[0] for one in seen)
    assert all([o.fuel_used for o in one] == [o.fuel_used for o in seen[0]] for one in seen)


@pytest.mark.slow
def test_neighbours_and_the_load_of_the_machine_change_nothing(engine):
    alone = outcomes(engine)
    over = threading.Event()

    def burn():
        while not over.is_set():
            sum(range(10_000))

    noise = [threading.Thread(target=burn) for _ in range(3)]
    for thread in noise:
        thread.start()
    try:
        sources = [
            source
            for n, one in enumerate(SOME)
            for source in ([one.source] if n % 4 else [ENDLESS, one.source])
        ]
        task = evocell.Evaluation("run", TASK.cases, TASK.score, limits=LIMITS.evolve(fuel=500_000_000))
        results = engine.evaluate(sources, task)
    finally:
        over.set()
        for thread in noise:
            thread.join()

    ends = [
        result.test_results[0].outcome
        for source, result in zip(sources, results, strict=True)
        if source is not ENDLESS
    ]
    assert sum(end.kind != "fuel" for end in ends) > len(SOME) // 2
    for program, before, end in zip(SOME, alone, ends, strict=True):
        assert end == before or end.kind == "fuel", program.name


def test_the_seed_decides_and_nothing_else_does(engine):
    source = "import random, os, uuid\nimport numpy as np\ndef run():\n    return [random.random(), os.urandom(4), str(uuid.uuid4()), np.random.rand(), float(np.random.default_rng().random())]"

    def value(seed):
        task = evocell.Evaluation("run", [evocell.Case(seed=seed)], score=lambda case, value: 1.0)
        return engine.evaluate_one(source, task).test_results[0].outcome.unwrap()

    assert value(1) == value(1)
    assert all(one != other for one, other in zip(value(1), value(2), strict=True))


def test_the_command_prints_a_digest_and_finds_what_differs(monkeypatch, capsys):
    few = programs()[:4]
    monkeypatch.setattr("evocell.cli.verify_determinism.programs", lambda: few)
    assert main(["verify-determinism", "--runs", "2", "--workers", "0", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert (first["programs"], first["different"]) == (4, {})
    assert main(["verify-determinism", "--runs", "1", "--workers", "0"]) == 0
    shown = capsys.readouterr().out
    assert first["digest"] in shown
    assert "the same every time" in shown

    monkeypatch.setenv("EVOCELL_PROFILE", "realtime")
    clock = [p for p in programs() if p.name in ("data/clock_readings", "chance/urandom")]
    monkeypatch.setattr("evocell.cli.verify_determinism.programs", lambda: clock)
    assert main(["verify-determinism", "--runs", "2", "--workers", "0"]) == 1
    assert "2 programs did not give the same" in capsys.readouterr().out


def test_the_command_compares_with_another_machine(monkeypatch, capsys, tmp_path):
    few = programs()[:3]
    monkeypatch.setattr("evocell.cli.verify_determinism.programs", lambda: few)
    command = ["verify-determinism", "--runs", "1", "--workers", "0"]
    assert main([*command, "--json"]) == 0
    there = json.loads(capsys.readouterr().out)
    same, other = tmp_path / "same.json", tmp_path / "other.json"
    same.write_text(json.dumps(there))
    assert main([*command, "--against", str(same)]) == 0
    assert "all gave the same" in capsys.readouterr().out

    there["outcomes"][few[0].name]["fuel_used"] += 1
    del there["outcomes"][few[1].name]
    other.write_text(json.dumps(there))
    assert main([*command, "--against", str(other), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["apart"] == sorted([few[0].name, few[1].name])
    assert main([*command, "--against", str(other)]) == 1
    shown = capsys.readouterr().out
    assert "2 programs gave something else" in shown
    assert f"{few[1].name}: here completed" in shown


@pytest.mark.parametrize(
    "text",
    [
        '{"outcomes": {"a": {"kind": "x", "outcome": "", "fuel_used": Infinity}}}',
        "",
        "[]",
        "{}",
        '{"outcomes": 3}',
        '{"outcomes": {"a": {"kind": "x"}}}',
        "[" * 100_000,
    ],
)
def test_what_is_no_report_of_another_machine_is_refused(text, capsys, tmp_path):
    path = tmp_path / "report.json"
    path.write_text(text)
    assert main(["verify-determinism", "--against", str(path)]) == 2
    assert "report.json is not what `evocell verify-determinism --json` prints" in capsys.readouterr().err
    assert main(["verify-determinism", "--against", str(tmp_path / "none")]) == 2
    assert "cannot be read" in capsys.readouterr().err


def test_memoised_by_tree_the_same_comes_whoever_is_first(engine):
    """Fuel is that of the normal form, and lines are the program's own, in whatever order they come."""
    plain = "def solve(n):\n    return sum([i * i for i in range(n)])"
    written = [plain, "\n" * 300 + plain, plain.replace(":\n", ":  # squares\n\n")]
    late = "\n\n\ndef solve(n): raise ValueError(n)"
    warning = "import warnings\n\n\ndef solve(n): warnings.warn('odd'); return 30"
    task = evocell.Evaluation("solve", [evocell.Case((5,), expected=30)], memoise="tree", seed=77)

    def outcomes(sources, task):
        return [result.test_results[0].outcome for result in engine.evaluate(sources, task)]

    forwards = outcomes([*written, late, warning], task)
    backwards = outcomes([warning, late, *written[::-1]], evolve(task, seed=78))[::-1]
    assert len({outcome.fuel_used for outcome in (*forwards[:3], *backwards[:3])}) == 1
    assert len({outcome.fuel_used for outcome in outcomes(written, evolve(task, memoise=None))}) > 1
    for raised, warned in (forwards[3:], backwards[3:]):
        assert 'File "/app/program.py", line 4, in solve' in raised.traceback
        assert "/app/program.py:4: UserWarning: odd" in warned.stderr
