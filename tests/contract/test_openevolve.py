"""OpenEvolve itself drives evaluators whose programs run in sandboxes."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from openevolve.config import EvaluatorConfig
from openevolve.evaluation_result import EvaluationResult
from openevolve.evaluator import Evaluator as OpenEvolveEvaluator

import evocell
from evocell.integrations import openevolve
from evocell.integrations.openevolve import evaluators, main, sandboxed

LIMITS = evocell.Limits(fuel=3 * 10**9, memory_bytes=64 << 20, scratch_bytes=1 << 20)
GOOD = "def solve(n): return n * n\n"
ENDLESS_LOOP = "def solve(n):\n    while True: pass\n"
MEMORY_BOMB = "def solve(n):\n    hoard = []\n    while True: hoard.append(bytearray(1 << 24))\n"
ENVIRON_READER = "import os\ndef solve(n): raise RuntimeError(sorted(os.environ.items()))\n"


@pytest.fixture(scope="module", autouse=True)
def default_engine():
    """Everything here uses the engine of the process, as OpenEvolve's evaluators do."""
    with evocell.default_engine() as engine:
        yield engine


def driving(directory: Path, text: str, **settings) -> OpenEvolveEvaluator:
    file = directory / "evaluator_of_the_test.py"
    file.write_text(text)
    settings = {"cascade_evaluation": False, "timeout": 60, "max_retries": 0, **settings}
    return OpenEvolveEvaluator(EvaluatorConfig(**settings), str(file))


def evaluate(driver: OpenEvolveEvaluator, program: str) -> tuple[dict, dict]:
    metrics = asyncio.run(driver.evaluate_program(program, "it"))
    return metrics, driver.get_pending_artifacts("it") or {}


SCORED = """
import evocell
from evocell.integrations.openevolve import evaluators

def task(*numbers):
    return evocell.Evaluation(
        "solve",
        [evocell.Case((n,), expected=n * n) for n in numbers] + [evocell.Case((4,), expected=16, public=False)],
        lambda case, value: {"score": float(value == case.expected), "size": float(len(str(value)))},
        limits=evocell.Limits(fuel=3 * 10**9, memory_bytes=64 << 20),
    )

evaluate, evaluate_stage1, evaluate_stage2 = evaluators(
    task(1, 2), stages=[task(1), task(2, 3)], failure_metrics={"size": 0.0}
)
"""


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    return driving(tmp_path_factory.mktemp("scored"), SCORED)


def test_a_good_program_gets_its_metrics(scored):
    metrics, artifacts = evaluate(scored, GOOD)
    assert metrics["combined_score"] == metrics["valid"] == metrics["score"] == 1.0
    assert metrics["size"] == pytest.approx(4 / 3)
    assert metrics["fuel_used"] > 0
    assert artifacts == {}
    assert evaluate(scored, GOOD)[0] == metrics


@pytest.mark.parametrize(
    ("program", "outcome", "says"),
    [
        (ENDLESS_LOOP, "fuel", "stopped at the fuel limit of 3,000,000,000"),
        (MEMORY_BOMB, "memory", "ran out of memory"),
        ("def solve(n): return n /", "syntax", "invalid syntax"),
        ("import os\ndef solve(n): os._exit(0)", "crashed", "exited with code 0"),
        (
            "def solve(n):\n    import sys; print('so', file=sys.stderr); return {}[n]",
            "raised",
            "KeyError: 1",
        ),
    ],
)
def test_a_program_that_fails_scores_nothing_and_says_why(scored, program, outcome, says):
    metrics, artifacts = evaluate(scored, program)
    assert (metrics["combined_score"], metrics["valid"], metrics["size"]) == (0.0, 0.0, 0.0)
    assert artifacts["outcome"] == outcome
    assert says in artifacts["error"]
    assert says.split(":")[0] in artifacts["feedback"]
    if outcome == "fuel":
        assert artifacts["limit"]
        assert artifacts["fuel"] == "3000000000"
    if outcome == "raised":
        assert "return {}[n]" in artifacts["traceback"]
        assert artifacts["stderr"] == "so\n"
    assert evaluate(scored, GOOD)[0]["combined_score"] == 1.0


