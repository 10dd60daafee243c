"""What docstrings say of arguments and attributes, one by one."""

from __future__ import annotations

import inspect
import re
from typing import Any

__all__ = ["arguments_of", "attributes_of", "errors_of"]

_ENTRY = re.compile(r"    (\w+): (.*)")


def arguments_of(function: Any) -> dict[str, str]:
    """Return what a function's docstring says under ``Args``, by name."""
    return _entries(function, "Args:")


def errors_of(function: Any) -> dict[str, str]:
    """Return what a function's docstring says under ``Raises``, by name."""
    return _entries(function, "Raises:")


def attributes_of(model: Any) -> dict[str, str]:
    """Return what a class's docstring says under ``Attributes``, by name."""
    return _entries(model, "Attributes:") if "__doc__" in vars(model) else {}


def _entries(thing: Any, section: str) -> dict[str, str]:
    lines = (inspect.getdoc(thing) or "").splitlines()
    if section not in lines:
        return {}
    found: dict[str, str] = {}
    name = ""
    for line in lines[lines.index(section) + 1 :]:
        if not line.startswith("    "):
            break
        if entry := _ENTRY.fullmatch(line):
            name = entry[1]
            found[name] = entry[2]
        elif name:
            found[name] += " " + line.strip()
    return {name: text.replace("``", "`") for name, text in found.items()}
