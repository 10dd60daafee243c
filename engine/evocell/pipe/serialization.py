"""Serialization by annotations: models become maps, and maps become models. No I/O.

Everything is derived from the annotations of the engine's methods and models, so that methods and fields
added there are supported without a change here. Input is checked against them; errors name the path of the
offending part.
"""

from __future__ import annotations

import collections.abc
import difflib
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, Union, get_args

from attrs import NOTHING, fields, frozen, has

from evocell.code.sources import normalise
from evocell.errors import ConfigurationError
from evocell.pipe.annotations import (
    ANYTHING,
    HANDLES,
    SCALARS,
    Hint,
    arguments_of,
    branches_of,
    hints_of,
    is_source,
    origin_of,
    sort_of,
    variants,
)

__all__ = ["Context", "decode", "encode"]

_AS_THEY_ARE = frozenset({bool, int, float, str, bytes})
_SHOWN_CHARS = 60


class Context(Protocol):
    """Interface for parts of a value that are not data: sandboxes and functions."""

    def handle(self, sandbox_id: str) -> Any:
        """Return the object for a sandbox that the other end names."""
        ...

    def function(self, role: str, name: str, owner: Mapping[str, Any]) -> Callable[..., Any]:
        """Return a function that calls the other end.

        Args:
            role: The field or argument it is for, such as ``"score"``.
            name: Its name at the other end.
            owner: The fields beside it, decoded.
        """
        ...

    def name_of(
        self, role: str, function: Callable[..., Any], owner: object, takes: Sequence[Hint] | None
    ) -> str:
        """Return a name by which the other end can call a function.

        Args:
            role: The field or argument it is for.
            function: The function.
            owner: The model that holds it; None for an argument.
            takes: The annotations of its parameters; None if unknown.
        """
        ...


def encode(value: Any, hint: Hint, context: Context | None = None, *, role: str = "") -> Any:
    """Return a model, or a value that contains models, as plain data.

    Args:
        value: The value.
        hint: Its annotation; values annotated as ``Any`` are unchanged.
        context: Names functions; without it a function becomes None.
        role: The field or argument it is for.
    """
    if hint in ANYTHING or isinstance(hint, TypeVar):
        return value
    return _encode(value, hint, context, role, None)


def _encode(value: Any, hint: Hint, context: Context | None, role: str, owner: object) -> Any:
    if isinstance(value, Enum):
        return value.value
    if value is None or isinstance(value, str | bytes | bool | int | float):
        return value
    if hint in ANYTHING:
        return value
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, HANDLES):
        return value.id
    if isinstance(value, Path):
        # The other end may be on another machine: code is sent as contents, not as a path.
        return dict(normalise(value).files) if is_source(hint) else str(value.absolute())
    if has(type(value)):
        return _encode_model(value, context)
    if callable(value):
        return (
            None if context is None else {"function": context.name_of(role, value, owner, arguments_of(hint))}
        )
    if isinstance(value, Mapping):
        item = _part(hint, Mapping)
        return {key: _encode(one, item, context, role, owner) for key, one in value.items()}
    if isinstance(value, Iterable):
        item = _part(hint, Iterable)
        return [_encode(one, item, context, role, owner) for one in value]
    sandbox_id = getattr(value, "id", None)  # a sandbox of a client
    return sandbox_id if isinstance(sandbox_id, str) else value


def _encode_model(value: Any, context: Context | None) -> dict[str, Any]:
    kind: Any = type(value)
    form = _form_of(kind)
    plain: dict[str, Any] = {}
    if form.is_variant:
        # Derived values that other languages would have to recompute.
        plain = {"type": form.name, "ok": value.ok, "kind": value.kind, "error": value.error}
    for name, field in form.fields.items():
        item = getattr(value, name)
        if item is None or type(item) in _AS_THEY_ARE or field.is_value:
            plain[name] = item
        else:
            plain[name] = _encode(item, field.hint, context, name, value)
    return plain


@frozen
class _FormField:
    """A field of a model on the wire.

    Attributes:
        hint: Its annotation.
        scalars: Types whose values it accepts unchanged.
        is_value: Whether it accepts any value.
        alias: Its name in the constructor.
        required: Whether it is required.
    """

    hint: Hint
    scalars: frozenset[type]
    is_value: bool
    alias: str
    required: bool


