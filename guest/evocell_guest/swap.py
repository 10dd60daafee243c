"""Hot code swap: a module's code runs again in its namespace, and the program's state is kept.

- A class keeps its identity: its attributes become those of the new version, so that instances and
  subclasses there are have the new methods.
- A function keeps its identity as well: existing references run the new code.
- A name keeps its value if the module still makes it in the same way (see `marks`), or does not make it at
  all; any other name has what the new version gives it. Functions, classes and modules go with their names.

It is atomic: if a module's code raises, everything is restored.
"""

from __future__ import annotations

import builtins
from abc import ABCMeta
from collections.abc import Callable, Mapping
from types import FunctionType, GetSetDescriptorType, MemberDescriptorType, ModuleType
from typing import Any

_DUNDERS = (
    "__name__",
    "__doc__",
    "__package__",
    "__loader__",
    "__spec__",
    "__file__",
    "__path__",
    "__builtins__",
)
_FUNCTION_PARTS = ("__code__", "__defaults__", "__kwdefaults__", "__doc__", "__qualname__", "__type_params__")
# Attributes that every class has, independent of its body.
_OWN = frozenset(
    {"__dict__", "__weakref__", "__module__", "_abc_impl", "__annotations_cache__", "__annotate_func__"}
)
_MERGED_KINDS = (type, ABCMeta)
_CODE = (FunctionType, type, ModuleType)
_build_class = builtins.__build_class__


class Swap:
    """A swap of modules, with the data to undo it.

    Args:
        old_marks: The marks of the old version, by module.
        new_marks: The same of the new version.
    """

    def __init__(
        self, old_marks: Mapping[str, Mapping[str, int]], new_marks: Mapping[str, Mapping[str, int]]
    ) -> None:
        self._old_marks = old_marks
        self._new_marks = new_marks
        self._back: list[Callable[[], None]] = []

    def module(self, module: ModuleType, run: Callable[[ModuleType], object]) -> None:
        """Run a module's new code in it, and keep the preserved values.

        Args:
            module: The module.
            run: Runs the new code.

        Raises:
            BaseException: The exception of the code; call `undo` then.
        """
        name, names = module.__name__, module.__dict__
        old = dict(names)
        self._back.append(lambda: _reset(names, old))
        old_marks, new_marks = self._old_marks.get(name, {}), self._new_marks.get(name, {})
        same = {key for key, mark in new_marks.items() if old_marks.get(key) == mark}
        classes = {value.__qualname__: value for value in old.values() if _is_class_of(value, name)}

        def build(function: Any, class_name: str, *bases: Any, **options: Any) -> Any:
            made = _build_class(function, class_name, *bases, **options)
            if not _is_class_of(made, name):
                return made
            known = classes.get(made.__qualname__)
            if known is None:
                return made
            if class_name in same and made.__qualname__ == class_name:
                return known
            return known if self._merge(known, made) else made

        # Values stay visible, for code that checks whether they exist; functions and classes are removed.
        for key in old.keys() - _DUNDERS:
            if isinstance(old[key], _CODE):
                del names[key]
        builtins.__build_class__ = build  # type: ignore[assignment]  # narrower than it need be
        try:
            run(module)
        finally:
            builtins.__build_class__ = _build_class
        for key, value in old.items():
            if key in _DUNDERS or key not in names:
                continue
            if key in same or (_is_function_of(value, name) and self._recode(value, names[key])):
                names[key] = value

    def undo(self) -> None:
        """Restore the state before the swap."""
        while self._back:
            self._back.pop()()

    def _merge(self, old: type, new: type) -> bool:
        """Update a class with the attributes of its new version; False if instances are incompatible."""
        if type(old) is not type(new) or type(old) not in _MERGED_KINDS:
            return False
        if old.__dict__.get("__slots__") != new.__dict__.get("__slots__"):
            return False
        before, bases = dict(old.__dict__), old.__bases__
        if bases != new.__bases__:
            try:
                old.__bases__ = new.__bases__
            except TypeError:
                return False
        self._back.append(lambda: _restore(old, before, bases))
        for key in before.keys() - new.__dict__.keys() - _OWN:
            if not isinstance(before[key], MemberDescriptorType | GetSetDescriptorType):
                _drop(old, key)
        for key, value in list(new.__dict__.items()):
            if key in _OWN or isinstance(value, MemberDescriptorType | GetSetDescriptorType):
                continue
            self._adopt(value, new, old)
            kept = before.get(key)
            stays = self._recode(kept, value) or self._merge_nested(kept, value, new.__module__)
            _set(old, key, kept if stays else value)
        if "__annotate_func__" in new.__dict__ or "__annotate_func__" in before:
            _set(old, "__annotate__", getattr(new, "__annotate__", None))
        return True

    def _merge_nested(self, old: Any, new: Any, module: str) -> bool:
        return _is_class_of(old, module) and _is_class_of(new, module) and self._merge(old, new)

    def _adopt(self, value: Any, new: type, old: type) -> None:
        """Make ``super()`` and ``__class__`` in a method refer to the kept class."""
        for function in _functions(value):
            for cell in function.__closure__ or ():
                try:
                    if cell.cell_contents is new:
                        cell.cell_contents = old
                except ValueError:  # an empty cell
                    continue

    def _recode(self, old: Any, new: Any) -> bool:
        """Update a function with the code of its new version; False if that is impossible."""
        if type(old) is not FunctionType or type(new) is not FunctionType:
            return False
        free = new.__code__.co_freevars
        if new.__globals__ is not old.__globals__ or free != old.__code__.co_freevars:
            return False
        if set(free) - {"__class__"}:
            return False
        before = {part: getattr(old, part) for part in _FUNCTION_PARTS if hasattr(old, part)}
        attributes = dict(old.__dict__)

        def back() -> None:
            for part, value in before.items():
                setattr(old, part, value)
            _reset(old.__dict__, attributes)

        self._back.append(back)
        for part in before:
            setattr(old, part, getattr(new, part))
        annotate = getattr(new, "__annotate__", None)
        if annotate is not None or getattr(old, "__annotate__", None) is not None:
            old.__annotate__ = annotate  # type: ignore[attr-defined]  # since Python 3.14
        else:
            old.__annotations__ = new.__annotations__
        _reset(old.__dict__, new.__dict__)
        return True


