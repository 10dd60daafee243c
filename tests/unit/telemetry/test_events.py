"""Events, handlers, and what happens to a handler that fails."""

import logging
import threading

import pytest
import trio

from evocell.errors import ConfigurationError
from evocell.telemetry.events import HANDLER_FAILED, Telemetry


@pytest.fixture
def telemetry():
    return Telemetry()


def names(events):
    return [event.name for event in events]


def test_a_prefix_is_whole_words(telemetry):
    everything, evaluations = [], []
    telemetry.attach("all", "", everything.append)
    telemetry.attach("some", "sandbox.evaluate", evaluations.append)
    for name in ("sandbox.evaluate", "sandbox.evaluate.start", "sandbox.evaluated", "other"):
        telemetry.emit(name)
    assert len(everything) == 4
    assert names(evaluations) == ["sandbox.evaluate", "sandbox.evaluate.start"]


def test_an_event_carries_what_was_given(telemetry):
    events = []
    telemetry.attach("a", "x", events.append)
    telemetry.emit("x.y", {"fuel_used": 3}, {"sandbox_id": "s"})
    (event,) = events
    assert event.measurements == {"fuel_used": 3}
    assert event.metadata == {"sandbox_id": "s"}
    assert event.at > 1.7e9


def test_detached_handlers_hear_nothing_more(telemetry):
    events = []
    telemetry.attach("a", "", events.append)
    assert telemetry.detach("a")
    assert not telemetry.detach("a")
    telemetry.emit("x")
    assert events == []
    assert not telemetry.active


def test_a_handler_that_raises_is_detached_and_reported_to_the_others(telemetry, caplog):
    events = []

    def broken(event):
        raise ValueError(event.name)

    telemetry.attach("broken", "sandbox", broken)
    telemetry.attach("sound", "", events.append)
    with caplog.at_level(logging.ERROR, "evocell"):
        telemetry.emit("sandbox.x")
        telemetry.emit("sandbox.y")
    assert names(events) == [HANDLER_FAILED, "sandbox.x", "sandbox.y"]
    assert events[0].metadata == {"handler_id": "broken", "event": "sandbox.x", "error": "ValueError"}
    assert telemetry.handler_ids == ("sound",)
    assert "'broken' raised on 'sandbox.x'" in caplog.text


def test_handlers_that_fail_on_each_others_failure_end_it(telemetry):
    def broken(event):
        raise ValueError(event.name)

    for one in "abc":
        telemetry.attach(one, "", broken)
    telemetry.emit("x")
    assert telemetry.handler_ids == ()


@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (("", "", print), "handler_id"),
        (("a", "sandbox.", print), "prefix"),
        (("a", None, print), "prefix"),
        (("a", "", "print"), "handler"),
        (("taken", "", print), "handler_id"),
    ],
)
def test_what_cannot_be_attached_is_refused_by_name(telemetry, arguments, key):
    telemetry.attach("taken", "", print)
    with pytest.raises(ConfigurationError) as caught:
        telemetry.attach(*arguments)
    assert caught.value.key == key


def test_a_span_has_a_start_and_a_stop_with_one_number(telemetry):
    events = []
    telemetry.attach("a", "", events.append)
    with telemetry.span("work", {"sandbox_id": "s"}) as span:
        span.note(valid=True)
        span.measure(fuel_used=5)
    assert names(events) == ["work.start", "work.stop"]
    assert events[0].metadata == {"sandbox_id": "s", "span": events[1].metadata["span"]}
    assert events[1].metadata["valid"] is True
    assert events[1].measurements["fuel_used"] == 5
    assert events[1].measurements["duration_s"] >= 0


def test_a_span_names_what_ended_it(telemetry):
    events = []
    telemetry.attach("a", "", events.append)
    with pytest.raises(KeyError), telemetry.span("work"):
        raise KeyError("x")
    assert names(events) == ["work.start", "work.exception"]
    assert events[1].metadata["error"] == "KeyError"


@pytest.mark.trio
async def test_a_cancelled_span_says_so(telemetry):
    events = []
    telemetry.attach("a", "", events.append)
    with trio.CancelScope() as scope, telemetry.span("work"):
        scope.cancel()
        await trio.lowlevel.checkpoint()
    assert events[1].metadata["error"] == "cancelled"


def test_threads_attach_emit_and_detach_at_once(telemetry):
    counts = {}

    def churn(number):
        mine = []
        for turn in range(200):
            telemetry.attach(f"{number}", "x", mine.append)
            telemetry.emit("x", {"turn": turn}, {"thread": number})
            telemetry.detach(f"{number}")
        counts[number] = sum(event.metadata["thread"] == number for event in mine)

    threads = [threading.Thread(target=churn, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == dict.fromkeys(range(4), 200)
    assert telemetry.handler_ids == ()
