"""The table of events, and the page made of it."""

from pathlib import Path

import pytest

from evocell.telemetry.catalogue import EVENTS, problems, render
from evocell.telemetry.events import TelemetryEvent

PAGE = Path(__file__).parents[3] / "docs" / "telemetry.md"


def test_the_page_has_the_table_as_it_is():
    assert render() in PAGE.read_text(encoding="utf-8"), (
        "docs/telemetry.md is out of date; run: .venv/bin/python -m evocell.telemetry.catalogue"
    )


@pytest.mark.parametrize("name", EVENTS)
def test_every_event_says_what_it_is(name):
    kind = EVENTS[name]
    assert kind.meaning
    keys = [one.name for one in (*kind.numbers, *kind.labels)]
    assert len(keys) == len(set(keys))


def timeout(measurements=None, **metadata):
    return TelemetryEvent("sandbox.killed.timeout", measurements or {}, metadata, 0.0)


def test_what_is_not_in_the_table_is_found():
    assert problems(timeout({"limit": 1.5}, sandbox_id="s")) == []
    assert problems(timeout(sandbox_id="s", colour="red")) == [
        "sandbox.killed.timeout: the metadata 'colour' is not in the table"
    ]
    assert problems(timeout()) == ["sandbox.killed.timeout: the metadata 'sandbox_id' is missing"]
    assert problems(timeout(sandbox_id=3)) == ["sandbox.killed.timeout: sandbox_id is 3, which is no str"]
    assert problems(timeout({"limit": True}, sandbox_id="s")) == [
        "sandbox.killed.timeout: limit is True, not a number"
    ]
    assert problems(TelemetryEvent("sandbox.sings", {}, {}, 0.0)) == ["there is no event 'sandbox.sings'"]


def test_closed_sets_are_closed():
    event = TelemetryEvent("sandbox.killed.resource_limit", {}, {"sandbox_id": "s", "kind": "boredom"}, 0.0)
    (problem,) = problems(event)
    assert "'boredom', not one of fuel" in problem
