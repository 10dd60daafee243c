"""ShinkaEvolve: evaluation scripts whose programs run in sandboxes.

ShinkaEvolve starts ``evaluate.py --program_path P --results_dir D`` for each program and reads
``metrics.json`` and ``correct.json`` afterwards. Its scripts call ``shinka.core.run_shinka_eval``, for which
`run_shinka_eval` is a drop-in: one import to change. `main` is a whole script for an `Evaluation`.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import pickle
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, Protocol

from evocell.api.default import GetEngine, default_engine
from evocell.api.engine import Engine
from evocell.code.sources import normalise
from evocell.errors import ConfigurationError
from evocell.integrations.descent import evaluated_for_shinka
from evocell.integrations.evaluator_files import PROCESSES, STAND_INS, guest_module, modules_beside
from evocell.models import fitness as report
from evocell.models.evaluation import Case, Evaluation
from evocell.models.fitness import CaseResult, FitnessResult
from evocell.models.foreign import clean_line
from evocell.models.limits import Limits
from evocell.models.references import Source

__all__ = ["EarlyStop", "main", "run_shinka_eval"]

METRICS_ON_ERROR: Mapping[str, Any] = {
    "combined_score": 0.0,
    "execution_time_mean": 0.0,
    "execution_time_std": 0.0,
    "num_successful_runs": 0,
    "num_valid_runs": 0,
    "num_invalid_runs": 0,
    "all_validation_errors": [],
}
"""ShinkaEvolve's metrics of a program that failed."""


class EarlyStop(Protocol):
    """Protocol of an early-stopping method, such as those of ``shinka.utils.eval_stop``."""

    name: str

    def reset(self) -> None:
        """Reset the state."""

    def check(self, scores: list[float], threshold: float, /) -> Any:
        """Return the verdict on the scores: ``should_stop``, ``prediction``, ``confidence``, ``reason``."""


