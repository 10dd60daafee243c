"""The process-wide default engine."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeAlias

from attrs import evolve

from evocell.api.blocking import derived
from evocell.api.engine import Engine
from evocell.api.portal import is_multiprocessing_child
from evocell.config import Config
from evocell.models.fitness import FitnessResult

__all__ = ["GetEngine", "default_engine", "evaluate"]

P = ParamSpec("P")

GetEngine: TypeAlias = Callable[[], Engine]
"""Returns the engine of the calling process, for code that must survive a fork."""


class _Default:
    """The default engine of this process; None until it is first used."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.engine: Engine | None = None

    def get(self) -> Engine:
        with self.lock:
            if self.engine is None or self.engine.closed:
                self.engine = Engine(_config())
            return self.engine

    def forget(self) -> None:
        """Reset in a forked child, where the lock may be held by a thread of the parent."""
        self.lock = threading.Lock()
        self.engine = None


def _config() -> Config:
    config = Config.load()
    if config.workers is None and is_multiprocessing_child():
        # Its parent already uses every core.
        return evolve(config, workers=1)
    return config


_default = _Default()
os.register_at_fork(after_in_child=_default.forget)


def default_engine() -> Engine:
    """Return this process's default engine, created at the first call with `Config.load`.

    In a child of `multiprocessing` (or of an executor built on it) it has one worker, unless the settings
    give a number: its parent already uses every core. It is closed at exit, and replaced by a new one if it
    was closed before. An engine inherited by ``os.fork`` is never used: the child creates its own.

    Raises:
        ImageError: The image cannot be found, built or trusted.
        EngineForked: With ``workers=0``: this process was forked from one in which an engine ran guests.
    """
    return _default.get()


def _with_default(
    method: Callable[Concatenate[Engine, P], list[FitnessResult]],
) -> Callable[P, list[FitnessResult]]:
    name = method.__name__

    def call(*args: P.args, **kwargs: P.kwargs) -> list[FitnessResult]:
        results: list[FitnessResult] = getattr(default_engine(), name)(*args, **kwargs)
        return results

    made = derived(call, method, without="self")
    made.__qualname__, made.__module__ = name, __name__
    made.__doc__ = (method.__doc__ or "").replace(".", " with the default engine.", 1)
    return made


evaluate = _with_default(Engine.evaluate)
