"""`evocell verify-determinism`: run a corpus repeatedly and compare, also across machines by a digest."""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import random
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import Any

from attrs import asdict, field, frozen

from evocell.api.engine import Engine
from evocell.cli.screen import open_screen, say_json
from evocell.config import Config
from evocell.console.safe import SafeConsole
from evocell.corpus import Program, programs
from evocell.errors import ConfigurationError
from evocell.models.evaluation import Case, Evaluation
from evocell.models.fitness import FitnessResult
from evocell.models.limits import Limits
from evocell.wire.outcomes import outcome_digest

__all__ = ["Finding", "Verdict", "add_verify_parser", "read_outcomes", "verify"]

LIMITS = Limits(fuel=12_000_000_000, memory_bytes=128 << 20, timeout_s=120.0)
"""Bounds of each program: fuel decides before the clock does."""

_TASK = Evaluation(
    "run", [Case(seed=20_200_101)], score=lambda _case, _value: 1.0, limits=LIMITS, memoise=False
)
_SHOWN = 20


@frozen(kw_only=True)
class Finding:
    """The result of one run of one program.

    Attributes:
        kind: The kind of its outcome.
        outcome: Digest of its outcome: value, output, error, fuel, memory.
        fuel_used: The fuel it used.
    """

    kind: str
    outcome: str
    fuel_used: int


@frozen(kw_only=True)
class Verdict:
    """The result of a corpus over all runs.

    Attributes:
        digest: Hash over all outcomes, fuel included; equal on two machines with the same image if they
            computed the same.
        programs: Number of programs.
        runs: Runs of each.
        different: Programs whose outcomes differed between runs, with the outcomes.
        kinds: Number of programs by the kind of their outcome.
        outcomes: The first finding of each program.
        image_id: The image they ran in.
    """

    digest: str
    programs: int
    runs: int
    different: Mapping[str, tuple[Finding, ...]] = field(factory=dict)
    kinds: Mapping[str, int] = field(factory=dict)
    outcomes: Mapping[str, Finding] = field(factory=dict)
    image_id: str = ""


def add_verify_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `verify-determinism` to the parser."""
    parser = commands.add_parser(
        "verify-determinism",
        help="run a corpus of programs several times and print a digest to compare machines by",
        description=(
            "Runs 265 programs several times, shuffled, on several numbers of workers, and compares "
            "outcomes and fuel. Prints a digest: another machine with the same guest prints the same. With "
            "--against it names the programs that gave something else there. The exit code is 1 if a program "
            "did not give the same every time, or not the same on both machines."
        ),
    )
    parser.add_argument(
        "--runs", type=int, default=3, metavar="N", help="runs for each number of workers (default: 3)"
    )
    parser.add_argument("--workers", default="1,2", metavar="N,N", help="numbers of workers (default: 1,2)")
    parser.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="run it on the nodes of a Dask cluster as well; ADDRESS is its scheduler's, or a scheduler file",
    )
    parser.add_argument(
        "--profile", choices=("deterministic", "portable"), help="the profile (default: configured)"
    )
    parser.add_argument(
        "--against",
        type=Path,
        metavar="FILE",
        help="compare with what `verify-determinism --json` printed on another machine",
    )
    parser.add_argument("--json", action="store_true", help="print JSON, with the outcome of each program")
    parser.set_defaults(run=run_verify)


def run_verify(args: argparse.Namespace) -> int:
    """Verify and print."""
    there = None if args.against is None else read_outcomes(args.against)
    overrides = {} if args.profile is None else {"profile": args.profile}
    config = Config.load(**overrides)
    numbers = [int(number) for number in args.workers.split(",")]
    with nullcontext() if args.cluster is None else _client(args.cluster) as cluster:
        verdict = verify(
            config, programs(), runs=args.runs, workers=numbers, cluster=cluster, quiet=args.json
        )
    apart = None if there is None else _apart(verdict.outcomes, there)
    about: dict[str, object] = {
        "digest": verdict.digest,
        "programs": verdict.programs,
        "runs": verdict.runs,
        "different": {name: [found.kind for found in seen] for name, seen in verdict.different.items()},
        "ended": dict(verdict.kinds),
        "image": verdict.image_id,
        "profile": config.profile,
        "machine": platform.machine(),
        "evocell": version("evocell"),
    }
    if apart is not None:
        about["apart"] = sorted(apart)
    if args.json:
        outcomes = {name: asdict(found) for name, found in sorted(verdict.outcomes.items())}
        say_json({**about, "outcomes": outcomes}, indent=2)
    else:
        _print(about, verdict)
        if apart is not None:
            _print_apart(apart, args.against)
    return 1 if verdict.different or apart else 0


def _client(address: str) -> AbstractContextManager[Any]:
    """Connect to a Dask scheduler.

    Raises:
        ConfigurationError: Dask is not installed, or the scheduler cannot be reached.
    """
    try:
        from distributed import Client
    except ImportError as error:
        raise ConfigurationError('--cluster needs Dask: pip install "evocell[dask]"', "cluster") from error
    where = {"scheduler_file": address} if Path(address).is_file() else {"address": address}
    try:
        return Client(**where, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"there is no Dask scheduler at {address}: {error}", "cluster") from error


def read_outcomes(path: Path) -> dict[str, Finding]:
    """Read the outcomes of another machine.

    Args:
        path: The output of `verify-determinism --json` there.

    Raises:
        ConfigurationError: It cannot be read, or is not such output.
    """
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))["outcomes"]
        return {
            str(name): Finding(
                kind=str(found["kind"]), outcome=str(found["outcome"]), fuel_used=int(found["fuel_used"])
            )
            for name, found in kept.items()
        }
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}", "against") from error
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, RecursionError) as error:
        raise ConfigurationError(
            f"{path} is not what `evocell verify-determinism --json` prints", "against"
        ) from error


def _apart(
    here: Mapping[str, Finding], there: Mapping[str, Finding]
) -> dict[str, tuple[Finding | None, ...]]:
    """Return the programs whose outcomes differ from the other machine's, or that only one of the two ran."""
    return {
        name: (here.get(name), there.get(name))
        for name in sorted({*here, *there})
        if here.get(name) != there.get(name)
    }