def test_a_program_sees_no_environment_of_the_host(scored, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "secret-of-the-host")
    artifacts = evaluate(scored, ENVIRON_READER)[1]
    assert "'LANG'" in artifacts["error"]
    assert "secret-of-the-host" not in str(artifacts)


def test_a_wrong_answer_is_described_and_what_is_hidden_stays_so(tmp_path):
    cases = [evocell.Case((4,), expected=16), evocell.Case((5,), expected=2525, public=False)]
    (function,) = evaluators(evocell.Evaluation("solve", cases, limits=LIMITS))
    program = tmp_path / "program.py"
    program.write_text("def solve(n): return 17")
    found = function(str(program))
    assert found.metrics["valid"] == 1.0
    assert found.metrics["combined_score"] == 0.0
    assert "returned: 17" in found.artifacts["feedback"]
    assert "hidden" not in found.artifacts["feedback"]
    assert "2525" not in str(found.artifacts)


def test_a_cascade_runs_its_stages_and_the_engine_outlives_the_module(tmp_path, default_engine):
    driver = driving(tmp_path, SCORED, cascade_evaluation=True, cascade_thresholds=[0.9, 2.0])
    assert evaluate(driver, GOOD)[0]["combined_score"] == 1.0
    failing = evaluate(driver, "def solve(n): return 0")[0]
    assert failing["combined_score"] == 0.0
    assert evocell.default_engine() is default_engine


def test_several_objectives_and_more_stages_than_there_are(tmp_path):
    two = evocell.Evaluation(
        "solve",
        [evocell.Case((2,))],
        lambda case, value: {"square": float(value), "cheap": -1.0},
        directions=("maximize", "minimize"),
        failure=(0.0, 1e9),
    )
    (function,) = evaluators(two)
    (tmp_path / "program.py").write_text(GOOD)
    found = function(str(tmp_path / "program.py"))
    assert found.metrics["combined_score"] == 4.0
    assert found.metrics["objective_2"] == -1.0
    with pytest.raises(evocell.ConfigurationError, match="at most 3 stages"):
        evaluators(two, stages=[two] * 4)


def test_an_objective_to_be_minimised_is_refused():
    smallest = evocell.Evaluation(
        "solve", [evocell.Case((2,), expected=4)], directions=("minimize",), failure=1e9
    )
    with pytest.raises(evocell.ConfigurationError, match="let its score function return the negative"):
        evaluators(smallest)


def test_a_function_can_be_pickled_and_is_no_function(tmp_path):
    function = sandboxed(_plain(tmp_path), limits=LIMITS)[0]
    program = tmp_path / "program.py"
    program.write_text(GOOD)
    first = function(str(program))
    again = pickle.loads(pickle.dumps(function))
    assert again(str(program)) == first
    assert repr(function) == "<evaluate in a sandbox: evocell_driver:evaluate>"


PLAIN = """
import concurrent.futures, importlib.util, json, os, pickle, subprocess, sys, tempfile
from pathlib import Path
import numpy as np
from openevolve.evaluation_result import EvaluationResult
from helper import square

def load(program_path):
    spec = importlib.util.spec_from_file_location("program", program_path)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    return program

def evaluate(program_path):
    program = load(program_path)
    with concurrent.futures.ThreadPoolExecutor(max_workers=1) as executor:
        value = executor.submit(program.solve, 3).result(timeout=5)
    print("3 squared:", value)
    return {"combined_score": np.float64(value == square(3)), "value": value}

def evaluate_stage1(program_path):
    script = f"import sys; sys.path.insert(0, {os.path.dirname(program_path)!r})\\nimport program, pickle\\n"
    with tempfile.NamedTemporaryFile("w", suffix=".py", delete=False) as file:
        file.write(script + f"pickle.dump(program.solve(5), open({file.name + '.out'!r}, 'wb'))")
    done = subprocess.run([sys.executable, file.name], capture_output=True, timeout=5)
    data = json.loads((Path(__file__).parent / "data.json").read_text())
    value = pickle.load(open(file.name + ".out", "rb"))
    return EvaluationResult(
        {"combined_score": float(value == data[os.environ["WHICH"]]), "code": done.returncode},
        {"note": "looked at 5", "array": np.arange(2)},
    )
"""


