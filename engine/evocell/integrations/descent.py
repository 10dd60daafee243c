"""Lineage of a program that OpenEvolve or ShinkaEvolve evaluates.

Both frameworks pass an evaluator only the path of a program. Its lineage is read from their own state, which
is never changed: for OpenEvolve from the local variables of the worker's current iteration, which hold the
parent and the child; for ShinkaEvolve from the run's directory, which holds the parent's text beside the
program. A program whose lineage is not found there has no parents.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, cast

from attrs import evolve, field, frozen

from evocell.api.engine import Engine
from evocell.errors import SandboxExists, SandboxNotFound
from evocell.models.evaluation import Evaluation
from evocell.models.fitness import FitnessResult
from evocell.models.references import Source
from evocell.models.specs import SandboxSpec

__all__ = ["Descent", "evaluated_for_shinka", "of_openevolve", "of_shinka"]

_WORKER = "openevolve.process_parallel"
_GENERATION = re.compile(r"gen_([0-9]{1,9})\Z")
_NO_NAME = re.compile(r"[^A-Za-z0-9._-]+")
_MOST_BYTES = 1 << 20
"""Longer programs are not compared with earlier ones, and so have no parents."""


@frozen
class Descent:
    """The lineage of a program.

    Attributes:
        spec: The program with its id, parents, generation and mutation type.
        notes: Further metadata, such as the iteration and the island.
    """

    spec: SandboxSpec
    notes: Mapping[str, object] = field(factory=dict)


def of_openevolve(program: Path) -> Descent:
    """Return the lineage of a program that OpenEvolve evaluates.

    Ids are OpenEvolve's own, except that an initial program is named by a digest of its text, since
    OpenEvolve gives it several ids. A copy that migrated to another island has the id of its original.

    Args:
        program: The file that the evaluator was given.
    """
    text = _text(program)
    for known in _iterations():
        if text is None or known.get("child_code") != text:
            continue
        parent, child = known.get("parent"), known.get("child_id")
        above = _openevolve_id(parent)
        if above is None or not isinstance(child, str):
            continue
        spec = SandboxSpec(
            child,
            source=program,
            generation=_count(getattr(parent, "generation", 0)) + 1,
            parent_ids=(above,),
            mutation_type="diff" if known.get("diff_blocks") else "rewrite",
        )
        notes = {"iteration": known.get("iteration"), "island": known.get("parent_island")}
        return Descent(spec, {name: value for name, value in notes.items() if isinstance(value, int)})
    return Descent(SandboxSpec(None if text is None else _seed_id(text), source=program))


def _iterations() -> Iterator[Mapping[str, Any]]:
    """Return the local variables of each OpenEvolve iteration that runs in this process."""
    for top in sys._current_frames().values():  # noqa: SLF001 - documented for looking at other threads
        frame: FrameType | None = top
        while frame is not None:
            if frame.f_globals.get("__name__") == _WORKER and "child_id" in frame.f_code.co_varnames:
                yield dict(frame.f_locals)
            frame = frame.f_back


def _openevolve_id(program: Any) -> str | None:
    if not isinstance(getattr(program, "code", None), str):
        return None
    if not getattr(program, "generation", 0):
        return _seed_id(program.code)
    metadata = getattr(program, "metadata", None) or {}
    found = program.parent_id if metadata.get("migrant") else program.id
    return found if isinstance(found, str) else None


def _seed_id(text: str) -> str:
    return f"seed-{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:12]}"


def of_shinka(program: Path) -> Descent:
    """Return the lineage of a program in the directory of a ShinkaEvolve run.

    The program ``RUN/gen_7/main.py`` has the id ``RUN-gen_7`` and belongs to the population ``RUN``, which
    joins the processes of a run into one search. Its parent is the latest earlier program whose text equals
    ``original.py``, which ShinkaEvolve writes beside the program. Any other program has no parents.

    Args:
        program: The file that the script was given.
    """
    directory = program.resolve().parent
    matched = _GENERATION.match(directory.name)
    run = _NO_NAME.sub("-", directory.parent.name).strip("-.")[:80]
    if matched is None or not run:
        return Descent(SandboxSpec(source=program))
    number = int(matched[1])
    parent = _shinka_parent(program, directory, number)
    spec = SandboxSpec(
        f"{run}-gen_{number}",
        source=program,
        population=run,
        generation=number,
        parent_ids=() if parent is None else (f"{run}-gen_{parent}",),
        mutation_type="seed" if parent is None else _shinka_operator(directory),
    )
    return Descent(spec)


@contextmanager
def evaluated_for_shinka(engine: Engine, program: Path, evaluation: Evaluation) -> Iterator[FitnessResult]:
    """Evaluate a program of ShinkaEvolve with its lineage; yields the result.

    Since the members of a population are sandboxes, the program has a sandbox while the block runs. If
    another thread is evaluating the same program, this one gets a generated id.

    Args:
        engine: The engine to evaluate in.
        program: The file that the script was given.
        evaluation: The evaluation.
    """
    spec = of_shinka(program).spec
    try:
        result = engine.evaluate_one(cast("Source", spec), evaluation)
    except SandboxExists:
        result = engine.evaluate_one(cast("Source", evolve(spec, id=None)), evaluation)
    try:
        yield result
    finally:
        if spec.population is not None:
            with suppress(SandboxNotFound):
                engine.destroy_sandbox(result.sandbox_id)


def _shinka_parent(program: Path, directory: Path, number: int) -> int | None:
    original = _stripped(directory / f"original{program.suffix}")
    if original is None:
        return None
    found = [
        int(matched[1]) for one in directory.parent.iterdir() if (matched := _GENERATION.match(one.name))
    ]
    for earlier in sorted((one for one in found if one < number), reverse=True):
        if _stripped(directory.with_name(f"gen_{earlier}") / program.name) == original:
            return earlier
    return None


def _shinka_operator(directory: Path) -> str:
    """Return the kind of the patch that ShinkaEvolve wrote last into the directory."""
    files = {"diff": directory / "search_replace.txt", "rewrite": directory / "rewrite.txt"}
    times = {kind: file.stat().st_mtime_ns for kind, file in files.items() if file.is_file()}
    return max(times, key=times.__getitem__) if times else "mutation"


def _stripped(path: Path) -> list[str] | None:
    """Return a file's lines without trailing whitespace, which ShinkaEvolve strips; None if unreadable."""
    text = _text(path)
    return None if text is None else [line.rstrip() for line in text.rstrip().splitlines()]


def _text(path: Path) -> str | None:
    try:
        if path.stat().st_size > _MOST_BYTES:
            return None
        return path.read_bytes().decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return None


def _count(value: object) -> int:
    return value if isinstance(value, int) and 0 <= value < 1 << 31 else 0
