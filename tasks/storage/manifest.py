"""The manifest: JSON beside the dump, with everything needed to prove, restore and re-catalogue it.

Format 3, described by docs/manifest.schema.json. A reader refuses a format that is newer than it knows, and reads older
ones: format 2 had no `suspicious` and `backup_id`, format 1 no `large_objects`, `partitions` and `checksum` either.
`sections` says which ranges of the plain text belong together; one section, `all`, is what one pg_dump writes.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from datetime import datetime
from typing import Any

from tasks.storage.backup_stages import BackupRun, Dump, StoredObject
from tasks.storage.manifest_reader import FORMAT, Manifest, checksum, read

__all__ = ["FORMAT", "Manifest", "build", "checksum", "read", "sha256", "to_bytes"]


def build(
    run: BackupRun, dump: Dump, stored: StoredObject, bucket: str, recorded_at: datetime, suspicious: str = ""
) -> dict[str, Any]:
    """The manifest of a backup as JSON values, its checksum still empty. Pure."""
    source = asdict(dump.source)
    return {
        "format": FORMAT,
        "checksum": "",
        "plan": run.plan,
        "run_id": run.run_id,
        "backup_id": run.backup_id,
        "filename": run.filename,
        "backup_type": run.backup_type,
        "created_by": run.created_by,
        "started_at": run.started_at.isoformat(),
        "dump_started_at": dump.started_at.isoformat(),
        "dump_finished_at": dump.finished_at.isoformat(),
        "upload_finished_at": stored.finished_at.isoformat(),
        "recorded_at": recorded_at.isoformat(),
        "suspicious": suspicious,
        "tool": {"name": "pg_dump", "version": run.pg_dump_version},
        "object": {
            "bucket": bucket,
            "key": stored.key,
            "size": dump.stored_size,
            "sha256": dump.stored_sha256,
            "part_size": dump.parts[0].size,
            "parts": [{"number": part.number, "size": part.size, "sha256": part.sha256} for part in dump.parts],
        },
        "plain": {"size": dump.plain_size, "sha256": dump.plain_sha256},
        "codec": run.codec,
        "encrypted": run.encrypted,
        "recipients": list(run.recipients),
        "sections": [{"name": "all", "start": 0, "end": dump.plain_size}],
        "tables": [asdict(table) for table in dump.tables],
        "rows": dump.rows,
        "table_count": dump.source.table_count,
        "large_objects": dump.source.large_objects,
        "partitions": source["partitions"],
        "excluded_tables": list(run.excluded_tables),
        "database": source["database"],
        "extensions": source["extensions"],
        "roles": source["roles"],
    }


def to_bytes(manifest: dict[str, Any]) -> bytes:
    """The file's content, its checksum filled in: UTF-8, keys in the order of `build`, for people to read."""
    empty = _text({**manifest, "checksum": ""})
    return _text({**manifest, "checksum": hashlib.sha256(empty).hexdigest()})


def sha256(content: bytes) -> str:
    """What the catalogue keeps of the file's content."""
    return hashlib.sha256(content).hexdigest()


def _text(manifest: dict[str, Any]) -> bytes:
    return (json.dumps(manifest, ensure_ascii=False, indent=1) + "\n").encode()
