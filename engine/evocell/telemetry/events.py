"""Telemetry of one engine: events, spans, and the handlers attached to them.

Emitting never raises and never waits: a handler that raises is detached and reported, and the engine
continues. The events, with their measurements and metadata, are listed in `evocell.telemetry.catalogue`.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType, TracebackType
from typing import Self, TypeAlias

import trio
from attrs import frozen

from evocell.errors import ConfigurationError
from evocell.models.references import Completable

__all__ = ["HANDLER_FAILED", "Handler", "Span", "Telemetry", "TelemetryEvent"]

HANDLER_FAILED = "telemetry.handler.failed"
"""Emitted to the other handlers when one has raised and been detached."""

_NOTHING: Mapping[str, object] = MappingProxyType({})
_NO_NUMBERS: Mapping[str, float] = MappingProxyType({})

_log = logging.getLogger("evocell")


@frozen
class TelemetryEvent:
    """One event of an engine.

    Attributes:
        name: Its name, in dotted words, such as ``"sandbox.fitness.computed"``.
        measurements: Numbers by name; the unit is part of the name, as in ``duration_s``.
        metadata: Its context; each value is None, a bool, a number, a string or a tuple of strings.
        at: When, in seconds since 1970 (UTC).
    """

    name: str
    measurements: Mapping[str, float]
    metadata: Mapping[str, object]
    at: float


Handler: TypeAlias = Callable[[TelemetryEvent], None]
"""Called in the emitting thread; it must be quick, since the engine waits for it."""


@frozen
class _Attached:
    handler_id: str
    prefix: str
    handler: Handler

    def wants(self, name: str) -> bool:
        prefix = self.prefix
        return not prefix or name == prefix or (name.startswith(prefix) and name[len(prefix)] == ".")


class Telemetry(Completable):
    """Delivers events to the attached handlers; thread-safe.

    Without handlers an event costs one check of an empty tuple.
    """

    def __init__(self) -> None:
        self._attached: tuple[_Attached, ...] = ()
        self._lock = threading.Lock()
        self._span_numbers = itertools.count(1)

    @property
    def active(self) -> bool:
        """Whether a handler is attached; check it before computing measurements for an event."""
        return bool(self._attached)

    @property
    def handler_ids(self) -> tuple[str, ...]:
        """The ids of the attached handlers, in the order of calls."""
        return tuple(one.handler_id for one in self._attached)

    def attach(self, handler_id: str, prefix: str, handler: Handler) -> None:
        """Attach a function to be called with every event under a prefix.

        Args:
            handler_id: Its id, for `detach`.
            prefix: The first words of the events' names: ``"sandbox.evaluate"`` gets
                ``sandbox.evaluate.start`` and not ``sandbox.evaluated``; ``""`` gets everything.
            handler: Called in the emitting thread, often the engine's own, which waits for it: move long
                work to another thread. If it raises, it is detached, the failure is logged, and
                ``telemetry.handler.failed`` is emitted.

        Raises:
            ConfigurationError: The id is in use, or an argument is invalid.
        """
        _check_attachment(handler_id, prefix, handler)
        with self._lock:
            if handler_id in self.handler_ids:
                raise ConfigurationError(
                    f"a handler {handler_id!r} is attached already; detach it first, or use another id",
                    "handler_id",
                )
            self._attached = (*self._attached, _Attached(handler_id, prefix, handler))

    def detach(self, handler_id: str) -> bool:
        """Stop calling a handler; an event being emitted in another thread may still reach it.

        Returns:
            Whether there was such a handler.
        """
        with self._lock:
            kept = tuple(one for one in self._attached if one.handler_id != handler_id)
            found = len(kept) < len(self._attached)
            self._attached = kept
        return found

    def emit(
        self,
        name: str,
        measurements: Mapping[str, float] = _NO_NUMBERS,
        metadata: Mapping[str, object] = _NOTHING,
    ) -> None:
        """Deliver an event to the attached handlers; never raises.

        Args:
            name: The event, as in `evocell.telemetry.catalogue`.
            measurements: Numbers by name.
            metadata: Its context.
        """
        attached = self._attached
        if not attached:
            return
        event = TelemetryEvent(name, measurements, metadata, time.time())
        for one in attached:
            if one.wants(name):
                try:
                    one.handler(event)
                except Exception as error:  # noqa: BLE001 - a handler is the caller's code
                    self._drop(one, event, error)

    def span(self, name: str, metadata: Mapping[str, object] = _NOTHING) -> Span:
        """Return a context manager that emits ``name.start``, and ``name.stop`` or ``name.exception``.

        Args:
            name: The event without its last word.
            metadata: Metadata of all its events, which also share a ``span`` number.
        """
        return Span(self, name, metadata, next(self._span_numbers))

    def _drop(self, one: _Attached, event: TelemetryEvent, error: Exception) -> None:
        if not self.detach(one.handler_id):
            return  # another thread's event made it fail at the same time
        _log.error(
            "the telemetry handler %r raised on %r and is detached",
            one.handler_id,
            event.name,
            exc_info=error,
        )
        self.emit(
            HANDLER_FAILED,
            {},
            {"handler_id": one.handler_id, "event": event.name, "error": type(error).__name__},
        )


def _check_attachment(handler_id: object, prefix: object, handler: object) -> None:
    if not isinstance(handler_id, str) or not handler_id:
        raise ConfigurationError(f"handler_id must be a name, not {handler_id!r}", "handler_id")
    if not isinstance(prefix, str) or prefix.endswith("."):
        raise ConfigurationError(
            f'prefix must be whole words of a name without a dot at its end, or "", not {prefix!r}', "prefix"
        )
    if not callable(handler):
        raise ConfigurationError(f"handler must be a function, not {type(handler).__name__}", "handler")


class Span:
    """A context manager with a start and a stop event; see `Telemetry.span`."""

    __slots__ = ("_measured", "_metadata", "_name", "_number", "_started", "_telemetry")

    def __init__(self, telemetry: Telemetry, name: str, metadata: Mapping[str, object], number: int) -> None:
        self._telemetry = telemetry
        self._name = name
        self._metadata = metadata
        self._number = number
        self._measured: dict[str, float] | None = None
        self._started = 0.0

    @property
    def heard(self) -> bool:
        """Whether a handler is attached."""
        return self._telemetry.active

    def note(self, **metadata: object) -> None:
        """Add metadata to the last event of the span."""
        self._metadata = {**self._metadata, **metadata}

    def measure(self, **measurements: float) -> None:
        """Add measurements to the last event of the span."""
        self._measured = {**(self._measured or {}), **measurements}

    def __enter__(self) -> Self:
        """Emit ``.start``."""
        self._started = time.perf_counter()
        if self._telemetry.active:
            self._telemetry.emit(f"{self._name}.start", _NO_NUMBERS, self._labels())
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Emit ``.stop``, or ``.exception`` with the exception's class."""
        if not self._telemetry.active:
            return
        measured: dict[str, float] = {"duration_s": time.perf_counter() - self._started}
        labels = self._labels()
        if exc_type is None:
            measured.update(self._measured or {})
            self._telemetry.emit(f"{self._name}.stop", measured, labels)
        else:
            labels["error"] = "cancelled" if issubclass(exc_type, trio.Cancelled) else exc_type.__name__
            self._telemetry.emit(f"{self._name}.exception", measured, labels)

    def _labels(self) -> dict[str, object]:
        return {**self._metadata, "span": self._number}
