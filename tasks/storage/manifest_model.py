"""What a manifest says of a backup: frozen values, none of which holds a secret."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from datetime import datetime


@dataclass(frozen=True)
class TableData:
    """The rows of one table in a dump.

    `name` is written as in the COPY statement: with its schema, quoted where needed. `start` and `end` are offsets
    in bytes into the plain text: the first byte of the first row, and the first of the line `\\.`.
    """

    name: str
    rows: int
    start: int
    end: int

    def named_in(self, codec: str) -> TableData:
        """The same when the dump's text is in `codec` (Python's name of it); what is no text there becomes `\\xfc`."""
        return replace(self, name=self.name.encode("utf-8", "surrogateescape").decode(codec, "backslashreplace"))


@dataclass(frozen=True)
class Grant:
    """One privilege on the database. `grantee` is a role's name or PUBLIC."""

    grantee: str
    privilege: str
    grantable: bool


@dataclass(frozen=True)
class RoleSettings:
    """What ALTER DATABASE … SET (`role` is None) or ALTER ROLE … IN DATABASE … SET has laid down: `name=value` each."""

    role: str | None
    settings: tuple[str, ...]


@dataclass(frozen=True)
class DatabaseProperties:
    """What it takes to create a database like this one. `grants` is None when nobody ever changed them."""

    name: str
    owner: str
    encoding: str
    collate: str
    ctype: str
    locale_provider: str
    icu_locale: str | None
    icu_rules: str | None
    builtin_locale: str | None
    collation_version: str | None
    tablespace: str
    connection_limit: int
    is_template: bool
    comment: str | None
    grants: tuple[Grant, ...] | None
    settings: tuple[RoleSettings, ...]
    size: int
    """Bytes on the server's disk, indexes included."""
    server_version: str
    """The server's own words: `15.18 (Debian 15.18-0+deb12u1)`."""
    server_version_number: int
    """150018 for 15.18."""


@dataclass(frozen=True)
class Extension:
    """An installed extension and the schema that it lives in."""

    name: str
    version: str
    schema: str


@dataclass(frozen=True)
class Partition:
    """A partition and what it is a partition of, both as `schema.table`, quoted where needed."""

    name: str
    parent: str


@dataclass(frozen=True)
class SourceFacts:
    """All that the manifest says of the source database."""

    database: DatabaseProperties
    extensions: tuple[Extension, ...]
    roles: tuple[str, ...]
    table_count: int
    large_objects: int
    partitions: tuple[Partition, ...] = ()


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
    large_objects: int | None
    """How many there are; None when the manifest's format does not say."""
    database: DatabaseProperties
    extensions: tuple[Extension, ...]
    roles: tuple[str, ...]
    excluded_tables: tuple[str, ...]
    pg_dump_version: str
    warnings: tuple[str, ...] = ()
    """What could not be proved about it, one sentence each."""
    partitions: tuple[Partition, ...] = ()
    """Which tables are partitions of which; empty when the manifest's format does not say."""

    @property
    def rows(self) -> int:
        """Rows in all tables together."""
        return sum(table.rows for table in self.tables)

    @property
    def parents(self) -> dict[str, str]:
        """What each partition is a partition of."""
        return {one.name: one.parent for one in self.partitions}


@dataclass(frozen=True)
class Part:
    """A slice of the stored file. `number` counts from 1, as S3 does."""

    number: int
    size: int
    sha256: str


_NO_TEXT = re.compile(r"\\x([89a-f][0-9a-f])")


def raw_name(name: str) -> str:
    """A name as a manifest writes it, with the bytes that are no UTF-8 in it (`\\xfc`) as surrogates. Pure."""
    return _NO_TEXT.sub(lambda found: chr(0xDC00 + int(found[1], 16)), name)
