"""Records a backup that is whole, stored and confirmed: manifest to the bucket first, the catalogue's row last."""

from __future__ import annotations

import hashlib
from datetime import datetime

from tasks.backup.collapse import collapse
from tasks.catalogue.events import Event
from tasks.errors import UploadMismatch
from tasks.names import FULL, manifest_key
from tasks.plans.plan import Plan
from tasks.storage.backup_stages import Backup, BackupRun, Dump, StoredObject
from tasks.storage.manifest_build import build_manifest, to_bytes


def record(plan: Plan, run: BackupRun, dump: Dump, stored: StoredObject, at: datetime) -> Backup:
    """The completed backup. May be repeated: the same manifest replaces itself, a completed row stays as it is.

    Raises UploadMismatch when other parts were stored than were dumped, Superseded when another run has taken this
    one for dead; then nothing is recorded.
    """
    if stored.parts != dump.parts or stored.size != dump.stored_size:
        raise UploadMismatch(f"{run.filename}: other parts were stored than were dumped: back up again.")
    suspicious = _shrunken(plan, run, dump)
    content = to_bytes(build_manifest(run, dump, stored, plan.storage.bucket, at, suspicious))
    plan.storage.put(manifest_key(run.key), content)
    if plan.storage.get(manifest_key(run.key)) != content:
        raise UploadMismatch(f"{manifest_key(run.key)} does not read back as it was written: back up again.")
    backup = Backup(
        backup_id=run.backup_id,
        plan=run.plan,
        filename=run.filename,
        bucket=plan.storage.bucket,
        key=run.key,
        file_size=stored.size,
        plain_size=dump.plain_size,
        rows=dump.rows,
        tables=dump.source.table_count,
        created_at=run.started_at,
        completed_at=at,
        suspicious=suspicious,
    )
    columns, metadata = _columns(backup, content), _metadata(run, dump, plan.storage.bucket)
    plan.catalogue.complete(run.backup_id, run.run_id, columns, metadata, _event(run, backup))
    return backup


def _shrunken(plan: Plan, run: BackupRun, dump: Dump) -> str:
    """What shrank against the last good backup, in a sentence; empty when nothing did."""
    if run.backup_type != FULL:
        return ""
    good = (one for one in plan.catalogue.completed(run.plan) if not one.suspicious and one.backup_type == FULL)
    return collapse(dump.plain_size, dump.source.table_count, next(good, None), plan.policy.collapse_percent)


def _columns(backup: Backup, content: bytes) -> dict[str, object]:
    return {
        "file_size": backup.file_size,
        "plain_size": backup.plain_size,
        "table_count": backup.tables,
        "row_count": backup.rows,
        "manifest_sha256": hashlib.sha256(content).hexdigest(),
        "completed_at": backup.completed_at,
        "suspicious": backup.suspicious,
    }


def _metadata(run: BackupRun, dump: Dump, plan_bucket: str) -> dict[str, object]:
    database = dump.source.database
    return {
        "bucket": plan_bucket,
        "database": database.name,
        "server_version": database.server_version,
        "tool": f"pg_dump {run.pg_dump_version}",
        "codec": run.codec,
        "encrypted": run.encrypted,
        "sha256": dump.stored_sha256,
        "parts": len(dump.parts),
        "dump_seconds": (dump.finished_at - dump.started_at).total_seconds(),
        "extensions": [f"{one.name} {one.version}" for one in dump.source.extensions],
    }


def _event(run: BackupRun, backup: Backup) -> Event:
    return Event(
        action="backup",
        outcome="completed",
        plan=run.plan,
        actor=run.created_by,
        run_id=run.run_id,
        backup_id=run.backup_id,
        filename=run.filename,
        duration_seconds=backup.seconds,
        bytes=backup.file_size,
    )
