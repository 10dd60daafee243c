"""How much of a call's work is the import of modules that neither the image nor the version has loaded.

The host has no way of its own to see that, and a call that is stopped in the middle of an import says nothing
any more. So each such import is announced in the mailbox as it begins and as it ends: what lies there when a
call is stopped is the latest announcement. It is for people, and as true as anything that a guest says.

An import within another is a part of it, and costs nothing here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Container
from time import perf_counter_ns
from typing import Any

__all__ = ["MARK", "install", "spent_ns", "start"]

MARK = b"\xc7imports"
"""What an announcement begins with; eight bytes follow for the time at which an import began, 0 for none, and
eight for the time that others took, little-endian."""

_WASI = str(sys.platform) == "wasi"
# Frames of this name are left out of tracebacks of imports that fail.
_FILE = "<frozen importlib._bootstrap>"
_LOADING = """
def _find_and_load(name, import_, *, lazy_submodule=False):
    if owned(name):
        return real(name, import_, lazy_submodule=lazy_submodule)
    bootstrap._find_and_load = real
    begin()
    try:
        return real(name, import_, lazy_submodule=lazy_submodule)
    finally:
        end()
        bootstrap._find_and_load = counting
"""

_bootstrap: Any = sys.modules["_frozen_importlib"]
_counting: Callable[..., Any] | None = None
_call: Callable[[bytes], object] | None = None
_spent_ns = _began_ns = 0
_told = b""


def install(call: Callable[[bytes], object], own: Container[str]) -> None:
    """Count from now on; nothing where this is not the guest's interpreter.

    Args:
        call: The host's mailbox.
        own: The names of the modules whose import is the version's own work.
    """
    global _call, _counting
    if not _WASI:
        return
    names: dict[str, Any] = {
        "bootstrap": _bootstrap,
        "real": _bootstrap._find_and_load,  # noqa: SLF001
        "owned": own.__contains__,
        "begin": _begin,
        "end": _end,
    }
    exec(compile(_LOADING, _FILE, "exec"), names)
    _call, _counting = call, names["_find_and_load"]
    names["counting"] = _counting
    _bootstrap._find_and_load = _counting  # noqa: SLF001


def start() -> None:
    """Begin a call."""
    global _spent_ns  # noqa: PLW0603
    _spent_ns = 0
    if _counting is not None and _bootstrap._find_and_load is not _counting:  # noqa: SLF001
        _bootstrap._find_and_load = _counting  # noqa: SLF001


def spent_ns() -> int:
    """Return the time that imports took in this call so far."""
    return _spent_ns


def _begin() -> None:
    global _began_ns  # noqa: PLW0603
    _began_ns = perf_counter_ns()
    _announce(_began_ns)


def _end() -> None:
    global _spent_ns  # noqa: PLW0603
    _spent_ns += perf_counter_ns() - _began_ns
    _announce(0)


def _announce(began_ns: int) -> None:
    # The host reads it where it lies: it is kept alive until the next one.
    global _told  # noqa: PLW0603
    if _call is not None:
        _told = MARK + began_ns.to_bytes(8, "little") + _spent_ns.to_bytes(8, "little")
        _call(_told)
