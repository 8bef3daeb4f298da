"""Records a backup that is whole, stored and confirmed: manifest to the bucket first, the catalogue's row last."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from tasks.catalogue.rows import UNPROVED, Event, Record, facts_of, metadata_of
from tasks.errors import BackupSystemError, ObjectLocked, UploadMismatch
from tasks.names import FULL, manifest_key
from tasks.plans.plan import Plan
from tasks.runs.markdown import human_bytes
from tasks.storage.attention import attention, left_out_in_words, marks
from tasks.storage.backup_stages import Backup, BackupRun, Dump, StoredObject
from tasks.storage.backup_values import Hindrance, LeftOut
from tasks.storage.manifest_file import Manifest
from tasks.storage.manifest_text import build_manifest, read_manifest, to_bytes
from tasks.storage.s3_client import asked_again


def record(
    plan: Plan, run: BackupRun, dump: Dump, stored: StoredObject, at: datetime, adopted: Mapping[str, Any] | None = None
) -> Backup:
    """Records a backup and returns it. May be repeated: the manifest is written again, a completed row stays as it is.

    `adopted` says what it was made of, when that is a dump which this system did not make: it is `unproved` then.

    Raises UploadMismatch when other parts were stored than were dumped, Superseded when another run has declared this
    run dead; then nothing is recorded.
    """
    if stored.parts != dump.parts or stored.size != dump.stored_size:
        raise UploadMismatch(f"{run.filename}: other parts were stored than were dumped: back up again.")
    earlier = [row for row in plan.catalogue.completed(run.plan) if row.id != run.backup_id]
    suspicious = _shrunken(plan, run, dump, earlier)
    manifest = build_manifest(run, dump, stored, plan.storage.bucket, at, suspicious)
    manifest, content = _written(plan, manifest)
    if asked_again(lambda: plan.storage.find(manifest_key(run.key)), content.__eq__) != content:
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
        tables=dump.table_count,
        created_at=run.started_at,
        completed_at=at,
        suspicious=suspicious,
        attention=_new_attention(manifest.conditions.hindrances, earlier),
        left_out=left_out_in_words(run.left_out),
    )
    facts = facts_of(manifest, hashlib.sha256(content).hexdigest())
    metadata = metadata_of(manifest, plan.storage.bucket)
    status = "completed"
    if adopted is not None:
        metadata, status = {**metadata, "adopted": dict(adopted)}, UNPROVED
    plan.catalogue.complete(run.backup_id, run.run_id, facts, metadata, _event(run, backup), status)
    return backup


def _written(plan: Plan, manifest: Manifest) -> tuple[Manifest, bytes]:
    """The manifest that is in the bucket now, and its content. A lock keeps the one that an earlier try has written."""
    content, key = to_bytes(manifest, plan.keys), manifest_key(manifest.object.key)
    try:
        plan.storage.put(key, content, locked=True)
    except ObjectLocked:
        content = plan.storage.get(key)
        written = read_manifest(content, key)
        if any(getattr(written, name) != getattr(manifest, name) for name in ("run_id", "object", "plain")):
            raise
        return written, content
    return manifest, content


def _new_attention(hindrances: Sequence[Hindrance], earlier: Sequence[Record]) -> tuple[str, ...]:
    """What will need attention when the backup is restored, without what was so with the backup before."""
    before = earlier[0].metadata.get("hindrances", ()) if earlier else ()
    return tuple(attention(hindrance for hindrance in hindrances if not set(marks([hindrance])) & set(before)))


def _shrunken(plan: Plan, run: BackupRun, dump: Dump, earlier: Sequence[Record]) -> str:
    """What shrank against the last good backup, in a sentence; empty when nothing did."""
    if run.backup_type != FULL:
        return ""
    every = (backup for backup in earlier if not backup.suspicious and backup.backup_type == FULL)
    good, percent = next(every, None), plan.policy.collapse_percent
    shrunk = collapse(dump.plain_size, dump.table_count, good, percent)
    if shrunk and good and run.left_out:
        return collapse(dump.plain_size, dump.table_count, _without(plan, good, run.left_out), percent)
    return shrunk


def _without(plan: Plan, good: Record, left_out: LeftOut) -> Record:
    """The backup as if it had been made without what is left out now, as far as its manifest can be read."""
    key = manifest_key(good.s3_key)
    try:
        tables = read_manifest(plan.storage.get(key), key).tables
    except BackupSystemError:
        return good
    names = {*left_out.tables, *left_out.rows}
    gone = [table for table in tables if table.name in names]
    return replace(
        good,
        plain_size=(good.plain_size or 0) - sum(table.end - table.start for table in gone),
        table_count=(good.table_count or 0) - len({table.name for table in gone}),
    )


def _event(run: BackupRun, backup: Backup) -> Event:
    return Event(
        action=run.action,
        outcome="completed",
        plan=run.plan,
        actor=run.created_by,
        run_id=run.run_id,
        backup_id=run.backup_id,
        filename=run.filename,
        duration_seconds=backup.seconds,
        bytes=backup.file_size,
    )


def collapse(new_size: int, new_tables: int, last_good: Record | None, percent: int) -> str:
    """One sentence that says what shrank by more than `percent` per cent against `last_good`; empty if nothing did.

    Sizes are bytes of plain text. Without a last good backup, or at 0 per cent, nothing counts as a collapse.
    """
    if last_good is None or percent == 0:
        return ""
    old_size, old_tables = last_good.plain_size or 0, last_good.table_count or 0
    shrunk = []
    if new_size * 100 < old_size * (100 - percent):
        shrunk.append(f"its size shrank from {human_bytes(old_size)} to {human_bytes(new_size)}")
    if new_tables * 100 < old_tables * (100 - percent):
        shrunk.append(f"its number of tables shrank from {old_tables:,} to {new_tables:,}")
    return f"Compared with {last_good.filename}, {' and '.join(shrunk)}." if shrunk else ""
