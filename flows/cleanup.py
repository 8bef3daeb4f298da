"""Cleans up now: retention, databases that restores replaced or left, open uploads, orphans."""

from __future__ import annotations

import argparse
import sys

from prefect import flow

from tasks.admin_page.steps import admin_page_follows
from tasks.retention.step_cleanup import Cleaned, clean
from tasks.runs.command_line import run_directly
from tasks.runs.every_plan import for_each_plan, named_by_plan


@flow(name="cleanup", flow_run_name=named_by_plan("cleanup"), persist_result=False)
def cleanup(
    plan: str = "default", dry_run: bool = False, remove_orphans: bool = False, requested_by: str = ""
) -> tuple[Cleaned, ...]:
    """Remove the backups and replaced databases that are due, and the remains of dead runs, or only show which.

    Args:
        plan: Name of the backup plan (a block of the type Backup Plan); empty for every plan.
        dry_run: Only show what would be removed, and why; remove nothing.
        remove_orphans: Also remove orphans, which are stored files without a record of them, such as a file whose
            description is lost. Without this they are only listed. A whole backup is never taken for one.
        requested_by: Who asks, for the records; may stay empty.
    """
    with admin_page_follows():
        return for_each_plan(
            plan, "cleanup", requested_by, lambda name: clean(name, dry_run, remove_orphans, requested_by)
        )


def main() -> int:
    """`python -m flows.cleanup [--plan NAME | --every-plan] [--dry-run] [--remove-orphans]`.

    Exit status 0, or 1 and one sentence on stderr.
    """
    parser = argparse.ArgumentParser(prog="python -m flows.cleanup", description="Clean up one plan or all of them.")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--plan", default="default", help="name of the backup plan (default: %(default)s)")
    which.add_argument("--every-plan", action="store_const", const="", dest="plan", help="all of them")
    parser.add_argument("--dry-run", action="store_true", help="only show what would be removed, and why")
    parser.add_argument("--remove-orphans", action="store_true", help="also remove stored files without a record")
    parser.add_argument("--requested-by", default="", help="who asks, for the records (default: the user's name)")
    return run_directly(lambda: cleanup(**vars(parser.parse_args())))


if __name__ == "__main__":
    sys.exit(main())
