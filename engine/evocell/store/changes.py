"""Source differences between a child and its parents."""

from __future__ import annotations

import difflib
from collections.abc import Mapping

from attrs import field, frozen

__all__ = ["Change", "Files", "diff_files"]

Files = Mapping[str, str | None]
"""The text of a version by path; None for a file that is not text or too large to be kept."""

MAX_LINES = 5_000
"""Lines of a file beyond which no difference is computed: the time is quadratic."""

_CONTEXT = 3


@frozen
class Change:
    """The difference between one parent and one child, with the mutation that made it.

    Attributes:
        child_id: The child.
        parent_id: The parent; None for a seed.
        mutation_type: The kind of mutation that made the child.
        metadata: Metadata of the mutation.
        version: Digest of the child's code.
        parent_version: Digest of the parent's.
        diff: The difference of their text in the format of ``diff -u``; empty if there is none or if
            the text of one is unknown.
    """

    child_id: str
    parent_id: str | None
    mutation_type: str
    metadata: Mapping[str, object] = field(factory=dict)
    version: str | None = None
    parent_version: str | None = None
    diff: str = ""


def diff_files(before: Files, after: Files) -> str:
    """Return the unified diff of two versions' text, path by path."""
    parts: list[str] = []
    for path in sorted(before.keys() | after.keys()):
        parts += _diff_file(path, before.get(path, ""), after.get(path, ""))
    return "".join(parts)


def _diff_file(path: str, before: str | None, after: str | None) -> list[str]:
    if before == after:
        return []
    if before is None or after is None:
        return [f"{path} differs and is no text\n"]
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    if max(len(old), len(new)) > MAX_LINES:
        return [f"{path} differs ({len(old):,} lines before, {len(new):,} after)\n"]
    lines = difflib.unified_diff(old, new, f"a/{path}", f"b/{path}", n=_CONTEXT)
    return [line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines]
