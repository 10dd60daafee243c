"""Replacements for missing features of the platform, installed once, before the freeze.

The working directory is the program's, `time.thread_time`, `os.getuid` and their like are there, `os.dup`
duplicates what was opened by name, and asyncio's event loops do without the pair of sockets by which
other threads would wake them.
"""

from __future__ import annotations

import gc
import os
import select
import sys
import time
from collections.abc import Sequence
from functools import wraps
from importlib import import_module
from importlib.machinery import ModuleSpec
from io import FileIO
from types import ModuleType
from typing import Any

from .hints import DESCRIPTORS, NETWORK

APP = "/app"
_WASI = str(sys.platform) == "wasi"
_ENOTSUP = 58
_SELECTOR_LOOPS = "asyncio.selector_events"
_PLOTS = "matplotlib"
_FONTS = "matplotlib.font_manager"
ENDLESS_LOOP = (
    "this would wait for ever: the event loop has nothing left to run, and there are no threads, sockets "
    "or signals in the sandbox that could wake it; see that what is awaited is set by another task, or wait "
    "with a timeout"
)
_POLL: Any = select.poll
_TIMES: Any = type(os.times())
ENDLESS_SELECT = "this would wait for ever: there is nothing to select from, and no timeout"
_PLOTS_AT = "/usr/local/share/matplotlib"


def fill() -> None:
    """Install the replacements; no effect outside WASI."""
    if not _WASI:
        return
    os.chdir(APP)
    if not hasattr(time, "thread_time"):
        time.thread_time = time.process_time
        time.thread_time_ns = time.process_time_ns
        time.get_clock_info = _clock_info(time.get_clock_info)
    os.dup = dup
    os.times = _times
    for name, made in (("rmdir", _rmdir), ("utime", _of_what_is_there), ("chmod", _of_what_is_there)):
        _replace(name, made(getattr(os, name)))
    if not hasattr(os, "getppid"):
        os.getppid = _first
    if not hasattr(os, "sched_getaffinity"):
        os.sched_getaffinity = _cores
    for name in ("getuid", "geteuid", "getgid", "getegid"):
        if not hasattr(os, name):
            setattr(os, name, _owner)
    select.select = _Select(select.select)
    setattr(select, "poll", _Poll)  # noqa: B010 - a checker takes it for a type
    sys.meta_path.insert(0, _AfterImport())


def dup(fd: int, /) -> int:
    """Reopen the file of a descriptor, at the same position.

    WASI has no duplication, which numpy's `fromfile` and `tofile` need for files that Python opened by name.

    Raises:
        OSError: No open file object with a name has this descriptor.
    """
    for found in gc.get_objects():
        if type(found) is FileIO and not found.closed and found.fileno() == fd:
            name, mode = found.name, found.mode
            if isinstance(name, str | bytes):
                flags = os.O_RDWR if "+" in mode else os.O_RDONLY if mode == "rb" else os.O_WRONLY
                if mode[:1] == "a":
                    flags |= os.O_APPEND
                twin = os.open(name, flags)
                os.lseek(twin, os.lseek(fd, 0, os.SEEK_CUR), os.SEEK_SET)
                return twin
    raise OSError(_ENOTSUP, DESCRIPTORS)


class _AfterImport:
    """Finder that changes modules right after their import."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: object = None
    ) -> ModuleSpec | None:
        """Find a module to be changed: with a loader that changes it, or at another path."""
        del target
        if name not in {_SELECTOR_LOOPS, _PLOTS, _FONTS}:
            return None
        if name == _FONTS:
            # Suppress the warning that the font list cannot be cached.
            import_module("logging").getLogger(_FONTS).setLevel("ERROR")
            return None
        for finder in sys.meta_path:
            if finder is self:
                continue
            spec = finder.find_spec(name, path, None)
            if spec is not None and spec.loader is not None:
                if name == _PLOTS:
                    os.environ.setdefault("MPLCONFIGDIR", "/tmp")  # noqa: S108 - a guest path
                    # It looks for its data beside its file, which cannot be read in the library's zip.
                    spec.origin = f"{_PLOTS_AT}/__init__.py"
                else:
                    spec.loader = _Changing(spec.loader)  # type: ignore[assignment]
                return spec
        return None


class _Changing:
    """A loader that delegates to another one and then removes the socket pair from the event loops."""

    def __init__(self, loader: Any) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        """Delegate to the other loader."""
        made: ModuleType | None = self._loader.create_module(spec)
        return made

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, then change it."""
        self._loader.exec_module(module)
        loop: Any = module.BaseSelectorEventLoop
        loop._run_once = _run_once(loop._run_once)  # noqa: SLF001
        loop._make_self_pipe = loop._close_self_pipe = loop._write_to_self = _nothing  # noqa: SLF001
        loop.getaddrinfo = loop.getnameinfo = _no_network


