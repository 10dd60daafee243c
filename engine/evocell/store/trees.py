"""Export of the lineage as Graphviz or JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence

from evocell.store.lineage import Individual

__all__ = ["to_dot", "to_json"]


def to_dot(family: Sequence[Individual], *, name: str = "lineage") -> str:
    """Write a family as a Graphviz digraph, from parents to children.

    Args:
        family: Individuals, as `LineageTracker.family` returns them.
        name: Name of the graph.
    """
    known = {one.id for one in family}
    lines = [f"digraph {_quoted(name)} {{", "  rankdir=TB;", "  node [shape=box, style=rounded];"]
    for one in family:
        label = f"{one.id}\n{one.mutation_type}, generation {one.generation}"
        lines.append(f"  {_quoted(one.id)} [label={_quoted(label)}];")
    lines += [
        f"  {_quoted(parent)} -> {_quoted(one.id)};"
        for one in family
        for parent in one.parent_ids
        if parent in known
    ]
    return "\n".join([*lines, "}", ""])


def to_json(family: Sequence[Individual], *, indent: int | None = None) -> str:
    """Write a family as a JSON array of objects, in its order.

    Args:
        family: Individuals, as `LineageTracker.family` returns them.
        indent: Spaces by which to indent; None for one line.
    """
    return json.dumps(
        [
            {
                "id": one.id,
                "parent_ids": one.parent_ids,
                "generation": one.generation,
                "mutation_type": one.mutation_type,
                "version": one.version,
                "depth": one.depth,
                "metadata": dict(one.metadata),
            }
            for one in family
        ],
        indent=indent,
        default=repr,
    )


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
