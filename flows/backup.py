"""Backs up one plan's database. `python -m flows.backup` runs it directly, with or without a Prefect server."""

from __future__ import annotations

from prefect import flow

from tasks.core.values import Backup
from tasks.dump import dump
from tasks.open import open_backup
from tasks.record import record
from tasks.retention import apply_retention
from tasks.steps import failed_unless_completed, sole_backup, spool, together
from tasks.upload import upload


@flow(name="backup", flow_run_name="backup-{plan}", persist_result=False)
def backup(plan: str = "default", requested_by: str = "") -> Backup:
    """Dump the plan's database, upload it, record it, then apply retention.

    Args:
        plan: Name of the backup plan (a block of the type Backup Plan).
        requested_by: Who asks for this backup, for the records; may stay empty.
    """
    with sole_backup(plan):
        run = open_backup(plan, requested_by)
        with failed_unless_completed(run), spool(run) as parts:
            dumped, stored = together(parts, dump.submit(run, parts), upload.submit(run, parts))
            completed = record(run, dumped, stored)
        apply_retention(plan, requested_by)
    return completed
