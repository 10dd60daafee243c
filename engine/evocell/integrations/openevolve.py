"""OpenEvolve: evaluators whose programs run in sandboxes.

OpenEvolve loads an evaluator *file* and calls its ``evaluate(program_path)``, and ``evaluate_stage1`` and so
on for a cascade. It re-imports that file for every cascade, and in every process that it forks. So the
functions made here hold no engine: each call uses the engine of its process, which outlives them.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from attrs import evolve, field, frozen

from evocell.api.default import GetEngine, default_engine
from evocell.errors import ConfigurationError
from evocell.integrations.descent import of_openevolve
from evocell.integrations.evaluator_files import (
    PROCESSES,
    STAND_INS,
    EvaluatorFiles,
    defined_names,
    gather,
    guest_module,
)
from evocell.integrations.kept_files import KEPT_BYTES, KeptFiles
from evocell.models import fitness as told
from evocell.models.evaluation import Case, Evaluation
from evocell.models.fitness import FitnessResult
from evocell.models.foreign import clean_line
from evocell.models.limits import Limits
from evocell.models.references import Source

try:
    from openevolve.evaluation_result import EvaluationResult
except ImportError as missing:  # pragma: no cover - the tests have it
    raise ImportError(
        "evocell.integrations.openevolve needs OpenEvolve; install it with: pip install 'evocell[openevolve]'"
    ) from missing

__all__ = ["EvaluatorFunction", "evaluators", "main", "sandboxed"]

SCRATCH_BYTES = 64 << 20
"""Default scratch space of an evaluator that writes files."""

_DRIVER = "evocell_driver:evaluate"
_STAGES = ("evaluate_stage1", "evaluate_stage2", "evaluate_stage3")


class EvaluatorFunction:
    """One function of an evaluator: takes the path of a program, returns OpenEvolve's result.

    It is an object, because OpenEvolve copies the source text of functions; it can be pickled, because it
    holds no engine.

    Args:
        name: Its name in OpenEvolve.
        evaluation: The evaluation.
        report: Converts a result for OpenEvolve.
        engine: Returns the engine of the calling process.
        kept: What evaluations write that is kept; None for nothing.
    """

    def __init__(
        self,
        name: str,
        evaluation: Evaluation,
        report: Callable[[FitnessResult], dict[str, Any] | EvaluationResult],
        engine: GetEngine,
        kept: KeptFiles | None = None,
    ) -> None:
        self.__name__ = name
        self.__doc__ = f"Evaluate the program at a path in a sandbox ({name})."
        self.evaluation = evaluation
        self._report = report
        self._get_engine = engine
        self._kept = kept

    def __call__(self, program_path: str, /, **arguments: Any) -> dict[str, Any] | EvaluationResult:
        """Evaluate the program at a path.

        Parents, generation and what made it are kept, as far as OpenEvolve lets them be known.

        Args:
            program_path: A Python file.
            **arguments: OpenEvolve's ``evaluator_args``, plain data, for the evaluator in the sandbox.

        Returns:
            Metrics, or metrics and artifacts. A program that fails gives the metrics of a failure and
            artifacts with the reason; it never raises.

        Raises:
            ConfigurationError: There are arguments, and it is scored on the host.
            EvocellError: The engine itself failed.
        """
        engine = self._get_engine()
        before = None if self._kept is None else self._kept.read()
        descent = of_openevolve(Path(program_path))
        result = engine.evaluate_one(cast("Source", descent.spec), self._calling(before, arguments))
        if descent.notes:
            engine.lineage.annotate(result.sandbox_id, descent.notes)
        outcome = result.test_results[0].outcome if result.test_results else None
        if self._kept is not None and before is not None and outcome is not None and outcome.ok:
            self._kept.merge(before, outcome.unwrap().get("files"))
        return self._report(result)

    def _calling(self, kept: Mapping[str, bytes] | None, arguments: dict[str, Any]) -> Evaluation:
        """Return the evaluation with files that are kept and arguments by name, as far as there are any."""
        if kept is None and not arguments:
            return self.evaluation
        if self.evaluation.entry != _DRIVER:
            raise ConfigurationError(
                "evaluator_args reach evaluators in the sandbox alone, and this evaluation is scored on the "
                "host; put them into its cases",
                "evaluator_args",
            )
        (case,) = self.evaluation.cases
        return evolve(self.evaluation, cases=[evolve(case, args=(*case.args, kept, arguments))])

    def __repr__(self) -> str:
        return f"<{self.__name__} in a sandbox: {self.evaluation.entry}>"


def evaluators(
    evaluation: Evaluation,
    *,
    stages: Sequence[Evaluation] = (),
    failure_metrics: Mapping[str, float] | None = None,
    engine: GetEngine = default_engine,
) -> tuple[EvaluatorFunction, ...]:
    """Make the functions of an evaluator file from evaluations, scored on the host.

    Write in the file ``(evaluate,) = evaluators(task)``, or with a cascade
    ``evaluate, evaluate_stage1, evaluate_stage2 = evaluators(task, stages=[quick, task])``. The engine
    starts, and builds its image if there is none, when the file is imported, not during an evaluation.

    The metrics are ``combined_score``, the parts of the score by their names, ``valid`` (1 or 0) and
    ``fuel_used``, a noise-free measure of cost that can be a feature dimension. The artifacts describe the
    failure of the first public case to the language model, and nothing of hidden cases; ``fuel_used`` is that
    of the public cases. The score, its parts and ``valid`` are over all cases, because OpenEvolve selects by
    them. It shows all metrics to the model: score hidden cases coarsely if that reveals too much.

    Args:
        evaluation: What ``evaluate`` runs. Its first objective must be maximised.
        stages: What ``evaluate_stage1`` and so on run, at most three.
        failure_metrics: Further metrics of a program that fails, such as feature dimensions, which OpenEvolve
            requires of every program.
        engine: Returns the engine; called for each evaluation, because a fork has another one.

    Returns:
        ``evaluate`` and a function for each stage, in order.

    Raises:
        ConfigurationError: An evaluation is invalid.
        ImageError: The image cannot be built.
    """
    if len(stages) > len(_STAGES):
        raise ConfigurationError(f"OpenEvolve has at most {len(_STAGES)} stages, not {len(stages)}", "stages")
    for one in (evaluation, *stages):
        if not isinstance(one, Evaluation):
            raise ConfigurationError(
                f"an evaluator needs an Evaluation, not {type(one).__name__}", "evaluation"
            )
        if one.directions[0] != "maximize":
            raise ConfigurationError(
                "OpenEvolve maximises combined_score, and this evaluation's first objective is minimised; "
                "let its score function return the negative",
                "directions",
            )
    report = _Report(dict(failure_metrics or {}))
    made = zip(("evaluate", *_STAGES), (evaluation, *stages), strict=False)
    found = tuple(EvaluatorFunction(name, one, report, engine) for name, one in made)
    for one in (evaluation, *stages):
        engine().prepare(one)
    return found


def sandboxed(
    evaluator: str | Path,
    *,
    files: Sequence[str] = (),
    root: str | Path | None = None,
    environ: Mapping[str, str] | None = None,
    limits: Limits | None = None,
    failure_metrics: Mapping[str, float] | None = None,
    keep: str | Path | None = None,
    keep_bytes: int = KEPT_BYTES,
    engine: GetEngine = default_engine,
) -> tuple[EvaluatorFunction, ...]:
    """Run an existing evaluator, unchanged, in the sandbox together with the program that it evaluates.

    This needs the fewest changes: the evaluator's file stays untouched, and a second file has
    ``evaluate, evaluate_stage1, evaluate_stage2 = sandboxed("evaluator.py")``. ``python -m
    evocell.integrations.openevolve evaluator.py`` writes it.

    The program cannot affect anything outside the sandbox. But the evaluator shares the program's
    interpreter, as it does without evocell: a program may still forge its own score. If that matters, use
    `evaluators`, which scores on the host.

    Threads, processes and alarms are replaced by sequential stand-ins; ``limits`` bound their total, in place
    of separate timeouts.

    Args:
        evaluator: The evaluator's file. Adjacent modules that it imports are included.
        files: More files that it reads, as patterns relative to ``root``.
        root: The directory that the sandbox sees; None for the evaluator's own.
        environ: Environment variables that it reads.
        limits: Limits of one evaluation; None for the engine's, with 64 MiB of ``/tmp``.
        failure_metrics: Metrics of a program that fails in addition to ``combined_score``, which is 0 unless
            given here.
        keep: A directory of its own for what the evaluator writes beside itself, such as a log or a table:
            the next evaluation finds it there, and so does the host. None throws it away after each.
        keep_bytes: How much that may be, in bytes.
        engine: As in `evaluators`.

    Returns:
        Those of ``evaluate``, ``evaluate_stage1``, ``evaluate_stage2`` and ``evaluate_stage3`` that it
        defines, in this order.

    Raises:
        ConfigurationError: The evaluator is missing or defines no ``evaluate``; a file is missing.
        ImageError: The image cannot be built.
    """
    path = Path(evaluator)
    names = _function_names(path)
    gathered = gather(path, files=files, root=None if root is None else Path(root))
    bounds = limits or engine().config.limits().evolve(scratch_bytes=SCRATCH_BYTES)
    if not bounds.processes:
        bounds = bounds.evolve(processes=PROCESSES)
    kept = None
    if keep is not None:
        kept = KeptFiles(Path(keep), keep_bytes)
        bounds = bounds.evolve(payload_bytes=bounds.payload_bytes + 2 * keep_bytes)
        if not gathered.may_be_copied(bounds):
            raise ConfigurationError(
                "the evaluator's files leave it no room to write beside them; raise scratch_bytes and "
                "scratch_files in the limits, or leave out keep",
                "keep",
            )
    report = _Report({"combined_score": 0.0, **(failure_metrics or {})}, claims=True)
    evaluations = [_running(name, gathered, dict(environ or {}), bounds) for name in names]
    engine().prepare(evaluations[0])
    return tuple(
        EvaluatorFunction(name, one, report, engine, kept)
        for name, one in zip(names, evaluations, strict=True)
    )


def _function_names(path: Path) -> list[str]:
    defined = defined_names(path)
    if "evaluate" not in defined:
        raise ConfigurationError(
            f"{path} defines no evaluate(program_path); it is no evaluator of OpenEvolve", "evaluator"
        )
    return ["evaluate", *(name for name in _STAGES if name in defined)]


def _running(name: str, gathered: EvaluatorFiles, environ: dict[str, str], limits: Limits) -> Evaluation:
    driver = {f"{module}.py": guest_module(module) for module in ("evocell_driver", *STAND_INS)}
    return Evaluation(
        _DRIVER,
        [Case((name, gathered.evaluator, environ, gathered.may_be_copied(limits)))],
        _headline,
        harness={**gathered.files, **driver},
        limits=limits,
    )


def _headline(_: Case, value: Any) -> float:
    """Return the number that OpenEvolve would select by, for the engine's records."""
    metrics = value["metrics"]
    if "combined_score" in metrics:
        metrics = {"combined_score": metrics["combined_score"]}
    numbers = [float(part) for name, part in metrics.items() if name != "error" and _is_finite(part)]
    return sum(numbers) / len(numbers) if numbers else 0.0


