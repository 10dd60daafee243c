"""Installation of stand-ins for features a sandbox lacks: threads, processes, alarms.

A process is a guest of its own (`evocell_subprocess`, `evocell_multiprocessing`). A thread runs in this one,
sequentially: it runs to its end when any code waits. Timeouts are those of the virtual clock.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import importlib
import importlib.machinery
import os
import signal
import sys
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any, NamedTuple

import evocell_processes as processes
import evocell_refusals
import evocell_subprocess
import evocell_threads
from evocell_threads import run_threads

__all__ = ["EvaluationResult", "install", "run_threads"]


# ---------------------------------------------------------------------- signals and limits


_alarm_at: list[float] = []
_interval: list[float] = [0.0]
_handlers: dict[int, Any] = {}
_real_signal, _real_get_signal = signal.signal, signal.getsignal
_SIGALRM = 14
_ADDRESSABLE = 1 << 32


def _set_timer(which: int, seconds: float, interval: float = 0.0) -> tuple[float, float]:
    """Schedule SIGALRM after a span of virtual time, for every kind of timer."""
    del which
    before = _get_timer(0)
    _interval[0] = interval
    _alarm_at[:] = [time.monotonic() + seconds] if seconds > 0 else []
    processes.processes.ring_at(int(_alarm_at[0] * 1e9) if _alarm_at else 0)
    if _real_get_signal(_SIGALRM) is not _on_alarm:
        _real_signal(_SIGALRM, _on_alarm)
    return before


def _get_timer(which: int) -> tuple[float, float]:
    del which
    return (max(0.0, _alarm_at[0] - time.monotonic()) if _alarm_at else 0.0), _interval[0]


def _alarm(seconds: int) -> int:
    return -int(-_set_timer(0, float(seconds))[0] // 1)


def _on_alarm(number: int, frame: Any) -> None:
    if number == _SIGALRM:
        again = _interval[0]
        _alarm_at.clear()
        if again > 0:
            _set_timer(0, again, again)
    handler = _handlers.get(number, signal.SIG_DFL)
    if callable(handler):
        handler(number, frame)
    elif handler == signal.SIG_DFL:
        os._exit(128 + number)


def _set_handler(number: int, handler: Any, /) -> Any:
    if not (callable(handler) or handler in (signal.SIG_DFL, signal.SIG_IGN)):
        message = "signal handler must be signal.SIG_IGN, signal.SIG_DFL, or a callable object"
        raise TypeError(message)
    before = _get_handler(number)
    _handlers[int(number)] = handler
    with contextlib.suppress(OSError, ValueError):
        _real_signal(number, _on_alarm if callable(handler) else handler)
    return before


def _get_handler(number: int, /) -> Any:
    default = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
    return _handlers.get(int(number), default)


def _next_alarm() -> float | None:
    return _alarm_at[0] if _alarm_at else None


def _ring_alarm() -> None:
    if _alarm_at and _alarm_at[0] <= time.monotonic():
        processes.processes.ring_at(0)
        signal.raise_signal(_SIGALRM)


def _install_signals() -> None:
    for name, number in (("SIGALRM", 14), ("SIGKILL", 9), ("ITIMER_REAL", 0)):
        if not hasattr(signal, name):
            setattr(signal, name, number)
    own: dict[str, Any] = {
        "alarm": _alarm,
        "setitimer": _set_timer,
        "getitimer": _get_timer,
        "ItimerError": OSError,
        "signal": _set_handler,
        "getsignal": _get_handler,
    }
    for name, value in own.items():
        setattr(signal, name, value)
    for name in ("ITIMER_VIRTUAL", "ITIMER_PROF"):
        if not hasattr(signal, name):
            setattr(signal, name, ("ITIMER_REAL", "ITIMER_VIRTUAL", "ITIMER_PROF").index(name))
    for name in ("siginterrupt", "set_wakeup_fd", "pthread_sigmask"):
        if not hasattr(signal, name):
            setattr(signal, name, lambda *_: -1)
    processes.next_alarm.append(_next_alarm)
    processes.ring.append(_ring_alarm)
    processes.after_fork.append(lambda: _set_timer(0, 0.0))


def _resource() -> ModuleType:
    """Make the module `resource`: limits are recorded, but the sandbox's limits apply."""
    module = ModuleType("resource")
    limits: dict[int, tuple[int, int]] = {}
    names = ("CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS")
    for number, name in enumerate(names):
        setattr(module, f"RLIMIT_{name}", number)

    class Usage:
        """Result of `getrusage`: the work done, as time."""

        def __init__(self) -> None:
            self.ru_utime, self.ru_stime = time.process_time(), 0.0
            self.ru_maxrss = self.ru_ixrss = self.ru_idrss = self.ru_isrss = self.ru_minflt = 0
            self.ru_majflt = self.ru_nswap = self.ru_inblock = self.ru_oublock = self.ru_nvcsw = 0
            self.ru_nivcsw = self.ru_nsignals = self.ru_msgsnd = self.ru_msgrcv = 0

    def setrlimit(resource: int, given: tuple[int, int]) -> None:
        soft, hard = given
        limits[resource] = int(soft), int(hard)

    own: dict[str, Any] = {
        "RLIM_INFINITY": -1,
        "RUSAGE_SELF": 0,
        "RUSAGE_CHILDREN": -1,
        "error": OSError,
        "setrlimit": setrlimit,
        "getrlimit": lambda resource: limits.get(resource, (-1, -1)),
        "getrusage": lambda who: Usage(),
        "getpagesize": lambda: 4096,
        "struct_rusage": Usage,
    }
    for name, value in own.items():
        setattr(module, name, value)
    return module


