"""The manifest: the JSON file beside a backup, and which of its fields must agree.

docs/manifest.schema.json is made from these classes; the docstrings of the fields are its descriptions.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    TypeAdapter,
    WithJsonSchema,
    model_validator,
    with_config,
)

from tasks.names import BACKUP_FILENAME, CODEC_SUFFIXES, ENCRYPTED_SUFFIX, LONGEST_PLAN, PLAN_NAME
from tasks.storage.backup_values import (
    NOTHING_LEFT_OUT,
    Conditions,
    DatabaseProperties,
    Extension,
    LeftOut,
    Part,
    Partition,
    StoredBackup,
    TableData,
)
from tasks.storage.manifest_types import Count, Positive, ServerGlobals, Sha256, Text, TextOrEmpty

FORMAT = 1
_TIME = r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?\+00:00$"


class Disagreement(ValueError):
    """Fields that do not fit together: `field` is the path of the wrong one, from the value that was checked."""

    def __init__(self, why: str, field: str = "") -> None:
        self.why, self.field = why, field
        super().__init__(why)


def _utc(text: object) -> datetime:
    try:
        if isinstance(text, str) and re.fullmatch(_TIME, text):
            return datetime.fromisoformat(text)
    except ValueError:  # such as 30 February
        pass
    raise Disagreement("is not a time in UTC")


def _unique(names: tuple[str, ...]) -> tuple[str, ...]:
    if len(set(names)) < len(names):
        raise Disagreement("names a role twice")
    return names


Time = Annotated[
    datetime,
    BeforeValidator(_utc),
    PlainSerializer(datetime.isoformat, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _TIME}),
]


@dataclass(frozen=True)
class Tool:
    """A program and its version."""

    name: Literal["pg_dump"]
    """Name of the program."""
    version: Text
    """Version of the program, such as 18.1."""


@dataclass(frozen=True)
class StoredFile:
    """An object in a bucket, and the parts that it was uploaded in."""

    bucket: Text
    """Bucket that the backup was stored in."""
    key: Text
    """Key of the object in the bucket: <folder>/<plan>/<file name>."""
    size: Positive
    """Bytes of the stored file."""
    sha256: Sha256
    """SHA-256 of the stored file."""
    part_size: Positive
    """Bytes of every part but the last, so part n begins at byte (n - 1) * part_size."""
    parts: Annotated[tuple[Part, ...], Field(min_length=1, max_length=10_000)]
    """The slices of the stored file, in order and without a gap."""

    @model_validator(mode="after")
    def _parts_make_the_file(self) -> StoredFile:
        last = len(self.parts)
        for place, part in enumerate(self.parts, 1):
            if part.number != place:
                raise Disagreement(f"is not {place}", f"parts[{place - 1}].number")
            if part.size != self.part_size and (place < last or part.size > self.part_size or place == 1):
                raise Disagreement("does not fit part_size", f"parts[{place - 1}].size")
        if sum(part.size for part in self.parts) != self.size:
            raise Disagreement("is not the sum of the parts", "size")
        return self


@dataclass(frozen=True)
class PlainText:
    """Size and hash of the SQL text that pg_dump wrote."""

    size: Positive
    """Bytes of the plain text."""
    sha256: Sha256
    """SHA-256 of the plain text."""


@dataclass(frozen=True)
class Section:
    """A range of the plain text."""

    name: Literal["all", "pre-data", "data", "post-data"]
    """Name of the section."""
    start: Count
    """Offset of its first byte in the plain text, in bytes."""
    end: Positive
    """Offset of the byte after its last in the plain text, in bytes."""


@with_config(ConfigDict(strict=True, extra="forbid", use_attribute_docstrings=True))
@dataclass(frozen=True)
class Manifest:
    """Lies beside the backup as <key>.manifest.json, in UTF-8. Sizes and offsets are in bytes, times in UTC."""

    format: Annotated[int, Field(ge=FORMAT, le=FORMAT)]
    """Version of this format. A reader refuses a version that it does not know."""
    checksum: Sha256
    """SHA-256 of this file with an empty checksum: sed 's/"checksum": "[0-9a-f]*"/"checksum": ""/' FILE | sha256sum."""
    plan: Annotated[str, Field(pattern=f"^{PLAN_NAME}$", max_length=LONGEST_PLAN)]
    """Name of the backup plan."""
    run_id: Text
    """Id of the flow run that made the backup."""
    backup_id: Positive
    """Id of the backup's row in the catalogue that it was recorded in."""
    filename: Annotated[str, Field(pattern=f"^{BACKUP_FILENAME}$")]
    """File name of the backup: time of the start, and eight hexadecimal digits drawn from plan, run and time."""
    backup_type: Text
    """`full` is a backup that counts for retention; others are made for a purpose of their own."""
    created_by: TextOrEmpty
    """Who asked for the backup: `system (name)` for a schedule of that name, else `requested_by` of the run."""
    started_at: Time
    """When the run began."""
    dump_started_at: Time
    """When the dump began: the one try that succeeded."""
    dump_finished_at: Time
    """When the dump was complete."""
    upload_finished_at: Time
    """When the store had confirmed the object."""
    recorded_at: Time
    """When this manifest was written."""
    suspicious: TextOrEmpty
    """What had shrunk against the last good backup, in a sentence; empty when nothing had."""
    tool: Tool
    """The program that wrote the plain text."""
    object: StoredFile
    """The stored file: the plain text after compression and encryption."""
    plain: PlainText
    """The plain SQL text, before compression and encryption."""
    codec: Annotated[str, Field(pattern=f"^({'|'.join(CODEC_SUFFIXES)})$")]
    """How the plain text was compressed: not at all, one Zstandard frame (RFC 8878), or one gzip member (RFC 1952)."""
    encrypted: bool
    """Whether the compressed text was then encrypted, as an age file (age-encryption.org/v1)."""
    recipients: tuple[Text, ...]
    """Public keys of those who can decrypt the file; empty when it is not encrypted."""
    sections: Annotated[tuple[Section, ...], Field(min_length=1)]
    """Which ranges of the plain text belong together, in order. What one pg_dump writes is one section, `all`."""
    tables: tuple[TableData, ...]
    """Every table whose rows the dump holds, in the order of the plain text."""
    rows: Count
    """Number of rows in all tables together."""
    table_count: Count
    """Number of tables whose rows the dump holds: the names in `tables`, each counted once."""
    large_objects: Count
    """Number of large objects, all of which the dump holds."""
    partitions: tuple[Partition, ...]
    """Every partition of the database, and the table that it is a partition of."""
    excluded_tables: tuple[Text, ...]
    """Relations that the dump leaves out: those of the catalogue, where it lies in the same database."""
    database: DatabaseProperties
    """What it takes to create a database like the one that was dumped."""
    extensions: tuple[Extension, ...]
    """Every installed extension."""
    roles: Annotated[tuple[Text, ...], Field(json_schema_extra={"uniqueItems": True}), AfterValidator(_unique)]
    """Roles that the dump names: they must exist before it is restored. Roles named pg_… and PUBLIC are left out."""
    conditions: Conditions
    """What else held when the database was dumped."""
    left_out: LeftOut = NOTHING_LEFT_OUT
    """What the plan leaves out; missing where it leaves out nothing."""
    globals: ServerGlobals | None = None
    """What belongs to the whole server; missing: an adopted dump, or made by an earlier release."""
    signature: Annotated[str, Field(pattern="^[A-Za-z0-9+/]{86}==$")] = ""
    """Ed25519 signature, in base64, over this file with checksum and signature left empty; missing: not signed."""

    @property
    def dump_seconds(self) -> float:
        """How long the dump took."""
        return (self.dump_finished_at - self.dump_started_at).total_seconds()

    @property
    def backup(self) -> StoredBackup:
        """The backup, in the bucket and under the key that it was first stored under."""
        return StoredBackup(
            plan=self.plan,
            filename=self.filename,
            bucket=self.object.bucket,
            key=self.object.key,
            backup_id=None,
            backup_type=self.backup_type,
            created_at=self.started_at,
            size=self.object.size,
            sha256=self.object.sha256,
            parts=self.object.parts,
            codec=self.codec,
            encrypted=self.encrypted,
            recipients=self.recipients,
            plain_size=self.plain.size,
            plain_sha256=self.plain.sha256,
            tables=self.tables,
            large_objects=self.large_objects,
            partitions=self.partitions,
            database=self.database,
            extensions=self.extensions,
            roles=self.roles,
            excluded_tables=self.excluded_tables,
            pg_dump_version=self.tool.version,
            conditions=self.conditions,
            left_out=self.left_out,
            globals=self.globals,
        )

    @model_validator(mode="after")
    def _fields_agree(self) -> Manifest:
        self._check_stored_file()
        self._check_tables()
        self._check_sections()
        return self

    def _check_stored_file(self) -> None:
        if bool(self.recipients) != self.encrypted:
            raise Disagreement("does not fit the field encrypted", "recipients")
        suffix = CODEC_SUFFIXES[self.codec] + (ENCRYPTED_SUFFIX if self.encrypted else "")
        if self.filename.partition(".sql")[2] != suffix:
            raise Disagreement("does not fit the file name", "codec")
        as_dumped = self.codec == "none" and not self.encrypted
        if as_dumped and (self.object.size, self.object.sha256) != (self.plain.size, self.plain.sha256):
            raise Disagreement("is not the stored file, which is neither compressed nor encrypted", "plain")
        if self.object.key.rpartition("/")[2] != self.filename:
            raise Disagreement("does not end in the file name", "object.key")

    def _check_tables(self) -> None:
        """In the order of the plain text, without overlap; each row takes a byte at least."""
        reached = -1
        for place, table in enumerate(self.tables):
            if not table.start <= table.end <= self.plain.size:
                raise Disagreement("does not lie between start and the end of the plain text", f"tables[{place}].end")
            if table.rows > table.end - table.start or (table.rows == 0) != (table.start == table.end):
                raise Disagreement("does not fit start and end", f"tables[{place}].rows")
            if table.start <= reached:
                raise Disagreement("begins before the table in front of it ends", f"tables[{place}]")
            reached = table.end
        if {table.name for table in self.tables} & {*self.left_out.tables, *self.left_out.rows}:
            raise Disagreement("names a table whose rows the dump holds", "left_out")
        if self.rows != sum(table.rows for table in self.tables):
            raise Disagreement("is not the sum of the tables' rows", "rows")
        if self.table_count != len({table.name for table in self.tables}):
            raise Disagreement("is not the number of the tables", "table_count")

    def _check_sections(self) -> None:
        """In order, without a gap, from the first byte of the plain text to its last."""
        reached = 0
        for place, section in enumerate(self.sections):
            if section.start != reached or not reached < section.end <= self.plain.size:
                raise Disagreement("does not follow on the section before it", f"sections[{place}]")
            reached = section.end
        if reached != self.plain.size:
            raise Disagreement("does not reach the end of the plain text", "sections")


MANIFEST: TypeAdapter[Manifest] = TypeAdapter(Manifest)
