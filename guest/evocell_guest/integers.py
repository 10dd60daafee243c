"""Emulation of native integer widths where the interpreter's C types are narrower.

The interpreter's compiled code is patched when an image is built. The rest is Python code: names in numpy for
the pointer-wide type, which has 32 bits here and 64 natively, and `sys.maxsize`.
"""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec, PathFinder
from opcode import opmap
from types import CodeType, FrameType, ModuleType
from typing import Any

MAXSIZE = 2**63 - 1
"""The native `sys.maxsize`, which programs use as infinity."""

_ALIASES = "numpy._core._type_aliases"
_WIDE = {"intp": "int64", "uintp": "uint64"}
_NUMPY = "numpy"
_DIVIDED = {"intp": "int64", "uintp": "uint64", "long": "int64", "ulong": "uint64"}
_IMPORT_STAR = 2
"""Argument of CALL_INTRINSIC_1 for `from numpy import *`; see `dis`."""

_COMPILED = frozenset(
    {"numpy", "scipy", "pandas", "sklearn", "statsmodels", "importlib", "_frozen_importlib"}
)
"""Packages whose compiled halves allocate indices with `np.intp`; importlib is what imports them."""

_ATTRIBUTES = frozenset(
    {
        "numpy._array_api_info",
        "numpy._core.numeric",
        "numpy.lib._arraypad_impl",
        "numpy.lib._arraysetops_impl",
        "numpy.lib._function_base_impl",
        "numpy.lib._histograms_impl",
        "numpy.lib._index_tricks_impl",
        "numpy.lib._nanfunctions_impl",
        "numpy.lib._shape_base_impl",
        "numpy.lib._twodim_base_impl",
        "numpy.linalg._linalg",
        "numpy.ma.core",
    }
)
"""Modules whose results expose their `intp` type, and that do not pass it to compiled code."""


class _Loader:
    """Loads a module from changed code."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, _spec: ModuleSpec) -> ModuleType | None:
        """Delegate to the import system."""
        return None

    def exec_module(self, module: ModuleType) -> None:
        """Run the changed code."""
        name = module.__name__
        code = self._loader.get_code(name)
        if name == _ALIASES:
            # `np.int_` and `np.uint`; compiled libraries allocate their indices with `np.intp`.
            code = code.replace(co_consts=tuple(_wide(one) for one in code.co_consts))
        elif name != _NUMPY:
            code = _renamed(code)
        exec(code, vars(module))
        if name == _NUMPY:
            _divide(module)
        if name == _ALIASES:
            types = vars(module)["sctypeDict"]
            types["long"], types["ulong"] = types["int64"], types["uint64"]


class _Finder:
    """Finder of the changed modules, before other finders."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        """Find one of them; leave all others to later finders."""
        if name not in {_NUMPY, _ALIASES} and name not in _ATTRIBUTES:
            return None
        spec = PathFinder.find_spec(name, path, target)
        if spec is not None and hasattr(spec.loader, "get_code"):
            spec.loader = _Loader(spec.loader)  # type: ignore[assignment]  # duck-typed, as loaders are
        return spec


def install() -> None:
    """Change modules imported from now on, and set `sys.maxsize`; in a guest only."""
    platform: str = sys.platform  # the type checker only knows the host's
    if platform != "wasi":
        return
    sys.meta_path.insert(0, _Finder)
    sys.maxsize = MAXSIZE


def _divide(numpy: ModuleType) -> None:
    """Let `np.intp` and `np.long` have 64 bits for programs, and a pointer's width for compiled libraries."""
    names = vars(numpy)
    wide = {name: names[other] for name, other in _DIVIDED.items()}
    narrow = {name: names.pop(name) for name in _DIVIDED}
    original = names["__getattr__"]

    def attribute(name: str) -> Any:
        if name not in narrow:
            return original(name)
        return (wide if _written_in_a_program(sys._getframe(1), name) else narrow)[name]  # noqa: SLF001

    listed = names["__dir__"]

    def listing() -> list[str]:
        return sorted({*listed(), *narrow})

    for name, function in (("__getattr__", attribute), ("__dir__", listing)):
        function.__name__ = function.__qualname__ = name
        function.__module__ = _NUMPY
        names[name] = function


def _written_in_a_program(frame: FrameType, name: str) -> bool:
    """Whether a frame's code asks for a name itself, and not what it calls: compiled code has no frames."""
    asking = frame.f_globals.get("__name__")
    if isinstance(asking, str) and asking.partition(".")[0] in _COMPILED:
        return False
    code, at = frame.f_code.co_code, frame.f_lasti
    if code[at] == opmap["CALL_INTRINSIC_1"]:
        return code[at + 1] == _IMPORT_STAR
    argument, shift, before = code[at + 1], 8, at - 2
    while before >= 0 and code[before] == opmap["EXTENDED_ARG"]:
        argument |= code[before + 1] << shift
        before, shift = before - 2, shift + 8
    if code[at] == opmap["LOAD_ATTR"]:
        argument >>= 1  # its lowest bit says that a method is meant
    elif code[at] != opmap["IMPORT_FROM"]:
        return False
    return argument < len(frame.f_code.co_names) and frame.f_code.co_names[argument] == name


def _wide(constant: object) -> object:
    if isinstance(constant, tuple):
        return tuple(map(_wide, constant))
    return _WIDE.get(constant, constant) if isinstance(constant, str) else constant


def _renamed(code: CodeType) -> CodeType:
    """Return code with the names of pointer-wide types replaced by those of 64-bit ones."""
    return code.replace(
        co_names=tuple(_WIDE.get(name, name) for name in code.co_names),
        co_consts=tuple(
            _renamed(one)
            if isinstance(one, CodeType)
            else tuple(_WIDE.get(item, item) for item in one)  # the names of a `from` import
            if isinstance(one, tuple) and all(isinstance(item, str) for item in one)
            else one
            for one in code.co_consts
        ),
    )
