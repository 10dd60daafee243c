"""Catalogue of an engine's events; `docs/telemetry.md` is generated from it, and tests compare with it."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from attrs import frozen

from evocell.telemetry.events import HANDLER_FAILED, TelemetryEvent

__all__ = ["EVENTS", "EventKind", "Label", "Number", "problems", "render"]

KINDS = (
    "syntax",
    "security",
    "compile",
    "load",
    "raised",
    "fuel",
    "timeout",
    "memory",
    "stack",
    "output",
    "files",
    "payload",
    "crashed",
    "worker_lost",
    "score",
    "destroyed",
)
"""Why an individual is invalid, as `FitnessResult.reason` names it."""

_PHASES = ("start", "stop", "exception")

STATUSES = ("creating", "running", "error", "stopped")


@frozen
class Number:
    """A measurement of an event.

    Attributes:
        name: Its key; the suffix is the unit.
        meaning: Description.
        optional: Whether an event may lack it.
    """

    name: str
    meaning: str
    optional: bool = False


@frozen
class Label:
    """A metadata field of an event.

    Attributes:
        name: Its key.
        types: Allowed types.
        meaning: Description.
        closed: All its values, if they are a closed set of the engine's words; only such labels become
            attributes of metrics.
        optional: Whether an event may lack it.
    """

    name: str
    types: tuple[type, ...]
    meaning: str
    closed: tuple[str, ...] | None = None
    optional: bool = False


@frozen
class EventKind:
    """One kind of event.

    Attributes:
        name: In dotted words.
        meaning: When it is emitted.
        numbers: Its measurements.
        labels: Its metadata.
    """

    name: str
    meaning: str
    numbers: tuple[Number, ...] = ()
    labels: tuple[Label, ...] = ()


_NONE = type(None)
_ID = Label("sandbox_id", (str,), "the sandbox")
_POPULATION = Label("population", (str, _NONE), "the population it is in")
_GENERATION = Label("generation", (int,), "the generation it belongs to, from 0")
_MUTATION = Label("mutation_type", (str,), "how its code came to be")
_VERSION = Label("version", (str, _NONE), "digest of its code; None if there is none that runs")
_SPAN = Label("span", (int,), "the same number in start, stop and exception of one piece of work")
_ERROR = Label("error", (str,), 'name of the exception\'s class, or "cancelled"')
_DURATION = Number("duration_s", "seconds since the start")
_FUEL = Number("fuel_used", "units of work, all cases together")
_PEAK = Number("peak_memory_bytes", "most memory above the image of any case")
_VALID = Label("valid", (bool,), "whether the score is a real one")
_REASON = Label("reason", (str, _NONE), "why it is invalid; None if it is valid", KINDS)
_STATUS = Label("status", (str,), "its status after that", STATUSES)
_KILL_LIMIT = Number("limit", "the limit, in the unit of `Limits`", optional=True)
_KILL_REACHED = Number("reached", "how far it got, in the same unit", optional=True)


def _span(
    name: str,
    meaning: str,
    labels: tuple[Label, ...],
    *,
    numbers: tuple[Number, ...] = (),
    ends_with: tuple[Label, ...] = (),
) -> tuple[EventKind, EventKind, EventKind]:
    """Make the three events of a piece of work."""
    common = (*labels, _SPAN)
    return (
        EventKind(f"{name}.start", f"{meaning} begins", (), common),
        EventKind(f"{name}.stop", f"{meaning} is over", (_DURATION, *numbers), (*common, *ends_with)),
        EventKind(f"{name}.exception", f"{meaning} raised or was cancelled", (_DURATION,), (*common, _ERROR)),
    )


_ALL: tuple[EventKind, ...] = (
    *_span(
        "sandbox.create",
        "the first load of a sandbox",
        (_ID, _POPULATION, _GENERATION, _MUTATION, Label("parent_ids", (tuple,), "its parents")),
        ends_with=(_STATUS, _VERSION),
    ),
    *_span(
        "sandbox.hot_reload",
        "putting other code into a sandbox",
        (_ID, _MUTATION, Label("keep_state", (bool,), "whether its session lives on")),
        ends_with=(
            _VERSION,
            Label(
                "outcome",
                (str,),
                "how it ended",
                ("completed", *KINDS[:-2]),
            ),
        ),
    ),
    EventKind(
        "sandbox.destroyed",
        "a sandbox has been taken apart",
        (),
        (_ID, _POPULATION, _GENERATION),
    ),
    EventKind(
        "sandbox.gc.collected",
        "the garbage collector has been through",
        (
            Number("duration_s", "seconds it took"),
            Number("sandboxes", "sandboxes that were destroyed"),
            Number("sessions", "how many of them held a session"),
            Number("kept_elites", "members of retired generations that stayed for their fitness"),
            Number("kept_pinned", "those that stayed because they are pinned"),
            Number("kept_busy", "those that stayed because they were in use"),
            Number("trees", "version trees that were removed"),
            Number("files", "contents of files that no other tree holds"),
            Number("bytes", "their sizes together"),
            Number("directories", "temporary directories of processes that were killed"),
        ),
        (Label("cause", (str,), "why it went", ("interval", "demand", "pressure", "capacity")),),
    ),
    *_span(
        "sandbox.evaluate",
        "the evaluation of an individual (of stages, in one stage)",
        (_ID, _GENERATION),
        numbers=(_FUEL, _PEAK),
        ends_with=(_VALID, _REASON),
    ),
    *_span(
        "sandbox.batch",
        "a batch call",
        (
            Label(
                "operation",
                (str,),
                "what is done",
                ("create", "destroy", "evaluate", "evaluate_stages"),
            ),
            Label("count", (int,), "individuals in it"),
        ),
        numbers=(
            Number("n_valid", "valid results", optional=True),
            Number("n_invalid", "invalid results", optional=True),
        ),
    ),
    EventKind(
        "sandbox.fitness.computed",
        "an individual has a new result (not with `emit_fitness_telemetry = false`)",
        (
            Number("score", "the fitness score; of an invalid one, its evaluation's `failure`"),
            Number("evaluation_time_ms", "milliseconds from the first call to the score"),
            _FUEL,
            _PEAK,
        ),
        (_ID, _GENERATION, _VALID, _REASON),
    ),
    EventKind(
        "sandbox.fitness.adjusted",
        "the fitness of an individual was changed with `adjust`",
        (Number("score", "the score after that"), Number("delta", "what was added to it")),
        (_ID, Label("why", (str,), "the reason that was given")),
    ),
    EventKind(
        "sandbox.killed.resource_limit",
        "a guest was stopped at a limit other than time",
        (_KILL_LIMIT, _KILL_REACHED),
        (
            _ID,
            Label(
                "kind",
                (str,),
                "which limit",
                ("fuel", "memory", "stack", "output", "files", "payload", "worker_memory", "backlog"),
            ),
        ),
    ),
    EventKind(
        "sandbox.killed.timeout",
        "a guest was stopped because its time, or the deadline of its batch, was over",
        (_KILL_LIMIT, _KILL_REACHED),
        (_ID,),
    ),
    EventKind(
        "worker.resources",
        "every `enforcement_poll_interval_ms`, for each worker (not with `emit_resource_telemetry = false`)",
        (
            Number("memory_bytes", "resident memory of its own, file pages left out", optional=True),
            Number("cpu_s", "processor seconds that it used so far", optional=True),
            Number("sessions", "sandboxes that keep their state in it"),
            Number("calls", "calls that are in it"),
            Number("finished", "calls that came to an end in this process"),
            Number("restarts", "how often the process was replaced"),
            Number("processes", "guest processes, of a node", optional=True),
        ),
        (
            Label("worker", (str,), "its name"),
            Label("status", (str,), "what it does", ("up", "starting", "draining", "refused")),
            Label(
                "node",
                (str, type(None)),
                "address of the node that it is; None for a process of this machine",
            ),
        ),
    ),
    EventKind(
        "sandbox.resources",
        "at the same moments, for each sandbox that was called since the last time; "
        "numbers count from its creation",
        (
            Number("calls", "calls that came to an end"),
            Number("waiting_calls", "calls that wait for their turn at this moment"),
            Number("fuel_used", "units of work, all calls together"),
            Number("run_s", "seconds in which its calls ran, all together"),
            Number("peak_memory_bytes", "most memory above the image of any call"),
            Number("restarts", "how often it was replaced by a fresh fork"),
        ),
        (_ID, _POPULATION, Label("session_live", (bool,), "whether a worker holds its state")),
    ),
    EventKind(
        "store.repaired",
        "the engine started with a store that killed engines had left as it was",
        (
            Number("runs", "engines that had been killed"),
            Number("interrupted", "evaluations marked as interrupted"),
            Number("lost", "sandboxes marked as stopped"),
            Number("missing_versions", "versions of which neither tree nor text is there"),
        ),
    ),
    EventKind(
        "store.failed",
        "the store cannot be written; what waits stays in memory and is tried again",
        (Number("waiting", "changes that wait, many together counted as one"),),
        (Label("trouble", (str,), "what SQLite says of it"),),
    ),
    EventKind("store.recovered", "the store can be written again, and all that waited is written"),
    EventKind(
        HANDLER_FAILED,
        "a handler raised and is detached; the other handlers get this",
        (),
        (
            Label("handler_id", (str,), "the handler"),
            Label("event", (str,), "the event it raised on"),
            Label("error", (str,), "name of the exception's class"),
        ),
    ),
)

EVENTS: Mapping[str, EventKind] = MappingProxyType({kind.name: kind for kind in _ALL})
"""Every event by its name."""


def problems(event: TelemetryEvent) -> list[str]:
    """Return the deviations of an event from the table, a sentence each; empty if there are none."""
    kind = EVENTS.get(event.name)
    if kind is None:
        return [f"there is no event {event.name!r}"]
    found = _keys(event.name, "measurement", event.measurements, kind.numbers)
    found += _keys(event.name, "metadata", event.metadata, kind.labels)
    found += [
        f"{event.name}: {name} is {value!r}, not a number"
        for name, value in event.measurements.items()
        if isinstance(value, bool) or not isinstance(value, int | float)
    ]
    for label in kind.labels:
        if label.name not in event.metadata:
            continue
        value = event.metadata[label.name]
        if not isinstance(value, label.types) or (isinstance(value, bool) and bool not in label.types):
            found.append(f"{event.name}: {label.name} is {value!r}, which is no {_types(label)}")
        elif isinstance(value, tuple) and not all(isinstance(item, str) for item in value):
            found.append(f"{event.name}: {label.name} holds more than strings: {value!r}")
        elif label.closed is not None and value is not None and value not in label.closed:
            found.append(f"{event.name}: {label.name} is {value!r}, not one of {', '.join(label.closed)}")
    return found


def _keys(
    event: str, what: str, given: Mapping[str, object], known: tuple[Number, ...] | tuple[Label, ...]
) -> list[str]:
    names = {one.name for one in known}
    required = {one.name for one in known if not one.optional}
    found = [f"{event}: the {what} {name!r} is not in the table" for name in given.keys() - names]
    return found + [f"{event}: the {what} {name!r} is missing" for name in required - given.keys()]


def render(kinds: Iterable[EventKind] = _ALL) -> str:
    """Write the events as `docs/telemetry.md` has them: a heading for each piece of work or single event."""
    groups: dict[str, list[EventKind]] = {}
    for kind in kinds:
        work, _, phase = kind.name.rpartition(".")
        groups.setdefault(work if phase in _PHASES else kind.name, []).append(kind)
    return "\n\n".join(_section(name, members) for name, members in groups.items())


def _section(name: str, kinds: list[EventKind]) -> str:
    lines = [f"### `{name}`", ""]
    if len(kinds) == 1:
        lines.append(f"{kinds[0].meaning[0].upper()}{kinds[0].meaning[1:]}.")
    else:
        lines += [f"- `{kind.name}`: {kind.meaning}" for kind in kinds]
    fields: dict[Number | Label, list[str]] = {}
    for kind in kinds:
        of_kind: tuple[Number | Label, ...] = (*kind.numbers, *kind.labels)
        for one in of_kind:
            fields.setdefault(one, []).append(kind.name.rpartition(".")[2])
    if fields:
        lines += ["", "| | type | in | |" if len(kinds) > 1 else "| | type | |"]
        lines.append("|---|---|---|---|" if len(kinds) > 1 else "|---|---|---|")
    for one in sorted(fields, key=lambda one: isinstance(one, Label)):
        phases = "all" if len(fields[one]) == len(kinds) else ", ".join(fields[one])
        cells = [f"`{one.name}`", _types(one), *([phases] if len(kinds) > 1 else [])]
        lines.append(f"| {' | '.join(cells)} | {one.meaning}{_maybe(one)}{_closed(one)} |")
    return "\n".join(lines)


def _maybe(one: Number | Label) -> str:
    return " (may be missing)" if one.optional else ""


def _types(label: Number | Label) -> str:
    if isinstance(label, Number):
        return "number"
    words = {_NONE: "None", tuple: "strings"}
    return " or ".join(words.get(one, one.__name__) for one in label.types)


def _closed(label: Number | Label) -> str:
    return (
        ""
        if isinstance(label, Number) or label.closed is None
        else ", one of " + ", ".join(f"`{word}`" for word in label.closed)
    )


if __name__ == "__main__":
    sys.stdout.write(render() + "\n")
