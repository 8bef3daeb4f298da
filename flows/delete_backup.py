"""Deletes one backup. `python -m flows.delete_backup --backup …` runs it directly."""

from __future__ import annotations

import sys

from prefect import flow

from tasks.admin_page.steps import admin_page_follows
from tasks.retention.delete import ACTION, Deleted
from tasks.retention.steps import delete
from tasks.runs.audit import failure_recorded
from tasks.runs.command_line import run_flow
from tasks.runs.reporting import fails_in_one_sentence


@flow(name="delete-backup", flow_run_name="delete-{plan}-{backup}", persist_result=False)
@fails_in_one_sentence
def delete_backup(backup: str, plan: str = "default", confirm: str = "", requested_by: str = "") -> Deleted:
    """Deletes one backup for ever: its file, its manifest and its copies. Its row stays in the catalogue.

    Args:
        backup: The file name or the id of the backup to delete.
        plan: Name of the backup plan (a block of the type Backup Plan).
        confirm: To delete the newest backup, type its file name here as well; may stay empty for any other.
        requested_by: Who asks, for the audit; may stay empty.
    """
    with admin_page_follows(), failure_recorded(ACTION, plan, requested_by, backup=backup):
        return delete(backup, plan, confirm, requested_by)


def main() -> int:
    """The command `python -m flows.delete_backup`; returns its exit status."""
    return run_flow(delete_backup)


if __name__ == "__main__":
    sys.exit(main())
