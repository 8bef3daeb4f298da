"""The values that pass from step to step of a restore: frozen, one type for each stage, no secret in any of them.

RestoreRequest → RestoreRun → Loaded → Comparison → Restored
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

from tasks.postgres.tools import Tool
from tasks.storage.backup_values import DatabaseProperties, StoredBackup

#: The name of the large objects among the tables. No table has it: names of tables have a schema.
LARGE_OBJECTS = "large objects"
#: Bytes. Longer entries go to psql as they come, in a transaction of their own. Rows of that many bytes are frozen,
#: which takes a TRUNCATE in the same transaction.
LARGE = 64 << 10
#: The kinds of entries with grants and default privileges.
PRIVILEGES = ("ACL", "DEFAULT ACL")
#: A digest of each entry of a dump and of each table's rows, by its name; entries of one name are counted.
Content = Mapping[str, Counter[str]]
#: Number and name of an entry of a dump.
MissingEntry = tuple[int, str]
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
    without: tuple[str, ...] = ()
    compare: Literal["rows", "content"] = "rows"
    into: str = ""
    owners: Literal["as_backed_up", "target"] = "as_backed_up"
    privileges: bool = True
    schemas: tuple[str, ...] = ()

    @property
    def kinds_left_out(self) -> tuple[str, ...]:
        """Kinds of entries that are left out."""
        return () if self.privileges else PRIVILEGES

    @property
    def left_out(self) -> tuple[str, ...]:
        """Names and patterns of all entries that are left out."""
        return (*self.without, *(f"{kind} *" for kind in self.kinds_left_out))

    @property
    def needs_no_roles(self) -> bool:
        """Whether the roles that the backup names need not be there."""
        return self.owners == "target" and not self.privileges

    def details(self) -> dict[str, Any]:
        """What was asked for, for the audit."""
        return {
            "backup": self.backup[:200],
            "mode": self.mode,
            "target": self.target[:200],
            "tables": [name[:200] for name in self.tables[:100]],
            "without": [name[:200] for name in self.without[:100]],
            **({"schemas": [name[:200] for name in self.schemas[:100]]} if self.schemas else {}),
            **({"into": self.into[:200]} if self.into else {}),
        }


@dataclass(frozen=True)
class Place:
    """The server that a backup is restored to: the plan's own, or for verify-backup another one."""

    kind: Literal["server", "worker", "block"] = "server"
    """The plan's own; one of the worker's own, which is thrown away; the one that a PostgreSQL Database block names."""
    directory: str = ""
    """Of the worker's own server."""
    programs: str = ""
    """The directory of its programs."""
    database: str = ""
    """The name of the backed-up database, where the server is another than that database's."""
    why: str = ""
    """Why it was chosen; empty where a restore has no choice."""
    major: int = 0
    """Of the worker's own server: its major version."""
    made_on: int = 0
    """The major version of the server that was backed up, where it is known."""

    @property
    def is_elsewhere(self) -> bool:
        """Whether the server is not the plan's own."""
        return self.kind != "server"

    @property
    def is_other_version(self) -> bool:
        """Whether the worker's own server is of another major version than the one that was backed up."""
        return self.major != 0 and self.major != self.made_on


OWN_SERVER = Place()


@dataclass(frozen=True)
class Ground:
    """What the preflight learned about the server and the database to restore to."""

    psql: Tool
    server_version: int
    """The server's version as a number: 150018 for 15.18."""
    database: str
    """The name of the result: the live database, or the new one."""
    live_exists: bool
    """Whether there is a database of that name now; never with `new_database`."""
    like: DatabaseProperties
    """What a new database is made like: the live one (with `new_database`: the plan's own), else the backed-up one."""
    create_roles: tuple[str, ...]
    """Roles to create first, NOLOGIN; a role that is no superuser must then be granted them."""
    warnings: tuple[str, ...]
    """Warnings of the preflight itself; those of the backup are not among them."""
    is_superuser: bool = False
    """Whether the role that restores is one."""
    foreign_superusers: tuple[str, ...] = ()
    """Superusers whose default privileges this role cannot set: a new database of the server has none of them."""