class _Memory(NamedTuple):
    total: int = _ADDRESSABLE
    available: int = _ADDRESSABLE
    percent: float = 0.0
    used: int = 0
    free: int = _ADDRESSABLE


class _Held(NamedTuple):
    rss: int = 0
    vms: int = 0


class _Times(NamedTuple):
    user: float
    system: float = 0.0
    children_user: float = 0.0
    children_system: float = 0.0


def _psutil() -> ModuleType:
    """Make as much of `psutil` as graders ask for: one core, and the memory that can be addressed."""
    module = ModuleType("psutil")

    class NoSuchProcess(Exception):
        """Another process than this one was asked for."""

    class Process:
        """What `psutil.Process()` tells of the process itself."""

        def __init__(self, pid: int | None = None) -> None:
            self.pid = os.getpid() if pid is None else pid
            if self.pid != os.getpid():
                message = f"process PID not found (pid={pid})"
                raise NoSuchProcess(message)

        def memory_info(self) -> Any:
            """Return zeros: a guest is not told how much memory it has taken."""
            return _Held()

        def cpu_times(self) -> Any:
            """Return the work done, as time."""
            return _Times(time.process_time())

        def children(self, recursive: bool = False) -> list[Any]:
            """Return none: they are sandboxes of their own."""
            del recursive
            return []

    own: dict[str, Any] = {
        "virtual_memory": _Memory,
        "cpu_count": lambda logical=True: 1,
        "cpu_percent": lambda interval=None, percpu=False: [0.0] if percpu else 0.0,
        "pid_exists": lambda pid: pid == os.getpid(),
        "Error": Exception,
        "NoSuchProcess": NoSuchProcess,
        "Process": Process,
    }
    for name, value in own.items():
        setattr(module, name, value)
    return module


# ---------------------------------------------------------------------- OpenEvolve


class EvaluationResult:
    """OpenEvolve's result: metrics, and artifacts beside them."""

    __module__ = "openevolve.evaluation_result"

    def __init__(self, metrics: dict[str, Any], artifacts: dict[str, Any] | None = None) -> None:
        self.metrics = metrics
        self.artifacts = {} if artifacts is None else artifacts

    @classmethod
    def from_dict(cls, metrics: dict[str, Any]) -> EvaluationResult:
        """Make a result from metrics only."""
        return cls(metrics)

    def to_dict(self) -> dict[str, Any]:
        """Return only the metrics."""
        return self.metrics

    def has_artifacts(self) -> bool:
        """Return whether there are artifacts."""
        return bool(self.artifacts)

    def get_artifact_keys(self) -> list[str]:
        """Return their names."""
        return list(self.artifacts)

    def __repr__(self) -> str:
        return f"EvaluationResult(metrics={self.metrics!r}, artifacts={self.artifacts!r})"


