"""Format of a version's compiled modules: one blob, assembled by the host.

The byte code of each file is opaque to the host. Version 2 of the marshal format has no references, so
that the same parts always give the same bytes.
"""

from __future__ import annotations

import marshal
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_FORMAT = 2

# Module name -> whether a package, its file (its directory for a namespace package), marshalled code
# (None for a namespace package).
Table = dict[str, tuple[bool, str, bytes | None]]

# Module name -> bound name -> checksum of the binding statements.
Marks = Mapping[str, Mapping[str, int]]

# A file's path, its marshalled code, and its marks.
Part = tuple[str, bytes, Iterable[tuple[str, int]]]


def pack(
    root: str, table: Table, marks: Marks | None = None, policy: Mapping[str, Any] | None = None
) -> bytes:
    """Pack a table of modules for `Loader.install`.

    Args:
        root: Directory at which the guest sees the files.
        table: The modules.
        marks: How each module binds its names; a reload in place looks at them.
        policy: What the audit hook refuses while their code runs; None for nothing.
    """
    version: Any = (root, table, marshal.dumps(dict(marks or {}), _FORMAT), policy)
    return marshal.dumps(version, _FORMAT)


def pack_files(
    root: str,
    parts: Sequence[Part],
    *,
    prefixes: Sequence[str] | None = None,
    policy: Mapping[str, Any] | None = None,
) -> bytes:
    """Pack compiled files.

    Where a package and a module share a name the package wins, as in Python; directories without an
    ``__init__.py`` become namespace packages.

    Args:
        root: Directory at which the guest sees the files.
        parts: The files; paths are relative to the root.
        prefixes: For each part a prefix of its path, or None.
        policy: What the audit hook refuses while their code runs; None for nothing.
    """
    table: Table = {}
    marks: dict[str, Mapping[str, int]] = {}
    for number, (path, code, bound) in enumerate(parts):
        place = path if prefixes is None else prefixes[number] + path
        name, package = module_name(place)
        if name and (package or name not in table):
            table[name] = (package, f"{root}/{place}", code)
            marks[name] = dict(bound)
    _add_namespaces(table, root)
    return pack(root, table, marks, policy)


def module_name(path: str) -> tuple[str, bool]:
    """Return the name of a file's module, and whether it is a package.

    The name is empty if the file cannot be imported (``a.b.py``, an ``__init__.py`` at the root).
    """
    parts = path[: -len(".py")].split("/")
    package = parts[-1] == "__init__"
    if package:
        parts.pop()
    return ("" if any("." in part or not part for part in parts) else ".".join(parts)), package


def _add_namespaces(table: Table, root: str) -> None:
    """Add directories without an ``__init__.py`` as namespace packages, unless a module has their name."""
    for name in list(table):
        parent = name.rpartition(".")[0]
        while parent and parent not in table:
            table[parent] = (True, f"{root}/{parent.replace('.', '/')}", None)
            parent = parent.rpartition(".")[0]
