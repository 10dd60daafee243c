"""Mapping of annotations to the wire: names in the description, and parts. No I/O."""

from __future__ import annotations

import collections.abc
import types
import typing
from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args

from attrs import has

from evocell.api.sandbox import AsyncSandbox, Sandbox

__all__ = [
    "ANYTHING",
    "HANDLES",
    "SCALARS",
    "Hint",
    "Unsupported",
    "arguments_of",
    "branches_of",
    "hints_of",
    "is_source",
    "names_files",
    "origin_of",
    "sort_of",
    "variants",
]

Hint = Any

HANDLES = (Sandbox, AsyncSandbox)
"""Classes sent as the id of a sandbox."""
SCALARS: dict[Hint, str] = {bool: "bool", int: "int", float: "float", str: "str", bytes: "bytes"}
"""Classes sent unchanged, and their names."""
ANYTHING = (Any, object)
"""Annotations of opaque values."""


class Unsupported(TypeError):
    """An annotation that has no serialized form."""


@cache
def origin_of(hint: Hint) -> Any:
    """Return the origin of an annotation, like `typing.get_origin`."""
    return typing.get_origin(hint)


@cache
def hints_of(thing: Any) -> dict[str, Hint]:
    """Return the annotations of a function or a class, resolved.

    Raises:
        Unsupported: One of them cannot be resolved.
    """
    ref = Union[str, Sandbox, AsyncSandbox]  # noqa: UP007 - names that the aliases have only for type checkers
    parents = Sequence[Union[ref, Sequence[ref], None]]  # noqa: UP007
    names = {
        "Sandbox": Sandbox,
        "AsyncSandbox": AsyncSandbox,
        "SandboxRef": ref,
        "Parents": parents,
        "SandboxName": ref,
    }
    try:
        return typing.get_type_hints(thing, localns=names)
    except (NameError, TypeError) as error:
        raise Unsupported(f"{getattr(thing, '__qualname__', thing)}: {error}") from error


@cache
def variants(model: type) -> dict[str, type]:
    """Return the subclasses of a model by name, if it is the base of a family; else nothing."""
    found: dict[str, type] = {}
    children: list[type] = model.__subclasses__()
    for child in children:
        # attrs with slots leaves the original class behind; only the one bound to the name counts.
        if has(child) and "__attrs_attrs__" in vars(child):
            found[child.__name__] = child
            found |= variants(child)
    return found


def sort_of(hint: Hint) -> str:
    """Return the name of an annotation in the description of the protocol.

    Raises:
        Unsupported: It has no form on the wire.
    """
    if hint in ANYTHING or isinstance(hint, TypeVar):
        return "value"
    if hint is None or hint is type(None):
        return "nil"
    if hint in SCALARS:
        return SCALARS[hint]
    if hint in HANDLES:
        return "sandbox id"
    if hint is datetime:
        return "time"
    if hint is Path:
        return "server path"
    origin, args = origin_of(hint), get_args(hint)
    if origin is Literal:
        return " | ".join(repr(word).replace("'", '"') for word in args)
    if origin in {Union, types.UnionType}:
        branches = branches_of(hint)
        named = {*HANDLES, Path} & set(branches)
        sorts = [sort_of(arg) for arg in branches if arg is not str or not named]
        return " | ".join(dict.fromkeys(sorts))
    if origin is collections.abc.Callable:
        takes = arguments_of(hint)
        return "function" if takes is None else f"function of ({', '.join(map(sort_of, takes))})"
    if isinstance(hint, type) and issubclass(hint, Enum):
        return " | ".join(f'"{member.value}"' for member in hint)
    if isinstance(hint, type) and has(hint):
        return hint.__name__
    base = origin or hint
    if isinstance(base, type) and base is not str:
        if issubclass(base, collections.abc.Mapping):
            key, item = args or (Any, Any)
            return f"map of {sort_of(key)} to {_grouped(sort_of(item))}"
        if issubclass(base, collections.abc.Iterable) and not issubclass(base, str | bytes):
            items = [arg for arg in args if arg is not Ellipsis]
            if len(items) <= 1 or base is not tuple:
                return f"list of {_grouped(sort_of(items[0] if items else Any))}"
            return "[" + ", ".join(map(sort_of, items)) + "]"
    raise Unsupported(f"{hint!r} has no meaning on the wire")


def _grouped(sort: str) -> str:
    return f"({sort})" if " | " in sort else sort


@cache
def branches_of(hint: Hint) -> list[Hint]:
    """Return the members of a union that can be sent; a source is sent as contents, not as a path."""
    args = list(get_args(hint))
    return [arg for arg in args if arg is not Path] if is_source(hint) else args


def is_source(hint: Hint) -> bool:
    """Return whether a union is that of `Source`, whose paths refer to code."""
    args = get_args(hint)
    return Path in args and any(origin_of(arg) is collections.abc.Mapping for arg in args)


def names_files(hint: Hint) -> bool:
    """Return whether an annotation accepts paths of the server's files."""
    return hint is Path or any(names_files(part) for part in branches_of(hint) if not isinstance(part, list))


def arguments_of(hint: Hint) -> Sequence[Hint] | None:
    """Return the parameter annotations of a function's annotation."""
    for option in [hint, *get_args(hint)]:
        if origin_of(option) is collections.abc.Callable and isinstance(get_args(option)[0], list):
            return list(get_args(option)[0])
    return None