@frozen
class _Form:
    """The serialized form of a model."""

    name: str
    fields: Mapping[str, _FormField]
    is_variant: bool


@cache
def _form_of(model: Any) -> _Form:
    hints = hints_of(model)
    found = {
        field.name: _FormField(
            hints[field.name],
            _scalars_of(hints[field.name]),
            hints[field.name] in ANYTHING,
            field.alias,
            field.default is NOTHING,
        )
        for field in fields(model)
        if field.init
    }
    is_variant = any(has(base) and bool(variants(base)) for base in model.__mro__[1:])
    return _Form(model.__name__, found, is_variant)


def _scalars_of(hint: Hint) -> frozenset[type]:
    options = branches_of(hint) if origin_of(hint) in {Union, types.UnionType} else [hint]
    return frozenset(
        option
        for option in options
        if isinstance(option, type) and (option in SCALARS or option is type(None))
    )


def _part(hint: Hint, kind: type) -> Hint:
    """Return the element annotation of a container's annotation; ``Any`` if it has none."""
    options = branches_of(hint) if origin_of(hint) in {Union, types.UnionType} else [hint]
    for option in options:
        origin, args = origin_of(option), [arg for arg in get_args(option) if arg is not Ellipsis]
        if isinstance(origin, type) and issubclass(origin, kind) and args:
            return args[-1] if len(args) <= 1 or kind is Mapping else Union[tuple(args)]  # noqa: UP007
    return None  # unannotated: by its type


def decode(value: Any, hint: Hint, path: str, context: Context, *, role: str = "") -> Any:
    """Decode plain data of the other end according to an annotation.

    Args:
        value: The plain data.
        hint: The annotation.
        path: Its name in errors.
        context: Resolves sandboxes and functions.
        role: The argument it is for.

    Raises:
        ConfigurationError: It does not match; the message names the offending part.
    """
    return _Decoder(context).decode(value, hint, path, role, {})


