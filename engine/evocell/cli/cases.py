"""Reading the cases of an evaluation from a JSON file that a person wrote."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from evocell.errors import ConfigurationError

if TYPE_CHECKING:
    # Annotations only: the command line answers --help without the engine.
    from evocell.models.evaluation import Case

__all__ = ["read_cases"]

KEYS = ("args", "kwargs", "expected", "name", "seed")


def read_cases(path: Path) -> list[Case]:
    """Read cases.

    The file holds a list. Each of its items is one call: a list of positional arguments, or a map with some
    of the keys ``args``, ``kwargs``, ``expected``, ``name`` and ``seed``.

    Args:
        path: The file.

    Raises:
        ConfigurationError: It cannot be read, or an item is of another shape; the message names which.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror or error}", "cases") from error
    except (ValueError, RecursionError) as error:
        raise ConfigurationError(f"{path} is not JSON: {error}", "cases") from error
    if not isinstance(document, list) or not document:
        raise ConfigurationError(
            f'{path} must hold a list of cases, such as [{{"args": [3], "expected": 9}}]', "cases"
        )
    return [_case(item, f"{path}[{index}]") for index, item in enumerate(document)]


def _case(item: object, where: str) -> Case:
    from evocell.models.evaluation import Case

    if isinstance(item, list):
        return Case(tuple(item))
    if not isinstance(item, Mapping):
        raise ConfigurationError(
            f"{where} must be a list of arguments, or a map with the keys {', '.join(KEYS)}, not {item!r}",
            where,
        )
    for key in item:
        if key not in KEYS:
            raise ConfigurationError(f"{where} has the key {key!r}; there are {', '.join(KEYS)}", where)
    try:
        return Case(
            item.get("args", []),
            item.get("kwargs", {}),
            **({"expected": item["expected"]} if "expected" in item else {}),
            name=item.get("name", ""),
            seed=item.get("seed"),
        )
    except ConfigurationError as error:
        raise ConfigurationError(f"{where}: {error.message}", where) from error
