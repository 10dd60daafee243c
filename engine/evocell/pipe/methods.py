"""The engine's methods offered by the pipe, with the text of their docstrings.

A method added to `AsyncEngine` is offered automatically, with the same names, if its annotations have a form
on the wire. The argument ``sandbox`` may be called ``id``, and ``sandboxes`` ``ids``.
"""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from functools import cache
from types import MappingProxyType
from typing import Any, get_args

from attrs import field, frozen

from evocell.api.async_engine import AsyncEngine
from evocell.errors import ConfigurationError
from evocell.pipe.annotations import Unsupported, hints_of, names_files, origin_of, sort_of
from evocell.pipe.errors import MethodNotFound
from evocell.pipe.serialization import Context, decode
from evocell.store.fitness import FitnessRecorder
from evocell.store.lineage import LineageTracker

__all__ = [
    "NOT_OFFERED",
    "Argument",
    "Method",
    "arguments_of",
    "attributes_of",
    "engine_methods",
    "errors_of",
    "find_method",
    "strange_methods",
]

NOT_OFFERED = {
    "evaluator": "it makes a function of the caller's own program, around evaluate and evaluate_one",
    "aclose": "closing the connection does it",
    "migrate_sandbox": "its target is another engine; export_sandbox and import_sandbox do the same",
    "open_stream": "it returns a function; evaluate_one and as_completed do the same",
}
"""Methods of the engine that the pipe does not offer, and why."""

_PARTS: Mapping[str, tuple[type, tuple[str, ...]]] = MappingProxyType(
    {
        "fitness": (FitnessRecorder, ("adjust", "best", "get", "history")),
        "lineage": (
            LineageTracker,
            (
                "ancestors",
                "annotate",
                "common_ancestor",
                "depth",
                "descendants",
                "family",
                "get",
                "line",
                "source",
                "what_changed",
            ),
        ),
    }
)
"""Attributes of the engine whose methods are offered with a dotted name, such as ``fitness.best``."""

_ABOUT_ALL = frozenset({"drain_worker", "freeze", "workers"})
"""Methods about resources shared by all clients of a server."""

_ALIASES = {"id": "sandbox", "ids": "sandboxes"}
MISSING = inspect.Parameter.empty


@frozen
class Argument:
    """One argument of a method.

    Attributes:
        name: Its name on both sides.
        hint: Its annotation.
        default: Its default; `MISSING` if it is required.
    """

    name: str
    hint: Any
    default: Any = MISSING


@frozen
class Method:
    """A method offered by the pipe.

    Attributes:
        name: Its name on both sides.
        arguments: Its arguments by name.
        result: The annotation of its result; of one item if it streams.
        summary: The first line of its docstring.
        meanings: Documented arguments.
        errors: Documented errors.
        streams: Whether it yields its results one by one.
        blocks: Whether it is a plain function that waits for the store.
    """

    name: str
    arguments: Mapping[str, Argument]
    result: Any
    summary: str
    meanings: Mapping[str, str] = field(factory=dict, repr=False)
    errors: Mapping[str, str] = field(factory=dict, repr=False)
    streams: bool = False
    blocks: bool = False

    @property
    def owner_only(self) -> bool:
        """Whether only a server with one client offers it, since it concerns shared resources or files."""
        return self.name in _ABOUT_ALL or any(
            names_files(argument.hint) for argument in self.arguments.values()
        )

    def read(self, params: Mapping[str, Any], context: Context) -> dict[str, Any]:
        """Decode the arguments from a request's parameters.

        Raises:
            ConfigurationError: One is missing, unknown or of the wrong type.
        """
        given: dict[str, Any] = {}
        for name, value in params.items():
            known = name if name in self.arguments else _ALIASES.get(name, name)
            argument = self.arguments.get(known)
            if argument is None:
                raise ConfigurationError(f"{self.name} has no argument {name!r}{self._nearest(name)}", name)
            if known in given:
                raise ConfigurationError(f"{self.name} got {known!r} and {name!r}, which are the same", name)
            given[known] = decode(value, argument.hint, name, context, role=known)
        for name, argument in self.arguments.items():
            if argument.default is MISSING and name not in given:
                raise ConfigurationError(f"{self.name} needs the argument {name!r}", name)
        return given

    def _nearest(self, name: str) -> str:
        near = difflib.get_close_matches(name, self.arguments, n=1)
        if near:
            return f"; did you mean {near[0]!r}?"
        return f"; it takes {', '.join(self.arguments) or 'none'}"