def _plain(directory: Path) -> Path:
    (directory / "helper.py").write_text("def square(n): return n * n\n")
    (directory / "data.json").write_text('{"five": 25}')
    (directory / "evaluator.py").write_text(PLAIN)
    return directory / "evaluator.py"


def test_an_evaluator_that_exists_runs_untouched_in_the_sandbox(tmp_path):
    program = tmp_path / "program_of_openevolve.py"
    evaluate_it, stage1 = sandboxed(
        _plain(tmp_path), files=["data.json"], environ={"WHICH": "five"}, limits=LIMITS
    )
    program.write_text(GOOD)
    assert evaluate_it(str(program)) == {"combined_score": 1.0, "value": 9}
    found = stage1(str(program))
    assert isinstance(found, EvaluationResult)
    assert found.metrics == {"combined_score": 1.0, "code": 0}
    assert found.artifacts == {"note": "looked at 5", "array": [0, 1]}


@pytest.mark.parametrize(
    ("program", "outcome"), [(ENDLESS_LOOP, "fuel"), (MEMORY_BOMB, "memory"), ("def solve(", "syntax")]
)
def test_what_its_programs_do_stays_in_the_sandbox(tmp_path, program, outcome):
    file = tmp_path / "program_of_openevolve.py"
    function = sandboxed(_plain(tmp_path), limits=LIMITS, failure_metrics={"value": -1.0})[0]
    file.write_text(program)
    found = function(str(file))
    assert found.metrics == {"combined_score": 0.0, "value": -1.0}
    assert found.artifacts["outcome"] == outcome


WRITER = """
import logging
from pathlib import Path

logging.basicConfig(filename="evaluations.log", level=logging.INFO)

def evaluate(program_path):
    logging.info("seen")
    table = Path(__file__).parent / "tables" / "history.csv"
    table.parent.mkdir(exist_ok=True)
    with table.open("a") as file:
        file.write("row\\n")
    Path("data.txt").write_text(str(len(table.read_text().split())))
    Path(__file__).write_text("forged")
    return {"combined_score": float(Path("data.txt").read_text())}
"""


@pytest.mark.parametrize("keep", [True, False])
def test_what_an_evaluator_writes_beside_itself_is_kept_if_asked_for(tmp_path, keep):
    (tmp_path / "evaluator.py").write_text(WRITER)
    (tmp_path / "data.txt").write_text("0")
    program = tmp_path / "program_of_openevolve.py"
    program.write_text(GOOD)
    kept = tmp_path / "kept"
    (function,) = sandboxed(tmp_path / "evaluator.py", files=["data.txt"], keep=kept if keep else None)
    scores = [function(str(program))["combined_score"] for _ in range(2)]
    assert scores == ([1.0, 2.0] if keep else [1.0, 1.0])
    assert (tmp_path / "evaluator.py").read_text() == WRITER
    assert (tmp_path / "data.txt").read_text() == "0"
    if keep:
        found = {path.name: path.read_text() for path in kept.rglob("*.*") if path.name != ".evocell-kept"}
        assert found == {
            "evaluations.log": "INFO:root:seen\n" * 2,
            "history.csv": "row\n" * 2,
            "data.txt": "2",
        }


def test_an_evaluator_that_raises_is_a_failure_with_its_traceback(tmp_path):
    (tmp_path / "evaluator.py").write_text("def evaluate(path):\n    raise LookupError('mine')\n")
    (tmp_path / "program.py").write_text(GOOD)
    found = sandboxed(tmp_path / "evaluator.py")[0](str(tmp_path / "program.py"))
    assert found.metrics == {"combined_score": 0.0}
    assert "raise LookupError('mine')" in found.artifacts["traceback"]


def test_an_evaluator_that_returns_no_metrics_is_a_failure_that_says_so(tmp_path):
    (tmp_path / "evaluator.py").write_text("def evaluate(path): return 3\n")
    (tmp_path / "program.py").write_text(GOOD)
    found = sandboxed(tmp_path / "evaluator.py")[0](str(tmp_path / "program.py"))
    assert "returned a int, not metrics" in found.artifacts["error"]