def _run_once(one: Any) -> Any:
    """A turn of an event loop that says so when nothing is left that could ever wake it."""

    def run_once(loop: Any) -> None:
        if not (loop._ready or loop._scheduled or loop._stopping):  # noqa: SLF001
            raise RuntimeError(ENDLESS_LOOP)
        one(loop)

    return run_once


class _Select:
    """`select.select` that says so when it could never return.

    An instance, because `selectors` keeps it in a class, where a function would become a method.
    """

    def __init__(self, original: Any) -> None:
        self._original = original

    def __call__(self, rlist: Any, wlist: Any, xlist: Any, timeout: float | None = None, /) -> Any:
        lists = [list(one) for one in (rlist, wlist, xlist)]
        if timeout is None and not any(lists):
            raise RuntimeError(ENDLESS_SELECT)
        return self._original(*lists, timeout)


class _Poll:
    """A polling object that says so when it could never return."""

    def __init__(self) -> None:
        self._original = _POLL()
        self._descriptors: set[int] = set()

    def register(self, fd: Any, *events: int) -> None:
        """Watch a descriptor."""
        self._original.register(fd, *events)
        self._descriptors.add(_descriptor(fd))

    def modify(self, fd: Any, events: int, /) -> None:
        """Change what a descriptor is watched for."""
        self._original.modify(fd, events)

    def unregister(self, fd: Any, /) -> None:
        """Watch a descriptor no more."""
        self._original.unregister(fd)
        self._descriptors.discard(_descriptor(fd))

    def poll(self, timeout: float | None = None, /) -> Any:
        """Return the descriptors that are ready, with their events; `timeout` is in milliseconds."""
        if not self._descriptors and (timeout is None or timeout < 0):
            raise RuntimeError(ENDLESS_SELECT)
        return self._original.poll(timeout)


def _descriptor(fd: Any) -> int:
    return fd if isinstance(fd, int) else int(fd.fileno())


async def _no_network(*_: object, **__: object) -> Any:
    """Refuse to look a name up, for which an event loop would start a thread."""
    raise OSError(_ENOTSUP, NETWORK)


def _clock_info(original: Any) -> Any:
    @wraps(original)
    def get_clock_info(name: str, /) -> Any:
        """Describe a clock; that of the thread is that of the process."""
        return original("process_time" if name == "thread_time" else name)

    return get_clock_info


def _replace(name: str, function: Any) -> None:
    """Put a function into `os`, with what the former one is said to support."""
    former = getattr(os, name)
    for able in (os.supports_dir_fd, os.supports_fd, os.supports_follow_symlinks, os.supports_effective_ids):
        if former in able:
            able.add(function)
    setattr(os, name, function)


def _of_what_is_there(original: Any) -> Any:
    @wraps(original)
    def change(path: Any, *values: Any, dir_fd: int | None = None, **how: Any) -> None:
        # The host says nothing of what is missing, and `Path.touch` takes that for a file.
        os.stat(path, dir_fd=dir_fd)
        original(path, *values, dir_fd=dir_fd, **how)

    return change


def _rmdir(original: Any) -> Any:
    @wraps(original)
    def rmdir(path: Any, *, dir_fd: int | None = None) -> None:
        """Remove a directory; its name may end with a slash, which WASI does not take there."""
        name = os.fspath(path)
        slash = b"/" if isinstance(name, bytes) else "/"
        original(name.rstrip(slash) or name, dir_fd=dir_fd)

    return rmdir


def _times() -> Any:
    """The process's time and a clock in seconds, which WASI's own counts in other units."""
    return _TIMES((time.process_time(), 0.0, 0.0, 0.0, time.monotonic()))


def _first() -> int:
    """The parent of the only process."""
    return 1


def _cores(_: int = 0, /) -> set[int]:
    """A sandbox runs on one core at a time, as `os.cpu_count` says."""
    return {0}


def _owner() -> int:
    """Everything in the sandbox belongs to user and group 0, as `os.stat` says."""
    return 0


def _nothing(self: object) -> None:
    """Do nothing: no other thread could wake the loop."""
