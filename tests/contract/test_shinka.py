"""The contract of ShinkaEvolve's evaluation scripts: what is called, what is written, what is returned."""

from __future__ import annotations

import json
import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

import evocell
from evocell.integrations.shinka import main, run_shinka_eval

LIMITS = evocell.Limits(fuel=2 * 10**9)
PROGRAM = """
import numpy as np
calls = 0

def experiment(seed, scale=1):
    global calls
    calls += 1
    print("seed", seed)
    return np.arange(3) * scale, seed, calls
"""


@pytest.fixture
def evaluate(tmp_path, sandboxes):
    """Run the drop-in on a program, and read what it wrote."""

    def call(program, **settings):
        path, results = tmp_path / "main.py", tmp_path / "results"
        path.write_text(program)
        settings = {
            "experiment_fn_name": "experiment",
            "num_runs": 3,
            "limits": LIMITS,
            "engine": lambda: sandboxes,
            **settings,
        }
        returned = run_shinka_eval(str(path), str(results), **settings)
        metrics = json.loads((results / "metrics.json").read_text())
        correct = json.loads((results / "correct.json").read_text())
        assert correct == {"correct": returned[1], "error": returned[2]}
        return metrics, correct, results

    return call


def test_runs_are_aggregated_and_validated_on_the_host(evaluate, capsys):
    seen = []

    def aggregate(results):
        seen.extend(results)
        return {
            "combined_score": np.float64(sum(seed for _, seed, _ in results)),
            "public": {"first": results[0][0]},
            "private": {"n": len(results)},
            "text_feedback": "well done",
        }

    metrics, correct, _ = evaluate(
        PROGRAM,
        get_experiment_kwargs=lambda run: {"seed": run * 10, "scale": 2},
        aggregate_metrics_fn=aggregate,
        validate_fn=lambda result: (result[1] < 20, f"seed {result[1]} is too large"),
    )
    assert isinstance(seen[0], tuple)
    assert isinstance(seen[0][0], np.ndarray)
    assert [calls for _, _, calls in seen] == [1, 1, 1]
    assert metrics["combined_score"] == 30
    assert metrics["public"] == {"first": [0, 2, 4]}
    assert metrics["private"] == {"n": 3}
    assert metrics["text_feedback"] == "well done"
    assert (metrics["num_valid_runs"], metrics["num_invalid_runs"]) == (2, 1)
    assert metrics["all_validation_errors"] == ["seed 20 is too large"]
    assert metrics["execution_time_mean"] > 0
    assert correct == {"correct": False, "error": "Validation failed: seed 20 is too large"}
    assert "results in" in capsys.readouterr().out


def test_without_functions_of_ones_own_the_seed_counts_from_one(evaluate, capsys):
    metrics, correct, _ = evaluate(PROGRAM, verbose=False)
    assert metrics["num_successful_runs"] == 3
    assert "tuple" in metrics["first_run_result_type"]
    assert "1, 1)" in metrics["raw_results_preview"]
    assert correct == {"correct": True, "error": None}
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("program", "error"),
    [
        ("def experiment(seed):\n    while True: pass", "stopped at the fuel limit of 2,000,000,000"),
        ("import os\ndef experiment(seed): os._exit(0)", "the guest crashed"),
        ("def experiment(seed): return [][0]", "IndexError: list index out of range"),
        ("def experiment(seed", "'(' was never closed"),
        ("def other(): pass", "the program defines no function experiment"),
    ],
)
def test_a_program_that_fails_is_incorrect_and_the_model_is_told_why(evaluate, program, error):
    metrics, correct, _ = evaluate(program, num_runs=1)
    assert metrics["combined_score"] == 0.0
    assert error in metrics["text_feedback"]
    assert correct["correct"] is False
    assert error in correct["error"]


def test_metrics_of_a_failure_can_be_ones_own(evaluate):
    metrics, _, _ = evaluate("def experiment(seed): 1/0", default_metrics_on_error={"combined_score": -5.0})
    assert metrics["combined_score"] == -5.0


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_score_that_is_no_number_is_incorrect(evaluate, value):
    _, correct, _ = evaluate(PROGRAM, aggregate_metrics_fn=lambda results: {"combined_score": value})
    assert correct == {"correct": False, "error": f"combined_score is {value}"}


def test_a_script_that_stumbles_over_a_result_makes_it_incorrect(evaluate):
    metrics, correct, _ = evaluate(PROGRAM, aggregate_metrics_fn=lambda results: results[0]["score"])
    assert metrics["combined_score"] == 0.0
    assert correct["error"].startswith("TypeError: tuple indices")


