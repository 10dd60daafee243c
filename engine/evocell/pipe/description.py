"""Machine-readable description of the protocol, derived from the code; docs/pipe.md is generated from it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from inspect import getdoc
from typing import Any, get_args

from attrs import NOTHING, Factory, asdict, fields, has

from evocell.models.fitness import FitnessResult
from evocell.models.outcome import Outcome
from evocell.models.specs import SandboxSpec
from evocell.pipe.annotations import hints_of, sort_of, variants
from evocell.pipe.errors import error_codes, error_fields
from evocell.pipe.handshake import SERVER_METHODS, Hello, Subscription, shown_limits
from evocell.pipe.limits import GREETING_LIMITS, PROTOCOL, PipeLimits
from evocell.pipe.methods import MISSING, attributes_of, engine_methods
from evocell.wire.frames import MAX_METHOD_CHARS

__all__ = ["EXTENSIONS", "NOTIFICATIONS", "describe"]

EXTENSIONS = {
    1: "integer beyond 64 bits: two's complement, big-endian, at most 64 KiB",
    2: "tuple: a MessagePack array",
    3: "set: a MessagePack array, elements sorted by their bytes",
    4: "frozen set: as 3",
    5: "array: the MessagePack array [dtype, [shape], C-order little-endian data]",
    6: "list of float64: little-endian, 8 bytes each",
    7: "list of int64: little-endian, 8 bytes each",
    8: "complex number: two float64, little-endian",
    9: "map, where the client asked for `maps` as `plain`: a MessagePack array of [key, value] arrays",
}

NOTIFICATIONS = {
    "cancel": ("client or server", "msgid", "The request with this id is not wanted any more."),
    "call": ("server", "function, args", "Tells a `progress` function of the client; asks for no answer."),
    "part": ("server", "msgid, part", "One result of a request that streams, before its answer."),
    "event": ("server", "seq, at, name, measurements, metadata, dropped", "An event, after `subscribe`."),
    "image.progress": (
        "server",
        "step, steps_done, steps_total, fraction, elapsed_s, eta_s",
        (
            "How far the build of the image is: what it does now (str), steps done and in all (int), the "
            "part that is done (float, 0 to 1), and seconds since the start and to go (to go may be nil)."
        ),
    ),
    "image.ready": ("server", "ready, image_id, slots", "Sandboxes can be created without waiting."),
    "image.failed": (
        "server",
        "code, message, data",
        "There will be no image; requests fail with this error.",
    ),
    "closing": ("client or server", "code, message, data", "Why the sender closes the connection now."),
}
"""Notifications by method: sender, parameters and meaning."""

_TERMINAL = re.compile(r" None shows a bar on a terminal.*?nothing\.")
"""The remark on progress functions that applies only to an engine in the caller's own process."""


@cache
def describe() -> Mapping[str, Any]:
    """Return the description as plain data."""
    common = attributes_of(SandboxSpec)
    for method in engine_methods().values():
        common = dict(method.meanings) | common
    return {
        "protocol": PROTOCOL,
        "limits": dict(shown_limits(PipeLimits())),
        "greeting_limits": asdict(GREETING_LIMITS) | {"max_method_chars": MAX_METHOD_CHARS},
        "server_methods": dict(SERVER_METHODS),
        "methods": {
            name: {
                "summary": method.summary,
                "arguments": {
                    argument.name: _with_default(
                        sort_of(argument.hint),
                        argument.default,
                        method.meanings.get(argument.name, common.get(argument.name, "")),
                    )
                    for argument in method.arguments.values()
                },
                "result": sort_of(method.result),
                "errors": {code: why for code, why in method.errors.items() if code in error_codes()},
                "streams": method.streams,
                "owner_only": method.owner_only,
            }
            for name, method in engine_methods().items()
        },
        "models": {model.__name__: _model(model) for model in _models()},
        "notifications": {
            name: {"sender": sender, "params": params, "meaning": meaning}
            for name, (sender, params, meaning) in NOTIFICATIONS.items()
        },
        "errors": {
            code: {"data": list(error_fields(kind)), "meaning": _first_line(kind)}
            for code, kind in error_codes().items()
        },
        "extensions": {str(code): meaning for code, meaning in EXTENSIONS.items()},
    }


def _with_default(sort: str, default: Any, meaning: str) -> dict[str, Any]:
    described: dict[str, Any] = {
        "type": sort,
        "required": default is MISSING or default is NOTHING,
        "meaning": _TERMINAL.sub("", meaning),
    }
    if not described["required"]:
        described["default"] = _plain_default(default)
    return described


def _plain_default(default: Any) -> Any:
    if isinstance(default, Factory):  # type: ignore[arg-type]
        made = None if default.takes_self else default.factory()
        return made if isinstance(made, list | dict) and not made else None
    if isinstance(default, tuple | list):
        return list(default)
    if isinstance(default, str | int | float | bool | type(None)):
        return getattr(default, "value", default)
    return None


def _model(model: type) -> dict[str, Any]:
    family = variants(model)
    if family:
        return {"one_of": list(family), "meaning": _first_line(model)}
    hints = hints_of(model)
    meanings = {name: text for base in reversed(model.__mro__) for name, text in attributes_of(base).items()}
    described = {
        field.name: _with_default(sort_of(hints[field.name]), field.default, meanings.get(field.name, ""))
        for field in fields(model)
        if field.init
    }
    head = next((base for base in model.__mro__[1:] if has(base) and variants(base)), None)
    if head is not None:
        # Derived values, sent in addition to the fields.
        described = {
            "type": _with_default(f'"{model.__name__}"', NOTHING, "Which outcome it is."),
            "ok": _with_default("bool", None, "True only if the call returned a value."),
            "kind": _with_default("str", None, "One word for what happened."),
            "error": _with_default("str | nil", None, "A sentence about what went wrong; nil for nothing."),
        } | described
    return {"meaning": _first_line(model), "fields": described}


def _models() -> list[type]:
    """Collect every model that a method takes or returns, and nested ones, by name."""
    found: dict[str, type] = {}
    starts = [
        hint
        for method in engine_methods().values()
        for hint in (*(argument.hint for argument in method.arguments.values()), method.result)
    ]
    # The last two are arguments of the client's functions.
    waiting = [*_parts([*starts, Hello, Subscription, FitnessResult, Outcome])]
    while waiting:
        model = waiting.pop()
        if model.__name__ in found:
            continue
        found[model.__name__] = model
        waiting.extend(variants(model).values())
        waiting.extend(_parts(hints_of(model)[field.name] for field in fields(model) if field.init))
    return [found[name] for name in sorted(found)]


def _parts(hints: Iterable[Any]) -> Iterator[type]:
    for hint in hints:
        if isinstance(hint, type) and has(hint):
            yield hint
        yield from _parts(arg for arg in get_args(hint) if not isinstance(arg, str | list))


def _first_line(thing: Any) -> str:
    return (getdoc(thing) or "").partition("\n")[0]
