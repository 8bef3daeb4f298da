"""Looks whether all is well. `python -m flows.check_health` also works without a Prefect server."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from prefect import State, flow

from tasks.admin_page.steps import admin_page_follows
from tasks.errors import HealthFailed
from tasks.health.steps import Report, check_plan, conclude, plans_meant, text
from tasks.runs.command_line import run_directly
from tasks.runs.every_plan import named_by_plan
from tasks.runs.skip_duplicates import left_to_another


@flow(name="check-health", flow_run_name=named_by_plan("check-health"), persist_result=False)
def check_health(plan: str = "default", requested_by: str = "") -> Sequence[Report] | State[None]:
    """Look whether everything is there that backups and restores need, and whether backups are made as planned.

    The run fails when something is wrong, and says what. The artifact health-<plan> has a line for each check.

    Args:
        plan: Name of the backup plan (a block of the type Backup Plan); leave it empty to check every plan.
        requested_by: Who asks, for the records; may stay empty.
    """
    if skipped := left_to_another():
        return skipped
    with admin_page_follows():
        return conclude([check_plan(name, requested_by) for name in plans_meant(plan)])


def main() -> int:
    """`python -m flows.check_health [--plan NAME]`: a line for each check; exit status 1 when something failed."""
    parser = argparse.ArgumentParser(prog="python -m flows.check_health", description="Look whether all is well.")
    parser.add_argument("--plan", default="default", help="name of the backup plan; '' for all (default: %(default)s)")
    parser.add_argument("--requested-by", default="", help="who asks, for the records (default: the user's name)")
    given = parser.parse_args()
    return run_directly(lambda: _print(given.plan, given.requested_by))


def _print(plan: str, requested_by: str) -> None:
    try:
        found = check_health(plan, requested_by)
        assert not isinstance(found, State)  # only a run that a schedule has made is skipped
        sys.stdout.write(f"{text(found)}\n")
    except HealthFailed as failed:
        sys.stdout.write(f"{failed.report}\n")
        raise


if __name__ == "__main__":
    sys.exit(main())
