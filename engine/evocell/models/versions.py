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
        number: 1 for the first loaded version; each one that differs from the previous gets the next.
        checksum: SHA-256, in hex, over the paths and contents of the module's files.
        digest: Digest of the whole file tree, as in `SandboxState.version`.
        files: Paths of the module's files in that tree, sorted.
        dependencies: Top-level modules that its files import, sorted.
        parent_version: Number of the version that it replaced; None for the first.
        restores: Number of the version whose files it has, if it is a rollback; None otherwise.
        mutation_type: The kind of mutation that made it, such as ``"seed"``, ``"mutation"``, ``"rollback"``.
        created_at: Time of loading, in UTC.
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
        added: New functions and classes, as ``"module:Class.method"``.
        removed: Removed functions and classes.
        changed: Those whose syntax tree differs, so not only in comments or layout; a module's own name
            stands for its top-level statements.
    """

    module: str
    old: int
    new: int
    unified: str = field(repr=False)
    added: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
