"""Backs up the database of one plan. `python -m flows.backup` runs this directly, with or without a Prefect server."""

from __future__ import annotations

import sys

from prefect import State, flow
from prefect.states import Failed

from tasks.admin_page.steps import admin_page_follows
from tasks.alarms.event_names import REFUSED
from tasks.alarms.run_reports import watched
from tasks.backup.steps import make_backup, replicate, sole_backup
from tasks.errors import BackupUnderWay
from tasks.retention.steps import apply_retention
from tasks.runs.at_once import SIDE_BY_SIDE
from tasks.runs.command_line import run_flow
from tasks.runs.other_runs import skipped_as_duplicate
from tasks.runs.reporting import fails_in_one_sentence, warn
from tasks.runs.retries import no_restore
from tasks.storage.backup_stages import Backup


@flow(name="backup", flow_run_name="backup-{plan}", persist_result=False, task_runner=SIDE_BY_SIDE)
@fails_in_one_sentence
def backup(plan: str = "default", requested_by: str = "") -> Backup | State[None]:
    """Backs up the plan's database to its bucket now, then removes the backups that are due.

    The database stays in use meanwhile. When the backup fails, nothing of it stays in the bucket.

    Args:
        plan: Name of the backup plan (a block of the type Backup Plan).
        requested_by: Who asks for this backup, for the audit; may stay empty.
    """
    if skipped := skipped_as_duplicate():
        return skipped
    try:
        with admin_page_follows(), watched(plan), no_restore(plan), sole_backup(plan):
            completed = make_backup(plan, requested_by)
            copied = replicate(completed, return_state=True)
            apply_retention(plan, requested_by)
            copied.result()  # a copy that failed fails the run, after everything else
    except BackupUnderWay as refusal:  # raises no alarm: the run that is under way reports how it ends
        warn(str(refusal))
        return Failed(name=REFUSED, message=str(refusal), data=refusal)
    return completed


def main() -> int:
    """The command `python -m flows.backup`; returns its exit status."""
    return run_flow(backup)


if __name__ == "__main__":
    sys.exit(main())
