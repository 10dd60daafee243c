"""Programs by which two machines can be compared: 265 small ones, each called as `run()`."""

from __future__ import annotations

from importlib.resources import files

from attrs import frozen

__all__ = ["Program", "programs"]

_MARK = "#: "


@frozen
class Program:
    """One program.

    Attributes:
        name: Its name, with that of its group, such as ``"text/splitting"``.
        source: Its text.
    """

    name: str
    source: str


def programs() -> tuple[Program, ...]:
    """Return all programs, sorted by name."""
    found: list[Program] = []
    for place in files(__package__).iterdir():
        if place.name.endswith(".txt"):
            text = place.read_text(encoding="utf-8")
            for block in text.split(f"\n{_MARK}")[1:]:
                name, _, source = block.partition("\n")
                found.append(Program(name, source.rstrip("\n") + "\n"))
    return tuple(sorted(found, key=lambda program: program.name))
