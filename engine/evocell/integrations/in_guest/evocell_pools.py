"""Pools and executors of processes in a sandbox: workers that are copies of this guest, with two channels."""

from __future__ import annotations

import io
import itertools
import pickle
import sys
import time
import traceback
import types
from collections.abc import Callable, Iterable, Iterator
from multiprocessing import TimeoutError as PoolTimeoutError
from multiprocessing.reduction import ForkingPickler
from typing import Any, Self

import evocell_channels as channels
import evocell_processes as own


def broken_pool() -> type[Exception]:
    """Return `BrokenProcessPool`."""
    from concurrent.futures.process import BrokenProcessPool

    return BrokenProcessPool


class _RemoteError:
    """An error with the text of its traceback, for pickling, like that of the standard library's pools."""

    def __init__(self, error: BaseException, text: str) -> None:
        self.error, self.text = error, text

    def raised(self) -> BaseException:
        """Return the error, chained to its remote traceback."""
        from multiprocessing.pool import RemoteTraceback  # type: ignore[attr-defined]

        self.error.__cause__ = RemoteTraceback(f'\n"""\n{self.text}"""')
        return self.error


_inherited: list[types.FunctionType] = []


def inherited(index: int) -> types.FunctionType:
    """Return a function inherited from the parent process."""
    return _inherited[index]


class _TaskPickler(ForkingPickler):
    """Pickles tasks, with references to inherited local functions, which have no importable name.

    A pool's processes are copies, so those started with its first task already hold its functions, and a
    lambda need not be refused.
    """

    accepts = False
    """Whether functions may be added, as long as the processes are not started."""

    def reducer_override(self, obj: Any) -> Any:
        if not (isinstance(obj, types.FunctionType) and "<" in obj.__qualname__):
            return NotImplemented
        if not any(obj is one for one in _inherited):
            if not self.accepts:
                return NotImplemented
            _inherited.append(obj)
        return inherited, (next(n for n, one in enumerate(_inherited) if one is obj),)


def _packed(task: tuple[Any, ...], *, accepts: bool) -> bytes:
    buffer = io.BytesIO()
    pickler = _TaskPickler(buffer)
    pickler.accepts = accepts
    pickler.dump(task)
    return buffer.getvalue()


class Workers:
    """Processes that take tasks in turn."""

    def __init__(
        self, count: int, initializer: Callable[..., object] | None, arguments: tuple[Any, ...]
    ) -> None:
        self._count = count
        self._setup = initializer, arguments
        self._tasks = own.ask("channel")
        self._results = own.ask("channel")
        self._pids: list[int] = []
        self._numbers = itertools.count()
        self._waiting: dict[int, Callable[[bool, Any], object]] = {}
        self._is_used = False
        self.broken = False

    @property
    def busy(self) -> bool:
        """Whether a task is under way."""
        return bool(self._waiting)

    def start(self) -> None:
        """Start all processes, or as many as there is room for."""
        while len(self._pids) < self._count:
            try:
                self._pids.append(own.start_copy(self._work))
            except BlockingIOError:
                if not self._pids:
                    raise
                self._count = len(self._pids)

    def send(
        self, function: Callable[..., Any], args: Any, kwargs: Any, done: Callable[[bool, Any], object]
    ) -> None:
        """Send a function to a process; `done` is called with success, and the value or the error."""
        data = self._packed((function, args, kwargs))
        self.start()
        self._is_used = True
        number = next(self._numbers)
        self._waiting[number] = done
        own.ask("send", self._tasks, number.to_bytes(8, "big") + data)

    def _packed(self, task: tuple[Any, ...]) -> bytes:
        if not self._pids:
            return _packed(task, accepts=True)
        try:
            return _packed(task, accepts=False)
        except (pickle.PicklingError, AttributeError):
            if self._is_used:
                raise
            self.stop()  # newly started ones hold the function
            return _packed(task, accepts=True)

    def pump(self, timeout: float | None) -> bool:
        """Wait for a result and deliver it.

        Returns:
            Whether there was one.
        """
        try:
            found = channels.receive(self._results, True, timeout, pids=self._pids)
        except own.Refused as refused:  # a worker has ended
            self._bury(int(str(refused)))
            return True
        if found is None:
            return False
        done = self._waiting.pop(int.from_bytes(found[:8], "big"), None)
        good, value = pickle.loads(found[8:])
        if done is not None:
            done(good, value.raised() if isinstance(value, _RemoteError) else value)
        return True

    def _bury(self, pid: int) -> None:
        own.wait_for([pid], 0)
        end = own.ends.pop(pid, None)
        if pid in self._pids:
            self._pids.remove(pid)
        self.broken = True
        waiting, self._waiting = self._waiting, {}
        broken = broken_pool()
        said = f" ({end[5]})" if end is not None and end[5] else ""
        code = "?" if end is None else end[1]
        for done in waiting.values():
            done(False, broken(f"a process of the pool ended abruptly, with status {code}{said}"))

    def stop(self) -> None:
        """End the processes."""
        pids, self._pids = self._pids, []
        for pid in pids:
            if pid in own.running:
                own.kill(pid, 9)
                own.wait_for([pid], None)
            end = own.ends.pop(pid, None)
            if end is not None:
                own.write_out(end[3], None, 1)
                own.write_out(end[4], None, 2)

    def _work(self) -> int:
        function, arguments = self._setup
        if function is not None:
            function(*arguments)
        while True:
            data = channels.receive(self._tasks, True, None)
            try:
                task, args, kwargs = pickle.loads(data[8:])
                answer = True, task(*args, **kwargs)
            except Exception as error:
                answer = False, _RemoteError(error, traceback.format_exc())
            sys.stdout.flush()
            try:
                packed = channels.dumps(answer)
            except Exception as error:
                packed = channels.dumps((False, _RemoteError(TypeError(str(error)), "")))
            own.ask("send", self._results, data[:8] + packed)