class _Decoder:
    def __init__(self, context: Context) -> None:
        self._context = context

    def decode(self, value: Any, hint: Hint, path: str, role: str, owner: Mapping[str, Any]) -> Any:
        if type(value) is hint and hint in SCALARS:
            return value
        if hint in ANYTHING or isinstance(hint, TypeVar):
            return value
        if hint is None or hint is type(None):
            if value is None:
                return None
        elif hint in SCALARS:
            if type(value) is hint or (hint is float and type(value) is int):
                return float(value) if hint is float and abs(value) < 1 << 1023 else value
        elif hint in HANDLES:
            if isinstance(value, str):
                return self._context.handle(value)
        elif hint is datetime:
            if isinstance(value, str):
                return _time(value, path)
        elif hint is Path:
            if isinstance(value, str):
                return Path(value)
        else:
            return self._compound(value, hint, path, role, owner)
        raise _mismatch(path, hint, value)

    def _compound(self, value: Any, hint: Hint, path: str, role: str, owner: Mapping[str, Any]) -> Any:
        origin, args = origin_of(hint), get_args(hint)
        if origin is Literal:
            if value in args and isinstance(value, str | int):
                return value
        elif origin in {Union, types.UnionType}:
            return self._union(value, hint, path, role, owner)
        elif origin is collections.abc.Callable:
            if _names_function(value):
                return self._context.function(role, value["function"], owner)
        elif isinstance(hint, type) and issubclass(hint, Enum):
            if value in [member.value for member in hint]:
                return hint(value)
        elif isinstance(hint, type) and has(hint):
            if isinstance(value, dict):
                return self._model(value, hint, path)
        elif isinstance(origin or hint, type):
            return self._container(value, hint, path, role, owner)
        raise _mismatch(path, hint, value)

    def _container(self, value: Any, hint: Hint, path: str, role: str, owner: Mapping[str, Any]) -> Any:
        base, args = origin_of(hint) or hint, get_args(hint)
        if issubclass(base, collections.abc.Mapping):
            if isinstance(value, dict):
                key, item = args or (Any, Any)
                return {
                    self.decode(name, key, f"a key of {path}", role, owner): self.decode(
                        one, item, f"{path}[{_shown(name)}]", role, owner
                    )
                    for name, one in value.items()
                }
        elif issubclass(base, collections.abc.Iterable) and isinstance(value, list | tuple):
            items = [arg for arg in args if arg is not Ellipsis] or [Any]
            fixed = base is tuple and Ellipsis not in args and len(items) > 1
            if fixed and len(items) != len(value):
                raise ConfigurationError(f"{path} must hold {len(items)} values, not {len(value)}", path)
            made = [
                self.decode(one, items[index] if fixed else items[0], f"{path}[{index}]", role, owner)
                for index, one in enumerate(value)
            ]
            return tuple(made) if base is tuple else made
        raise _mismatch(path, hint, value)

    def _union(self, value: Any, hint: Hint, path: str, role: str, owner: Mapping[str, Any]) -> Any:
        branches = branches_of(hint)
        if value is None and type(None) in branches:
            return None
        if type(value) in branches and type(value) in SCALARS:
            return value
        fitting = [option for option in branches if _fits(value, option)]
        if not fitting:
            raise _mismatch(path, hint, value)
        for option in fitting[:-1]:
            try:
                return self.decode(value, option, path, role, owner)
            except ConfigurationError:
                continue
        return self.decode(value, fitting[-1], path, role, owner)

    def _model(self, value: dict[Any, Any], model: type, path: str) -> Any:
        family = variants(model)
        if family:
            chosen = value.get("type")
            if chosen not in family:
                raise ConfigurationError(f"{path}.type must be one of {', '.join(family)}", f"{path}.type")
            model = family[chosen]
            value = {key: item for key, item in value.items() if key not in {"type", "ok", "error"}}
        known = _form_of(model).fields
        if family and "kind" not in known:
            value.pop("kind", None)
        given: dict[str, Any] = {}
        later: list[str] = []
        for name, item in value.items():
            if name not in known:
                raise ConfigurationError(
                    f"{path} has no field {_shown(name)}{_nearest(name, known)}", f"{path}.{name}"
                )
            if type(item) in known[name].scalars:
                given[name] = item
            elif _names_function(item):
                later.append(name)  # a function may need its neighbouring fields
            else:
                given[name] = self.decode(item, known[name].hint, f"{path}.{name}", name, {})
        for name in later:
            given[name] = self.decode(value[name], known[name].hint, f"{path}.{name}", name, given)
        for name, field in known.items():
            if field.required and name not in given:
                raise ConfigurationError(f"{path} lacks the field {name!r}", f"{path}.{name}")
        try:
            return model(**{known[name].alias: item for name, item in given.items()})
        except ConfigurationError as error:
            raise ConfigurationError(f"{path}: {error.message}", f"{path}.{error.key}".rstrip(".")) from error
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"{path} cannot be a {model.__name__}: {error}", path) from error


def _names_function(value: object) -> bool:
    return isinstance(value, dict) and value.keys() == {"function"} and isinstance(value["function"], str)


def _fits(value: Any, hint: Hint) -> bool:
    """Return whether the type of a value matches a member of a union."""
    if hint in ANYTHING:
        return True
    origin = origin_of(hint)
    base = origin or hint
    if origin is Literal:
        return value in get_args(hint)
    if hint is None or hint is type(None):
        return value is None
    if hint in SCALARS:
        return type(value) is hint or (hint is float and type(value) is int)
    if hint in {*HANDLES, datetime, Path} or (isinstance(hint, type) and issubclass(hint, Enum)):
        return isinstance(value, str)
    if origin is collections.abc.Callable:
        return _names_function(value)
    if isinstance(hint, type) and has(hint):
        return isinstance(value, dict) and not _names_function(value)
    if issubclass(base, collections.abc.Mapping):
        return isinstance(value, dict) and not _names_function(value)
    return isinstance(value, list | tuple)


def _mismatch(path: str, hint: Hint, value: Any) -> ConfigurationError:
    return ConfigurationError(f"{path} must be {sort_of(hint)}, not {_shown(value)}", path)


def _shown(value: Any) -> str:
    if isinstance(value, str | int | float | bool | type(None)):
        text = repr(value) if not isinstance(value, int) or abs(value) < 1 << 64 else "a big int"
        return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "…"
    name = type(value).__name__
    return {"dict": "a map", "list": "a list"}.get(name, name)


def _nearest(name: object, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(str(name)[:_SHOWN_CHARS], known, n=1)
    return f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(known)}"


def _time(text: str, path: str) -> datetime:
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        raise ConfigurationError(f"{path} must be a time in ISO 8601, not {_shown(text)}", path) from None
