"""Definition of an evaluation: entry, cases, scoring, limits."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

from attrs import field, frozen

from evocell.errors import ConfigurationError
from evocell.models.equality import ByContent, find_incomparable
from evocell.models.fitness import CaseResult, Direction
from evocell.models.limits import Limits

#: Module of a bare entry, and name of the module of a bare source text.
DEFAULT_MODULE = "program"
MAX_SEED = (1 << 64) - 1
MOST_SCORES_AT_ONCE = 10_000

_NAME = r"[^\W\d]\w*"
_ENTRY = re.compile(rf"(?:{_NAME}(?:\.{_NAME})*:)?{_NAME}(?:\.{_NAME})*\Z")

Isolation = Literal["case", "candidate", "batch"]
Score: TypeAlias = float | Mapping[str, float]
ScoreFunction: TypeAlias = (
    "Callable[[Case, Any], Score | tuple[Score, str] | Awaitable[Score | tuple[Score, str]]]"
)
AggregateFunction: TypeAlias = Callable[[list[CaseResult]], Score | tuple[float, ...]]
StopPredicate: TypeAlias = Callable[[list[CaseResult]], bool]


def is_async(function: object) -> bool:
    """Whether a function, or an object that is called as one, is to be awaited; not for a built-in's name."""
    if function is None or isinstance(function, str):
        return False
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(
        getattr(type(function), "__call__", None)  # noqa: B004 - it is looked at, not called
    )


def normalise_entry(entry: str) -> str:
    """Return an entry as ``"module:qualname"``; a bare ``"f"`` means ``"program:f"``.

    Raises:
        ConfigurationError: It is not the name of a function, with or without its module.
    """
    given = cast("object", entry)
    if not isinstance(given, str) or not _ENTRY.match(given):
        raise ConfigurationError(
            f'entry must name a function as "function" or "module:function", not {given!r}',
            "entry",
        )
    return given if ":" in given else f"{DEFAULT_MODULE}:{given}"


def check_seed(seed: object, what: str) -> None:
    """Refuse a seed that is not an unsigned 64-bit integer.

    Raises:
        ConfigurationError: The seed cannot be used; ``what`` names it in the message.
    """
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= MAX_SEED:
        raise ConfigurationError(f"{what} must be a whole number from 0 to 2**64 - 1, not {seed!r}", what)


def _args_tuple(args: Sequence[Any]) -> tuple[Any, ...]:
    if not isinstance(cast("object", args), tuple | list):
        raise ConfigurationError(
            f"case args must be a tuple or list of arguments, not {type(args).__name__}; "
            "write args=(value,) for one argument",
            "args",
        )
    return tuple(args)