class AsyncResult:
    """The result object of a pool's asynchronous methods."""

    def __init__(self, pool: Pool, count: int, callback: Any, error_callback: Any, *, single: bool) -> None:
        self._pool, self._single = pool, single
        self._left = count
        self._values: list[Any] = [None] * count
        self._error: BaseException | None = None
        self._callbacks = callback, error_callback
        if not count:
            self._tell()

    def _set(self, place: int, values: Any, good: bool) -> None:
        if not good:
            self._error = self._error or values
        else:
            self._values[place] = values
        self._left -= 1
        if not self._left:
            self._tell()

    def _tell(self) -> None:
        callback, error_callback = self._callbacks
        if self._error is not None:
            if error_callback is not None:
                error_callback(self._error)
        elif callback is not None:
            callback(self._result())

    def _result(self) -> Any:
        return self._values[0] if self._single else [one for part in self._values for one in part]

    def ready(self) -> bool:
        """Return whether it is done."""
        self.wait(0)
        return not self._left

    def successful(self) -> bool:
        """Return whether it succeeded."""
        if not self.ready():
            message = f"{self!r} not ready"
            raise ValueError(message)
        return self._error is None

    def wait(self, timeout: float | None = None) -> None:
        """Wait until it is done."""
        until = None if timeout is None else time.monotonic() + timeout
        while self._left:
            left = None if until is None else max(0.0, until - time.monotonic())
            if not self._pool._workers.pump(left):  # noqa: SLF001
                return

    def get(self, timeout: float | None = None) -> Any:
        """Return the value, or raise the error.

        Raises:
            multiprocessing.TimeoutError: It is not done within the timeout.
        """
        self.wait(timeout)
        if self._left:
            raise PoolTimeoutError
        if self._error is not None:
            raise self._error
        return self._result()


def _all(task: tuple[Callable[..., Any], list[Any], bool]) -> list[Any]:
    """Call a function for each of some arguments."""
    function, items, star = task
    return [function(*item) if star else function(item) for item in items]


