"""Import of variants from precompiled byte code, without file access.

A version arrives as one opaque blob: its root directory and a table of its modules, each with its
marshalled code. A finder placed first on `sys.meta_path` serves them, so an import costs the same
fuel regardless of the file system. Only the sandbox's own compile step writes such blobs, in a
fork that runs no variant code.
"""

from __future__ import annotations

import marshal
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module, reload
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from io import open_code
from types import CodeType, FunctionType, ModuleType
from typing import Any

from . import guard
from .packing import Table
from .swap import Swap

# Root directory, modules, their marks, and the audit hook's policy while they run, or None.
Version = tuple[str, Table, bytes, Mapping[str, Any] | None]

_MODULES = sys.modules
# Bound now: a variant may replace the modules' attributes.
_import_module = import_module
_module_from_spec = module_from_spec
_reload = reload
_loads = marshal.loads
_arm = guard.arm
_look_for_import = guard.look_for_import
# A version's own module takes precedence over one of the image, like a script's directory; replacing
# these would break the agent's interpreter.
_KEPT = frozenset({"__main__", "_host", "builtins", "sys"})
_MAX_NAMES = 20


class LoadError(Exception):
    """The entry does not exist in the loaded version; the message names the existing ones."""


class ModuleLoader:
    """Loads one module of a version (the loader protocol of `importlib`)."""

    def __init__(self, owner: Loader, name: str, path: str, code: bytes, *, package: bool) -> None:
        self.name = name
        self.path = path
        self._owner = owner
        self._code = code
        self._package = package

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Let the import system create the module object."""

    def exec_module(self, module: ModuleType) -> None:
        """Run the module's code in its namespace."""
        exec(_loads(self._code), module.__dict__)
        self._owner.finished[self.name] = None

    def get_code(self, fullname: str) -> CodeType:
        """Return the module's code object."""
        del fullname
        code: CodeType = _loads(self._code)
        return code

    def get_source(self, fullname: str) -> str:
        """Read the module's text, for `inspect` and `linecache`."""
        del fullname
        return self.get_data(self.path).decode("utf-8", "replace")

    def get_filename(self, fullname: str) -> str:
        """Return the path of the module's text."""
        del fullname
        return self.path

    def is_package(self, fullname: str) -> bool:
        """Return whether the module is a package."""
        del fullname
        return self._package

    def get_data(self, path: str) -> bytes:
        """Read a file of the version, for `pkgutil.get_data`."""
        with open_code(path) as file:
            return file.read()

    def get_resource_reader(self, fullname: str) -> Any:
        """Return a reader for `importlib.resources`; only packages have one."""
        del fullname
        if not self._package:
            return None
        from importlib.readers import FileReader

        return FileReader(self)  # type: ignore[arg-type]


