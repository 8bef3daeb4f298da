"""One backup from its row to its record: the middle of the flow `backup`, and what precedes a restore in place."""

from __future__ import annotations

from tasks.backup.step_dump import dump
from tasks.backup.step_open import open_backup
from tasks.backup.step_record import record
from tasks.backup.step_upload import upload
from tasks.names import FULL
from tasks.runs.retries import failed_unless_completed, spool, together
from tasks.storage.backup_stages import Backup


def make_backup(plan: str, requested_by: str, backup_type: str = FULL) -> Backup:
    """A completed backup. The caller holds the plan's lock; after an error nothing of it is left but a failed row."""
    run = open_backup(plan, requested_by, backup_type)
    with failed_unless_completed(run), spool(run) as parts:
        dumped, stored = together(parts, dump.submit(run, parts), upload.submit(run, parts))
        return record(run, dumped, stored)
