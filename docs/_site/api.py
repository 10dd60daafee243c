"""What the reference shows of the API and static analysis does not see.

An extension of griffe, which reads the sources for mkdocstrings. Blocking methods are made from async ones
at run time (``run = blocking(AsyncEngine.run)``), and attrs makes the signatures of data classes; both are
taken from the objects themselves. Names in backticks that are documented become links.
"""

from __future__ import annotations

import ast
import copy
import inspect
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from typing import Any

import griffe

PUBLIC = "evocell"
_OPTIONS: Any = {"returns_multiple_items": False, "returns_named_value": False}
_DOCTEST = re.compile(r"(?:^>>> .*\n(?:^\S.*\n?)*)+", re.MULTILINE)
_SKIP = re.compile(r"  # doctest: \+SKIP$", re.MULTILINE)
_NAME = re.compile(r"(?<![`\[])`([A-Za-z_]\w*(?:\.\w+)?)`(?![`\]])")


class RuntimeSignatures(griffe.Extension):
    """Puts signatures that are made at run time into the tree that was read from the sources."""

    def on_package(self, *, pkg: griffe.Module, loader: griffe.GriffeLoader, **_: Any) -> None:
        """Complete the tree of a package once all of it has been read."""
        if pkg.name != PUBLIC:
            return
        public = _public_names()
        for module in _modules(pkg):
            _complete_functions(module, loader)
            for cls in [one for one in module.members.values() if isinstance(one, griffe.Class)]:
                _complete(cls, loader)
                _link(cls, public)
            for function in [one for one in module.members.values() if isinstance(one, griffe.Function)]:
                _link(function, public)
            _link(module, public)


def _modules(module: griffe.Module) -> Iterator[griffe.Module]:
    yield module
    for member in list(module.members.values()):
        if isinstance(member, griffe.Module):
            yield from _modules(member)


def _public_names() -> dict[str, str]:
    """Return what a name in a docstring leads to: public names, and their methods and properties."""
    package = import_module(PUBLIC)
    found = {name: f"{PUBLIC}.{name}" for name in package.__all__}
    for name in package.__all__:
        value = getattr(package, name)
        if not inspect.isclass(value):
            continue
        shown = name.removeprefix("Async") if name == "AsyncEngine" else name  # the page of one has both
        for one in dir(value):
            member = inspect.getattr_static(value, one)
            if not one.startswith("_") and (inspect.isroutine(member) or isinstance(member, property)):
                found[f"{name}.{one}"] = f"{PUBLIC}.{shown}.{one}"
    return found


def _complete(cls: griffe.Class, loader: griffe.GriffeLoader) -> None:
    """Give a class the methods and the signature that it has at run time."""
    of_attrs = bool({"frozen", "define"} & {_decorator(one) for one in cls.decorators})
    if not of_attrs and not any("Async" in str(getattr(one, "value", "")) for one in cls.members.values()):
        return
    real = getattr(import_module(cls.module.path), cls.name)
    for name, member in list(cls.members.items()):
        made = vars(real).get(name)
        if isinstance(member, griffe.Attribute) and hasattr(made, "__wrapped__") and not name.startswith("_"):
            cls.set_member(name, _function(name, made, cls, loader))
    if of_attrs and "__init__" not in cls.members:
        cls.set_member("__init__", _constructor(cls, real))


def _complete_functions(module: griffe.Module, loader: griffe.GriffeLoader) -> None:
    """Make functions of what is made from the methods of an engine, such as `evocell.evaluate`."""
    for name, member in list(module.members.items()):
        if isinstance(member, griffe.Attribute) and "Engine." in str(member.value or ""):
            made = getattr(import_module(module.path), name)
            if hasattr(made, "__wrapped__"):
                module.set_member(name, _function(name, made, module, loader))


def _decorator(decorator: griffe.Decorator) -> str:
    return re.split(r"[(\s]", str(decorator.value))[0].rpartition(".")[2]


def _function(
    name: str, made: Any, parent: griffe.Class | griffe.Module, loader: griffe.GriffeLoader
) -> griffe.Function:
    """Return the blocking function that was made from an async method."""
    origin = inspect.unwrap(made)
    path = f"{origin.__module__}.{origin.__qualname__}"
    function: griffe.Function = copy.copy(loader.modules_collection[path])
    wanted = inspect.signature(made).parameters
    function.name = name
    function.parent = parent
    function.labels = set(function.labels) - {"async"}
    function.parameters = griffe.Parameters(*[one for one in function.parameters if one.name in wanted])
    hint = made.__annotations__.get("return")
    if isinstance(hint, str) and hint != str(function.returns):
        function.returns = griffe.safe_get_annotation(ast.parse(hint, mode="eval").body, parent=parent)
    function.docstring = griffe.Docstring(
        inspect.cleandoc(made.__doc__), parent=function, parser="google", parser_options=_OPTIONS
    )
    return function


def _constructor(cls: griffe.Class, real: type) -> griffe.Function:
    """Return the constructor that attrs made of a class' fields."""
    parameters = griffe.Parameters(griffe.Parameter("self"))
    for one in inspect.signature(real).parameters.values():
        field = cls.all_members.get(one.name) if one.name not in cls.members else cls.members[one.name]
        parameters.add(
            griffe.Parameter(
                one.name,
                annotation=_annotation(one.annotation, cls) or getattr(field, "annotation", None),
                kind=griffe.ParameterKind(one.kind.description),
                default=None if one.default is inspect.Parameter.empty else _default(one.default),
            )
        )
    return griffe.Function("__init__", parameters=parameters, parent=cls)


def _annotation(hint: object, cls: griffe.Class) -> Any:
    """Return the type of what a constructor takes, where a converter says it."""
    if not isinstance(hint, str):
        return None
    return griffe.safe_get_annotation(ast.parse(hint, mode="eval").body, parent=cls)


def _default(value: object) -> str:
    text = repr(value)
    return "..." if "<" in text or text == "NOTHING" else text


def _link(item: Any, public: Mapping[str, str]) -> None:
    """Make links of the public names in the text of an object and of its members."""
    if item.docstring is not None:
        text = _DOCTEST.sub(_fenced, item.docstring.value)
        item.docstring.value = _NAME.sub(lambda found: _linked(found[1], public), text)
    if isinstance(item, griffe.Class):
        for member in item.members.values():
            if not member.is_alias:
                _link(member, public)


def _fenced(found: re.Match[str]) -> str:
    """Make a block of code of an example in a docstring."""
    return f"```pycon\n{_SKIP.sub('', found[0]).rstrip()}\n```\n"


def _linked(name: str, public: Mapping[str, str]) -> str:
    return f"[`{name}`][{public[name]}]" if name in public else f"`{name}`"
