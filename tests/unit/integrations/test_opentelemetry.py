"""The bridge to OpenTelemetry, with its own in-memory exporters."""

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from evocell import Case, Evaluation, SandboxNotFound
from evocell.integrations import opentelemetry as bridge_module
from evocell.integrations.opentelemetry import OpenTelemetryBridge

SQUARE = "def solve(n): return n * n"
RAISES = "def solve(n): raise ValueError('SECRET ' + str(n))"
TASK = Evaluation("solve", [Case((2,), expected=4)])


class Seen:
    def __init__(self):
        self._spans = InMemorySpanExporter()
        self.tracers = TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self._spans))
        self._reader = InMemoryMetricReader()
        self.meters = MeterProvider([self._reader])

    @property
    def spans(self):
        return self._spans.get_finished_spans()

    def named(self, name):
        return [span for span in self.spans if span.name == name]

    def points(self, name):
        data = self._reader.get_metrics_data()
        return [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]


@pytest.fixture
def seen():
    made = Seen()
    yield made
    made.tracers.shutdown()
    made.meters.shutdown()


@pytest.fixture
def bridge(seen, fake_engine):
    with OpenTelemetryBridge(
        fake_engine.telemetry, tracer_provider=seen.tracers, meter_provider=seen.meters
    ) as made:
        yield made


def test_evaluations_are_spans_with_what_came_of_them(bridge, fake_engine, seen):
    fake_engine.evaluate([SQUARE, RAISES], TASK, generation=3)
    spans = seen.named("sandbox.evaluate")
    assert [span.attributes["evocell.valid"] for span in spans].count(True) == 1
    invalid = next(span for span in spans if not span.attributes["evocell.valid"])
    assert invalid.attributes["evocell.reason"] == "raised"
    assert invalid.attributes["evocell.generation"] == 3
    assert invalid.attributes["evocell.fuel_used"] == 7
    assert all(span.end_time >= span.start_time for span in spans)
    (batch,) = seen.named("sandbox.batch")
    assert batch.attributes["evocell.operation"] == "evaluate"
    assert (batch.attributes["evocell.n_valid"], batch.attributes["evocell.count"]) == (1, 2)


def test_results_are_counted_by_kind(bridge, fake_engine, seen):
    fake_engine.evaluate([SQUARE, SQUARE + " ", RAISES], TASK)
    found = {point.attributes.get("reason"): point.value for point in seen.points("evocell.evaluations")}
    assert found == {None: 2, "raised": 1}
    assert sum(point.count for point in seen.points("evocell.evaluation.fuel")) == 3


def test_live_sandboxes_are_counted_up_and_down(bridge, fake_engine, seen):
    for name in "ab":
        fake_engine.create_sandbox(name, source=SQUARE)
    fake_engine.destroy_sandbox("a")
    fake_engine.telemetry.emit("sandbox.destroyed", {}, {"sandbox_id": "its creation failed"})
    assert [point.value for point in seen.points("evocell.sandboxes")] == [1]


def test_kills_are_counted_by_kind(bridge, fake_engine, seen):
    telemetry = fake_engine.telemetry
    telemetry.emit("sandbox.killed.resource_limit", {}, {"sandbox_id": "s", "kind": "memory"})
    telemetry.emit("sandbox.killed.timeout", {}, {"sandbox_id": "s"})
    found = {point.attributes["kind"]: point.value for point in seen.points("evocell.kills")}
    assert found == {"memory": 1, "timeout": 1}


def test_what_raises_is_an_error(bridge, fake_engine, seen):
    with pytest.raises(SandboxNotFound):
        fake_engine.batch_destroy(["nobody"])
    (span,) = seen.named("sandbox.batch")
    assert span.status.status_code is StatusCode.ERROR


def test_nothing_that_callers_or_guests_wrote_becomes_an_attribute(bridge, fake_engine, seen):
    fake_engine.create_sandbox(
        "SECRET id", source=RAISES, population="SECRET population", mutation_type="SECRET type"
    )
    fake_engine.batch_evaluate(["SECRET id"], TASK)
    fake_engine.evaluate([RAISES], TASK, population="SECRET population")
    fake_engine.telemetry.emit(
        "sandbox.killed.resource_limit", {}, {"sandbox_id": "SECRET", "kind": "SECRET kind"}
    )
    names = ("evaluations", "kills", "sandboxes", "evaluation.duration", "evaluation.fuel", "worker.memory")
    attributes = [dict(point.attributes) for name in names for point in seen.points(f"evocell.{name}")]
    attributes += [{"": span.name, **span.attributes} for span in seen.spans]
    assert attributes
    assert "SECRET" not in str(attributes)


def test_a_closed_bridge_hears_nothing_and_leaves_no_span_open(fake_engine, seen):
    telemetry = fake_engine.telemetry
    bridge = OpenTelemetryBridge(telemetry, tracer_provider=seen.tracers, meter_provider=seen.meters)
    telemetry.emit("sandbox.evaluate.start", {}, {"span": 1, "sandbox_id": "s", "generation": 0})
    bridge.close()
    bridge.close()
    assert len(seen.named("sandbox.evaluate")) == 1
    fake_engine.evaluate([SQUARE], TASK)
    assert len(seen.spans) == 1


def test_spans_whose_end_is_never_told_are_bounded(bridge, fake_engine, seen, monkeypatch):
    monkeypatch.setattr(bridge_module, "OPEN_SPANS", 3)
    for number in range(10):
        fake_engine.telemetry.emit(
            "sandbox.evaluate.start", {}, {"span": number, "sandbox_id": "s", "generation": 0}
        )
    assert len(seen.spans) == 7


def test_an_end_without_a_beginning_is_passed_over(bridge, fake_engine, seen):
    fake_engine.telemetry.emit("sandbox.evaluate.stop", {"duration_s": 1.0}, {"span": 99})
    assert seen.spans == ()
    assert fake_engine.telemetry.handler_ids != ()
