"""An engine's events as OpenTelemetry traces and metrics; needs ``pip install 'evocell[opentelemetry]'``.

    with evocell.Engine() as engine, OpenTelemetryBridge(engine.telemetry):
        ...

Attributes are numbers of the engine, booleans, and words from the closed sets of
`evocell.telemetry.catalogue`; ids, reasons and other text of callers or guests are excluded, so that the
cardinality does not grow with the evaluations.
"""

from __future__ import annotations

import itertools
import threading
from collections import OrderedDict
from types import TracebackType
from typing import Self

from opentelemetry import metrics, trace
from opentelemetry.metrics import Counter, Histogram, MeterProvider, UpDownCounter
from opentelemetry.trace import Span, SpanKind, StatusCode, TracerProvider

from evocell.telemetry.catalogue import EVENTS
from evocell.telemetry.events import Telemetry, TelemetryEvent

__all__ = ["OpenTelemetryBridge"]

OPEN_SPANS = 10_000
"""Most open spans; beyond it the oldest is ended, in case its end event was missed."""

_SCOPE = "evocell"
_NS = 1_000_000_000
_numbers = itertools.count(1)

Attributes = dict[str, str | bool | int]


class OpenTelemetryBridge:
    """Turns events into spans and measurements while it is open; a context manager.

    Spans: ``sandbox.create``, ``sandbox.hot_reload``, ``sandbox.evaluate``, ``sandbox.batch``.
    Metrics: ``evocell.evaluations``, ``evocell.kills``, ``evocell.sandboxes``,
    ``evocell.evaluation.duration`` in s, ``evocell.evaluation.fuel``, and in bytes
    ``evocell.evaluation.peak_memory`` and ``evocell.worker.memory``.

    Args:
        telemetry: The engine's ``engine.telemetry``.
        tracer_provider: Makes the spans; None for OpenTelemetry's global one.
        meter_provider: Takes the measurements; None for OpenTelemetry's global one.
    """

    def __init__(
        self,
        telemetry: Telemetry,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
    ) -> None:
        self._telemetry = telemetry
        self._tracer = trace.get_tracer(_SCOPE, tracer_provider=tracer_provider)
        meter = metrics.get_meter(_SCOPE, meter_provider=meter_provider)
        self._evaluations: Counter = meter.create_counter(
            "evocell.evaluations", "1", "results of individuals"
        )
        self._kills: Counter = meter.create_counter("evocell.kills", "1", "guests stopped at a limit")
        self._sandboxes: UpDownCounter = meter.create_up_down_counter(
            "evocell.sandboxes", "1", "live sandboxes"
        )
        self._durations: Histogram = meter.create_histogram(
            "evocell.evaluation.duration", "s", "from the first call to the score"
        )
        self._fuel: Histogram = meter.create_histogram(
            "evocell.evaluation.fuel", "{fuel}", "work, in units of fuel"
        )
        self._memory: Histogram = meter.create_histogram(
            "evocell.evaluation.peak_memory", "By", "above the image"
        )
        self._worker_memory: Histogram = meter.create_histogram(
            "evocell.worker.memory", "By", "resident memory of a worker's own"
        )
        self._lock = threading.Lock()
        self._open: OrderedDict[object, Span] = OrderedDict()
        self._alive: set[object] = set()
        self._id = f"evocell.opentelemetry.{next(_numbers)}"
        telemetry.attach(self._id, "", self._receive)

    def __enter__(self) -> Self:
        """Return the bridge itself."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Detach from the events, and end the open spans; idempotent."""
        self._telemetry.detach(self._id)
        with self._lock:
            left = list(self._open.values())
            self._open.clear()
        for span in left:
            span.end()

    def _receive(self, event: TelemetryEvent) -> None:
        name, _, last = event.name.rpartition(".")
        if last == "start":
            self._begin(name, event)
        elif last in {"stop", "exception"}:
            self._end(event, failed=last == "exception")
        if event.name == "sandbox.fitness.computed":
            attributes = _closed(event)
            self._evaluations.add(1, attributes)
            self._durations.record(event.measurements["evaluation_time_ms"] / 1000, attributes)
            self._fuel.record(event.measurements["fuel_used"], attributes)
            self._memory.record(event.measurements["peak_memory_bytes"], attributes)
        elif name == "sandbox.killed":
            self._kills.add(1, {"kind": "timeout", **_closed(event)} if last == "timeout" else _closed(event))
        elif event.name in {"sandbox.create.stop", "sandbox.destroyed"}:
            self._count_sandbox(event.metadata["sandbox_id"], created=last == "stop")
        elif event.name == "worker.resources" and "memory_bytes" in event.measurements:
            self._worker_memory.record(event.measurements["memory_bytes"], _closed(event))

    def _count_sandbox(self, sandbox_id: object, *, created: bool) -> None:
        """Count a sandbox; one whose creation failed is destroyed without having been counted."""
        with self._lock:
            known = sandbox_id in self._alive
            if created:
                self._alive.add(sandbox_id)
            else:
                self._alive.discard(sandbox_id)
        if known is not created:
            self._sandboxes.add(1 if created else -1)

    def _begin(self, name: str, event: TelemetryEvent) -> None:
        span = self._tracer.start_span(
            name,
            kind=SpanKind.INTERNAL,
            attributes=_named(_closed(event) | _numbers_of(event)),
            start_time=int(event.at * _NS),
        )
        with self._lock:
            self._open[event.metadata["span"]] = span
            lost = self._open.popitem(last=False)[1] if len(self._open) > OPEN_SPANS else None
        if lost is not None:
            lost.end()

    def _end(self, event: TelemetryEvent, *, failed: bool) -> None:
        with self._lock:
            span = self._open.pop(event.metadata.get("span"), None)
        if span is None:
            return  # it began before the bridge was opened
        span.set_attributes(_named(_closed(event)))
        for name, value in event.measurements.items():
            if name != "duration_s":
                span.set_attribute(f"{_SCOPE}.{name}", value)
        if failed:
            span.set_status(StatusCode.ERROR)
        span.end(end_time=int(event.at * _NS))


def _closed(event: TelemetryEvent) -> Attributes:
    """Return the booleans and closed-set words in an event's metadata."""
    kind = EVENTS.get(event.name)
    found: Attributes = {}
    for label in () if kind is None else kind.labels:
        value = event.metadata.get(label.name)
        if isinstance(value, bool) or (
            isinstance(value, str) and label.closed is not None and value in label.closed
        ):
            found[label.name] = value
    return found


def _numbers_of(event: TelemetryEvent) -> Attributes:
    """Return the numbers in an event's metadata, for spans only: too high a cardinality for metrics."""
    return {
        name: value
        for name, value in event.metadata.items()
        if isinstance(value, int) and not isinstance(value, bool) and name != "span"
    }


def _named(attributes: Attributes) -> Attributes:
    return {f"{_SCOPE}.{name}": value for name, value in attributes.items()}
