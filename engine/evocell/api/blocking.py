"""Derivation of blocking methods from async ones, one line each.

``run = blocking(AsyncEngine.run)`` gives a class a method that runs the async one in a trio loop and waits
for it. For a type checker, for `help` and for `inspect.signature` it has the arguments, types and docstring
of the async one, and the return value of its coroutine. `blocking_as` is for methods whose result belongs to
the async side, such as an `AsyncSandbox`, and must be converted.

The async method is looked up by name at each call, so that any object with methods of these names can be
behind the loop, such as a client of another process's engine.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Coroutine
from functools import partial, update_wrapper
from types import FunctionType
from typing import Any, Concatenate, ParamSpec, TypeVar

from evocell.api.portal import Portal
from evocell.models.references import Completable

__all__ = ["Blocking", "Derived", "blocking", "blocking_as", "derived"]

P = ParamSpec("P")
R = TypeVar("R")
C = TypeVar("C")
F = TypeVar("F", bound=Callable[..., Any])


class Derived(Completable):
    """A base class whose derived methods get the qualified names of the class itself."""

    __slots__ = ()

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for name, value in vars(cls).items():
            if isinstance(value, FunctionType) and hasattr(value, "__wrapped__"):
                value.__name__ = name
                value.__qualname__ = f"{cls.__qualname__}.{name}"
                value.__module__ = cls.__module__


class Blocking(Derived):
    """A base class with blocking methods that wait for the methods of an async object."""

    __slots__ = ()

    _async_side: tuple[Portal, object]
    """The loop, and the async object in it."""


def blocking(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]],
) -> Callable[Concatenate[Blocking, P], R]:
    """Make a method that waits for an async one.

    Args:
        method: The async method, of the class whose object `Blocking._async_side` holds.
    """
    return blocking_as(method, _unchanged, None)


def blocking_as(
    method: Callable[Concatenate[Any, P], Coroutine[Any, Any, R]],
    convert: Callable[[Portal, R], C],
    returns: str | None,
) -> Callable[Concatenate[Blocking, P], C]:
    """Make a method that waits for an async one and converts its result.

    Args:
        method: The async one.
        convert: Converts the async result, given the loop.
        returns: The return annotation of ``convert``; None for that of the async method.
    """
    name = method.__name__

    def call(self: Blocking, /, *args: P.args, **kwargs: P.kwargs) -> C:
        portal, behind = self._async_side
        try:
            result = portal.call(partial(getattr(behind, name), *args, **kwargs))
        except TypeError:
            _check_arguments(call, (self, *args), kwargs)
            raise
        return convert(portal, result)

    return derived(call, method, returns=returns)


def _unchanged(_portal: Portal, result: R) -> R:
    return result


def _check_arguments(call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Raise the error of mismatched arguments, with the name of the called method."""
    try:
        inspect.signature(call).bind(*args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{call.__qualname__}() {error}") from None


def derived(
    call: F, method: Callable[..., Any], *, without: str | None = None, returns: str | None = None
) -> F:
    """Copy the name, signature and docstring of a method to the function derived from it.

    Args:
        call: The function.
        method: The method.
        without: A parameter that the function does not have.
        returns: The return annotation, if it differs.

    Returns:
        The function.
    """
    update_wrapper(call, method)
    if without is None and returns is None:
        return call
    signature = inspect.signature(method)
    parameters = [one for name, one in signature.parameters.items() if name != without]
    result = signature.return_annotation if returns is None else returns
    changed: Any = call
    changed.__signature__ = signature.replace(parameters=parameters, return_annotation=result)
    annotations = {name: hint for name, hint in method.__annotations__.items() if name != without}
    changed.__annotations__ = {**annotations, "return": result}
    if without is not None:
        changed.__doc__ = _text_without(without, method.__doc__ or "")
    return call


def _text_without(argument: str, text: str) -> str:
    """Remove a parameter's entry from a docstring, and the heading if it was the only one."""
    entry = re.compile(rf"^( +){argument}: .*\n(?:\1 +\S.*\n)*", re.MULTILINE)
    return re.sub(r"^ *Args:\n\s*\n", "", entry.sub("", text), flags=re.MULTILINE)
