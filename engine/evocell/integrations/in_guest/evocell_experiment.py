"""Calls a function of the candidate with the stand-ins for threads, processes and alarms installed."""

from __future__ import annotations

import importlib
from typing import Any

import evocell_stand_ins

evocell_stand_ins.install()


def call(function: str, kwargs: dict[str, Any]) -> Any:
    """Call a function of the candidate with arguments by name."""
    program = importlib.import_module("program")
    if not hasattr(program, function):
        message = f"the program defines no function {function}"
        raise AttributeError(message)
    return getattr(program, function)(**kwargs)
