"""The catalogue's row of a backup, made from its manifest: what `tasks.backup.record` once wrote. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.catalogue.record import Record
from tasks.plans.plan import Plan
from tasks.stored_backups.listing import Proved

#: What a manifest settles, so that a row which says otherwise is wrong. The rest of a row may have changed since.
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


def row_from(plan: Plan, proved: Proved) -> dict[str, Any]:
    """Every column of a completed row but the id; `verified_at` no manifest knows."""
    manifest, backup = proved.manifest, proved.manifest.backup
    return {
        "filename": backup.filename,
        "s3_key": plan.key(backup.filename),
        "file_size": backup.size,
        "backup_type": backup.backup_type,
        "status": "completed",
        "created_by": manifest.created_by,
        "metadata": {
            "bucket": plan.storage.bucket,
            "database": backup.database.name,
            "server_version": backup.database.server_version,
            "tool": f"pg_dump {backup.pg_dump_version}",
            "codec": backup.codec,
            "encrypted": backup.encrypted,
            "sha256": backup.sha256,
            "parts": len(backup.parts),
            "dump_seconds": manifest.dump_seconds,
            "extensions": [f"{one.name} {one.version}" for one in backup.extensions],
        },
        "created_at": backup.created_at,
        "completed_at": manifest.recorded_at,
        "plan": backup.plan,
        "run_id": manifest.run_id,
        "plain_size": backup.plain_size,
        "table_count": manifest.table_count,
        "row_count": backup.rows,
        "manifest_sha256": proved.sha256,
        "suspicious": manifest.suspicious,
    }


def differing(row: Record, made: Mapping[str, Any]) -> list[str]:
    """The columns of a row, and the keys of its metadata, that its manifest gives another value."""
    found = [name for name in SETTLED if getattr(row, name) != made[name]]
    return found + [f"metadata.{name}" for name, value in made["metadata"].items() if row.metadata.get(name) != value]
