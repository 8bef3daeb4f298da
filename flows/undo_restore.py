"""Takes the last restore back. `python -m flows.undo_restore` runs it directly."""

from __future__ import annotations

import argparse
import sys

from prefect import flow

from tasks.admin_page.steps import admin_page_follows
from tasks.errors import BackupNotFound
from tasks.restore.step_record import record_undo
from tasks.restore.step_surround import sole_restore
from tasks.restore.step_swap import undo
from tasks.restore.values import Restored
from tasks.runs.audit import failure_recorded
from tasks.runs.command_line import run_directly


@flow(name="undo-restore", flow_run_name="undo-restore-{plan}", persist_result=False)
def undo_restore(plan: str = "default", target: str = "", requested_by: str = "") -> Restored:
    """Swap back the database that the last restore replaced; the restored one is kept in turn.

    Args:
        plan: Name of the backup plan (a block of the type Backup Plan).
        target: Name of the database that was restored; may stay empty for the plan's own.
        requested_by: Who asks, for the records; may stay empty.
    """
    with (
        admin_page_follows(),
        sole_restore(plan, target, requested_by, "undo-restore"),
        failure_recorded("undo-restore", plan, requested_by, refused=BackupNotFound, target=target),
    ):
        return record_undo(plan, undo(plan, target), requested_by)


def main() -> int:
    """`python -m flows.undo_restore [--plan NAME]`: exit status 0, or 1 and one sentence on stderr."""
    parser = argparse.ArgumentParser(prog="python -m flows.undo_restore", description="Take the last restore back.")
    parser.add_argument("--plan", default="default", help="name of the backup plan (default: %(default)s)")
    parser.add_argument("--target", default="", help="the database that was restored (default: the plan's own)")
    parser.add_argument("--requested-by", default="", help="who asks, for the records (default: the user's name)")
    return run_directly(lambda: undo_restore(**vars(parser.parse_args())))


if __name__ == "__main__":
    sys.exit(main())
