"""`multiprocessing` in a sandbox: a process is a copy of this guest, as with the start method ``fork``.

The package is the standard library's own; the parts that need the operating system (processes, locks, queues,
shared values) are built on copies of the guest and on channels between them, which carry pickled values.
"""

from __future__ import annotations

import multiprocessing as mp
import sys
from collections.abc import Callable, Iterable
from multiprocessing import context, process, util
from types import ModuleType
from typing import Any, Self

import evocell_processes as own
from evocell_barriers import Barrier
from evocell_channels import (
    Array,
    BoundedSemaphore,
    Cell,
    Condition,
    Event,
    Lock,
    Queue,
    RLock,
    Semaphore,
    Value,
    pipe,
)
from evocell_refusals import install_memory

_MISSING = (
    "{} is not there in a sandbox; Queue, Pipe, Value, Array, Lock, Event, Barrier, Manager and Pool are"
)


# ---------------------------------------------------------------------- processes


class _Popen:
    """The ``popen`` object of `multiprocessing.process.BaseProcess`."""

    method = "fork"
    sentinel = 0

    def __init__(self, started: process.BaseProcess) -> None:
        util._flush_std_streams()  # type: ignore[attr-defined]  # noqa: SLF001 - as the standard library's
        self.returncode: int | None = None
        self.finalizer = None
        self.pid = own.start_copy(started._bootstrap)  # type: ignore[attr-defined]  # noqa: SLF001

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait until it has ended."""
        if self.returncode is None and own.wait_for([self.pid], timeout) is not None:
            _, code, _, out, err, said = own.ends.pop(self.pid)
            self.returncode = code
            own.write_out(out, None, 1)
            own.write_out(err + (said + "\n").encode() * bool(said), None, 2)
        return self.returncode

    def poll(self) -> int | None:
        """Return its exit status; None if it has not ended."""
        return self.wait(0)

    def _send(self, number: int) -> None:
        if self.returncode is None:
            own.kill(self.pid, number)

    def terminate(self) -> None:
        """End it."""
        self._send(15)

    def interrupt(self) -> None:
        """End it."""
        self._send(2)

    def kill(self) -> None:
        """End it."""
        self._send(9)

    def close(self) -> None:
        """Forget it."""


class Process(process.BaseProcess):
    """A process that is a copy of this one."""

    _start_method = "fork"

    @staticmethod
    def _Popen(started: process.BaseProcess) -> _Popen:  # noqa: N802 - the name that `start` calls
        return _Popen(started)


# ---------------------------------------------------------------------- managers


def _proxy(name: str, methods: Iterable[str]) -> type:
    """Make a class whose methods operate on a shared value."""

    def through(method: str) -> Callable[..., Any]:
        def call(self: Any, *args: Any, **kwargs: Any) -> Any:
            with self._cell as held:
                found = getattr(held.value, method)(*args, **kwargs)
                if found is held.value:
                    return self
            if method == "__iter__" or type(found).__name__.startswith("dict_"):
                return iter(list(found)) if method == "__iter__" else list(found)
            return found

        call.__name__ = method
        return call

    def start(self: Any, *args: Any, **kwargs: Any) -> None:
        self._cell = Cell({"ListProxy": list, "DictProxy": dict}[name](*args, **kwargs))

    def shown(self: Any) -> str:
        return str(self._getvalue())

    def value(self: Any) -> Any:
        with self._cell as held:
            return held.value

    body = {method: through(method) for method in methods}
    return type(
        name, (), {**body, "__init__": start, "__str__": shown, "__repr__": shown, "_getvalue": value}
    )


_OWN = {"__init__", "__new__", "__str__", "__repr__", "__getattribute__", "__setattr__", "__delattr__"}
_OWN |= {"__class__", "__init_subclass__", "__subclasshook__", "__doc__", "__hash__", "__class_getitem__"}
_OWN |= {"__reduce__", "__reduce_ex__", "__getstate__", "__setstate__", "__dir__", "__sizeof__", "__format__"}
ListProxy = _proxy("ListProxy", sorted(set(dir(list)) - _OWN))
DictProxy = _proxy("DictProxy", sorted(set(dir(dict)) - _OWN))
for _class in (ListProxy, DictProxy):
    _class.__module__ = __name__
    _class.__hash__ = object.__hash__  # type: ignore[method-assign,assignment]


class Namespace:
    """Shared attributes."""

    def __init__(self, **given: Any) -> None:
        object.__setattr__(self, "_shared", DictProxy(given))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        found = self._shared.get(name, self)
        if found is self:
            raise AttributeError(name)
        return found

    def __setattr__(self, name: str, value: Any) -> None:
        self._shared[name] = value

    def __delattr__(self, name: str) -> None:
        del self._shared[name]


class Manager:
    """Makes shared objects."""

    list, dict, Namespace = ListProxy, DictProxy, Namespace
    Queue = JoinableQueue = Queue
    Lock, RLock, Event, Semaphore = Lock, RLock, Event, Semaphore
    BoundedSemaphore, Condition, Barrier = BoundedSemaphore, Condition, Barrier
    Value, Array = Value, Array

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise NotImplementedError(_MISSING.format(f"multiprocessing.Manager().{name}"))

    def start(self, *_args: Any) -> None:
        """Do nothing: there is no server process."""

    def shutdown(self) -> None:
        """Do nothing."""

    join = connect = start

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_args: object) -> None:
        return None


# ---------------------------------------------------------------------- the package


def missing(name: str) -> Callable[..., Any]:
    """Return a function that raises an error naming the alternative."""

    def refuse(*_args: Any, **_kwargs: Any) -> Any:
        raise NotImplementedError(_MISSING.format(f"multiprocessing.{name}"))

    return refuse


class Context(context.BaseContext):
    """The context that `multiprocessing.get_context` returns for every method."""

    _name = "fork"
    Process = Process
    reducer = None  # type: ignore[assignment]

    def get_context(self, method: str | None = None) -> Self:  # type: ignore[override]
        """Return itself; the start method is always ``fork``."""
        if method not in (None, "fork", "spawn", "forkserver"):
            message = f"cannot find context for {method!r}"
            raise ValueError(message)
        return self

    def get_start_method(self, allow_none: bool = False) -> str:
        """Return ``"fork"``."""
        del allow_none
        return "fork"

    def set_start_method(self, method: str | None, force: bool = False) -> None:
        """Do nothing but check the name."""
        del force
        self.get_context(method)

    def get_all_start_methods(self) -> list[str]:
        """Return the available methods."""
        return ["fork"]

    def cpu_count(self) -> int:
        """Return 1: processes run one at a time."""
        return 1


def _pool(*args: Any, **kwargs: Any) -> Any:
    from evocell_pools import Pool

    return Pool(*args, **kwargs)


def install() -> None:
    """Install it into the standard library's package."""
    made = Context()
    own_names: dict[str, Any] = {
        "Pool": _pool,
        "Queue": Queue,
        "SimpleQueue": Queue,
        "JoinableQueue": Queue,
        "Pipe": pipe,
        "Manager": Manager,
        "Lock": Lock,
        "RLock": RLock,
        "Semaphore": Semaphore,
        "BoundedSemaphore": BoundedSemaphore,
        "Event": Event,
        "Condition": Condition,
        "Value": Value,
        "RawValue": Value,
        "Array": Array,
        "RawArray": Array,
        "Barrier": Barrier,
    }
    for name, value in own_names.items():
        setattr(Context, name, staticmethod(value))
        setattr(mp, name, value)
    mp.Process = Process  # type: ignore[misc,assignment]
    methods = ("get_context", "get_start_method", "set_start_method", "get_all_start_methods", "cpu_count")
    for name in methods:
        setattr(mp, name, getattr(made, name))
    context._default_context = made  # type: ignore[assignment]  # noqa: SLF001
    mp.context._default_context = made  # type: ignore[assignment]  # noqa: SLF001
    _replace_modules()


def _replace_modules() -> None:
    """Replace the modules of the package that cannot be imported without an operating system."""
    synchronize = ModuleType("multiprocessing.synchronize")
    for one in (Lock, RLock, Semaphore, BoundedSemaphore, Event, Condition, Barrier):
        setattr(synchronize, one.__name__, one)
    synchronize.SemLock = Semaphore  # type: ignore[attr-defined]
    sys.modules[synchronize.__name__] = mp.synchronize = synchronize
    install_memory(mp, Value, Array)
