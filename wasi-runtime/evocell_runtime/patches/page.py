"""The page of the documentation that explains every patch, written from the table."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import groupby
from textwrap import fill

from evocell_runtime.patches.model import AnyPatch, Data, Donor, Edit, Everywhere, Memory

_HEAD = """\
# Patches

The interpreter is a pinned file (see [dependencies](dependencies.md)). Where it computes something else than Python on
the desk does, or computes it slowly, an image's build changes it: each change is small, has a name, says what it
expects to find, and is refused when it finds something else. The patches are part of what an image is named by, so
a record that was made under others says so when it is replayed. `evocell image show` and `evocell doctor` list them.

They are kept in `wasi-runtime/evocell_runtime/patches`. To write one, look at a function with
`python -m evocell_runtime.patches show NAME`; `find PATTERN` and `callers NAME` help to find it, `check` applies the
table, and `page` writes this page.
"""


def render(patches: Iterable[AnyPatch]) -> str:
    """Write the page."""
    parts = [_HEAD]
    for name, group in groupby(patches, key=lambda patch: patch.name):
        first, *more = group
        where = _where(first) if not more else _where_all([first, *more])
        parts.append(f"\n## {name}\n\n{first.why}\n\n{where}\n")
    return "".join(parts)


def _where_all(patches: list[AnyPatch]) -> str:
    """One change that is made at many places."""
    places = dict.fromkeys(patch.function for patch in patches if isinstance(patch, Edit))
    return fill(f"Changes instructions of {', '.join(f'`{place}`' for place in places)}.", width=120)


def _where(patch: AnyPatch) -> str:
    match patch:
        case Edit():
            many, fresh = len(patch.expected.splitlines()), len(patch.replacement.splitlines())
            return f"Changes instructions of `{patch.function}`: {many} become {fresh}."
        case Everywhere():
            many = sum(form.places[0] for form in patch.forms)
            return fill(
                f"Changes {', '.join(f'`{form.instruction}`' for form in patch.forms)}: {many:,} places.",
                width=120,
            )
        case Donor():
            return "Replaces " + ", ".join(f"`{name}`" for name, _ in patch.expected) + "."
        case Data():
            return f"Changes {len(patch.expected)} bytes of data at {patch.address}."
        case Memory():
            return f"Changes {len(patch.replacement)} bytes of memory when the interpreter is {patch.moment}."
