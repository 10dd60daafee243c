"""Pipes, queues, locks and shared values for processes of a sandbox, built on channels between guests.

A channel is a queue of messages in the host. Values are pickled here; the messages are opaque to the host.
"""

from __future__ import annotations

import io
import os
import pickle
import queue
import time
from array import array
from collections.abc import Callable, Iterable
from multiprocessing.reduction import ForkingPickler
from typing import Any, Self

import evocell_processes as own


def receive(
    channel: int, block: bool, timeout: float | None, *, takes: bool = True, pids: Iterable[int] = ()
) -> Any:
    """Receive a message; None on timeout."""
    watched = list(pids)
    if not block:
        timeout = 0
    return own.waiting(timeout, lambda left: own.ask("receive", channel, left, takes, watched))


def dumps(value: Any) -> bytes:
    """Pickle a value like `multiprocessing`."""
    return bytes(ForkingPickler.dumps(value))


class Connection:
    """One end of a pipe."""

    def __init__(self, incoming: int | None, outgoing: int | None) -> None:
        self._in, self._out = incoming, outgoing
        self.closed = False
        self.readable, self.writable = incoming is not None, outgoing is not None

    def send_bytes(self, buffer: Any, offset: int = 0, size: int | None = None) -> None:
        """Send bytes."""
        self._check(self._out)
        data = bytes(memoryview(buffer).cast("B"))
        own.ask("send", self._out, data[offset : None if size is None else offset + size])

    def send(self, obj: Any) -> None:
        """Send a value, pickled."""
        self._check(self._out)
        own.ask("send", self._out, dumps(obj))

    def recv_bytes(self, maxlength: int | None = None) -> bytes:
        """Receive bytes.

        Raises:
            EOFError: No sender is left.
        """
        self._check(self._in)
        found: bytes = receive(self._in, True, None)  # type: ignore[arg-type]
        if maxlength is not None and len(found) > maxlength:
            message = "bad message length"
            raise OSError(message)
        return found

    def recv(self) -> Any:
        """Receive a value.

        Raises:
            EOFError: No process that could send is left.
        """
        return pickle.loads(self.recv_bytes())

    def poll(self, timeout: float | None = 0.0) -> bool:
        """Return whether a message can be received within a time."""
        self._check(self._in)
        return receive(self._in, True, timeout, takes=False) is not None  # type: ignore[arg-type]

    def close(self) -> None:
        """Close this end."""
        self.closed = True

    def fileno(self) -> int:
        """Raise an error: a channel has no descriptor."""
        raise io.UnsupportedOperation("fileno")

    def _check(self, channel: int | None) -> None:
        if self.closed:
            message = "handle is closed"
            raise OSError(message)
        if channel is None:
            message = "connection is one-way, the other way"
            raise OSError(message)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_args: object) -> None:
        self.close()


def pipe(duplex: bool = True) -> tuple[Connection, Connection]:
    """Return the two ends of a pipe; of a one-way pipe, the receiving end first."""
    there = own.ask("channel")
    if not duplex:
        return Connection(there, None), Connection(None, there)
    back = own.ask("channel")
    return Connection(there, back), Connection(back, there)


class Semaphore:
    """A counting semaphore."""

    _most: int | None = None

    def __init__(self, value: int = 1) -> None:
        self._channel = own.ask("channel")
        for _ in range(value):
            own.ask("send", self._channel, b"")

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Acquire the semaphore."""
        return receive(self._channel, block, timeout) is not None

    def release(self) -> None:
        """Release the semaphore."""
        if self._most is not None and self.get_value() >= self._most:
            message = "semaphore or lock released too many times"
            raise ValueError(message)
        own.ask("send", self._channel, b"")

    def get_value(self) -> int:
        """Return its value."""
        found: int = own.ask("size", self._channel)
        return found

    def locked(self) -> bool:
        """Return whether its value is 0."""
        return self.get_value() == 0

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_args: object) -> None:
        self.release()


class BoundedSemaphore(Semaphore):
    """A semaphore that cannot be released above its initial value."""

    def __init__(self, value: int = 1) -> None:
        super().__init__(value)
        self._most = value


class Lock(BoundedSemaphore):
    """A lock."""

    def __init__(self) -> None:
        super().__init__(1)


class RLock(Lock):
    """A reentrant lock."""

    def __init__(self) -> None:
        super().__init__()
        self._owner, self._count = -1, 0

    def acquire(self, block: bool = True, timeout: float | None = None) -> bool:
        """Acquire the lock."""
        if self._owner == os.getpid() and self._count:
            self._count += 1
            return True
        if not super().acquire(block, timeout):
            return False
        self._owner, self._count = os.getpid(), 1
        return True

    def release(self) -> None:
        """Release the lock."""
        if self._owner != os.getpid() or not self._count:
            message = "attempt to release recursive lock not owned by thread"
            raise AssertionError(message)
        self._count -= 1
        if not self._count:
            super().release()


class Event:
    """A flag that processes can wait for."""

    def __init__(self) -> None:
        self._channel = own.ask("channel")

    def is_set(self) -> bool:
        """Return whether it is set."""
        return bool(own.ask("size", self._channel))

    def set(self) -> None:
        """Set it."""
        if not self.is_set():
            own.ask("send", self._channel, b"")

    def clear(self) -> None:
        """Clear it."""
        receive(self._channel, False, None)

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set."""
        return receive(self._channel, True, timeout, takes=False) is not None