def run_shinka_eval(  # noqa: PLR0917 - the signature is ShinkaEvolve's
    program_path: str,
    results_dir: str,
    experiment_fn_name: str,
    num_runs: int,
    get_experiment_kwargs: Callable[[int], dict[str, Any]] | None = None,
    aggregate_metrics_fn: Callable[[list[Any]], dict[str, Any]] | None = None,
    validate_fn: Callable[[Any], tuple[bool, str | None]] | None = None,
    plotting_fn: Callable[[Any], list[Any]] | None = None,
    default_metrics_on_error: dict[str, Any] | None = None,
    early_stop_method: EarlyStop | str | None = None,
    early_stop_threshold: float | None = None,
    early_stop_score_fn: Callable[[Any], float] | None = None,
    early_stop_kwargs: dict[str, Any] | None = None,
    run_workers: int = 1,
    max_workers_cap: int | None = None,
    verbose: bool | None = None,  # noqa: FBT001 - as above
    *,
    limits: Limits | None = None,
    harness: Source | Literal["beside"] | None = "beside",
    engine: GetEngine = default_engine,
) -> tuple[dict[str, Any], bool, str | None]:
    """Run a function of a program several times in sandboxes, and write ShinkaEvolve's files.

    All arguments up to ``verbose`` are those of ``shinka.core.run_shinka_eval``, and functions among them are
    called on the host, outside of the sandbox, with the program's return values. Each run has a fork of its
    own, so that runs are isolated from one another, and they run concurrently by default.

    Args:
        program_path: The program's file.
        results_dir: Directory for ``metrics.json`` and ``correct.json``.
        experiment_fn_name: The function to call.
        num_runs: Number of runs, at least 1.
        get_experiment_kwargs: Returns the arguments of each run, plain data; None passes ``seed``, from 1.
        aggregate_metrics_fn: Computes the metrics of all results: ``combined_score``, ``public``,
            ``private`` and ``text_feedback``. None gives basic ones about the runs.
        validate_fn: Returns whether a result is correct, and why not.
        plotting_fn: Draws the metric ``extra_data``, which is stored as a pickle made by the host.
        default_metrics_on_error: Metrics of a program that failed; None for those of ShinkaEvolve.
        early_stop_method: Decides after each run whether to stop; the runs are then sequential. A name is
            looked up in the installed ShinkaEvolve.
        early_stop_threshold: The score to beat.
        early_stop_score_fn: Computes the score of a result; None uses a number, or the one under ``"score"``.
        early_stop_kwargs: Options of a method given by name.
        run_workers: Ignored: the engine has a worker for each core.
        max_workers_cap: Ignored.
        verbose: Whether to report progress on standard output; None reads ``SHINKA_EVAL_VERBOSE``.
        limits: Limits of each run; None for the engine's.
        harness: Modules that the program imports and that are not part of it. ``"beside"``: the modules
            adjacent to the running script that the script imports; None: none.
        engine: Returns the engine.

    Returns:
        The metrics, whether the program is correct, and the first error. A program that fails has
        ``text_feedback`` with its error, traceback and output for the language model.

    Raises:
        ConfigurationError: An argument is invalid.
    """
    del run_workers, max_workers_cap
    speaks = os.environ.get("SHINKA_EVAL_VERBOSE", "1") != "0" if verbose is None else verbose
    stopper = _Stopper(early_stop_method, early_stop_threshold, early_stop_score_fn, early_stop_kwargs)
    cases = [
        Case(
            (experiment_fn_name, get_experiment_kwargs(run) if get_experiment_kwargs else {"seed": run + 1}),
            name=f"run {run + 1}",
        )
        for run in range(num_runs)
    ]
    bounds = limits or engine().config.limits()
    task = Evaluation(
        "evocell_experiment:call",
        cases,
        _any_value,
        harness=_with_driver(harness),
        limits=bounds if bounds.processes else bounds.evolve(processes=PROCESSES),
        stop=stopper if stopper.method else None,
    )
    with evaluated_for_shinka(engine(), Path(program_path), task) as result:
        if result.valid:
            try:
                metrics, correct, error = _summary(result, aggregate_metrics_fn, validate_fn)
            except Exception as broken:  # noqa: BLE001 - what the program returned may have confused the script
                message = f"{type(broken).__name__}: {broken}"
                metrics, correct, error = _failed(default_metrics_on_error, result, message)
            else:
                metrics |= stopper.summary(len(result.test_results), num_runs)
                _keep_score(engine(), result, metrics.get("combined_score"))
        else:
            message = result.error or "the program failed"
            metrics, correct, error = _failed(default_metrics_on_error, result, message)
    directory = Path(results_dir)
    directory.mkdir(parents=True, exist_ok=True)
    if "extra_data" in metrics:
        extra = metrics.pop("extra_data")
        (directory / "extra.pkl").write_bytes(pickle.dumps(extra))
        if plotting_fn is not None:
            _draw(plotting_fn(extra), directory / "plots")
    _write(directory, metrics, correct=correct, error=error)
    if speaks:
        _say(result, directory, error)
    return metrics, correct, error


