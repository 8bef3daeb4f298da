"""Backs up one plan's database. `python -m flows.backup` runs it directly, with or without a Prefect server."""

from __future__ import annotations

import argparse
import sys

from prefect import State, flow
from prefect.states import Failed

from tasks.admin_page.steps import admin_page_follows
from tasks.alarms.event_names import REFUSED
from tasks.alarms.ping import watched
from tasks.backup.steps import make_backup, replicate, sole_backup
from tasks.errors import BackupUnderWay
from tasks.retention.steps import apply_retention
from tasks.runs.command_line import run_directly
from tasks.runs.run_locks import no_restore
from tasks.runs.side_by_side import SIDE_BY_SIDE
from tasks.runs.skip_duplicates import left_to_another
from tasks.storage.backup_stages import Backup


@flow(name="backup", flow_run_name="backup-{plan}", persist_result=False, task_runner=SIDE_BY_SIDE)
def backup(plan: str = "default", requested_by: str = "") -> Backup | State[None]:
    """Dump the plan's database, upload it, record it, then apply retention.

    Args:
        plan: Name of the backup plan (a block of the type Backup Plan).
        requested_by: Who asks for this backup, for the records; may stay empty.
    """
    if skipped := left_to_another():
        return skipped
    try:
        with admin_page_follows(), watched(plan), no_restore(plan), sole_backup(plan):
            completed = make_backup(plan, requested_by)
            copied = replicate(completed, return_state=True)
            apply_retention(plan, requested_by)
            copied.result()  # a copy that failed fails the run, after everything else
    except BackupUnderWay as refusal:  # no failed backup: the run that is under way tells how it ends
        return Failed(name=REFUSED, message=str(refusal), data=refusal)
    return completed


def main() -> int:
    """`python -m flows.backup [--plan NAME] [--requested-by WHO]`: exit status 0, or 1 and one sentence on stderr."""
    parser = argparse.ArgumentParser(prog="python -m flows.backup", description="Back up one plan's database now.")
    parser.add_argument("--plan", default="default", help="name of the backup plan (default: %(default)s)")
    parser.add_argument("--requested-by", default="", help="who asks, for the records (default: the user's name)")
    given = parser.parse_args()
    return run_directly(lambda: backup(given.plan, given.requested_by))


if __name__ == "__main__":
    sys.exit(main())
