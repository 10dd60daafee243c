"""Threads in a sandbox: each runs to its end, sequentially, when any code waits."""

from __future__ import annotations

import concurrent.futures
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import evocell_processes as processes


class InTurn(Executor):
    """An executor that runs the function before `submit` returns."""

    def __init__(
        self,
        max_workers: int | None = None,
        thread_name_prefix: str = "",
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
    ) -> None:
        del thread_name_prefix
        super().__init__()
        if max_workers is not None and max_workers <= 0:
            message = "max_workers must be greater than 0"
            raise ValueError(message)
        if initializer is not None:
            initializer(*initargs)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run the function and return its future, which is done."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except MemoryError:
            raise
        except BaseException as error:
            future.set_exception(error)
        return future


_waiting: list[threading.Thread] = []
_timers: list[tuple[float, threading.Timer]] = []
_finished: set[int] = set()
_background: list[bool] = []


class _SetAside(BaseException):
    """Ends a daemon thread where it would wait, as the end of its process would."""


def run_threads() -> None:
    """Run the started threads that have not run yet, each to its end.

    A daemon thread runs until it waits: a monitoring thread would never end.
    """
    while _waiting:
        thread = _waiting.pop(0)
        _run_thread(thread, background=thread.daemon)


def _run_thread(thread: threading.Thread, *, background: bool = False) -> None:
    _background.append(background)
    try:
        thread.run()
    except (SystemExit, _SetAside):
        pass
    except MemoryError:
        raise
    except BaseException as error:
        given = (type(error), error, error.__traceback__, thread)
        threading.excepthook(threading.ExceptHookArgs(given))
    finally:
        _background.pop()
        _finished.add(id(thread))


def _set_aside() -> None:
    if _background and _background[-1]:
        raise _SetAside


def _start(self: threading.Thread) -> None:
    if self._started.is_set():  # type: ignore[attr-defined]
        message = "threads can only be started once"
        raise RuntimeError(message)
    self._started.set()  # type: ignore[attr-defined]
    if isinstance(self, threading.Timer):
        _timers.append((time.monotonic() + self.interval, self))
        return
    _waiting.append(self)


def _join(self: threading.Thread, timeout: float | None = None) -> None:
    if not self._started.is_set():  # type: ignore[attr-defined]
        message = "cannot join thread before it is started"
        raise RuntimeError(message)
    if isinstance(self, threading.Timer):
        if id(self) not in _finished and not self.finished.is_set():
            processes.sleep(max(0.0, self.interval if timeout is None else timeout))
        return
    if self in _waiting:
        _waiting.remove(self)
        _run_thread(self)
    run_threads()


def _is_alive(self: threading.Thread) -> bool:
    if not self._started.is_set():  # type: ignore[attr-defined]
        return False
    if isinstance(self, threading.Timer):
        return id(self) not in _finished and not self.finished.is_set()
    run_threads()
    return id(self) not in _finished


def _next_timer() -> float | None:
    _timers[:] = [pair for pair in _timers if not pair[1].finished.is_set()]
    return min((at for at, _ in _timers), default=None)


def _ring_timers() -> None:
    now = time.monotonic()
    for pair in sorted(_timers, key=lambda one: one[0]):
        at, timer = pair
        if at <= now and pair in _timers:
            _timers.remove(pair)
            if not timer.finished.is_set():
                timer.function(*timer.args, **timer.kwargs)
                timer.finished.set()
            _finished.add(id(timer))


def _stuck(what: str) -> RuntimeError:
    message = (
        f"{what} would wait for ever: in a sandbox a thread runs in turn, to its end, when another one "
        "waits, and no thread that is left can end this wait"
    )
    return RuntimeError(message)


_event_wait, _condition_wait = threading.Event.wait, threading.Condition.wait
_queue_get = queue.Queue.get


def _wait_for_event(self: threading.Event, timeout: float | None = None) -> bool:
    if not self.is_set():
        run_threads()
    if self.is_set():
        return True
    _set_aside()
    if timeout is None and _next_timer() is None:
        raise _stuck("Event.wait")
    until = None if timeout is None else time.monotonic() + timeout
    while not self.is_set():
        alarm = _next_timer()
        if until is not None and (alarm is None or alarm > until):
            processes.sleep(max(0.0, until - time.monotonic()))
            break
        if alarm is None:
            raise _stuck("Event.wait")
        processes.sleep(max(0.0, alarm - time.monotonic()))
        _ring_timers()
    return self.is_set()


def _wait_for_condition(self: threading.Condition, timeout: float | None = None) -> bool:
    if not self._is_owned():  # type: ignore[attr-defined]
        message = "cannot wait on un-acquired lock"
        raise RuntimeError(message)
    had_threads = bool(_waiting)
    saved = self._release_save()  # type: ignore[attr-defined]
    try:
        run_threads()
    finally:
        self._acquire_restore(saved)  # type: ignore[attr-defined]
    if had_threads:
        return True
    if timeout is None:
        raise _stuck("Condition.wait")
    processes.sleep(max(0.0, timeout))
    return False


def _get(self: queue.Queue[Any], block: bool = True, timeout: float | None = None) -> Any:
    if block and not self._qsize():
        run_threads()
        if not self._qsize():
            _set_aside()
            if timeout is None:
                raise _stuck("Queue.get")
            processes.sleep(max(0.0, timeout))
        block = False
    return _queue_get(self, block)


def _put(self: queue.Queue[Any], item: Any, block: bool = True, timeout: float | None = None) -> None:
    if 0 < self.maxsize <= self._qsize() and block:
        run_threads()
        if self.maxsize <= self._qsize():
            if timeout is None:
                raise _stuck("Queue.put")
            processes.sleep(max(0.0, timeout))
        block = False
    _queue_put(self, item, block)


def _join_queue(self: queue.Queue[Any]) -> None:
    if self.unfinished_tasks:
        run_threads()
    if self.unfinished_tasks:
        raise _stuck("Queue.join")


_queue_put = queue.Queue.put


def install() -> None:
    """Install them into the standard library's modules."""
    concurrent.futures.ThreadPoolExecutor = InTurn  # type: ignore[misc,assignment]
    thread: Any = threading.Thread
    thread.start, thread.join, thread.is_alive = _start, _join, _is_alive
    threading.Event.wait = _wait_for_event  # type: ignore[method-assign]
    threading.Condition.wait = _wait_for_condition  # type: ignore[method-assign]
    queue.Queue.get, queue.Queue.put = _get, _put  # type: ignore[method-assign]
    queue.Queue.join = _join_queue  # type: ignore[method-assign]
    processes.before_waiting += [_set_aside, run_threads]
    processes.next_alarm.append(_next_timer)
    processes.ring.append(_ring_timers)
