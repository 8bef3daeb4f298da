"""Keeps one backup for ever, or lets it go. `python -m flows.keep_backup --backup …` runs it directly."""

from __future__ import annotations

import sys

from prefect import flow

from tasks.admin_page.steps import admin_page_follows
from tasks.retention.keep import ACTION, KeptBackup
from tasks.retention.steps import keep
from tasks.runs.audit import failure_recorded
from tasks.runs.command_line import run_flow
from tasks.runs.reporting import fails_in_one_sentence


@flow(name="keep-backup", flow_run_name="keep-{plan}-{backup}", persist_result=False)
@fails_in_one_sentence
def keep_backup(
    backup: str, plan: str = "default", reason: str = "", let_go: bool = False, requested_by: str = ""
) -> KeptBackup:
    """Keeps one backup for ever: neither retention nor delete-backup removes it until it is let go.

    Args:
        backup: latest, or the file name or the id of a completed backup.
        plan: Name of the backup plan (a block of the type Backup Plan).
        reason: Why it is kept, for the records and the admin page; may stay empty.
        let_go: Let it go again, so that it stays only as long as the plan's retention says.
        requested_by: Who asks, for the audit; may stay empty.
    """
    asked = failure_recorded(ACTION, plan, requested_by, backup=backup, let_go=let_go)
    with admin_page_follows(), asked:
        return keep(backup, plan, reason, let_go, requested_by)


def main() -> int:
    """The command `python -m flows.keep_backup`; returns its exit status."""
    return run_flow(keep_backup)


if __name__ == "__main__":
    sys.exit(main())
