"""Backs up one plan's database. `python -m flows.backup` runs it directly, with or without a Prefect server."""

from __future__ import annotations

import argparse
import sys

from prefect import flow

from tasks.core.values import Backup
from tasks.direct import run_directly
from tasks.dump import dump
from tasks.open import open_backup
from tasks.record import record
from tasks.replicate import replicate
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
        copied = replicate(completed, return_state=True)
        apply_retention(plan, requested_by)
        copied.result()  # a copy that failed fails the run, after everything else
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
