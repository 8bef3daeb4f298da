"""Writes a manifest."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from typing import Any

from tasks.storage.backup_stages import BackupRun, Dump, StoredObject
from tasks.storage.manifest_file import FORMAT, MANIFEST, Manifest, PlainText, Section, StoredFile, Tool


def build_manifest(
    run: BackupRun, dump: Dump, stored: StoredObject, bucket: str, recorded_at: datetime, suspicious: str = ""
) -> Manifest:
    """The manifest of a backup; `to_bytes` computes its checksum. Pure."""
    return Manifest(
        format=FORMAT,
        checksum="",
        plan=run.plan,
        run_id=run.run_id,
        backup_id=run.backup_id,
        filename=run.filename,
        backup_type=run.backup_type,
        created_by=run.created_by,
        started_at=run.started_at,
        dump_started_at=dump.started_at,
        dump_finished_at=dump.finished_at,
        upload_finished_at=stored.finished_at,
        recorded_at=recorded_at,
        suspicious=suspicious,
        tool=Tool("pg_dump", run.pg_dump_version),
        object=StoredFile(bucket, stored.key, dump.stored_size, dump.stored_sha256, dump.parts[0].size, dump.parts),
        plain=PlainText(dump.plain_size, dump.plain_sha256),
        codec=run.codec,
        encrypted=run.encrypted,
        recipients=run.recipients,
        sections=(Section("all", 0, dump.plain_size),),
        tables=dump.tables,
        rows=dump.rows,
        table_count=dump.table_count,
        large_objects=dump.source.large_objects,
        partitions=dump.source.partitions,
        excluded_tables=run.excluded_tables,
        database=dump.source.database,
        extensions=dump.source.extensions,
        roles=dump.source.roles,
    )


def to_bytes(manifest: Manifest) -> bytes:
    """The file's content, with its checksum: UTF-8, fields in the order of the class, one on a line for people."""
    return with_checksum(MANIFEST.dump_python(manifest, mode="json"))


def with_checksum(fields: dict[str, Any]) -> bytes:
    """The content of a manifest with these fields and the checksum that fits them."""
    checksum = hashlib.sha256(_text({**fields, "checksum": ""})).hexdigest()
    return _text({**fields, "checksum": checksum})


def _text(fields: dict[str, Any]) -> bytes:
    return (json.dumps(fields, ensure_ascii=False, indent=1) + "\n").encode()
