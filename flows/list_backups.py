"""Rewrites the admin page. `python -m flows.list_backups` also prints the newest backups."""

from __future__ import annotations

import logging
import sys

from prefect import flow

from tasks.admin_page.page import plain
from tasks.admin_page.steps import refresh
from tasks.admin_page.view import PlanView
from tasks.runs.audit import named_by_plan
from tasks.runs.command_line import run_flow
from tasks.runs.reporting import fails_in_one_sentence


@flow(name="list-backups", flow_run_name=named_by_plan("list-backups"), persist_result=False)
@fails_in_one_sentence
def list_backups(
    plan: str = "",
    requested_by: str = "",  # noqa: ARG001 - every form has it; who reads the records is not recorded
) -> tuple[PlanView, ...]:
    """Rewrites the admin page, the artifact backups: all backups, and what can be done with each of them.

    Args:
        plan: The backup plan whose catalogue must answer; empty means all of them. The page always shows every plan.
        requested_by: Who asks; may stay empty.
    """
    return refresh(plan)


def main() -> int:
    """The command `python -m flows.list_backups`; returns its exit status."""
    return run_flow(list_backups, text=plain, console_level=logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
