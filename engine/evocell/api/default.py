"""The engine of whoever does not want to hold one."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from typing import TypeAlias

from attrs import evolve

from evocell.api.engine import Engine
from evocell.api.options import Parents
from evocell.api.portal import is_multiprocessing_child
from evocell.config import Config
from evocell.evaluation.evaluator import Progress
from evocell.models.evaluation import Evaluation
from evocell.models.fitness import FitnessResult
from evocell.models.references import Source

__all__ = ["GetEngine", "default_engine", "evaluate"]

GetEngine: TypeAlias = Callable[[], Engine]
"""Gives the engine of the calling process, for code that must outlive a fork."""


class _Default:
    """The default engine of this process, if there is one yet."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.engine: Engine | None = None

    def get(self) -> Engine:
        with self.lock:
            if self.engine is None or self.engine.closed:
                self.engine = Engine(_config())
            return self.engine

    def forget(self) -> None:
        """Start anew in a forked child, where the lock may be held by a thread that is not here."""
        self.lock = threading.Lock()
        self.engine = None


def _config() -> Config:
    config = Config.load()
    if config.workers is None and is_multiprocessing_child():
        # Its parent has given each core something to do already.
        return evolve(config, workers=1)
    return config


_default = _Default()
os.register_at_fork(after_in_child=_default.forget)


def default_engine() -> Engine:
    """Return the one engine of this process, made at the first call with the settings of `Config.load`.

    In a child of `multiprocessing` (or of an executor built on it) it has one worker unless the settings say
    how many: its parent has given each core something to do. It is closed at exit, and replaced by a new one
    if it was closed before. One that was inherited by ``os.fork`` is never used: the child makes its own.

    Raises:
        ImageError: The image cannot be found, built or trusted.
        EngineForked: With ``workers=0``: this process was forked from one in which an engine ran guests.
    """
    return _default.get()


def evaluate(
    sources: Sequence[Source],
    evaluation: Evaluation,
    *,
    population: str | None = None,
    generation: int = 0,
    parents: Parents | None = None,
    deadline_s: float | None = None,
    progress: Progress | None = None,
) -> list[FitnessResult]:
    """Evaluate many sources with the default engine; see `Engine.evaluate`."""
    return default_engine().evaluate(
        sources,
        evaluation,
        population=population,
        generation=generation,
        parents=parents,
        deadline_s=deadline_s,
        progress=progress,
    )