def _is_finite(value: object) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


@frozen
class _Report:
    """Makes of a result what OpenEvolve expects.

    Attributes:
        failure_metrics: Metrics of a program that failed.
        claims: Whether the metrics are the guest's return value, not the host's score.
    """

    failure_metrics: dict[str, float]
    claims: bool = field(default=False, kw_only=True)

    def __call__(self, result: FitnessResult) -> dict[str, Any] | EvaluationResult:
        if not self.claims:
            return self._scored(result)
        outcome = result.test_results[0].outcome if result.test_results else None
        if outcome is None or not outcome.ok:
            return EvaluationResult(metrics=dict(self.failure_metrics), artifacts=_failure(result))
        claim = outcome.unwrap()
        if claim["artifacts"] is None:
            metrics: dict[str, Any] = claim["metrics"]
            return metrics
        return EvaluationResult(metrics=claim["metrics"], artifacts=claim["artifacts"])

    def _scored(self, result: FitnessResult) -> EvaluationResult:
        further = {f"objective_{place}": value for place, value in enumerate(result.objectives[1:], 2)}
        metrics: dict[str, float] = {
            **further,
            **({} if result.valid else self.failure_metrics),
            **result.components,
            "combined_score": result.fitness_score,
            "valid": float(result.valid),
            "fuel_used": float(told.public_fuel(result)),
        }
        return EvaluationResult(metrics=metrics, artifacts=_failure(result))