class Loader:
    """The versions loaded in this interpreter: the variant's, and a harness's.

    If both have a module of the same name, the harness's is found: a variant cannot replace its driver.

    Attributes:
        finished: Names of the modules whose code has run, in the order in which it ended, so that a
            reload runs a module after those it imports.
        roots: The versions' root directories, each with a ``/`` at its end.

    A version may become part of the image (`settle`): versions loaded later then take precedence over its
    modules, as over the interpreter's own, and do not change them.
    """

    def __init__(self) -> None:
        self.finished: dict[str, None] = {}
        self.roots: tuple[str, ...] = ()
        self._code: Version | None = None
        self._harness: Version | None = None
        self._harness_blob: bytes | None = None
        self._table: Table = {}
        self._base: Table = {}
        self._base_roots: tuple[str, ...] = ()
        self._hidden: dict[str, ModuleType] = {}

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: object = None
    ) -> ModuleSpec | None:
        """Find a module of a loaded version (the finder protocol of `importlib`)."""
        del path, target
        entry = self._table.get(name) or self._base.get(name)
        if entry is None:
            _look_for_import(name)
            return None
        package, file, code = entry
        if code is None:
            spec = ModuleSpec(name, None, is_package=True)
            spec.submodule_search_locations = [file]
            return spec
        loader = ModuleLoader(self, name, file, code, package=package)
        spec = ModuleSpec(name, loader, origin=file, is_package=package)  # type: ignore[arg-type]
        spec.has_location = True
        if package:
            spec.submodule_search_locations = [file.rpartition("/")[0]]
        return spec

    def __contains__(self, name: object) -> bool:
        """Whether a module is one of a loaded version."""
        return name in self._table or name in self._base

    def install(self, code: bytes | None, harness: bytes | None) -> None:
        """Make a version's modules importable; nothing is imported yet.

        A version that replaces one of the same role is swapped in (see `swap`): imported modules keep their
        objects, and the code of changed modules, and of those that import from them, runs again in them;
        modules that the new version lacks are dropped.

        Args:
            code: The variant's blob; None to keep the loaded one.
            harness: The harness's blob; None to keep the loaded one.

        Raises:
            BaseException: The exception of a module's code when run again; everything is then restored.
        """
        before = (self._code, self._harness, self._harness_blob, self._table, self.roots, dict(self._base))
        reloading = code is not None and self._code is not None
        if code is not None:
            self._code = _loads(code)
        if harness is not None and harness != self._harness_blob:
            reloading = reloading or self._harness is not None
            self._harness_blob = harness
            self._harness = _loads(harness)
        modules = dict(_MODULES) if reloading else {}
        versions = [version for version in (self._code, self._harness) if version is not None]
        self.roots = tuple([version[0] + "/" for version in versions])
        if self._base:
            self._cover(versions)
        old = self._table
        self._table = (
            versions[0][1] if len(versions) == 1 else {k: v for _, t, _, _ in versions for k, v in t.items()}
        )
        self._arm()
        if sys.meta_path[:1] != [self]:
            sys.meta_path.insert(0, self)
        if not reloading:
            for name in self._table.keys() & _MODULES.keys():
                if name not in old and name not in _KEPT:
                    self._hidden[name] = _MODULES.pop(name)
            return
        finished = dict(self.finished)
        swap = Swap(_marks(before[0], before[1]), _marks(self._code, self._harness))
        try:
            self._swap_in(swap, old)
        except BaseException:
            swap.undo()
            self._code, self._harness, self._harness_blob, self._table, self.roots, self._base = before
            for name in [name for name in _MODULES if name not in modules]:
                del _MODULES[name]
            _MODULES.update(modules)
            self.finished = finished
            self._arm()
            raise

    def renew(self) -> None:
        """Unload the versions, so that others can be loaded that find none of their modules.

        What they did elsewhere stays; so do modules that they imported and are not theirs.
        """
        for name in self._table:
            if name not in _KEPT:
                _MODULES.pop(name, None)
        _MODULES.update(self._hidden)
        self._hidden = {}
        self.finished = {}
        self._code = self._harness = self._harness_blob = None
        self._table = {}

    def _arm(self) -> None:
        _arm(self._code[3] if self._code is not None else None, self._table.keys() | self._base.keys())

    def settle(self) -> None:
        """Make the loaded version a part of the image, over which later versions take precedence."""
        self._base = {**self._base, **self._table}
        self._base_roots = self.roots
        self.finished = {}
        self._code = self._harness = self._harness_blob = None
        self._table = {}

    def _cover(self, versions: list[Version]) -> None:
        """Remove the image's modules whose top-level name a version has too, which replaces them whole."""
        self.roots = tuple(dict.fromkeys(self.roots + self._base_roots))
        tops = {name.partition(".")[0] for version in versions for name in version[1]}
        for name in [name for name in self._base if name.partition(".")[0] in tops]:
            del self._base[name]
            _MODULES.pop(name, None)

    def _swap_in(self, swap: Swap, old: Table) -> None:
        new = self._table
        changed = {name for name in old.keys() | new.keys() if old.get(name) != new.get(name)}
        for name in old.keys() - new.keys():
            _MODULES.pop(name, None)
            self.finished.pop(name, None)
        for name in (new.keys() - old.keys()) & _MODULES.keys() - _KEPT:
            del _MODULES[name]
        for name in list(self.finished):
            module = _MODULES.get(name)
            code = new[name][2]
            if module is None or code is None:
                continue
            if name in changed or _imports_one(code, changed):
                changed.add(name)
                swap.module(module, _reload)

    def forget(self) -> None:
        """Unload everything, restoring the initial state."""
        for name in (*self._table, *self._base):
            _MODULES.pop(name, None)
        _arm(None)
        while self in sys.meta_path:
            sys.meta_path.remove(self)
        self.__init__()  # type: ignore[misc]

    def _load(self, name: str) -> ModuleType:
        """Import a module; the version's own ones without searching elsewhere."""
        spec = None
        if "." not in name and name not in _MODULES:
            spec = self.find_spec(name)
        if spec is None or spec.loader is None:
            return _import_module(name)
        module = _module_from_spec(spec)
        spec._initializing = True  # type: ignore[attr-defined]  # noqa: SLF001 - as importlib does
        _MODULES[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            _MODULES.pop(name, None)
            raise
        finally:
            spec._initializing = False  # type: ignore[attr-defined]  # noqa: SLF001
        return _MODULES[name]

    def resolve(self, entry: str) -> Any:
        """Import the entry's module and return the entry.

        Args:
            entry: ``"module:qualified.name"``.

        Raises:
            LoadError: There is no such module, name or callable.
            BaseException: The exception of the module's own code.
        """
        module_name, _, qualname = entry.partition(":")
        module: Any = _MODULES.get(module_name)
        if module is None or module_name not in self.finished:
            try:
                module = self._load(module_name)
            except ModuleNotFoundError as error:
                missing = error.name
                if type(missing) is not str or not (module_name + ".").startswith(missing + "."):
                    raise
                there = sorted(self._table.keys() | self._base.keys())
                known = ", ".join(there[:_MAX_NAMES]) or "no module at all"
                msg = f"entry {entry!r}: there is no module {module_name!r} in this version; it has {known}"
                raise LoadError(msg) from None
        found = module
        for part in qualname.split("."):
            try:
                found = getattr(found, part)
            except AttributeError:
                msg = f"entry {entry!r}: module {module_name!r} has no {qualname!r}; {_callables(module)}"
                raise LoadError(msg) from None
        if not callable(found):
            msg = f"entry {entry!r} is not something that can be called; {_callables(module)}"
            raise LoadError(msg)
        return found


def _marks(*versions: Version | None) -> dict[str, dict[str, int]]:
    return {name: found for version in versions if version for name, found in _loads(version[2]).items()}


def _imports_one(code: bytes, modules: set[str]) -> bool:
    """Return whether a module's own statements may import one of the given modules.

    Code only records the full names or last parts of imported names.
    """
    last_parts = {name.rpartition(".")[2] for name in modules}
    return any(name.rpartition(".")[2] in last_parts for name in _loads(code).co_names)


def _callables(module: ModuleType) -> str:
    names = []
    for name, value in list(vars(module).items()):
        if type(name) is str and not name.startswith("_"):
            own = type(value) is FunctionType and value.__module__ == module.__name__
            if own or (type(value) is type and value.__dict__.get("__module__") == module.__name__):
                names.append(name)
    if not names:
        return "it defines no function"
    more = f" and {len(names) - _MAX_NAMES} more" if len(names) > _MAX_NAMES else ""
    return f"it defines {', '.join(sorted(names)[:_MAX_NAMES])}{more}"
