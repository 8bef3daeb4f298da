"""Takes the last restore back. `python -m flows.undo_restore` runs it directly."""

from __future__ import annotations

import sys

from prefect import flow

from tasks.admin_page.steps import admin_page_follows
from tasks.errors import BackupNotFound
from tasks.restore.safeguards import sole_restore
from tasks.restore.steps import record_undo, undo
from tasks.restore.values import Undone
from tasks.runs.audit import failure_recorded
from tasks.runs.command_line import run_flow
from tasks.runs.reporting import fails_in_one_sentence


@flow(name="undo-restore", flow_run_name="undo-restore-{plan}", persist_result=False)
@fails_in_one_sentence
def undo_restore(plan: str = "default", target: str = "", requested_by: str = "") -> Undone:
    """Submit takes the last restore of the mode swap back: the database that it replaced is live again.

    The restored database is kept for three days. To take the undo back, run this again. A restore of the mode in_place
    is taken back by restoring the safety backup that it made.

    Args:
        plan: Name of the backup plan (a block of the type Backup Plan).
        target: Name of the database that was restored. Empty for the plan's own.
        requested_by: Your name, for the records. May stay empty.
    """
    with (
        admin_page_follows(),
        sole_restore(plan, target, requested_by, "undo-restore"),
        failure_recorded("undo-restore", plan, requested_by, refused=BackupNotFound, target=target),
    ):
        return record_undo(plan, undo(plan, target), requested_by)


def main() -> int:
    """The command `python -m flows.undo_restore`; returns its exit status."""
    return run_flow(undo_restore)


if __name__ == "__main__":
    sys.exit(main())