def test_runs_stop_early_with_a_method_of_shinkas(evaluate, monkeypatch):
    class Method:
        name = "two"

        def reset(self):
            self.n = 0

        def check(self, scores, threshold):
            stop = len(scores) >= 2
            return SimpleNamespace(
                should_stop=stop, prediction="below", confidence=0.9, reason=f"{threshold}"
            )

    shown = {"num_runs": 5, "early_stop_threshold": 7.0, "early_stop_score_fn": lambda result: result[1]}
    metrics, _, _ = evaluate(PROGRAM, early_stop_method=Method(), **shown)
    assert metrics["early_stop"] == {
        "method": "two",
        "threshold": 7.0,
        "triggered": True,
        "runs_completed": 2,
        "runs_requested": 5,
        "scores": [1.0, 2.0],
        "prediction": "below",
        "confidence": 0.9,
        "reason": "7.0",
    }
    module = ModuleType("shinka.utils.eval_stop")
    module.create_early_stop_method = lambda name, **options: Method()
    monkeypatch.setitem(sys.modules, "shinka", ModuleType("shinka"))
    monkeypatch.setitem(sys.modules, "shinka.utils", ModuleType("shinka.utils"))
    monkeypatch.setitem(sys.modules, "shinka.utils.eval_stop", module)
    assert evaluate(PROGRAM, early_stop_method="two", **shown)[0]["early_stop"]["runs_completed"] == 2
    with pytest.raises(evocell.ConfigurationError, match="needs early_stop_threshold"):
        evaluate(PROGRAM, early_stop_method=Method())


def test_extra_data_is_kept_and_drawn(evaluate):
    class Figure:
        def savefig(self, path, **options):
            path.write_text("drawn")

    class Animation:
        def save(self, path, **options):
            path.write_text("moving")

    metrics, _, results = evaluate(
        PROGRAM,
        aggregate_metrics_fn=lambda found: {"combined_score": 1.0, "extra_data": {"n": len(found)}},
        plotting_fn=lambda extra: [(Figure(), f"runs-{extra['n']}"), (Animation(), "film")],
    )
    assert "extra_data" not in metrics
    assert (results / "extra.pkl").stat().st_size > 0
    assert sorted(path.name for path in (results / "plots").iterdir()) == [
        "film.gif",
        "runs-3.pdf",
        "runs-3.png",
    ]


def test_modules_beside_the_script_come_along_and_alarms_do_no_harm(evaluate, tmp_path, monkeypatch):
    (tmp_path / "env.py").write_text("import signal\ndef limited(f):\n    signal.alarm(1)\n    return f()\n")
    (tmp_path / "evaluate.py").write_text("from env import limited\n")
    program = "from env import limited\ndef experiment(seed): return limited(lambda: seed)"
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(tmp_path / "evaluate.py"), raising=False)
    assert evaluate(program)[1] == {"correct": True, "error": None}
    assert "No module named 'env'" in evaluate(program, harness=None)[1]["error"]
    given = {"env.py": "def limited(f): return f()"}
    assert evaluate(program, harness=given)[1]["correct"]


def test_a_whole_script_for_an_evaluation(tmp_path, sandboxes, capsys):
    task = evocell.Evaluation(
        "f",
        [evocell.Case((2,), expected=4), evocell.Case((3,), expected=9, public=False)],
        lambda case, value: {"score": float(value == case.expected), "size": 2.0},
        limits=LIMITS,
    )

    def script(program):
        (tmp_path / "main.py").write_text(program)
        words = ["--program_path", str(tmp_path / "main.py"), "--results_dir", str(tmp_path / "results")]
        assert main(task, words, engine=lambda: sandboxes) == 0
        return [
            json.loads((tmp_path / "results" / f"{name}.json").read_text()) for name in ("metrics", "correct")
        ]

    metrics, correct = script("def f(n): return n * n")
    assert metrics["combined_score"] == 1.0
    assert metrics["public"] == {"score": 1.0, "size": 2.0}
    assert metrics["private"]["fuel_used"] > 0
    assert "public cases: 1, 0 failed" in metrics["text_feedback"]
    assert "hidden" not in metrics["text_feedback"]
    assert correct == {"correct": True, "error": None}
    metrics, correct = script("def f(n): return n / 0")
    assert metrics["combined_score"] == 0.0
    assert metrics["private"]["valid"] is False
    assert correct["correct"] is False
    assert "ZeroDivisionError" in correct["error"]
    smallest = evocell.Evaluation(
        "f", [evocell.Case((2,), expected=4)], directions=("minimize",), failure=1e9
    )
    with pytest.raises(evocell.ConfigurationError, match="return the negative"):
        main(smallest, [])


def test_the_engine_keeps_what_the_script_made_of_the_runs_and_whom_a_program_descends_from(
    tmp_path, sandboxes
):
    for number, text in ((0, PROGRAM), (1, PROGRAM + "# changed\n"), (1, PROGRAM + "# changed\n")):
        directory = tmp_path / "circles" / f"gen_{number}"
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "main.py").write_text(text)
        if number:
            (directory / "original.py").write_text(PROGRAM.rstrip())
            (directory / "search_replace.txt").write_text("the patch")
        run_shinka_eval(
            str(directory / "main.py"),
            str(directory / "results"),
            "experiment",
            1,
            aggregate_metrics_fn=lambda results: {"combined_score": np.float64(7.5)},
            verbose=False,
            limits=LIMITS,
            engine=lambda: sandboxes,
        )
    assert sandboxes.get_members("circles") == []
    child = sandboxes.lineage.get("circles-gen_1")
    assert (child.parent_ids, child.generation, child.mutation_type) == (("circles-gen_0",), 1, "diff")
    assert [entry.score for entry in sandboxes.fitness.history("circles-gen_1")][-1] == 7.5
