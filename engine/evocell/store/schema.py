"""What the store's database looks like, and how one of an earlier version becomes one of this.

A table belongs to the module whose `DDL` has it; this one puts them together. Times are seconds since 1970.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from evocell.store import population_tables, record_tables, tables, version_tables

__all__ = ["APPLICATION_ID", "MIGRATIONS", "VERSION", "Migration"]

APPLICATION_ID = 0x65766F63
"""``evoc``: marks a database as ours, in its header."""


@frozen
class Migration:
    """A step from one version of the schema to the next.

    Attributes:
        version: The version after it.
        statements: What to execute, in order, in one transaction.
    """

    version: int
    statements: Sequence[str]


MIGRATIONS: tuple[Migration, ...] = (
    Migration(1, (*tables.DDL, *record_tables.DDL, *population_tables.DDL, *version_tables.DDL)),
)
"""All steps from an empty database, in order."""

VERSION = MIGRATIONS[-1].version
"""The version this code reads and writes."""