def verify(
    config: Config,
    corpus: Sequence[Program],
    *,
    runs: int,
    workers: Sequence[int],
    cluster: object | None = None,
    quiet: bool = True,
) -> Verdict:
    """Run a corpus repeatedly and compare the outcomes.

    Args:
        config: Settings, apart from the number of workers.
        corpus: The programs.
        runs: Number of runs for each number of workers, each in another order.
        workers: The numbers of workers.
        cluster: A cluster to run it on as well, as for `Engine`; None for this machine only.
        quiet: Whether to show no progress.
    """
    seen: dict[str, list[Finding]] = {program.name: [] for program in corpus}
    image_id = ""
    console = SafeConsole(stderr=True)
    settings = {name: getattr(config, name) for name in ("profile", "cache_dir", "warm", "layers")}
    places: list[tuple[str, int, object | None]] = [(f"{number} workers", number, None) for number in workers]
    if cluster is not None:
        places.append(("cluster", 1, cluster))
    for place, number, where in places:
        with closing(Engine(Config.load(**settings, workers=number), cluster=where)) as engine:
            image_id = engine.image_id
            for turn in range(runs):
                order = list(corpus)
                random.Random(f"{number}/{turn}").shuffle(order)  # noqa: S311 - an order, not a secret
                if not quiet:
                    console.print(f"{place}, run {turn + 1} of {runs}", style="dim")
                results = engine.evaluate([program.source for program in order], _TASK)
                for program, result in zip(order, results, strict=True):
                    seen[program.name].append(_finding(result))
    text = json.dumps({name: [found[0].kind, found[0].outcome] for name, found in sorted(seen.items())})
    kinds: dict[str, int] = {}
    for found in seen.values():
        kinds[found[0].kind] = kinds.get(found[0].kind, 0) + 1
    return Verdict(
        digest=hashlib.sha256(text.encode()).hexdigest(),
        programs=len(corpus),
        runs=runs * len(places),
        different={name: tuple(found) for name, found in seen.items() if len(set(found)) > 1},
        kinds=kinds,
        outcomes={name: found[0] for name, found in seen.items()},
        image_id=image_id,
    )


def _finding(result: FitnessResult) -> Finding:
    if not result.test_results:
        return Finding(kind=result.reason or "", outcome=result.error or "", fuel_used=result.fuel_used)
    outcome = result.test_results[0].outcome
    return Finding(kind=outcome.kind, outcome=outcome_digest(outcome), fuel_used=outcome.fuel_used)


def _print(about: Mapping[str, object], verdict: Verdict) -> None:
    console = open_screen()
    for name, found in list(verdict.different.items())[:_SHOWN]:
        kinds = ", ".join(f"{one.kind} with {one.fuel_used:,} fuel" for one in found)
        console.print(f"{name} gave different outcomes: {kinds}", style="red")
    ended = ", ".join(f"{number} {kind}" for kind, number in sorted(verdict.kinds.items()))
    console.print(f"{verdict.programs} programs, {verdict.runs} runs each: {ended}")
    if verdict.different:
        console.print(f"{len(verdict.different)} programs did not give the same every time", style="red")
    else:
        console.print("outcomes and fuel were the same every time", style="green")
    console.print(f"image   {about['image']} ({about['profile']})", highlight=False)
    console.print(f"digest  {verdict.digest}", highlight=False)


def _print_apart(apart: Mapping[str, Sequence[Finding | None]], path: Path) -> None:
    console = open_screen(markup=False, highlight=False)
    for name, (here, there) in list(apart.items())[:_SHOWN]:
        console.print(
            f"{name}: here {_described(here)}, there {_described(there)}", style="red", highlight=False
        )
    if len(apart) > _SHOWN:
        console.print(f"and {len(apart) - _SHOWN} more; --json names all", style="red")
    if apart:
        console.print(f"{len(apart)} programs gave something else in {path}", style="red")
    else:
        console.print(f"all gave the same in {path}", style="green")


def _described(found: Finding | None) -> str:
    return "not run" if found is None else f"{found.kind} {found.outcome[:12]} with {found.fuel_used:,} fuel"
