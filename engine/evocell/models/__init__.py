"""Immutable records that every layer speaks in."""

from evocell.models.comparing import Comparison, Interval, Measurement
from evocell.models.duels import Duel, HeadToHead
from evocell.models.equality import ByContent, same_value
from evocell.models.evaluation import Case, Evaluation, normalise_entry
from evocell.models.fitness import CaseResult, FitnessResult, fitness_statistics
from evocell.models.images import ImageInfo
from evocell.models.limits import Limits
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
from evocell.models.recorded import CallIdentity, EvaluationRecord, MemoInfo, Replay
from evocell.models.source import Source
from evocell.models.specs import SandboxSpec
from evocell.models.stages import Stage, StagedResult
from evocell.models.state import (
    PopulationState,
    SandboxState,
    SandboxStatus,
    Transition,
    utc_now,
)
from evocell.models.versions import ModuleVersion, VersionDiff
from evocell.models.workers import WorkerInfo

__all__ = [
    "ByContent",
    "CallIdentity",
    "Case",
    "CaseResult",
    "Comparison",
    "Completed",
    "Duel",
    "Evaluation",
    "EvaluationRecord",
    "FitnessResult",
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
    "fitness_statistics",
    "normalise_entry",
    "same_value",
    "utc_now",
]
