"""Module versions, and the difference between two of them."""

from __future__ import annotations

from datetime import datetime

from attrs import field, frozen

from evocell.models.state import utc_now

__all__ = ["ModuleVersion", "VersionDiff"]


@frozen(kw_only=True)
class ModuleVersion:
    """One version of one module of a sandbox. A package is a module with all the files below it.

    Attributes:
        sandbox_id: The sandbox.
        module: The module's dotted name.
        number: 1 for the first that was loaded; each that differs from the one before counts one more.
        checksum: SHA-256, in hex, over the paths and contents of the module's files.
        digest: Digest of the file tree that it was loaded with, as in `SandboxState.version`.
        files: Paths of the module's files in that tree, sorted.
        dependencies: Top-level modules that its files import, sorted.
        parent_version: Number of the version that it replaced; None for the first.
        restores: Number of the version whose files it has, if it is a rollback; None otherwise.
        mutation_type: How it came to be, such as ``"seed"``, ``"mutation"``, ``"rollback"``.
        created_at: When it was loaded, in UTC.
    """

    sandbox_id: str
    module: str
    number: int
    checksum: str
    digest: str
    files: tuple[str, ...] = field(repr=False)
    dependencies: tuple[str, ...] = ()
    parent_version: int | None = None
    restores: int | None = None
    mutation_type: str = "seed"
    created_at: datetime = field(factory=utc_now, eq=False)


@frozen(kw_only=True)
class VersionDiff:
    """The difference between two versions of a module.

    Attributes:
        module: The module's dotted name.
        old: Number of the version it is compared with.
        new: Number of the version that is compared.
        unified: The changed lines, as `diff -u` prints them; empty if no file changed.
        added: Functions and classes that are new, as ``"module:Class.method"``.
        removed: Those that are gone.
        changed: Those whose syntax tree differs, so not by comments or layout alone; a module's own name
            stands for its statements that are in no function or class.
    """

    module: str
    old: int
    new: int
    unified: str = field(repr=False)
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