def _kwargs_dict(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    if not isinstance(cast("object", kwargs), Mapping) or not all(isinstance(name, str) for name in kwargs):
        raise ConfigurationError(
            f"case kwargs must be a mapping with names as keys, not {type(kwargs).__name__}; "
            "what is expected is given by name, as in Case((3,), expected=9)",
            "kwargs",
        )
    return dict(kwargs)


_NOT_GIVEN: Any = object()


@frozen
class Case:
    """One call of the entry, with its expected value and visibility.

    Attributes:
        args: Positional arguments.
        kwargs: Arguments by name.
        expected: The expected value, for the scoring; never sent to the guest. None if omitted.
        name: Name in reports; empty for its number.
        seed: Seed of the guest's random sources; None for the evaluation's.
        public: Whether its outcome may be shown to the author of the next variant. Hidden cases run after
            all public ones.
        has_expected: Whether `expected` was given, even as None. Required by ``"equal"`` and ``"close"``.

    Raises:
        ConfigurationError: A field has a wrong type or value.
    """

    args: tuple[Any, ...] = field(default=(), converter=_args_tuple, eq=ByContent)
    kwargs: Mapping[str, Any] = field(factory=dict, converter=_kwargs_dict, eq=ByContent)
    expected: Any = field(default=_NOT_GIVEN, kw_only=True, eq=ByContent)
    name: str = field(default="", kw_only=True)
    seed: int | None = field(default=None, kw_only=True)
    public: bool = field(default=True, kw_only=True)
    has_expected: bool = field(init=False, default=True, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        if self.expected is _NOT_GIVEN:
            object.__setattr__(self, "expected", None)
            object.__setattr__(self, "has_expected", False)
        if not isinstance(self.name, str):
            raise ConfigurationError(f"case name must be a string, not {self.name!r}", "name")
        if self.seed is not None:
            check_seed(self.seed, "case seed")
        if not isinstance(self.public, bool):
            raise ConfigurationError(f"case public must be True or False, not {self.public!r}", "public")


def _case_tuple(cases: Iterable[Case]) -> tuple[Case, ...]:
    given = cast("object", cases)
    if isinstance(given, Case):
        raise ConfigurationError("cases must be a sequence; write cases=[case] for one", "cases")
    try:
        found = tuple(cast("Iterable[object]", given))
    except TypeError as error:
        raise ConfigurationError(
            f"cases must be a sequence of Case, not {type(cases).__name__}", "cases"
        ) from error
    if not found:
        raise ConfigurationError("cases is empty; an evaluation needs at least one Case", "cases")
    for index, case in enumerate(found):
        if not isinstance(case, Case):
            raise ConfigurationError(
                f"cases[{index}] must be a Case, not {type(case).__name__}; "
                "write Case(args=(3,), expected=9)",
                f"cases[{index}]",
            )
    return cast("tuple[Case, ...]", found)


def _direction_tuple(directions: Sequence[Direction]) -> tuple[Direction, ...]:
    if not isinstance(cast("object", directions), tuple | list) or not directions:
        raise ConfigurationError(
            "directions must be a tuple with one direction per objective, such as "
            f'("minimize",), not {directions!r}',
            "directions",
        )
    for direction in directions:
        if direction not in ("maximize", "minimize"):
            raise ConfigurationError(
                f'each direction must be "maximize" or "minimize", not {direction!r}', "directions"
            )
    return tuple(directions)


def _tuple_of_list(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


@frozen
class Evaluation:
    """The definition of an evaluation: entry, cases, scoring and limits.

    Attributes:
        entry: The function to call, as ``"module:qualname"``. With a harness it may be one of the
            harness' modules, which are importable beside the candidate's.
        cases: The calls to make.
        score: ``"equal"``, ``"close"`` or a function of case and value, run on the host. The first two
            require an expected value in every case; a list, a tuple and an array of the same values count as
            equal. A function returns a number or named numbers, or a tuple of that and a text: a remark on
            the case. `feedback` shows the remark, or the text of an exception of the function, if the case is
            public.
            A plain function runs in a thread, one at a time; an ``async`` one is awaited on the engine's
            trio loop, so it may await what runs there (trio, anyio, httpx) and must not block.
        aggregate: ``"mean"`` or a function of all case results that returns the score, its parts by
            name, or one number per objective.
        harness: Trusted driver files, by path or in a zip, importable beside the candidate. It shares the
            candidate's interpreter, so its return value is a claim for ``score`` to verify.
        image: Name of the image to fork from; None for the one that follows from the imports.
        limits: Limits of each call; None for the engine's.
        total_limits: Limits of all calls together; None for none. Over several stages, the usage of hidden
            cases is not deducted from public ones.
        seed: Seed of the guest's random sources, an unsigned 64-bit integer.
        isolation: ``"case"`` gives each case a fresh fork; ``"candidate"`` runs all in one. In both modes the
            public cases run first and the hidden ones after them, in the given order. ``"batch"`` runs
            up to 32 candidates of one `evaluate` in one fork, under one budget: they are not protected from
            each other, only you are from them. For tiny ones by the thousand; see the threat model.
        stop: None, ``"first_failure"``, or a function of the results so far, in the order of execution, that
            returns whether to stop.
        directions: ``"maximize"`` or ``"minimize"`` for each objective.
        failure: The objective, or tuple of objectives, of an invalid individual. Defaults to 0.0,
            which is only accepted for one maximised objective.
        memoise: Whether the outcome of an earlier call with the same code, arguments, seed, limits and image
            is reused; scoring is always repeated. None is the engine's setting.
            ``"tree"`` takes programs for the same whose syntax trees are: comments, blank lines and layout do
            not count, and calls are made with the text that the tree gives, see docs/determinism.md.
        scores_at_once: How many calls of an async ``score`` may be awaited at the same time, from 1.

    Raises:
        ConfigurationError: A field is invalid, or ``failure`` is required and missing.
    """

    entry: str = field(converter=normalise_entry)
    cases: tuple[Case, ...] = field(converter=_case_tuple, repr=False)
    score: Literal["equal", "close"] | ScoreFunction = "equal"
    aggregate: Literal["mean"] | AggregateFunction = field(default="mean", kw_only=True)
    harness: Mapping[str, str | bytes] | Path | bytes | None = field(
        default=None, kw_only=True, repr=False, eq=ByContent
    )
    image: str | None = field(default=None, kw_only=True)
    limits: Limits | None = field(default=None, kw_only=True)
    total_limits: Limits | None = field(default=None, kw_only=True)
    seed: int = field(default=0, kw_only=True)
    isolation: Isolation = field(default="case", kw_only=True)
    stop: Literal["first_failure"] | StopPredicate | None = field(default=None, kw_only=True)
    directions: tuple[Direction, ...] = field(default=("maximize",), kw_only=True, converter=_direction_tuple)
    failure: float | tuple[float, ...] | None = field(default=None, kw_only=True, converter=_tuple_of_list)
    memoise: bool | Literal["tree"] | None = field(default=None, kw_only=True)
    scores_at_once: int = field(default=16, kw_only=True)

    def __attrs_post_init__(self) -> None:
        _choice("score", self.score, ("equal", "close"), "a function of case and value")
        if isinstance(self.score, str):
            _check_expected(self.cases, self.score)
        _choice("aggregate", self.aggregate, ("mean",), "a function of the case results")
        if self.stop is not None:
            _choice("stop", self.stop, ("first_failure",), "a function of the results so far")
        if self.isolation not in ("case", "candidate", "batch"):
            raise ConfigurationError(
                f'isolation must be "case", "candidate" or "batch", not {self.isolation!r}', "isolation"
            )
        for name, value in (("limits", self.limits), ("total_limits", self.total_limits)):
            if value is not None and not isinstance(value, Limits):
                raise ConfigurationError(f"{name} must be a Limits, not {value!r}", name)
        if isinstance(self.harness, str):
            raise ConfigurationError(
                f"harness as text would be {DEFAULT_MODULE}.py and hide the candidate's; give it a name of "
                f'its own, as in {{"driver.py": text}}, and entry="driver:{self.entry.partition(":")[2]}"',
                "harness",
            )
        if self.harness is not None and not isinstance(self.harness, Mapping | Path | bytes):
            raise ConfigurationError(
                "harness must be files by path, a Path or the bytes of a zip or wheel, "
                f"not {type(self.harness).__name__}",
                "harness",
            )
        if self.image is not None and not isinstance(self.image, str):
            raise ConfigurationError(f"image must be a name, not {self.image!r}", "image")
        check_seed(self.seed, "evaluation seed")
        if not (self.memoise is None or isinstance(self.memoise, bool) or self.memoise == "tree"):
            raise ConfigurationError(
                f'memoise must be True, False, "tree" or None, not {self.memoise!r}', "memoise"
            )
        most = self.scores_at_once
        if type(most) is not int or not 1 <= most <= MOST_SCORES_AT_ONCE:
            raise ConfigurationError(
                f"scores_at_once must be a whole number from 1 to {MOST_SCORES_AT_ONCE:,}, not {most!r}",
                "scores_at_once",
            )
        _check_failure(self.failure, self.directions)
        if self.isolation == "batch":
            _check_batch(self)

    @cached_property
    def failure_objectives(self) -> tuple[float, ...]:
        """The objectives of an invalid individual."""
        if self.failure is None:
            return (0.0,)
        return self.failure if isinstance(self.failure, tuple) else (self.failure,)


def _check_batch(evaluation: Evaluation) -> None:
    """Refuse what makes no sense for candidates that share an interpreter and a budget."""
    for name, given, why in (
        ("stop", evaluation.stop is not None, "the cases of a candidate run in one go there"),
        ("total_limits", evaluation.total_limits is not None, "the limits are those of all together there"),
        ("memoise", bool(evaluation.memoise), "a call there depends on those before it"),
        (
            "cases",
            not all(case.public for case in evaluation.cases),
            "a candidate there can see what the one before it was given, so no case can be hidden",
        ),
    ):
        if given:
            raise ConfigurationError(f'isolation="batch" does not go with {name}: {why}', name)


def _check_expected(cases: tuple[Case, ...], score: str) -> None:
    for index, case in enumerate(cases):
        if not case.has_expected:
            raise ConfigurationError(
                f'cases[{index}] has no expected value, with which score="{score}" compares: write '
                "Case(args, expected=...), with expected=None for a function that returns None, or give "
                "score a function of case and value",
                f"cases[{index}].expected",
            )
        found = find_incomparable(case.expected, f"cases[{index}].expected")
        if found is not None:
            path, name = found
            raise ConfigurationError(
                f'{path} is a {name}, which score="{score}" cannot compare: give what the function '
                "returns in its place, such as frame.to_dict('list') or a list, or give score a function of "
                "case and value",
                path,
            )


def _choice(name: str, value: object, words: tuple[str, ...], otherwise: str) -> None:
    if value in words or callable(value):
        return
    known = " or ".join(f'"{word}"' for word in words)
    raise ConfigurationError(f"{name} must be {known} or {otherwise}, not {value!r}", name)


def _check_failure(failure: object, directions: tuple[Direction, ...]) -> None:
    if failure is None:
        if directions != ("maximize",):
            raise ConfigurationError(
                f"failure must be given for directions {directions!r}: 0.0 could win there. "
                "Give an invalid individual a finite number per objective that is worse than any "
                "real one, such as failure=1e9 for one that is minimised",
                "failure",
            )
        return
    numbers = failure if isinstance(failure, tuple) else (failure,)
    if len(numbers) != len(directions):
        raise ConfigurationError(
            f"failure has {len(numbers)} numbers for {len(directions)} directions; "
            "give a tuple with one for each",
            "failure",
        )
    for number in numbers:
        usable = isinstance(number, int | float) and not isinstance(number, bool)
        if not usable or not math.isfinite(number):
            raise ConfigurationError(
                f"failure must be finite, not {number!r}; pick a number worse than any real score",
                "failure",
            )
