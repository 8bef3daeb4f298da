"""The rows of the catalogue's tables: a backup and what its manifest knows of it, and a line of the audit.

What the column `metadata` says is here in Python, and the same in SQL.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Literal

from psycopg2.extras import Json, RealDictCursor

from tasks.storage.attention import attention, left_out_in_words, marks
from tasks.storage.manifest_file import Manifest

#: The status of a row that was made from the bucket alone, until a person confirms it.
UNPROVED = "unproved"
#: What a removal ends as.
Removal = Literal["deleted", "expired"]
#: The columns in which a row that differs from its manifest is wrong. The others may have changed since.
SETTLED = (
    "s3_key",
    "file_size",
    "backup_type",
    "created_by",
    "created_at",
    "completed_at",
    "run_id",
    "plain_size",
    "table_count",
    "row_count",
)


@dataclass(frozen=True)
class Record:
    """What the catalogue says of one backup. Sizes are bytes; what a row does not have yet is None."""

    id: int
    filename: str
    s3_key: str
    plan: str
    run_id: str
    status: str
    backup_type: str
    created_by: str
    created_at: datetime
    completed_at: datetime | None = None
    file_size: int | None = None
    plain_size: int | None = None
    """Of the SQL text, before compression."""
    table_count: int | None = None
    row_count: int | None = None
    manifest_sha256: str | None = None
    verified_at: datetime | None = None
    suspicious: str = ""
    """What shrank against the last good backup; empty if nothing did."""
    error: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Record:
        """The record of a row that was selected with `COLUMNS`."""
        metadata = row["metadata"] if isinstance(row["metadata"], dict) else {}
        return cls(**{**row, "metadata": metadata})

    @property
    def is_completed(self) -> bool:
        """Whether there is a stored backup that the catalogue has seen made, or that a person has confirmed."""
        return self.status == "completed"

    @property
    def bucket(self) -> str:
        """The bucket that the backup was stored in; empty when the row does not say. `lies_in` compares."""
        return str(self.metadata.get("bucket") or "")

    def lies_in(self, bucket: str) -> bool:
        """Whether the backup is stored in `bucket`, the plan's; a row that names no bucket means that one."""
        return self.bucket in ("", bucket)

    @property
    def names_its_own_object(self) -> bool:
        """Whether its key is one of this backup. Whoever can write rows could name another plan's object here."""
        return f"/{self.s3_key}".endswith(f"/{self.plan}/{self.filename}") and "/" not in self.filename

    @property
    def removal(self) -> Removal | None:
        """The status that the row gets when a removal that was begun has ended; None when none was begun."""
        noted = self.metadata.get("removal")
        return noted if self.status in ("completed", UNPROVED) and noted in ("deleted", "expired") else None

    @property
    def kept(self) -> str:
        """Why the backup is kept for ever: `by Ada since 2026-03-01 (for the auditors)`; empty when it is not."""
        noted = self.metadata.get("kept")
        if not isinstance(noted, dict):
            return ""
        reason = f" ({noted['reason']})" if noted.get("reason") else ""
        return f"by {noted.get('by', 'somebody')} since {str(noted.get('at', ''))[:10]}{reason}"

    @property
    def is_adopted(self) -> bool:
        """Whether this system has adopted it, here: what a bucket alone says of a backup does not count."""
        return isinstance(self.metadata.get("adopted"), dict)

    @property
    def left_out(self) -> str:
        """What the plan left out of it: `without the rows of public.log`; empty when that is nothing."""
        return str(self.metadata.get("left_out") or "")

    @property
    def removal_by(self) -> str:
        """Who asked for the removal that was begun; empty when that is not known."""
        return str(self.metadata.get("removal_by", ""))


#: SQL: the columns of a `Record`.
COLUMNS = ", ".join(column.name for column in fields(Record))
#: SQL: `Record.lies_in`, for the parameter `bucket`.
LIES_IN = "coalesce(nullif(metadata->>'bucket', ''), %(bucket)s) = %(bucket)s"
#: SQL: the status of a row whose object is gone: that of the removal that was begun, or `missing`.
STATUS_WHEN_GONE = (
    "(CASE WHEN metadata->>'removal' IN ('deleted', 'expired') THEN metadata->>'removal' ELSE 'missing' END)"
)
#: SQL: the metadata of a row, always an object, without a removal that was begun.
WITHOUT_REMOVAL = "(CASE WHEN jsonb_typeof(metadata) = 'object' THEN metadata ELSE '{}' END - 'removal' - 'removal_by')"


@dataclass(frozen=True)
class Event:
    """One line of the audit: what was done, by whom, with what outcome."""

    action: str
    outcome: str
    plan: str
    actor: str
    run_id: str
    backup_id: int | None = None
    filename: str | None = None
    duration_seconds: float | None = None
    bytes: int | None = None
    error: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


def append_event(cursor: RealDictCursor, event: Event) -> None:
    """Adds one line to the audit, as part of the cursor's transaction."""
    values = {**vars(event), "details": Json(dict(event.details))}
    columns, places = ", ".join(values), ", ".join(f"%({name})s" for name in values)
    cursor.execute(f"INSERT INTO backup_events ({columns}) VALUES ({places})", values)


def facts_of(manifest: Manifest, sha256: str) -> dict[str, Any]:
    """The columns that a row gets when its backup is complete; `sha256` is that of the manifest's file."""
    return {
        "file_size": manifest.object.size,
        "plain_size": manifest.plain.size,
        "table_count": manifest.table_count,
        "row_count": manifest.rows,
        "manifest_sha256": sha256,
        "completed_at": manifest.recorded_at,
        "suspicious": manifest.suspicious,
    }


def metadata_of(manifest: Manifest, bucket: str) -> dict[str, Any]:
    """The column `metadata` of a backup that is stored in `bucket`."""
    return {
        "bucket": bucket,
        "database": manifest.database.name,
        "server_version": manifest.database.server_version,
        "tool": f"pg_dump {manifest.tool.version}",
        "codec": manifest.codec,
        "encrypted": manifest.encrypted,
        "sha256": manifest.object.sha256,
        "parts": len(manifest.object.parts),
        "dump_seconds": manifest.dump_seconds,
        "attention": attention(manifest.conditions.hindrances),
        "hindrances": marks(manifest.conditions.hindrances),
        "extensions": [f"{extension.name} {extension.version}" for extension in manifest.extensions],
        **({"left_out": left_out_in_words(manifest.left_out)} if manifest.left_out else {}),
    }


def row_from(manifest: Manifest, sha256: str, bucket: str, key: str) -> dict[str, Any]:
    """Every column of a completed row but `id` and `verified_at`, which no manifest knows."""
    return {
        "filename": manifest.filename,
        "s3_key": key,
        "backup_type": manifest.backup_type,
        "status": "completed",
        "created_by": manifest.created_by,
        "created_at": manifest.started_at,
        "plan": manifest.plan,
        "run_id": manifest.run_id,
        **facts_of(manifest, sha256),
        "metadata": metadata_of(manifest, bucket),
    }


def differing(row: Record, made: Mapping[str, Any]) -> list[str]:
    """The columns of a row, and the keys of its metadata, that have another value in `made`, from its manifest."""
    columns = [name for name in SETTLED if getattr(row, name) != made[name]]
    keys = [name for name, value in made["metadata"].items() if row.metadata.get(name) != value]
    return columns + [f"metadata.{name}" for name in keys]