@dataclass(frozen=True)
class RestoreRun:
    """A restore that has passed validation; nothing has been changed yet."""

    run_id: str
    plan: str
    actor: str
    started_at: datetime
    request: RestoreRequest
    backup: StoredBackup
    ground: Ground
    scratch: str
    """The database that psql writes to: one of our own, or with `in_place` the live one."""
    chosen: tuple[str, ...]
    """The tables with rows that the request names, as the manifest writes them; empty for all."""
    missing: tuple[MissingEntry, ...] | None = None
    """What an earlier restore of this backup has left to do in `scratch`; None when this one begins anew."""
    verify: bool = False
    """The backup is only verified: the scratch database never becomes another one, and is dropped in the end."""
    place: Place = OWN_SERVER
    """The server that it is restored to."""
    into_plan: str = ""
    """The plan whose server that is, where it is another one than that of the backup."""
    after_restore: int = 0
    """How many statements of that plan run before the restored database is put into place."""

    @property
    def receiver(self) -> str:
        """The plan that looks after what is restored and what is kept: its undo-restore and its cleanup find them."""
        return self.into_plan or self.plan

    @property
    def new_owner(self) -> str:
        """The role that owns everything that is restored; empty where all have the owners that they had."""
        return self.ground.like.owner if self.request.owners == "target" else ""

    @property
    def mode(self) -> Mode:
        """How the restored data becomes the live data."""
        return self.request.mode

    @property
    def tables(self) -> tuple[str, ...]:
        """Names and patterns of tables that were asked for; empty for all."""
        return self.request.tables

    @property
    def database(self) -> str:
        """The name of the result: the live database, or the new one."""
        return self.ground.database

    @property
    def psql_version(self) -> str:
        """The version of psql, such as 15.18."""
        return self.ground.psql.version_text

    @property
    def warnings(self) -> tuple[str, ...]:
        """What could not be proved of the backup, and what the preflight warns of."""
        return (*self.backup.warnings, *self.ground.warnings)

    def details(self) -> dict[str, object]:
        """What is restored into what, for the audit."""
        left = {"without": list(self.request.without)} if self.request.without else {}
        if self.request.schemas:
            left["schemas"] = list(self.request.schemas)
        into: dict[str, object] = {}
        if self.request.into:
            into = {"into": self.request.into, "from": self.plan, "after_restore": self.after_restore}
        if self.request.owners == "target":
            into["owners"] = "target"
        if not self.request.privileges:
            into["privileges"] = False
        return {"mode": self.mode, "target": self.database, "tables": list(self.tables), **left, **into}


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
    """Warnings of the server."""
    left_out: tuple[str, ...] = ()
    """Names of the entries that were left out."""
    content: Content | None = field(default=None, repr=False)
    """Digests of the backup's entries and rows, where the content is to be compared."""


@dataclass(frozen=True)
class Comparison:
    """Every restored table has the rows that it must have, and every large object is there."""

    counts: tuple[TableCount, ...]
    """Of every table, and of the large objects together."""
    warnings: tuple[str, ...] = ()
    """What could not be compared: one sentence each."""
    by_content: bool = False
    """Every entry and every row was compared, not only the numbers of rows."""
    rows_by_content: bool = False
    """Every row was compared, and every sequence, whatever the other entries are."""

    @property
    def tables(self) -> tuple[TableCount, ...]:
        """Of the tables alone."""
        return tuple(count for count in self.counts if count.name != LARGE_OBJECTS)

    @property
    def rows(self) -> int:
        """Rows in all tables together."""
        return sum(table.found for table in self.tables)


@dataclass(frozen=True)
class Restored:
    """A restore that is done."""

    database: str
    filename: str
    mode: Mode
    kept: str
    """The name under which the replaced database is kept; empty when none was replaced."""
    rows: int
    tables: int
    seconds: float
    swap_seconds: float
    """How long the live database took no connections."""
    warnings: tuple[str, ...] = ()

    def details(self) -> dict[str, object]:
        """The result, for the audit."""
        return {
            "kept": self.kept,
            "rows": self.rows,
            "table_count": self.tables,
            "swap_seconds": round(self.swap_seconds, 4),
            "warnings": list(self.warnings),
        }


@dataclass(frozen=True)
class Undone:
    """A restore that was taken back."""

    database: str
    """The live database, which is what it was before the restore."""
    kept: str
    """The name under which the restored database is kept."""
    seconds: float
    """How long the live database took no connections."""