@cache
def engine_methods() -> Mapping[str, Method]:
    """Return every method of the engine that the pipe offers, by name, in alphabetical order."""
    return {name: method for name, method in _looked_up().items() if isinstance(method, Method)}


def strange_methods() -> Mapping[str, str]:
    """Return the faults of methods that are neither offered nor in `NOT_OFFERED`; empty if all is well."""
    return {name: str(why) for name, why in _looked_up().items() if isinstance(why, Unsupported)}


@cache
def _looked_up() -> Mapping[str, Method | Unsupported]:
    found: dict[str, Method | Unsupported] = {}
    for name in sorted(dir(AsyncEngine)):
        if not name.startswith("_") and name not in NOT_OFFERED:
            try:
                method = _method(name, inspect.getattr_static(AsyncEngine, name))
            except Unsupported as why:
                found[name] = why
            else:
                if method is not None:
                    found[name] = method
    for part, (kind, names) in _PARTS.items():
        for name in names:
            whole = f"{part}.{name}"
            try:
                found[whole] = _described(whole, getattr(kind, name), blocks=True)
            except Unsupported as why:
                found[whole] = why
    return found


def find_method(name: str) -> Method:
    """Return a method of the engine by its name.

    Raises:
        MethodNotFound: The pipe offers none of that name.
    """
    found = engine_methods().get(name)
    if found is not None:
        return found
    if name in NOT_OFFERED:
        raise MethodNotFound(f"the pipe does not offer {name!r}: {NOT_OFFERED[name]}", name)
    near = difflib.get_close_matches(name, engine_methods(), n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "; evocell serve --describe lists what there is"
    raise MethodNotFound(f"there is no method {name!r}{hint}", name)


def _method(name: str, function: Any) -> Method | None:
    plain: Callable[..., Any] = inspect.unwrap(function) if callable(function) else function
    streams = inspect.isasyncgenfunction(plain)
    if not streams and not inspect.iscoroutinefunction(plain):
        return None
    return _described(name, plain, streams=streams)


def _described(
    name: str, plain: Callable[..., Any], *, streams: bool = False, blocks: bool = False
) -> Method:
    hints = hints_of(plain)
    arguments: dict[str, Argument] = {}
    for parameter in list(inspect.signature(plain).parameters.values())[1:]:
        if parameter.kind in {parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD}:
            raise Unsupported(f"{name} takes any number of arguments")
        hint = hints.get(parameter.name, Any)
        sort_of(hint)
        arguments[parameter.name] = Argument(parameter.name, hint, parameter.default)
    result = hints.get("return", Any)
    if origin_of(result) in {AsyncGenerator, AbstractAsyncContextManager}:
        result = get_args(result)[0]
    sort_of(result)
    summary = (inspect.getdoc(plain) or "").partition("\n")[0]
    return Method(name, arguments, result, summary, arguments_of(plain), errors_of(plain), streams, blocks)


_ENTRY = re.compile(r"    (\w+): (.*)")


def arguments_of(function: Any) -> dict[str, str]:
    """Return the entries of a function's docstring under ``Args``, by name."""
    return _entries(function, "Args:")


def errors_of(function: Any) -> dict[str, str]:
    """Return the entries of a function's docstring under ``Raises``, by name."""
    return _entries(function, "Raises:")


def attributes_of(model: Any) -> dict[str, str]:
    """Return the entries of a class's docstring under ``Attributes``, by name."""
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
