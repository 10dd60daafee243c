"""Validation and conversion of ids and sources given by callers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Protocol, TypeAlias

from evocell.errors import ConfigurationError

__all__ = ["Completable", "Named", "SandboxName", "optional_id", "sandbox_id", "sandbox_ids"]


class Named(Protocol):
    """Protocol of objects with an id, such as a `Sandbox`, an `AsyncSandbox` or an `Individual`."""

    @property
    def id(self) -> str:
        """Its id."""
        ...


SandboxName: TypeAlias = str | Named
"""A sandbox, or its id; it need not exist any more."""


def sandbox_id(ref: object) -> str:
    """Return the id of a sandbox, which may be given by its id.

    Raises:
        ConfigurationError: It is neither.
    """
    if isinstance(ref, str):
        return ref
    found = getattr(ref, "id", None)
    if not isinstance(found, str):
        hint = "; write .sandbox_id" if isinstance(getattr(ref, "sandbox_id", None), str) else ""
        raise ConfigurationError(
            f"a sandbox is named by its id or given itself, not by {ref!r:.60} ({type(ref).__name__}){hint}",
            "id",
        )
    return found


def optional_id(ref: object) -> str | None:
    """Return None for None, else as `sandbox_id`."""
    return None if ref is None else sandbox_id(ref)


def sandbox_ids(refs: object) -> list[str]:
    """Return the ids of several sandboxes; raises as `sandbox_id` does."""
    if isinstance(refs, str) or not isinstance(refs, Iterable):
        raise ConfigurationError(f"ids must be a list of sandboxes or ids, not {refs!r:.60}", "ids")
    return [sandbox_id(ref) for ref in refs]


class Completable:
    """A base class that hides internal names from `dir`, and so from tab completion."""

    __slots__ = ()

    def __dir__(self) -> list[str]:
        return [name for name in super().__dir__() if not name.startswith("_") or name.startswith("__")]


#: Program text, files by relative path, a file or directory, or the bytes of a zip or wheel.
Source: TypeAlias = str | Mapping[str, str | bytes] | Path | bytes