class Pool:
    """A `multiprocessing.Pool`."""

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
    ) -> None:
        del maxtasksperchild, context
        if processes is not None and processes < 1:
            message = "Number of processes must be at least 1"
            raise ValueError(message)
        self._processes = processes or 1
        self._workers: Any = Workers(self._processes, initializer, tuple(initargs))
        self._workers.start()
        self._closed = False

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: dict[str, Any] | None = None,
        callback: Any = None,
        error_callback: Any = None,
    ) -> AsyncResult:
        """Have a worker call a function."""
        result = self._new(1, callback, error_callback, single=True)
        self._workers.send(func, tuple(args), kwds or {}, lambda good, value: result._set(0, value, good))  # noqa: SLF001
        return result

    def apply(
        self, func: Callable[..., Any], args: Iterable[Any] = (), kwds: dict[str, Any] | None = None
    ) -> Any:
        """Have a worker call a function, and wait."""
        return self.apply_async(func, args, kwds).get()

    def map_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Any = None,
        error_callback: Any = None,
    ) -> AsyncResult:
        """Have the workers call a function for each value."""
        return self._map(func, iterable, chunksize, callback, error_callback, star=False)

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Any = None,
        error_callback: Any = None,
    ) -> AsyncResult:
        """Have the workers call a function for each list of arguments."""
        return self._map(func, iterable, chunksize, callback, error_callback, star=True)

    def map(
        self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int | None = None
    ) -> list[Any]:
        """Have the workers call a function for each value, and wait."""
        found: list[Any] = self.map_async(func, iterable, chunksize).get()
        return found

    def starmap(
        self, func: Callable[..., Any], iterable: Iterable[Iterable[Any]], chunksize: int | None = None
    ) -> list[Any]:
        """Have the workers call a function for each list of arguments, and wait."""
        found: list[Any] = self.starmap_async(func, iterable, chunksize).get()
        return found

    def imap(self, func: Callable[..., Any], iterable: Iterable[Any], chunksize: int = 1) -> Iterator[Any]:
        """Have the workers call a function for each value; the results come in order."""
        items = list(iterable)
        parts = [items[at : at + chunksize] for at in range(0, len(items), chunksize)]
        return _Results([self.map_async(func, part, len(part)) for part in parts])

    imap_unordered = imap

    def _map(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Any],
        chunksize: int | None,
        callback: Any,
        error_callback: Any,
        *,
        star: bool,
    ) -> AsyncResult:
        items = list(iterable)
        size = chunksize or max(1, -(-len(items) // (4 * self._processes)))
        parts = [items[at : at + size] for at in range(0, len(items), size)]
        result = self._new(len(parts), callback, error_callback, single=False)
        for place, part in enumerate(parts):

            def told(good: bool, value: Any, place: int = place) -> None:
                result._set(place, value, good)  # noqa: SLF001

            self._workers.send(_all, ((func, part, star),), {}, told)
        return result

    def _new(self, count: int, callback: Any, error_callback: Any, *, single: bool) -> AsyncResult:
        if self._closed:
            message = "Pool not running"
            raise ValueError(message)
        return AsyncResult(self, count, callback, error_callback, single=single)

    def close(self) -> None:
        """Refuse further tasks."""
        self._closed = True

    def join(self) -> None:
        """Wait until all tasks are done."""
        if not self._closed:
            message = "Pool is still running"
            raise ValueError(message)
        while self._workers.busy:
            self._workers.pump(None)
        self._workers.stop()

    def terminate(self) -> None:
        """End the workers."""
        self._closed = True
        self._workers.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_args: object) -> None:
        self.terminate()


class _Here:
    """A replacement for workers that runs each task at once, in this process."""

    busy = False

    def __init__(self, initializer: Callable[..., object] | None, arguments: tuple[Any, ...]) -> None:
        if initializer is not None:
            initializer(*arguments)

    def start(self) -> None:
        """Do nothing."""

    stop = start

    def send(
        self, function: Callable[..., Any], args: Any, kwargs: Any, done: Callable[[bool, Any], object]
    ) -> None:
        """Call a function."""
        try:
            good, value = True, function(*args, **kwargs)
        except MemoryError:
            raise
        except Exception as error:
            good, value = False, error
        done(good, value)

    def pump(self, timeout: float | None) -> bool:
        """Return False: no result is outstanding."""
        del timeout
        return False


class ThreadPool(Pool):
    """A `multiprocessing.pool.ThreadPool`."""

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
    ) -> None:
        self._processes = processes or 1
        self._workers: Any = _Here(initializer, tuple(initargs))
        self._closed = False


class _Results:
    """The iterator of `Pool.imap`."""

    def __init__(self, parts: list[AsyncResult]) -> None:
        self._parts = parts
        self._ready: list[Any] = []

    def __iter__(self) -> Self:
        return self

    def next(self, timeout: float | None = None) -> Any:
        """Return the next result."""
        while not self._ready:
            if not self._parts:
                raise StopIteration
            self._ready = self._parts[0].get(timeout)
            self._parts.pop(0)
        return self._ready.pop(0)

    __next__ = next
