"""Shows what was done, by whom, with what outcome. `python -m flows.list_events` prints the same."""

from __future__ import annotations

import argparse
import sys

from prefect import flow

from tasks.admin_page.steps import admin_page_follows
from tasks.list_events.event_log import Asked
from tasks.list_events.steps import Listed, list_lines, plain
from tasks.runs.command_line import run_directly
from tasks.runs.every_plan import named_by_plan


@flow(name="list-events", flow_run_name=named_by_plan("list-events"), persist_result=False)
def list_events(
    plan: str = "",
    action: str = "",
    outcome: str = "",
    actor: str = "",
    backup: str = "",
    last: int = 100,
    requested_by: str = "",  # noqa: ARG001 - every form has it; who reads the records is not recorded
) -> Listed:
    """Show the last lines of the audit: what was done with which backup, when, by whom, with what outcome.

    Args:
        plan: Only what concerns this backup plan; may stay empty for all plans.
        action: Only this, such as backup, restore, retention, download-backup or delete-backup; empty for everything.
        outcome: Only what ended so, such as completed, failed or refused; empty for everything.
        actor: Only what somebody asked for whose name holds this; empty for everybody.
        backup: Only what concerns the backup of this file name or id; empty for all.
        last: How many lines, from 1 to 1000, the newest first.
        requested_by: Who asks; may stay empty.
    """
    with admin_page_follows():
        return list_lines(Asked(plan, action, outcome, actor, backup, last))


def main() -> int:
    """`python -m flows.list_events [--plan …]`: the lines on stdout and exit status 0, or 1 and one sentence."""
    parser = argparse.ArgumentParser(prog="python -m flows.list_events", description="Show the audit's last lines.")
    parser.add_argument("--plan", default="", help="only what concerns this plan (default: all plans)")
    parser.add_argument("--action", default="", help="only this, such as backup or restore")
    parser.add_argument("--outcome", default="", help="only what ended so, such as failed")
    parser.add_argument("--actor", default="", help="only what somebody asked for whose name holds this")
    parser.add_argument("--backup", default="", help="only what concerns this file name or id")
    parser.add_argument("--last", type=int, default=100, help="how many lines, 1 to 1000 (default: %(default)s)")
    parser.add_argument("--requested-by", default="", help="who asks")
    return run_directly(lambda: sys.stdout.write(plain(list_events(**vars(parser.parse_args())))))


if __name__ == "__main__":
    sys.exit(main())
