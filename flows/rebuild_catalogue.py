"""Rebuilds the catalogue from the bucket alone. `python -m flows.rebuild_catalogue` runs it directly."""

from __future__ import annotations

import argparse
import sys

from prefect import flow

from tasks.admin_page.steps import admin_page_follows
from tasks.rebuild_catalogue.steps import Rebuilt, rebuild
from tasks.runs.command_line import run_directly
from tasks.runs.every_plan import for_each_plan, named_by_plan


@flow(name="rebuild-catalogue", flow_run_name=named_by_plan("rebuild-catalogue"), persist_result=False)
def rebuild_catalogue(plan: str = "default", dry_run: bool = False, requested_by: str = "") -> tuple[Rebuilt, ...]:
    """Write the records of the backups anew from what is stored, for the day when they are lost or wrong.

    Args:
        plan: Name of the backup plan (a block of the type Backup Plan); empty for every plan.
        dry_run: Only show how the records differ from what is stored; write nothing.
        requested_by: Who asks, for the records; may stay empty.
    """
    with admin_page_follows():
        return for_each_plan(plan, "rebuild-catalogue", requested_by, lambda name: rebuild(name, dry_run, requested_by))


def main() -> int:
    """`python -m flows.rebuild_catalogue [--plan NAME | --every-plan] [--dry-run]`.

    Exit status 0, or 1 and one sentence on stderr.
    """
    parser = argparse.ArgumentParser(
        prog="python -m flows.rebuild_catalogue", description="Rebuild the catalogue from the bucket alone."
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--plan", default="default", help="name of the backup plan (default: %(default)s)")
    which.add_argument("--every-plan", action="store_const", const="", dest="plan", help="all of them")
    parser.add_argument("--dry-run", action="store_true", help="only show what differs")
    parser.add_argument("--requested-by", default="", help="who asks, for the records (default: the user's name)")
    return run_directly(lambda: rebuild_catalogue(**vars(parser.parse_args())))


if __name__ == "__main__":
    sys.exit(main())
