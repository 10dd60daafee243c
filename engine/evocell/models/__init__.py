"""Immutable records shared by all layers."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from evocell.models.equality import ByContent, same_value
    from evocell.models.evaluation import Case, Evaluation, normalise_entry
    from evocell.models.fitness import CaseResult, Direction, FitnessResult
    from evocell.models.info import ImageInfo, WorkerInfo
    from evocell.models.limits import Limits
    from evocell.models.measurement import Comparison, Duel, HeadToHead, Interval, Measurement
    from evocell.models.outcome import (
        Completed,
        GuestCrashed,
        LimitExceeded,
        LimitKind,
        Outcome,
        Raised,
        Rejected,
        RejectedKind,
        WorkerLost,
    )
    from evocell.models.populations import GarbageReport, GenerationState, Offspring
    from evocell.models.ranking import best, fitness_statistics
    from evocell.models.recorded import CallIdentity, EvaluationRecord, MemoInfo, Replay
    from evocell.models.references import Source
    from evocell.models.specs import SandboxSpec
    from evocell.models.stages import Stage, StagedResult
    from evocell.models.state import (
        PopulationState,
        SandboxState,
        SandboxStatus,
        Transition,
        utc_now,
    )
    from evocell.models.tables import FrameLibrary, Results, to_dataframe
    from evocell.models.versions import ModuleVersion, VersionDiff

__all__ = [
    "ByContent",
    "CallIdentity",
    "Case",
    "CaseResult",
    "Comparison",
    "Completed",
    "Direction",
    "Duel",
    "Evaluation",
    "EvaluationRecord",
    "FitnessResult",
    "FrameLibrary",
    "GarbageReport",
    "GenerationState",
    "GuestCrashed",
    "HeadToHead",
    "ImageInfo",
    "Interval",
    "LimitExceeded",
    "LimitKind",
    "Limits",
    "Measurement",
    "MemoInfo",
    "ModuleVersion",
    "Offspring",
    "Outcome",
    "PopulationState",
    "Raised",
    "Rejected",
    "RejectedKind",
    "Replay",
    "Results",
    "SandboxSpec",
    "SandboxState",
    "SandboxStatus",
    "Source",
    "Stage",
    "StagedResult",
    "Transition",
    "VersionDiff",
    "WorkerInfo",
    "WorkerLost",
    "best",
    "fitness_statistics",
    "normalise_entry",
    "same_value",
    "to_dataframe",
    "utc_now",
]

# A worker process needs few of them, and starts 10 % faster without the others.
_PLACES = {
    "equality": ("ByContent", "same_value"),
    "evaluation": ("Case", "Evaluation", "normalise_entry"),
    "fitness": ("CaseResult", "Direction", "FitnessResult"),
    "info": ("ImageInfo", "WorkerInfo"),
    "limits": ("Limits",),
    "measurement": ("Comparison", "Duel", "HeadToHead", "Interval", "Measurement"),
    "outcome": (
        "Completed",
        "GuestCrashed",
        "LimitExceeded",
        "LimitKind",
        "Outcome",
        "Raised",
        "Rejected",
        "RejectedKind",
        "WorkerLost",
    ),
    "populations": ("GarbageReport", "GenerationState", "Offspring"),
    "ranking": ("best", "fitness_statistics"),
    "recorded": ("CallIdentity", "EvaluationRecord", "MemoInfo", "Replay"),
    "references": ("Source",),
    "specs": ("SandboxSpec",),
    "stages": ("Stage", "StagedResult"),
    "tables": ("FrameLibrary", "Results", "to_dataframe"),
    "state": ("PopulationState", "SandboxState", "SandboxStatus", "Transition", "utc_now"),
    "versions": ("ModuleVersion", "VersionDiff"),
}
_HOMES = {name: module for module, names in _PLACES.items() for name in names}


def __getattr__(name: str) -> Any:
    module = _HOMES.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{module}"), name)
    return value