def _is_class_of(value: Any, module: str) -> bool:
    return isinstance(value, type) and value.__dict__.get("__module__") == module


def _is_function_of(value: Any, module: str) -> bool:
    return type(value) is FunctionType and value.__module__ == module


def _functions(value: Any) -> list[FunctionType]:
    """Return the functions in an attribute of a class."""
    if isinstance(value, property):
        parts = [value.fget, value.fset, value.fdel]
    else:
        parts = [getattr(value, "__func__", value), getattr(value, "func", None)]
    found: list[FunctionType] = []
    while parts:
        part = parts.pop()
        if type(part) is FunctionType and part not in found:
            found.append(part)
            parts.append(part.__dict__.get("__wrapped__"))
    return found


def _reset(names: dict[str, Any], wanted: Mapping[str, Any]) -> None:
    wanted = dict(wanted)
    names.clear()
    names.update(wanted)


def _restore(changed: type, before: Mapping[str, Any], bases: tuple[type, ...]) -> None:
    if changed.__bases__ != bases:
        changed.__bases__ = bases
    for key in changed.__dict__.keys() - before.keys() - _OWN:
        _drop(changed, key)
    for key, value in before.items():
        if key not in _OWN and changed.__dict__.get(key) is not value:
            _set(changed, key, value)
    if "__annotate_func__" in before:
        _set(changed, "__annotate__", before["__annotate_func__"])


def _set(changed: type, key: str, value: Any) -> None:
    try:
        type.__setattr__(changed, key, value)
    except (AttributeError, TypeError):  # the interpreter's own, which the class keeps
        return


def _drop(changed: type, key: str) -> None:
    try:
        type.__delattr__(changed, key)
    except (AttributeError, TypeError):
        return
