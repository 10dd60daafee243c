"""A whole evaluation script of ShinkaEvolve's in a sandbox: what it writes comes back, and nothing else does."""

from __future__ import annotations

import json
import sys

import pytest

import evocell
from evocell.integrations import shinka_script
from evocell.integrations.shinka_script import main, run_script

LIMITS = evocell.Limits(fuel=5 * 10**9, scratch_bytes=4 << 20)
SCRIPT = """
import argparse, importlib.util, json, os, pickle
from pathlib import Path
from helper import right

def main(program_path, results_dir, scale):
    spec = importlib.util.spec_from_file_location("program", program_path)
    program = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(program)
    value = program.solve(3)
    top = Path(results_dir)
    (top / "plots").mkdir(parents=True, exist_ok=True)
    (top / "plots" / "curve.csv").write_text("1,2")
    (top / "extra.pkl").write_bytes(pickle.dumps(value))
    Path("table.txt").write_text("beside the script")
    metrics = {"combined_score": float(value == right(3)) * scale, "public": {"value": int(value)}}
    (top / "metrics.json").write_text(json.dumps(metrics))
    (top / "correct.json").write_text(json.dumps({"correct": value == right(3), "error": None}))

if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--program_path")
    parser.add_argument("--results_dir")
    parser.add_argument("--scale", type=float, default=1.0)
    main(**vars(parser.parse_args()))
"""


@pytest.fixture
def run(tmp_path, sandboxes):
    (tmp_path / "helper.py").write_text("def right(n): return n * n\n")
    (tmp_path / "evaluate.py").write_text(SCRIPT)

    def call(program, *words, script="evaluate.py"):
        (tmp_path / "main.py").write_text(program)
        results = tmp_path / "results"
        argv = ["--program_path", str(tmp_path / "main.py"), "--results_dir", str(results), *words]
        assert run_script(tmp_path / script, argv, limits=LIMITS, engine=lambda: sandboxes) == 0
        found = [json.loads((results / f"{name}.json").read_text()) for name in ("metrics", "correct")]
        return *found, sorted(
            path.relative_to(results).as_posix() for path in results.rglob("*") if path.is_file()
        )

    return call


def test_what_a_script_writes_comes_back_but_for_pickles(run, capsys):
    metrics, correct, files = run("def solve(n): return n * n\n", "--scale", "2")
    assert metrics == {"combined_score": 2.0, "public": {"value": 9}}
    assert correct == {"correct": True, "error": None}
    assert files == ["correct.json", "metrics.json", "plots/curve.csv"]
    assert "extra.pkl was not brought back" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("program", "error", "feedback"),
    [
        ("def solve(n): return 1 / 0\n", "ZeroDivisionError: division by zero", "in solve"),
        ("def solve(n):\n    while True: pass\n", "fuel limit", "fuel"),
        ("import sys\ndef solve(n): sys.exit(3)\n", "the script exited with 3", "exited with 3"),
        ("import os\ndef solve(n): os._exit(0)\n", "exited with code 0", "crashed"),
    ],
)
def test_a_program_that_ends_the_script_is_incorrect_and_the_model_is_told_why(run, program, error, feedback):
    metrics, correct, _ = run(program)
    assert metrics["combined_score"] == 0.0
    assert correct["correct"] is False
    assert error in correct["error"]
    assert feedback in metrics["text_feedback"]


@pytest.mark.parametrize(
    ("path", "harmless"),
    [
        ("curve.csv", True),
        ("plots/a.png", True),
        ("../up.json", False),
        ("plots/../../up.json", False),
        ("/etc/x.txt", False),
        (".hidden.txt", False),
        ("extra.pkl", False),
        ("page.html", False),
        ("a\nb.txt", False),
        ("a\\b.txt", False),
        ("a" * 300 + ".txt", False),
        (7, False),
    ],
)
def test_a_path_of_a_guest_stays_below_the_directory_of_results(path, harmless):
    assert shinka_script._is_harmless(path) is harmless


def test_scripts_find_run_shinka_eval_as_it_is_installed(run, tmp_path, monkeypatch):
    package = tmp_path / "site" / "shinka"
    for name, text in {
        "core/wrap_eval.py": "from shinka.utils.eval_stop import CALLED\n"
        "def run_shinka_eval(program_path, results_dir):\n"
        "    for name in ('metrics', 'correct'):\n"
        "        with open(f'{results_dir}/{name}.json', 'w') as file:\n"
        '            file.write(\'{"combined_score": %d, "correct": true}\' % CALLED)\n',
        "utils/eval_stop.py": "CALLED = 5\n",
        "__init__.py": "raise RuntimeError('only found, never imported')\n",
    }.items():
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_text(text)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site"), *sys.path])
    (tmp_path / "own.py").write_text(
        "import sys\nfrom shinka.core import run_shinka_eval\nrun_shinka_eval(sys.argv[2], sys.argv[4])\n"
    )
    assert run("pass\n", script="own.py")[0]["combined_score"] == 5


def test_the_command_writes_a_script_that_takes_the_others_place(tmp_path, capsys):
    script = tmp_path / "evaluate.py"
    with pytest.raises(SystemExit):
        main([str(script)])
    script.write_text(SCRIPT)
    assert main([str(script)]) == 0
    assert (
        'run_script(Path(__file__).with_name("evaluate.py"))'
        in (tmp_path / "sandboxed_evaluate.py").read_text()
    )
    with pytest.raises(SystemExit):
        main([str(script)])
    assert "exists already" in capsys.readouterr().err
