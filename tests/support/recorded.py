"""Backups that no dump was made for, recorded by the very code that records others: hundreds are soon made."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta

from tasks.backup.record_backup import record
from tasks.catalogue.rows import Record
from tasks.names import FULL, backup_filename
from tasks.plans.plan import Plan
from tasks.storage.backup_stages import Backup, BackupRun, Dump, StoredObject
from tasks.storage.backup_values import Extension, Part, SourceFacts, TableData
from tests.support.manifests import DATABASE

CONTENT = b"-- PostgreSQL database dump\n"


def recorded_backup(
    plan: Plan,
    at: datetime,
    run_id: str = "run",
    created_by: str = "Ümit | `x`",
    content: bytes = CONTENT,
    kind: str = FULL,
) -> Backup:
    """A completed backup with object, manifest and row, of a run that was opened at that time."""
    name = backup_filename(plan.name, run_id, at)
    key = plan.key(name)
    backup_id = plan.catalogue.open(name, key, plan.name, run_id, created_by, at, kind)
    run = BackupRun(
        backup_id,
        plan.name,
        run_id,
        name,
        key,
        created_by,
        at,
        "pg_dump",
        "18.1",
        "none",
        False,
        len(content),
        10_000,
        len(content),
        (),
        "spool",
        1 << 30,
        kind,
    )
    digest = hashlib.sha256(content).hexdigest()
    parts = (Part(1, len(content), digest),)
    facts = SourceFacts(DATABASE, (Extension("plpgsql", "1.0", "pg_catalog"),), ("olga",), large_objects=0)
    began, ended = at + timedelta(seconds=1.25), at + timedelta(seconds=4, microseconds=654321)
    dump = Dump(
        len(content), digest, len(content), digest, parts, (TableData("public.t", 2, 3, 9),), facts, began, ended
    )
    plan.storage.put(key, content)
    stored = StoredObject(key, len(content), parts, "etag", ended)
    return record(plan, run, dump, stored, at + timedelta(seconds=5, microseconds=1))


def a_record(
    filename: str,
    at: datetime,
    plain_size: int = 10,
    table_count: int = 1,
    verified_at: datetime | None = None,
    suspicious: str = "",
    backup_type: str = FULL,
) -> Record:
    """A completed row that no catalogue holds."""
    return Record(
        id=1,
        filename=filename,
        s3_key=f"folder/shop/{filename}",
        plan="shop",
        run_id="run",
        status="completed",
        backup_type=backup_type,
        created_by="olga",
        created_at=at,
        completed_at=at,
        file_size=plain_size,
        plain_size=plain_size,
        table_count=table_count,
        row_count=1,
        verified_at=verified_at,
        suspicious=suspicious,
    )