def main(
    evaluation: Evaluation,
    argv: Sequence[str] | None = None,
    *,
    engine: GetEngine = default_engine,
) -> int:
    """Run as an evaluation script: evaluate the given program and write ShinkaEvolve's files.

    ``combined_score`` is the first objective, ``public`` holds the parts of the score, ``private`` the fuel,
    the memory and whether the program is valid, and ``text_feedback`` the feedback on the public cases. The
    program is correct if it is valid and passed every case.

    If there are hidden cases, only ``combined_score``, ``correct`` and ``private`` are over all cases:
    ShinkaEvolve selects by them. ``public`` then has the means of the public cases, and the error and the
    printed output concern only these.

    Args:
        evaluation: The evaluation; its first objective must be maximised.
        argv: The script's arguments; None for those of the process.
        engine: Gives the engine.

    Returns:
        0, also for a program that fails, since that is a result.

    Raises:
        ConfigurationError: The evaluation is invalid.
    """
    if evaluation.directions[0] != "maximize":
        raise ConfigurationError(
            "ShinkaEvolve maximises combined_score, and this evaluation's first objective is minimised; let "
            "its score function return the negative",
            "directions",
        )
    parser = argparse.ArgumentParser(description="Evaluate a program in a sandbox.")
    parser.add_argument("--program_path", default="initial.py", help="the program")
    parser.add_argument(
        "--results_dir", default="results", help="where to write metrics.json and correct.json"
    )
    given = parser.parse_args(argv)
    with evaluated_for_shinka(engine(), Path(given.program_path), evaluation) as evaluated:
        result = evaluated
    metrics = {
        "combined_score": result.fitness_score,
        "public": report.public_parts(result),
        "private": {
            **({} if report.tells_all(result) else result.components),
            "valid": result.valid,
            "fuel_used": result.fuel_used,
            "peak_memory_bytes": result.peak_memory_bytes,
        },
        "text_feedback": result.feedback(),
    }
    directory = Path(given.results_dir)
    directory.mkdir(parents=True, exist_ok=True)
    correct = result.valid and all(case.passed for case in result.test_results)
    error = report.public_error(result)
    if error is None and not correct and report.tells_all(result):
        error = "a case did not pass"
    _write(directory, metrics, correct=correct, error=error)
    _say(result, directory, error)
    return 0


def _with_driver(harness: Source | Literal["beside"] | None) -> dict[str, str | bytes]:
    """Combine a harness and the driver with its modules into one tree."""
    files: dict[str, str | bytes] = {}
    script = getattr(sys.modules["__main__"], "__file__", None)
    if harness == "beside":
        if script is not None:
            files = dict(modules_beside(Path(script)))
    elif isinstance(harness, Mapping):
        files = dict(harness)
    elif harness is not None:
        files = dict(normalise(harness).files)
    for name in ("evocell_experiment", *STAND_INS):
        files[f"{name}.py"] = guest_module(name)
    return files


def _any_value(_case: Case, _value: Any) -> float:
    return 1.0


def _summary(
    result: FitnessResult,
    aggregate: Callable[[list[Any]], dict[str, Any]] | None,
    validate: Callable[[Any], tuple[bool, str | None]] | None,
) -> tuple[dict[str, Any], bool, str | None]:
    """Compute the metrics of the runs' results, and validate each."""
    values = [case.outcome.unwrap() for case in result.test_results]
    seconds = [case.outcome.wall_s for case in result.test_results]
    problems: list[str] = []
    n_invalid = 0
    for value in values if validate else ():
        valid, why = validate(value)  # type: ignore[misc]  # only if there is one
        if not valid:
            n_invalid += 1
            if why and why not in problems:
                problems.append(why)
    metrics = dict(aggregate(values)) if aggregate else _about(values)
    metrics["execution_time_mean"] = statistics.fmean(seconds)
    metrics["execution_time_std"] = statistics.pstdev(seconds)
    if validate:
        metrics["num_valid_runs"] = len(values) - n_invalid
        metrics["num_invalid_runs"] = n_invalid
        metrics["all_validation_errors"] = problems
    error = f"Validation failed: {problems[0]}" if problems else None
    score = metrics.get("combined_score")
    if isinstance(score, int | float) and not math.isfinite(score):
        return metrics, False, error or f"combined_score is {score}"
    return metrics, n_invalid == 0, error


def _keep_score(engine: Engine, result: FitnessResult, score: object) -> None:
    """Have the engine's own records say what the script made of the runs."""
    if isinstance(score, int | float) and math.isfinite(score) and score != result.fitness_score:
        delta = float(score) - result.fitness_score
        engine.fitness.adjust(result.sandbox_id, delta, "what aggregate_metrics_fn made of the runs")


def _about(values: list[Any]) -> dict[str, Any]:
    return {
        "num_successful_runs": len(values),
        "first_run_result_type": str(type(values[0])),
        "raw_results_preview": str(values[:2]),
    }


