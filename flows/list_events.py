"""Shows what was done, by whom, with what outcome. `python -m flows.list_events` prints the same."""

from __future__ import annotations

import logging
import sys

from prefect import flow

from tasks.admin_page.steps import admin_page_follows
from tasks.list_events.event_log import Asked, Listed, plain
from tasks.list_events.steps import list_lines
from tasks.runs.audit import named_by_plan
from tasks.runs.command_line import run_flow
from tasks.runs.reporting import fails_in_one_sentence


@flow(name="list-events", flow_run_name=named_by_plan("list-events"), persist_result=False)
@fails_in_one_sentence
def list_events(
    plan: str = "",
    action: str = "",
    outcome: str = "",
    actor: str = "",
    backup: str = "",
    last: int = 100,
    requested_by: str = "",  # noqa: ARG001 - every form has it; who reads the records is not recorded
) -> Listed:
    """Shows the last lines of the audit: what was done with which backup, when, by whom, with what outcome.

    The artifact backup-events has the lines.

    Args:
        plan: Only lines of this backup plan; empty means all plans.
        action: Only this action, such as backup, restore, retention, download-backup or delete-backup.
        outcome: Only this outcome, such as completed, failed or refused.
        actor: Only lines whose actor has this text in the name.
        backup: Only lines of the backup with this file name or id.
        last: How many lines, from 1 to 1000, the newest first.
        requested_by: Who asks; may stay empty.
    """
    with admin_page_follows():
        return list_lines(Asked(plan, action, outcome, actor, backup, last))


def main() -> int:
    """The command `python -m flows.list_events`; returns its exit status."""
    return run_flow(list_events, text=plain, console_level=logging.WARNING)


if __name__ == "__main__":
    sys.exit(main())