class Condition:
    """A condition variable."""

    def __init__(self, lock: Any = None) -> None:
        self._lock = RLock() if lock is None else lock
        self._wakeups = own.ask("channel")
        self._waiting = Cell(0)
        self.acquire, self.release = self._lock.acquire, self._lock.release

    def wait(self, timeout: float | None = None) -> bool:
        """Release the lock until notified."""
        with self._waiting as held:
            held.value += 1
        self.release()
        try:
            return receive(self._wakeups, True, timeout) is not None
        finally:
            self.acquire()

    def wait_for(self, predicate: Callable[[], Any], timeout: float | None = None) -> Any:
        """Wait until a predicate holds."""
        until = None if timeout is None else time.monotonic() + timeout
        while not (found := predicate()):
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                break
            self.wait(left)
        return found

    def notify(self, n: int = 1) -> None:
        """Wake at most `n` waiting processes."""
        with self._waiting as held:
            woken = min(n, held.value)
            held.value -= woken
        for _ in range(woken):
            own.ask("send", self._wakeups, b"")

    def notify_all(self) -> None:
        """Wake all waiting processes."""
        self.notify(1 << 30)

    def __enter__(self) -> Any:
        return self._lock.__enter__()

    def __exit__(self, *args: object) -> None:
        self._lock.__exit__(*args)


class Cell:
    """A shared value, pickled in a channel; while one process has it, the others wait for it."""

    def __init__(self, value: Any) -> None:
        self._channel = own.ask("channel")
        own.ask("send", self._channel, dumps(value))
        self.value: Any = None

    def __enter__(self) -> Self:
        self.value = pickle.loads(receive(self._channel, True, None))
        return self

    def __exit__(self, *_args: object) -> None:
        own.ask("send", self._channel, dumps(self.value))
        self.value = None


class Queue:
    """A queue between processes."""

    def __init__(self, maxsize: int = 0) -> None:
        self._channel = own.ask("channel")
        self._room = Semaphore(maxsize) if maxsize > 0 else None
        self._unfinished = Cell(0)

    def put(self, obj: Any, block: bool = True, timeout: float | None = None) -> None:
        """Put a value.

        Raises:
            queue.Full: There is no room within the timeout.
        """
        data = dumps(obj)
        if self._room is not None and not self._room.acquire(block, timeout):
            raise queue.Full
        with self._unfinished as held:
            held.value += 1
        own.ask("send", self._channel, data)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        """Get a value.

        Raises:
            queue.Empty: There is none within the timeout.
        """
        found = receive(self._channel, block, timeout)
        if found is None:
            raise queue.Empty
        if self._room is not None:
            self._room.release()
        return pickle.loads(found)

    def put_nowait(self, obj: Any) -> None:
        """Put a value without waiting."""
        self.put(obj, False)

    def get_nowait(self) -> Any:
        """Get a value without waiting."""
        return self.get(False)

    def qsize(self) -> int:
        """Return the number of values in it."""
        found: int = own.ask("size", self._channel)
        return found

    def empty(self) -> bool:
        """Return whether it is empty."""
        return receive(self._channel, False, None, takes=False) is None

    def full(self) -> bool:
        """Return whether it is full."""
        return self._room is not None and self._room.locked()

    def task_done(self) -> None:
        """Mark a value from `get` as processed."""
        with self._unfinished as held:
            if held.value <= 0:
                message = "task_done() called too many times"
                raise ValueError(message)
            held.value -= 1

    def join(self) -> None:
        """Wait until all values are processed."""
        while True:
            with self._unfinished as held:
                if not held.value:
                    return
            own.sleep(0.001)

    def close(self) -> None:
        """Do nothing: nothing is buffered."""

    join_thread = cancel_join_thread = close


class Value:
    """A shared number."""

    def __init__(self, typecode_or_type: Any, *args: Any, lock: Any = True) -> None:
        self._code = _typecode(typecode_or_type)
        self._cell = Cell(_coerced(self._code, args[0] if args else 0))
        self._lock = RLock() if lock is True or not lock else lock

    @property
    def value(self) -> Any:
        """The number."""
        with self._cell as held:
            return held.value

    @value.setter
    def value(self, new: Any) -> None:
        new = _coerced(self._code, new)
        with self._cell as held:
            held.value = new

    def get_lock(self) -> Any:
        """Return its lock."""
        return self._lock

    def get_obj(self) -> Self:
        """Return itself."""
        return self

    def acquire(self, *args: Any) -> bool:
        """Acquire its lock."""
        return bool(self._lock.acquire(*args))

    def release(self) -> None:
        """Release its lock."""
        self._lock.release()

    def __enter__(self) -> Any:
        return self._lock.__enter__()

    def __exit__(self, *args: object) -> None:
        self._lock.__exit__(*args)


class Array(Value):
    """A shared array of numbers."""

    def __init__(self, typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True) -> None:
        super().__init__(typecode_or_type, lock=lock)
        given = (
            [0] * size_or_initializer if isinstance(size_or_initializer, int) else list(size_or_initializer)
        )
        self._cell = Cell([_coerced(self._code, item) for item in given])

    def __len__(self) -> int:
        with self._cell as held:
            return len(held.value)

    def __getitem__(self, place: Any) -> Any:
        with self._cell as held:
            return held.value[place]

    def __setitem__(self, place: Any, new: Any) -> None:
        new = (
            [_coerced(self._code, item) for item in new]
            if isinstance(place, slice)
            else _coerced(self._code, new)
        )
        with self._cell as held:
            size = len(held.value)
            changed = list(held.value)
            changed[place] = new
            if len(changed) != size:
                message = "Can only assign sequence of same size"
                raise ValueError(message)
            held.value = changed


def _typecode(given: Any) -> str:
    return given if isinstance(given, str) else str(given._type_)


def _coerced(code: str, value: Any) -> Any:
    """Convert a value as an assignment to a C variable of a type would."""
    if code in ("c", "?"):
        return bool(value) if code == "?" else value
    return array(code, [value])[0]