def _failed(
    given: dict[str, Any] | None, result: FitnessResult, error: str
) -> tuple[dict[str, Any], bool, str]:
    defaults = METRICS_ON_ERROR if given is None else given
    metrics = {name: defaults.get(name, value) for name, value in METRICS_ON_ERROR.items()}
    n_ran = len(result.test_results)
    metrics |= {
        "num_invalid_runs": n_ran,
        "all_validation_errors": [error],
        "text_feedback": result.feedback(),
    }
    return metrics, False, error


class _Stopper:
    """Applies an early-stopping method after each run."""

    def __init__(
        self,
        method: EarlyStop | str | None,
        threshold: float | None,
        score: Callable[[Any], float] | None,
        options: dict[str, Any] | None,
    ) -> None:
        self.method = _named_method(method, options) if isinstance(method, str) else method
        if self.method is not None:
            if threshold is None:
                raise ConfigurationError(
                    "early_stop_method needs early_stop_threshold", "early_stop_threshold"
                )
            self.method.reset()
        self._threshold = threshold or 0.0
        self._score = score or _own_score
        self._scores: list[float] = []
        self._decision: Any = None

    def __call__(self, cases: list[CaseResult]) -> bool:
        """Return whether to stop after these runs."""
        if self.method is None or not cases[-1].outcome.ok:
            return False
        score = self._score(cases[-1].outcome.unwrap())
        self._scores.append(float(score))
        self._decision = self.method.check(self._scores, self._threshold)
        return bool(self._decision.should_stop)

    def summary(self, n_ran: int, n_wanted: int) -> dict[str, Any]:
        """Return the metric about early stopping, if there is a method."""
        if self.method is None or self._decision is None:
            return {}
        told = {name: getattr(self._decision, name) for name in ("prediction", "confidence", "reason")}
        return {
            "early_stop": {
                "method": self.method.name,
                "threshold": self._threshold,
                "triggered": bool(self._decision.should_stop),
                "runs_completed": n_ran,
                "runs_requested": n_wanted,
                "scores": self._scores,
                **told,
            }
        }


def _named_method(name: str, options: dict[str, Any] | None) -> EarlyStop:
    module = import_module("shinka.utils.eval_stop")
    method: EarlyStop = module.create_early_stop_method(name, **(options or {}))
    return method


def _own_score(value: Any) -> float:
    return float(value["score"] if isinstance(value, Mapping) else value)


def _draw(drawn: Sequence[tuple[Any, str]], directory: Path) -> None:
    """Save figures as PNG and PDF, and animations as GIF."""
    directory.mkdir(parents=True, exist_ok=True)
    for item, title in drawn:
        if hasattr(item, "savefig"):
            item.savefig(directory / f"{title}.png", bbox_inches="tight", dpi=150)
            item.savefig(directory / f"{title}.pdf", bbox_inches="tight")
        else:
            item.save(directory / f"{title}.gif", writer="pillow", fps=30)


def _write(directory: Path, metrics: Mapping[str, Any], *, correct: bool, error: str | None) -> None:
    """Write both files atomically."""
    for name, content in (("metrics.json", metrics), ("correct.json", {"correct": correct, "error": error})):
        temporary = directory / f".{name}.{os.getpid()}"
        temporary.write_text(json.dumps(content, indent=4, default=_plain), encoding="utf-8")
        temporary.replace(directory / name)


def _plain(value: Any) -> Any:
    """Convert numpy's numbers and arrays to plain data, and other values to text."""
    return value.tolist() if hasattr(value, "tolist") else str(value)


def _say(result: FitnessResult, directory: Path, error: str | None) -> None:
    n_ran = len(report.public_cases(result))
    ran = f"{n_ran} runs, {report.public_fuel(result):,} fuel"
    verdict = error or ("correct" if report.tells_all(result) else "no public case failed")
    print(f"{clean_line(verdict)} ({ran}); results in {directory}")  # noqa: T201 - a script's log
