"""Deletes one backup. `python -m flows.delete_backup --backup …` runs it directly."""

from __future__ import annotations

import argparse
import sys

from prefect import flow

from tasks.admin_page.steps import admin_page_follows
from tasks.retention.delete import ACTION, Deleted
from tasks.retention.step_delete import delete
from tasks.runs.audit import failure_recorded
from tasks.runs.command_line import run_directly


@flow(name="delete-backup", flow_run_name="delete-{plan}-{backup}", persist_result=False)
def delete_backup(backup: str, plan: str = "default", confirm: str = "", requested_by: str = "") -> Deleted:
    """Delete one backup for good: its file, its manifest and its copies. Its row stays in the records as deleted.

    Args:
        backup: The file name or the id of the backup to delete.
        plan: Name of the backup plan (a block of the type Backup Plan).
        confirm: To delete the newest backup, type its file name here as well; may stay empty for any other.
        requested_by: Who asks for this, for the records; may stay empty.
    """
    with admin_page_follows(), failure_recorded(ACTION, plan, requested_by, backup=backup):
        return delete(backup, plan, confirm, requested_by)


def main() -> int:
    """`python -m flows.delete_backup --backup NAME`: exit status 0, or 1 and one sentence on stderr."""
    parser = argparse.ArgumentParser(prog="python -m flows.delete_backup", description="Delete one backup for good.")
    parser.add_argument("--backup", required=True, help="its file name or its id")
    parser.add_argument("--plan", default="default", help="name of the backup plan (default: %(default)s)")
    parser.add_argument("--confirm", default="", help="for the newest backup: its file name again")
    parser.add_argument("--requested-by", default="", help="who asks, for the records (default: the user's name)")
    return run_directly(lambda: delete_backup(**vars(parser.parse_args())))


if __name__ == "__main__":
    sys.exit(main())