def _openevolve() -> dict[str, ModuleType]:
    package, module = ModuleType("openevolve"), ModuleType("openevolve.evaluation_result")
    package.__path__ = []
    package.evaluation_result = module  # type: ignore[attr-defined]
    package.EvaluationResult = module.EvaluationResult = EvaluationResult  # type: ignore[attr-defined]
    return {package.__name__: package, module.__name__: module}


class _AfterImport:
    """Finder that changes modules right after their import, since most programs import none of them."""

    def find_spec(self, name: str, path: Any = None, target: object = None) -> Any:
        """Find one of the modules, with a loader that patches it."""
        del target
        change = _CHANGES.get(name)
        if change is None:
            return None
        for finder in sys.meta_path:
            if finder is not self and (spec := finder.find_spec(name, path, None)) is not None:
                spec.loader = _Changing(spec.loader, change)  # type: ignore[assignment]
                return spec
        return None


class _Changing:
    """A loader that delegates to another one and then changes the module."""

    def __init__(self, loader: Any, change: Callable[[Any], object]) -> None:
        self._loader, self._change = loader, change

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)

    def create_module(self, spec: Any) -> Any:
        """Delegate to the other loader."""
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        """Run the module, then change it."""
        self._loader.exec_module(module)
        self._change(module)


class _WhereNoneIs:
    """Gives a stand-in of a package where nobody else has one (the finder and loader protocols)."""

    def find_spec(self, name: str, path: Any = None, target: object = None) -> Any:
        """Find `psutil`."""
        del path, target
        return importlib.machinery.ModuleSpec(name, self) if name == "psutil" else None  # type: ignore[arg-type]

    def create_module(self, spec: Any) -> ModuleType:
        """Make the module."""
        del spec
        return _psutil()

    def exec_module(self, module: ModuleType) -> None:
        """Do nothing: it is complete."""


def _change_multiprocessing(module: Any) -> None:
    del module
    importlib.import_module("evocell_multiprocessing").install()


def _change_pool(module: Any) -> None:
    pools = importlib.import_module("evocell_pools")
    module.Pool, module.ThreadPool = pools.Pool, pools.ThreadPool


def _change_managers(module: Any) -> None:
    shared = importlib.import_module("evocell_multiprocessing")
    module.SyncManager, module.BaseManager = shared.Manager, shared.missing("managers.BaseManager")
    module.SharedMemoryManager = shared.missing("managers.SharedMemoryManager")


def _change_executors(module: Any) -> None:
    executors = importlib.import_module("evocell_executors")
    module.ProcessPoolExecutor = executors.ProcessExecutor
    concurrent.futures.wait = executors.wait_for_futures
    concurrent.futures.as_completed = executors.as_completed


_CHANGES: dict[str, Callable[[Any], object]] = {
    "multiprocessing": _change_multiprocessing,
    "multiprocessing.pool": _change_pool,
    "multiprocessing.managers": _change_managers,
    "concurrent.futures.process": _change_executors,
    "asyncio.subprocess": evocell_refusals.change_asyncio,
}
_done: list[bool] = []


def install() -> None:
    """Install all stand-ins; once."""
    if _done:
        return
    _done.append(True)
    processes.install()
    evocell_refusals.install()
    evocell_subprocess.install()
    evocell_threads.install()
    _install_signals()
    sys.modules.setdefault("resource", _resource())
    sys.modules.update(_openevolve())
    for name, change in _CHANGES.items():
        if name in sys.modules:
            change(sys.modules[name])
    sys.meta_path.insert(0, _AfterImport())
    sys.meta_path.append(_WhereNoneIs())