def _failure(result: FitnessResult) -> dict[str, str | bytes]:
    """Describe a program's failure: outcome, error, traceback, streams, limit, fuel, and a summary text.

    A failure in hidden cases only is not described.
    """
    found: dict[str, str | bytes] = dict(result.artifacts())
    if found or (told.tells_all(result) and not result.valid):
        found["feedback"] = result.feedback()
    return found


_WRAPPER = '''"""The evaluator {name}, run by evocell in a sandbox together with the program it evaluates."""

from pathlib import Path

from evocell.integrations.openevolve import sandboxed

{functions} = sandboxed(Path(__file__).with_name("{name}"))
'''


def main(argv: Sequence[str] | None = None) -> int:
    """Write an evaluator file that runs another one in a sandbox.

    Args:
        argv: The command's arguments; None for those of the process.

    Returns:
        0.

    Raises:
        SystemExit: It failed; the reason is on standard error.
    """
    parser = argparse.ArgumentParser(
        prog="python -m evocell.integrations.openevolve",
        description="Write an evaluator file that runs another one, untouched, in a sandbox.",
    )
    parser.add_argument("evaluator", type=Path, help="the evaluator as it is")
    parser.add_argument(
        "-o", "--output", type=Path, help="the file to write, beside it (default: sandboxed_evaluator.py)"
    )
    given = parser.parse_args(argv)
    output = given.output or given.evaluator.with_name("sandboxed_evaluator.py")
    if output.resolve().parent != given.evaluator.resolve().parent:
        parser.error(f"{output} is not beside {given.evaluator}, where it must be")
    if output.exists():
        parser.error(f"{output} exists already; give another name with -o")
    try:
        names = _function_names(given.evaluator)
    except ConfigurationError as error:
        parser.error(clean_line(str(error)))
    functions = ", ".join(names) if len(names) > 1 else f"({names[0]},)"
    output.write_text(_WRAPPER.format(name=given.evaluator.name, functions=functions), encoding="utf-8")
    said = f"Wrote {output}. Give it to OpenEvolve in place of {given.evaluator}."
    print(clean_line(said))  # noqa: T201 - a command
    return 0


if __name__ == "__main__":
    sys.exit(main())
