"""Runs evolved, untrusted Python in WebAssembly sandboxes: hard limits, reproducible fitness, fast forks.

>>> import evocell
>>> task = evocell.Evaluation("solve", cases=[evocell.Case(args=(3,), expected=9)])
>>> with evocell.Engine() as engine:  # doctest: +SKIP
...     engine.evaluate_one("def solve(n): return n * n", task).fitness_score
1.0
"""

from evocell.api.async_engine import AsyncEngine
from evocell.api.async_evaluator import AsyncEvaluator
from evocell.api.async_sandbox import AsyncSandbox
from evocell.api.default import default_engine, evaluate
from evocell.api.engine import Engine
from evocell.api.evaluator import Evaluator
from evocell.api.progress import silent
from evocell.api.sandbox import Sandbox
from evocell.config import Config
from evocell.errors import (
    CapacityError,
    ConfigurationError,
    EngineClosed,
    EngineForked,
    EvocellError,
    ImageError,
    OutcomeError,
    ProtocolError,
    SandboxBusy,
    SandboxExists,
    SandboxNotFound,
    ScoringError,
    StoreError,
)
from evocell.models import (
    Case,
    CaseResult,
    Comparison,
    Completed,
    Evaluation,
    FitnessResult,
    GuestCrashed,
    ImageInfo,
    LimitExceeded,
    Limits,
    Measurement,
    Outcome,
    PopulationState,
    Raised,
    Rejected,
    SandboxSpec,
    SandboxState,
    SandboxStatus,
    Source,
    Stage,
    StagedResult,
    Transition,
    WorkerInfo,
    WorkerLost,
    fitness_statistics,
)
from evocell_guest.arrays import Array

__all__ = [
    "Array",
    "AsyncEngine",
    "AsyncEvaluator",
    "AsyncSandbox",
    "CapacityError",
    "Case",
    "CaseResult",
    "Comparison",
    "Completed",
    "Config",
    "ConfigurationError",
    "Engine",
    "EngineClosed",
    "EngineForked",
    "Evaluation",
    "Evaluator",
    "EvocellError",
    "FitnessResult",
    "GuestCrashed",
    "ImageError",
    "ImageInfo",
    "LimitExceeded",
    "Limits",
    "Measurement",
    "Outcome",
    "OutcomeError",
    "PopulationState",
    "ProtocolError",
    "Raised",
    "Rejected",
    "Sandbox",
    "SandboxBusy",
    "SandboxExists",
    "SandboxNotFound",
    "SandboxSpec",
    "SandboxState",
    "SandboxStatus",
    "ScoringError",
    "Source",
    "Stage",
    "StagedResult",
    "StoreError",
    "Transition",
    "WorkerInfo",
    "WorkerLost",
    "default_engine",
    "evaluate",
    "fitness_statistics",
    "silent",
]
