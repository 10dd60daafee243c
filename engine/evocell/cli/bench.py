"""`evocell bench`: the cost of a program in fuel, memory and time, alone or against another one."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from attrs import evolve

from evocell.cli.screen import say_json
from evocell.config import Config
from evocell.errors import ConfigurationError

if TYPE_CHECKING:
    # Annotations only: the command line answers --help without the engine.
    from evocell.api.async_evaluating import RepeatDone
    from evocell.models.evaluation import Case, Evaluation, ScoreFunction
    from evocell.models.fitness import CaseResult
    # Annotations only: the command line answers --help without the engine.

__all__ = ["read_cases"]

_REPEATS = 9
_FAILED = 1

KEYS = ("args", "kwargs", "expected", "name", "seed")


def add_bench_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `bench` to the parser."""
    bench = commands.add_parser(
        "bench",
        help="measure a program in fuel, memory and time, or compare two",
        description=(
            "Runs a program on some cases in sandboxes and says what it cost. Fuel and memory are the same "
            "every time; time is repeated and comes with its interval. With two programs both run in turns, "
            "and there is a verdict by fuel, which noise cannot touch, beside one by time, which it can."
        ),
    )
    bench.add_argument("program", type=Path, help="a Python file, a directory, a zip or a wheel")
    bench.add_argument("other", type=Path, nargs="?", help="another one, to compare it with")
    bench.add_argument("--entry", required=True, metavar="NAME", help="the function: f, or module:f")
    bench.add_argument(
        "--cases",
        type=Path,
        metavar="FILE",
        help="JSON: a list of argument lists, or of maps with args, kwargs, expected, name, seed "
        "(default: one call without arguments)",
    )
    bench.add_argument(
        "--score",
        choices=("equal", "close", "none"),
        default=None,
        help="how to compare with what the cases expect (default: equal if they expect something, else none)",
    )
    bench.add_argument("--repeats", type=int, default=_REPEATS, metavar="N", help="default: %(default)s")
    bench.add_argument("--seed", type=int, default=0, metavar="N", help="of the guest's random sources")
    bench.add_argument("--fuel", type=int, metavar="N", help="limit of each call (default: the engine's)")
    bench.add_argument("--json", action="store_true", help="print JSON and nothing else")
    bench.set_defaults(run=run_bench)


def run_bench(args: argparse.Namespace) -> int:
    """Measure one program, or compare two, and print the result.

    Args:
        args: The options that `add_bench_parser` describes.

    Returns:
        0, or 1 if a program failed or returned a wrong answer.

    Raises:
        EvocellError: An option is invalid, or the engine failed.
    """
    from evocell.api.engine import Engine
    from evocell.cli.bench_view import comparison_json, measurement_json, show_comparison, show_measurement

    for program in filter(None, (args.program, args.other)):
        if not program.exists():
            raise ConfigurationError(f"there is no program {program}", "program")
    evaluation = _evaluation(args)
    with Engine(evolve(Config.load(), workers=1)) as engine, _bar(args) as progress:
        if args.other is None:
            one = engine.measure(args.program, evaluation, repeats=args.repeats, progress=progress)
        else:
            both = engine.compare(
                args.program, args.other, evaluation, repeats=args.repeats, progress=progress
            )
        image = engine.image_id
    if args.other is None:
        if args.json:
            say_json({"image": image, "program": measurement_json(one)}, indent=2)
        else:
            show_measurement(one, str(args.program))
        measured = [one]
    else:
        if args.json:
            say_json({"image": image, **comparison_json(both)}, indent=2)
        else:
            show_comparison(both, str(args.program), str(args.other))
        measured = [both.first, both.second]
    return 0 if all(one.result.valid and _passed(one.result.test_results) for one in measured) else _FAILED


def _passed(cases: Sequence[CaseResult]) -> bool:
    return all(case.passed for case in cases)


def _evaluation(args: argparse.Namespace) -> Evaluation:
    from evocell.models.evaluation import Case, Evaluation
    from evocell.models.limits import Limits

    cases = [Case()] if args.cases is None else read_cases(args.cases)
    word = args.score or ("equal" if any(case.has_expected for case in cases) else "none")
    scores: dict[str, Literal["equal", "close"] | ScoreFunction] = {"equal": "equal", "close": "close"}
    limits = None if args.fuel is None else Limits(fuel=args.fuel)
    return Evaluation(
        args.entry,
        cases,
        scores.get(word, _any_value),
        limits=limits,
        seed=args.seed,
    )


def _any_value(_case: Case, _value: object) -> float:
    return 1.0


@contextmanager
def _bar(args: argparse.Namespace) -> Iterator[RepeatDone | None]:
    """Show a bar with the estimated remaining time on a terminal."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    from evocell.console.safe import SafeConsole

    console = SafeConsole(stderr=True)
    if args.json or not console.is_terminal:
        yield None
        return
    columns = (TextColumn("measuring"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def read_cases(path: Path) -> list[Case]:
    """Read cases.

    The file holds a list. Each of its items is one call: a list of positional arguments, or a map with some
    of the keys ``args``, ``kwargs``, ``expected``, ``name`` and ``seed``.

    Args:
        path: The file.

    Raises:
        ConfigurationError: It cannot be read, or an item is of another shape; the message names which.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}", "cases") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path} is not JSON: {error}", "cases") from error
    if not isinstance(document, list) or not document:
        raise ConfigurationError(
            f'{path} must hold a list of cases, such as [{{"args": [3], "expected": 9}}]', "cases"
        )
    return [_case(item, f"{path}[{index}]") for index, item in enumerate(document)]


def _case(item: object, where: str) -> Case:
    from evocell.models.evaluation import Case

    if isinstance(item, list):
        return Case(tuple(item))
    if not isinstance(item, Mapping):
        raise ConfigurationError(
            f"{where} must be a list of arguments, or a map with the keys {', '.join(KEYS)}, not {item!r}",
            where,
        )
    for key in item:
        if key not in KEYS:
            raise ConfigurationError(f"{where} has the key {key!r}; there are {', '.join(KEYS)}", where)
    try:
        return Case(
            item.get("args", []),
            item.get("kwargs", {}),
            **({"expected": item["expected"]} if "expected" in item else {}),
            name=item.get("name", ""),
            seed=item.get("seed"),
        )
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error.message}", where) from error
