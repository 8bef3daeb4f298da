"""Refreshes the admin page. `python -m flows.list_backups` also prints the newest backups."""

from __future__ import annotations

import argparse
import sys

from prefect import flow

from tasks.admin_page.steps import refresh
from tasks.admin_page.text_table import plain
from tasks.admin_page.view import PlanView
from tasks.runs.command_line import run_directly
from tasks.runs.every_plan import named_by_plan


@flow(name="list-backups", flow_run_name=named_by_plan("list-backups"), persist_result=False)
def list_backups(
    plan: str = "",
    requested_by: str = "",  # noqa: ARG001 - every form has it; who reads the records is not recorded
) -> tuple[PlanView, ...]:
    """Refresh the admin page, the artifact backups: all backups, and what can be done with each of them.

    Args:
        plan: The backup plan whose records must answer; empty: those of all plans. The page always shows all of them.
        requested_by: Who asks; may stay empty.
    """
    return refresh(plan)


def main() -> int:
    """`python -m flows.list_backups [--plan NAME]`: a table on stdout and exit status 0, or 1 and one sentence."""
    parser = argparse.ArgumentParser(prog="python -m flows.list_backups", description="List the newest backups.")
    parser.add_argument("--plan", default="", help="name of the backup plan (default: all plans)")
    parser.add_argument("--requested-by", default="", help="who asks")
    given = parser.parse_args()
    return run_directly(lambda: sys.stdout.write(plain(list_backups(given.plan, given.requested_by))))


if __name__ == "__main__":
    sys.exit(main())
