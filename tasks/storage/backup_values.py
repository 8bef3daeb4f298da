"""What a manifest holds. Frozen; none holds a secret or a client, so Prefect may store and show them.

Parts, tables, the database and its properties. The docstrings of the fields are their descriptions in
docs/manifest.schema.json. The types say what a manifest may hold; they are checked when a manifest is read
(tasks.storage.manifest_text), not when a value is made.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Annotated, Literal

from pydantic import Field

from tasks.storage.manifest_types import (
    LARGEST,
    Count,
    Grant,
    Positive,
    RoleSettings,
    ServerGlobals,
    Sha256,
    Text,
    TextOrEmpty,
)

#: What stands in place of a property of a database, or of the version of an extension, that nobody can know.
UNKNOWN = "unknown"
_NOT_UTF8 = re.compile(r"\\x([89a-f][0-9a-f])")


@dataclass(frozen=True)
class Part:
    """A slice of the stored file."""

    number: Annotated[int, Field(ge=1, le=10_000)]
    """Place in the file, from 1, as S3 counts."""
    size: Positive
    """Bytes of the part."""
    sha256: Sha256
    """SHA-256 of the part."""


@dataclass(frozen=True)
class TableData:
    """The rows of one table in a dump."""

    name: Text
    """Schema and name as the COPY statement writes them, quoted where needed."""
    rows: Count
    """Number of rows."""
    start: Count
    """Offset of the first byte of the first row in the plain text, in bytes."""
    end: Count
    r"""Offset of the line `\.` that ends the rows in the plain text, in bytes."""

    def named_in(self, codec: str) -> TableData:
        r"""The same for a dump in `codec` (Python's name); bytes of the name that are no text become `\xfc`."""
        return replace(self, name=self.name.encode("utf-8", "surrogateescape").decode(codec, "backslashreplace"))


@dataclass(frozen=True)
class Partition:
    """A partition of a table."""

    name: Text
    """The partition, with its schema and quoted where needed."""
    parent: Text
    """The table that it is a partition of, which may be a partition too; written like the name."""


@dataclass(frozen=True)
class DatabaseProperties:
    """Properties of a database, as of its dump."""

    name: Text
    """Name of the database."""
    owner: Text
    """Role that owns the database."""
    encoding: Text
    """Character encoding, such as UTF8."""
    collate: Text
    """LC_COLLATE of the database."""
    ctype: Text
    """LC_CTYPE of the database."""
    locale_provider: Literal["libc", "icu", "builtin"]
    """Locale provider: the C library, ICU, or PostgreSQL itself."""
    icu_locale: TextOrEmpty | None
    """Locale of ICU; null for other providers."""
    icu_rules: TextOrEmpty | None
    """Additional collation rules of ICU; null when there are none."""
    builtin_locale: TextOrEmpty | None
    """Locale of the provider `builtin`; null for other providers."""
    collation_version: TextOrEmpty | None
    """Version of the collation when the database was made; null when not known."""
    tablespace: Text
    """Default tablespace."""
    connection_limit: Annotated[int, Field(ge=-2, le=LARGEST)]
    """Connections that the database takes; -1 means no limit."""
    is_template: bool
    """Whether every role with CREATEDB may copy the database."""
    comment: TextOrEmpty | None
    """Comment on the database; null when there is none."""
    grants: tuple[Grant, ...] | None
    """Privileges on the database; null when nobody ever changed them."""
    settings: tuple[RoleSettings, ...]
    """Settings of the database, and of roles in it."""
    size: Positive
    """Bytes on the server's disk, indexes included."""
    server_version: Text
    """Version of the server as it writes it: 15.18 (Debian 15.18-0+deb12u1)."""
    server_version_number: Annotated[int, Field(ge=90_000, le=LARGEST)]
    """Version of the server as a number: 150018 is 15.18."""


@dataclass(frozen=True)
class Extension:
    """An installed extension. The dump creates it, in the version that the server then has."""

    name: Text
    """Name of the extension."""
    version: Text
    """Installed version."""
    schema: Text
    """Schema that the extension is installed in."""


@dataclass(frozen=True)
class Hindrance:
    """Entries of the dump that, for one reason, not every server or role takes."""

    kind: Literal[
        "superuser",
        "default_privileges",
        "pg_cron",
        "timescaledb",
        "collation",
        "unlogged_partitions",
        "disabled_triggers",
        "disabled_keys",
        "extension_grants",
        "search_path",
        "other_tables",
        "left_out",
    ]
    """The reason. docs/restore.md tells what to do for each."""
    needs: Text
    """What the entries need or are of: a role, an extension, a collation, a table, a function."""
    entries: Annotated[tuple[Text, ...], Field(min_length=1)]
    """The entries, each as a message of a restore names it: `EVENT TRIGGER audit`."""
    here: bool
    """Whether they would not load where they come from, for the role that backed up, or in a newer major version."""


@dataclass(frozen=True)
class LeftOut:
    """What the plan leaves out of its backups, by name, each with its schema and quoted where needed."""

    tables: tuple[Text, ...]
    """Tables, views and sequences of which the dump holds nothing."""
    rows: tuple[Text, ...]
    """Tables of which the dump holds the definition alone. Partitions stand beside their table."""
    schemas: tuple[Text, ...]
    """Schemas of which the dump holds nothing. Their tables, views and sequences are among `tables`."""

    def __bool__(self) -> bool:
        return bool(self.tables or self.rows or self.schemas)


NOTHING_LEFT_OUT = LeftOut((), (), ())


@dataclass(frozen=True)
class Conditions:
    """What else held when the database was dumped, and decides what comes back when it is restored."""

    settings: tuple[Annotated[str, Field(pattern=r"^[^=\x00]+=[^\x00]*$")], ...]
    """Settings of pg_dump's session that decide what values mean, each as `name=value`."""
    has_public_schema: bool
    """Whether there was a schema `public`, which every new database has."""
    rows_left_out: tuple[Text, ...]
    """Unlogged tables whose rows the dump lacks, since a standby does not have them."""
    hindrances: tuple[Hindrance, ...]
    """What will not load everywhere."""


@dataclass(frozen=True)
class SourceFacts:
    """What a manifest holds about the database that was dumped, as of the dump's snapshot."""

    database: DatabaseProperties
    extensions: tuple[Extension, ...]
    roles: tuple[str, ...]
    large_objects: int
    partitions: tuple[Partition, ...] = ()
    conditions: Conditions = Conditions((), True, (), ())
    globals: ServerGlobals | None = None


@dataclass(frozen=True)
class StoredBackup:
    """A stored backup as its proved manifest describes it: all that is needed to fetch and to prove it."""

    plan: str
    filename: str
    bucket: str
    key: str
    backup_id: int | None
    """Its id in the catalogue; None when the catalogue does not know it."""
    backup_type: str
    created_at: datetime
    size: int
    """Bytes of the stored file."""
    sha256: str
    parts: tuple[Part, ...]
    codec: str
    encrypted: bool
    recipients: tuple[str, ...]
    plain_size: int
    plain_sha256: str
    tables: tuple[TableData, ...]
    large_objects: int
    database: DatabaseProperties
    extensions: tuple[Extension, ...]
    roles: tuple[str, ...]
    excluded_tables: tuple[str, ...]
    pg_dump_version: str
    warnings: tuple[str, ...] = ()
    """What could not be proved about it, one sentence each."""
    partitions: tuple[Partition, ...] = ()
    conditions: Conditions = Conditions((), True, (), ())
    left_out: LeftOut = NOTHING_LEFT_OUT
    globals: ServerGlobals | None = None
    """None: an adopted dump, or made by an earlier release."""

    @property
    def rows(self) -> int:
        """Rows in all tables together."""
        return sum(table.rows for table in self.tables)

    @property
    def parents(self) -> dict[str, str]:
        """The table that each partition is a partition of."""
        return {partition.name: partition.parent for partition in self.partitions}


def raw_name(name: str) -> str:
    r"""The name of a table with surrogates in place of the bytes that are no UTF-8 (`\xfc` in a manifest). Pure."""
    return _NOT_UTF8.sub(lambda match: chr(0xDC00 + int(match[1], 16)), name)