def test_a_file_that_is_no_evaluator_is_refused(tmp_path):
    (tmp_path / "evaluator.py").write_text("def evolve(path): return {}\n")
    with pytest.raises(evocell.ConfigurationError, match=r"defines no evaluate\(program_path\)"):
        sandboxed(tmp_path / "evaluator.py")


def test_the_command_writes_an_evaluator_that_openevolve_can_use(tmp_path, capsys):
    main([str(_plain(tmp_path))])
    assert "Give it to OpenEvolve" in capsys.readouterr().out
    written = (tmp_path / "sandboxed_evaluator.py").read_text()
    assert 'evaluate, evaluate_stage1 = sandboxed(Path(__file__).with_name("evaluator.py"))' in written
    config = EvaluatorConfig(cascade_evaluation=False, timeout=60, max_retries=0)
    driver = OpenEvolveEvaluator(config, str(tmp_path / "sandboxed_evaluator.py"))
    assert evaluate(driver, GOOD)[0]["combined_score"] == 1.0
    with pytest.raises(SystemExit):
        main([str(tmp_path / "evaluator.py")])
    assert "exists already" in capsys.readouterr().err


def test_the_command_names_what_is_no_evaluator(tmp_path, capsys):
    (tmp_path / "other.py").write_text("x = 1\n")
    with pytest.raises(SystemExit):
        main([str(tmp_path / "other.py")])
    assert "defines no evaluate" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main([str(tmp_path / "other.py"), "-o", str(tmp_path.parent / "elsewhere.py")])
    assert "is not beside" in capsys.readouterr().err


def test_without_openevolve_the_module_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "openevolve.evaluation_result", None)
    source = Path(openevolve.__file__).read_text()
    with pytest.raises(ImportError, match=r"pip install 'evocell\[openevolve\]'"):
        exec(compile(source, "openevolve.py", "exec"), {"__name__": "again"})


def test_arguments_of_openevolves_configuration_reach_the_evaluator(tmp_path):
    (tmp_path / "own.py").write_text(
        "def evaluate(path, factor=1, names=()):\n    return {'combined_score': 2.0 * factor, 'n': len(names)}\n"
    )
    (tmp_path / "wrapper.py").write_text(
        "from evocell.integrations.openevolve import sandboxed\n"
        f"(evaluate,) = sandboxed({str(tmp_path / 'own.py')!r})\n"
    )
    settings = {"evaluator_args": {"factor": 3, "names": ["a", "b"]}}
    driver = driving(tmp_path, (tmp_path / "wrapper.py").read_text(), **settings)
    assert evaluate(driver, GOOD)[0] == {"combined_score": 6.0, "n": 2}
    with pytest.raises(evocell.ConfigurationError, match="put them into its cases"):
        evaluators(evocell.Evaluation("solve", [evocell.Case((1,), expected=1)]))[0](
            str(tmp_path / "own.py"), factor=3
        )


@pytest.mark.slow
def test_a_whole_run_knows_whom_its_programs_descend_from(tmp_path):
    """OpenEvolve's own processes, each with an engine of its own, and one store."""
    run = Path(__file__).parents[2] / "examples" / "openevolve_tours" / "run.py"
    command = [sys.executable, str(run), "--evaluator", "sandboxed_evaluator.py", "--iterations", "15"]
    environ = {**os.environ, "EVOCELL_STATE_DIR": str(tmp_path)}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    with evocell.Engine(evocell.Config.load(state_dir=tmp_path, workers=0)) as engine:
        entries = engine.fitness.best(20, earlier_runs=True)
        everyone = [engine.lineage.get(entry.sandbox_id) for entry in entries]
    seeds = [one for one in everyone if not one.parent_ids]
    children = [one for one in everyone if one.parent_ids]
    assert len(seeds) == 1
    assert len(children) >= 3  # of 15 iterations, as many as chance has it
    known = {one.id: one for one in everyone}
    for child in children:
        assert child.mutation_type == "rewrite"
        assert set(child.metadata) == {"iteration", "island"}
        for parent in child.parent_ids:
            if parent in known:
                assert child.generation == known[parent].generation + 1
    assert any(child.depth > 1 for child in children)
