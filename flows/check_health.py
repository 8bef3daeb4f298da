"""Checks the health of one plan or of all of them. `python -m flows.check_health` prints the same."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence

from prefect import State, flow

from tasks.admin_page.steps import admin_page_follows
from tasks.health.steps import Report, check_plan, conclude, plans_meant, text
from tasks.runs.audit import named_by_plan
from tasks.runs.command_line import run_flow
from tasks.runs.other_runs import skipped_as_duplicate
from tasks.runs.reporting import fails_in_one_sentence


@flow(name="check-health", flow_run_name=named_by_plan("check-health"), persist_result=False)
@fails_in_one_sentence
def check_health(plan: str = "default", requested_by: str = "") -> Sequence[Report] | State[None]:
    """Checks whether backups and restores have all that they need, and whether backups are made as planned.

    It changes nothing. The run fails when a check fails. The artifact health-<plan> has a line for each check.

    Args:
        plan: Name of the backup plan (a block of the type Backup Plan); empty means every plan.
        requested_by: Who asks, for the audit; may stay empty.
    """
    if skipped := skipped_as_duplicate():
        return skipped
    with admin_page_follows():
        return conclude([check_plan(name, requested_by) for name in plans_meant(plan)])


def main() -> int:
    """The command `python -m flows.check_health`; returns its exit status."""
    return run_flow(check_health, text=text, console_level=logging.CRITICAL)


if __name__ == "__main__":
    sys.exit(main())
