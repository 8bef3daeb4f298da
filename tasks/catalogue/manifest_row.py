"""What a manifest says of its backup, as columns of the catalogue's row: written when a backup is recorded, and again
when the catalogue is rebuilt. Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.catalogue.backup_record import Record
from tasks.storage.manifest_file import Manifest

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
        "extensions": [f"{extension.name} {extension.version}" for extension in manifest.extensions],
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
