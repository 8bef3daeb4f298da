"""Reads a manifest: what comes out has every type checked and agrees with itself, whatever bytes went in."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from tasks.errors import BadSetting
from tasks.names import CODEC_SUFFIXES, ENCRYPTED_SUFFIX, MANIFEST_SUFFIX, checked_plan_name, is_backup_filename
from tasks.storage.json_fields import Field, parsed
from tasks.storage.manifest_model import (
    DatabaseProperties,
    Extension,
    Grant,
    Part,
    Partition,
    RoleSettings,
    StoredBackup,
    TableData,
)

FORMAT = 3
_CHECKSUM = re.compile(rb'(?<="checksum": ")([0-9a-f]{64})(?=")')
_MOST_PARTS = 10_000
#: Fields of every format, and those that a format brought along.
_FIELDS = (
    "format",
    "plan",
    "run_id",
    "filename",
    "backup_type",
    "created_by",
    "started_at",
    "dump_started_at",
    "dump_finished_at",
    "upload_finished_at",
    "recorded_at",
    "tool",
    "object",
    "plain",
    "codec",
    "encrypted",
    "recipients",
    "sections",
    "tables",
    "rows",
    "table_count",
    "excluded_tables",
    "database",
    "extensions",
    "roles",
)
_NEW_FIELDS = {2: ("large_objects", "partitions", "checksum"), 3: ("suspicious", "backup_id")}


@dataclass(frozen=True)
class Manifest:
    """A manifest that was read: the backup as it describes it, and what else it says of it."""

    format: int
    run_id: str
    created_by: str
    recorded_at: datetime
    table_count: int
    dump_seconds: float
    backup: StoredBackup
    """`bucket` and `key` are those that the backup was first stored under; `backup_id` is None."""
    suspicious: str = ""
    """What had shrunk against the last good backup; empty when nothing had, or the format does not say."""
    backup_id: int | None = None
    """The id that the backup had in the catalogue of its day; None when the format does not say."""


def read(content: bytes, key: str) -> Manifest:
    """The manifest in `content`, the file `key` of a bucket. A file of format 2 or later proves itself by its checksum.

    Raises BackupDamaged, naming file and field, when anything in it cannot be; BadSetting when its format is newer
    than this program.
    """
    written = _CHECKSUM.search(content)
    if written and written[1].decode() != checksum(content):
        Field(key, "checksum", None).refuse("does not match the rest of the file, which was changed")
    top = parsed(content, key)
    version = _format(top)
    names = _FIELDS + tuple(name for since, new in _NEW_FIELDS.items() if since <= version for name in new)
    fields = dict(zip(names, top.fields(*names), strict=True))
    if version >= 2 and not written:
        fields["checksum"].refuse("is not where it is expected, or no checksum")
    backup = _backup(fields, key)
    if fields["rows"].number() != backup.rows:
        fields["rows"].refuse("is not the sum of the tables' rows")
    fields["upload_finished_at"].time()
    _check_sections(fields["sections"], backup.plain_size)
    return Manifest(
        format=version,
        run_id=fields["run_id"].text(),
        created_by=fields["created_by"].text(may_be_empty=True),
        recorded_at=fields["recorded_at"].time(),
        table_count=fields["table_count"].number(),
        dump_seconds=(fields["dump_finished_at"].time() - fields["dump_started_at"].time()).total_seconds(),
        backup=backup,
        suspicious=fields["suspicious"].text(may_be_empty=True) if "suspicious" in fields else "",
        backup_id=fields["backup_id"].number(1) if "backup_id" in fields else None,
    )


def checksum(content: bytes) -> str:
    """SHA-256 over a manifest whose checksum is left empty; from format 2 on, every format keeps this rule."""
    return hashlib.sha256(_CHECKSUM.sub(b"", content)).hexdigest()


def _format(top: Field) -> int:
    if not isinstance(top.value, dict):
        top.refuse("is no object")
    field = Field(top.document, "format", top.value.get("format"))
    version = field.number()
    if version > FORMAT:
        raise BadSetting(
            f"{top.document} has format {version}, and this program reads formats 1 to {FORMAT}: update the program."
        )
    if version < 1:
        field.refuse(f"is {version}, which never was a format")
    return version


def _backup(fields: dict[str, Field], key: str) -> StoredBackup:
    bucket, object_key, size, sha256, part_size, parts = fields["object"].fields(
        "bucket", "key", "size", "sha256", "part_size", "parts"
    )
    plain_size, plain_sha256 = fields["plain"].fields("size", "sha256")
    program, version = fields["tool"].fields("name", "version")
    program.one_of(["pg_dump"])
    backup = StoredBackup(
        plan=_plan(fields["plan"]),
        filename=_filename(fields["filename"], key),
        bucket=bucket.text(),
        key=object_key.text(),
        backup_id=None,
        backup_type=fields["backup_type"].text(),
        created_at=fields["started_at"].time(),
        size=size.number(1),
        sha256=sha256.sha256(),
        parts=_parts(parts, part_size, size),
        codec=fields["codec"].one_of(CODEC_SUFFIXES),
        encrypted=fields["encrypted"].flag(),
        recipients=fields["recipients"].texts(),
        plain_size=plain_size.number(1),
        plain_sha256=plain_sha256.sha256(),
        tables=_tables(fields["tables"], plain_size.number(1)),
        large_objects=fields["large_objects"].number() if "large_objects" in fields else None,
        partitions=tuple(_partition(one) for one in fields["partitions"].items()) if "partitions" in fields else (),
        database=_database(fields["database"]),
        extensions=tuple(_extension(one) for one in fields["extensions"].items()),
        roles=fields["roles"].texts(),
        excluded_tables=fields["excluded_tables"].texts(),
        pg_dump_version=version.text(),
    )
    _check_encoding(backup, fields)
    if len(set(backup.roles)) < len(backup.roles):
        fields["roles"].refuse("names a role twice")
    if backup.key.rpartition("/")[2] != backup.filename:
        object_key.refuse("does not end in the file name")
    return backup


def _plan(field: Field) -> str:
    try:
        return checked_plan_name(field.text())
    except BadSetting:
        field.refuse("is no name of a plan")


def _filename(field: Field, key: str) -> str:
    found = field.text()
    if not is_backup_filename(found) or not found.isascii():
        field.refuse("is no file name of a backup")
    if key.rpartition("/")[2] != found + MANIFEST_SUFFIX:
        field.refuse(f"is {found}: the file is the manifest of another backup")
    return found


def _check_encoding(backup: StoredBackup, fields: dict[str, Field]) -> None:
    """File name, codec, encryption and sizes must fit together."""
    if bool(backup.recipients) != backup.encrypted:
        fields["recipients"].refuse("does not fit the field encrypted")
    suffix = CODEC_SUFFIXES[backup.codec] + (ENCRYPTED_SUFFIX if backup.encrypted else "")
    if backup.filename.partition(".sql")[2] != suffix:
        fields["codec"].refuse("does not fit the file name")
    untouched = backup.codec == "none" and not backup.encrypted
    if untouched and (backup.size, backup.sha256) != (backup.plain_size, backup.plain_sha256):
        fields["plain"].refuse("is not the stored file, which is neither compressed nor encrypted")


def _parts(parts: Field, part_size: Field, size: Field) -> tuple[Part, ...]:
    """Numbered from 1, all of one size but the last, which is no larger; together the file."""
    found = []
    for number, item in enumerate(parts.items(), 1):
        its_number, its_size, its_sha256 = item.fields("number", "size", "sha256")
        if its_number.number(1) != number:
            its_number.refuse(f"is not {number}")
        found.append(Part(number, its_size.number(1), its_sha256.sha256()))
    if not 1 <= len(found) <= _MOST_PARTS:
        parts.refuse(f"does not have 1 to {_MOST_PARTS} parts")
    usual = part_size.number(1)
    for part in found:
        if part.size != usual and (part.number < len(found) or part.size > usual or part.number == 1):
            Field(parts.document, f"{parts.path}[{part.number - 1}].size", None).refuse("does not fit part_size")
    if sum(part.size for part in found) != size.number(1):
        size.refuse("is not the sum of the parts")
    return tuple(found)


def _tables(field: Field, plain_size: int) -> tuple[TableData, ...]:
    """In the order of the plain text, without overlap; each row takes a byte at least."""
    found, fields = [], field.items()
    for item in fields:
        name, rows, start, end = item.fields("name", "rows", "start", "end")
        table = TableData(name.text(), rows.number(), start.number(), end.number())
        if not table.start <= table.end <= plain_size:
            end.refuse("does not lie between start and the end of the plain text")
        if table.rows > table.end - table.start or (table.rows == 0) != (table.start == table.end):
            rows.refuse("does not fit start and end")
        found.append(table)
    for item, (one, following) in zip(fields[1:], pairwise(found), strict=True):
        if following.start <= one.end:
            item.refuse("begins before the table in front of it ends")
    return tuple(found)


def _check_sections(field: Field, plain_size: int) -> None:
    """In order, without a gap, from the first byte of the plain text to its last."""
    reached = 0
    for item in field.items():
        name, start, end = item.fields("name", "start", "end")
        name.one_of(["all", "pre-data", "data", "post-data"])
        if start.number() != reached or not reached < end.number(1) <= plain_size:
            item.refuse("does not follow on what stands before it")
        reached = end.number()
    if reached != plain_size:
        field.refuse("does not reach the end of the plain text")


def _partition(field: Field) -> Partition:
    name, parent = field.fields("name", "parent")
    return Partition(name.text(), parent.text())


def _extension(field: Field) -> Extension:
    name, version, schema = field.fields("name", "version", "schema")
    return Extension(name.text(), version.text(), schema.text())


def _database(field: Field) -> DatabaseProperties:
    names = DatabaseProperties.__annotations__
    one = dict(zip(names, field.fields(*names), strict=True))
    grants = None if one["grants"].value is None else tuple(_grant(item) for item in one["grants"].items())
    return DatabaseProperties(
        name=one["name"].text(),
        owner=one["owner"].text(),
        encoding=one["encoding"].text(),
        collate=one["collate"].text(),
        ctype=one["ctype"].text(),
        locale_provider=one["locale_provider"].one_of(["libc", "icu", "builtin"]),
        icu_locale=one["icu_locale"].text_or_none(),
        icu_rules=one["icu_rules"].text_or_none(),
        builtin_locale=one["builtin_locale"].text_or_none(),
        collation_version=one["collation_version"].text_or_none(),
        tablespace=one["tablespace"].text(),
        connection_limit=one["connection_limit"].number(-2),
        is_template=one["is_template"].flag(),
        comment=one["comment"].text_or_none(),
        grants=grants,
        settings=tuple(_role_settings(item) for item in one["settings"].items()),
        size=one["size"].number(1),
        server_version=one["server_version"].text(),
        server_version_number=one["server_version_number"].number(90_000),
    )


def _grant(field: Field) -> Grant:
    grantee, privilege, grantable = field.fields("grantee", "privilege", "grantable")
    return Grant(grantee.text(), privilege.text(), grantable.flag())


def _role_settings(field: Field) -> RoleSettings:
    role, settings = field.fields("role", "settings")
    found = settings.texts()
    if not found or not all(one.partition("=")[0] and "=" in one for one in found):
        settings.refuse("does not hold name=value")
    return RoleSettings(None if role.value is None else role.text(), found)
