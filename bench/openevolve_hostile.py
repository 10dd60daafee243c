"""A run of OpenEvolve on circle packing in which one program out of four tries to forge its score.

The evaluator and the first program are those of OpenEvolve's repository, untouched; give a checkout of it:

    git clone https://github.com/algorithmicsuperintelligence/openevolve
    python bench/openevolve_hostile.py openevolve [--iterations 60]

The model is a server on the loopback interface that answers the n-th question with the n-th program of a fixed list, so
that every run sees the same programs. The search runs natively, then sandboxed, then sandboxed again. The forgers do
nothing but try to forge; natively they run in a temporary directory of their own.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import evocell
from hostile_packings import FORGERS, honest

EVERY = 4
"""One program out of so many is a forger's."""


def programs() -> Iterator[str]:
    """Return the model's answers, in order, without end."""
    forgers = itertools.cycle(FORGERS.items())
    for number in itertools.count():
        if number % EVERY == EVERY - 1:
            name, text = next(forgers)
            yield f"# forger {number}: {name}\n{text}"
        else:
            yield honest(number)


@contextmanager
def model() -> Iterator[str]:
    """Serve the model while the block runs; gives its base address."""
    answers, lock = programs(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                text = f"```python\n{next(answers).strip()}\n```"
            message = {"role": "assistant", "content": text}
            choice = {"index": 0, "finish_reason": "stop", "message": message}
            answer = {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": "list",
                "choices": [choice],
            }
            body = json.dumps(answer).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class names it so
            """Say nothing: requests are no news."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def search(initial: Path, evaluator: Path, iterations: int, output: Path) -> dict[str, Any]:
    """Run OpenEvolve once; return what it found, as plain data."""
    from openevolve import run_evolution
    from openevolve.config import Config, LLMModelConfig

    logging.disable(logging.WARNING)
    started = time.perf_counter()
    with model() as address:
        config = Config()
        config.log_level = "ERROR"
        config.llm.models = [
            LLMModelConfig(
                name="list", api_base=address, api_key="none", timeout=60, retries=0, retry_delay=0
            )
        ]
        config.llm.evaluator_models = list(config.llm.models)
        config.diff_based_evolution = False
        config.random_seed = 1
        config.checkpoint_interval = iterations
        config.database.num_islands = 3
        config.database.population_size = 1000
        config.evaluator.cascade_evaluation = False
        config.evaluator.parallel_evaluations = 2
        config.evaluator.timeout = 300
        config.evaluator.max_retries = 0
        config.evolution_trace.enabled = config.evolution_trace.include_code = True
        config.evolution_trace.include_prompts = False
        config.evolution_trace.output_path = str(output / "trace.jsonl")
        output.mkdir()
        run_evolution(
            initial, evaluator, config=config, iterations=iterations, output_dir=output, cleanup=False
        )
    lines = [json.loads(line) for line in (output / "trace.jsonl").read_text().splitlines()]
    return {
        "seconds": time.perf_counter() - started,
        "programs": {line["child_code"]: line["child_metrics"] for line in lines},
    }


def kept(state: Path) -> dict[str, tuple[int, str]]:
    """Return the fuel and the parent of every program that a search evaluated, by its text."""
    with evocell.Engine(evocell.Config.load(state_dir=state, workers=0)) as engine:
        rows = engine.fitness.to_dataframe(earlier_runs=True, library="pandas").to_dict("records")
        texts = [engine.lineage.source(row["sandbox_id"]) or {} for row in rows]
        return {
            str(text.get("program.py")): (
                row["fuel_used"],
                row["parents"] if isinstance(row["parents"], str) else "",
            )
            for text, row in zip(texts, rows, strict=True)
        }


def run_in_a_process(kind: str, checkout: Path, iterations: int) -> dict[str, Any]:
    """Run one search in a process and a temporary directory of its own."""
    with tempfile.TemporaryDirectory(prefix="hostile-") as name:
        top = Path(name)
        example = checkout / "examples" / "circle_packing"
        for file in ("initial_program.py", "evaluator.py"):
            shutil.copy(example / file, top)
        (top / "tmp").mkdir()
        if kind == "sandboxed":
            subprocess.run(
                [sys.executable, "-m", "evocell.integrations.openevolve", str(top / "evaluator.py")],
                check=True,
            )
        evaluator = top / ("sandboxed_evaluator.py" if kind == "sandboxed" else "evaluator.py")
        command = [
            sys.executable,
            str(Path(__file__).resolve()),
            str(checkout),
            "--iterations",
            str(iterations),
            "--one",
        ]
        environ = {**os.environ, "TMPDIR": str(top / "tmp"), "EVOCELL_STATE_DIR": str(top / "state")}
        done = subprocess.run(
            [*command, str(top / "initial_program.py"), str(evaluator), str(top / "output")],
            env=environ,
            cwd=top / "tmp",
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        found["kept"] = kept(top / "state") if kind == "sandboxed" else {}
        return found


def told(kind: str, found: dict[str, Any]) -> str:
    """Return a row of the table."""
    scores = {text: metrics.get("combined_score", 0.0) for text, metrics in found["programs"].items()}
    forged = [score for text, score in scores.items() if text.startswith("# forger")]
    honest_ones = [score for text, score in scores.items() if not text.startswith("# forger")]
    best = max(scores, key=scores.__getitem__)
    whose = "a forger's" if best.startswith("# forger") else "an honest one"
    return (
        f"| {kind} | {found['seconds']:.0f} | {len(honest_ones)} | {max(honest_ones):.4f} | {len(forged)} | "
        f"{max(forged, default=0.0):.4f} | {whose} |"
    )


def digest(value: object) -> str:
    """Return a short digest of plain data."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]


def main() -> int:
    """Run the script."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("checkout", type=Path, help="a checkout of OpenEvolve's repository")
    parser.add_argument("--iterations", type=int, default=60, help="programs to ask the model for")
    parser.add_argument("--one", type=Path, nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        initial, evaluator, output = given.one
        print("\n" + json.dumps(search(initial, evaluator, given.iterations, output)))
        return 0
    print("| evaluator | seconds | honest programs | best of them | forgers | best of them | best of all |")
    print("|---|---:|---:|---:|---:|---:|---|")
    runs = []
    for kind in ("native", "sandboxed", "sandboxed"):
        runs.append(run_in_a_process(kind, given.checkout.resolve(), given.iterations))
        print(told(kind, runs[-1]), flush=True)
    _, first, second = runs
    common = first["programs"].keys() & second["programs"].keys()
    same = all(first["programs"][text] == second["programs"][text] for text in common)
    fuels = [{text: fuel for text, (fuel, _) in run["kept"].items()} for run in (first, second)]
    fuel = fuels[0] == fuels[1]
    print(
        f"{len(common)} programs in both sandboxed runs, metrics equal: {same}, {digest(first['programs'])}"
    )
    print(f"fuel of {len(fuels[0])} programs equal: {fuel}, {sum(fuels[0].values()):,} in all")
    orphans = sum(not parent for _, parent in first["kept"].values())
    print(f"programs kept without a parent: {orphans}; the one that the search begins with has none")
    return 0 if same and fuel and len(common) == len(first["programs"]) == given.iterations else 1


if __name__ == "__main__":
    sys.exit(main())
