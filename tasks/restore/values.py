"""The values that pass from step to step of a restore: frozen, one type a stage, no secret in any of them.

RestoreRequest → RestoreRun → Loaded → Comparison → Restored
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from tasks.storage.manifest_model import DatabaseProperties, StoredBackup

#: What stands for the large objects among the tables: no name of a table, which always has its schema.
LARGE_OBJECTS = "large objects"
Mode = Literal["swap", "new_database", "in_place"]


@dataclass(frozen=True)
class RestoreRequest:
    """What a person asked for; see the flow `restore` for what each field means."""

    backup: str = "latest"
    mode: Mode = "swap"
    target: str = ""
    tables: tuple[str, ...] = ()
    confirm: str = ""
    create_missing_roles: bool = False
    analyze: Literal["before", "after"] = "before"
    drop_dependents: bool = False


@dataclass(frozen=True)
class RestoreRun:
    """A restore that validation has let through; nothing has been changed yet."""

    run_id: str
    plan: str
    actor: str
    started_at: datetime
    backup: StoredBackup
    mode: Mode
    database: str
    """What the outcome is called: the live database, or the new one."""
    scratch: str
    """The database that psql writes to: one of our own, or with `in_place` the live one."""
    like: DatabaseProperties
    """What a new database is made like: the live one, or where there is none the one that was backed up."""
    live_exists: bool
    tables: tuple[str, ...]
    """What was asked for: names and patterns of tables; empty for all."""
    chosen: tuple[str, ...]
    """The tables with rows that those name, as the manifest writes them; empty for all."""
    psql: str
    psql_version: str
    server_version: int
    """The target server's version as a number: 150018 for 15.18."""
    create_roles: tuple[str, ...]
    analyze: Literal["before", "after"]
    drop_dependents: bool
    spool_directory: str
    spool_limit: int
    warnings: tuple[str, ...] = ()
    drill: bool = False
    """The backup is tried out: the scratch never becomes anything else, and is dropped in the end."""

    def details(self) -> dict[str, object]:
        """What is restored into what, for the audit."""
        return {"mode": self.mode, "target": self.database, "tables": list(self.tables)}


@dataclass(frozen=True)
class TableCount:
    """Rows of one table: what the manifest says, and what is there."""

    name: str
    expected: int
    found: int
    at_least: bool = False
    """The table belongs to an extension, of which a dump holds only what was added: more rows are no difference."""

    @property
    def differs(self) -> bool:
        """Whether rows are missing, or are too many."""
        return self.found < self.expected or (self.found > self.expected and not self.at_least)


@dataclass(frozen=True)
class Loaded:
    """psql has restored everything and committed it."""

    plain_size: int
    """Bytes of SQL that went into psql."""
    seconds: float
    counted: tuple[TableCount, ...] = ()
    """Rows counted within the transaction, before it was committed (`in_place` alone)."""
    warnings: tuple[str, ...] = ()
    """What the server warned of."""


@dataclass(frozen=True)
class Comparison:
    """Every restored table has the rows that it must have, and every large object is there."""

    counts: tuple[TableCount, ...]
    """Of every table, and of the large objects together, where the manifest tells how many."""

    @property
    def tables(self) -> tuple[TableCount, ...]:
        """Of the tables alone."""
        return tuple(one for one in self.counts if one.name != LARGE_OBJECTS)

    @property
    def rows(self) -> int:
        """Rows found in all tables together."""
        return sum(table.found for table in self.tables)


@dataclass(frozen=True)
class Restored:
    """A restore that is done."""

    database: str
    filename: str
    mode: Mode
    kept: str
    """The name under which the replaced database stays; empty when none was replaced."""
    rows: int
    tables: int
    seconds: float
    swap_seconds: float
    """How long the live database took no connections."""
    warnings: tuple[str, ...] = ()
