"""Backs up every plan, a few at a time, on the work pools. `python -m flows.backup_all` starts the same by hand."""

from __future__ import annotations

import sys

from prefect import State, flow

from tasks.admin_page.steps import admin_page_follows
from tasks.alarms.event_names import ALL_BACKUPS
from tasks.backup_all.steps import Outcome, back_up, choose, own_failure_reported, report
from tasks.runs.command_line import run_flow
from tasks.runs.other_runs import skipped_as_duplicate
from tasks.runs.reporting import fails_in_one_sentence


@flow(name="backup-all", flow_run_name=ALL_BACKUPS, persist_result=False)
@fails_in_one_sentence
def backup_all(
    plans: list[str] = [],  # noqa: B006 - never changed; the form of the Prefect UI needs a list
    at_once: int = 5,
    requested_by: str = "",
) -> tuple[Outcome, ...] | State[None]:
    """Backs up every plan now, or the plans that you name, each in a run of its own on its work pool.

    A backup that fails stops no other. At the end this run fails and names the plans that failed. The artifact
    summary-of-backup-all has a line for each plan.

    Args:
        plans: Names of the backup plans (blocks of the type Backup Plan); an empty list means every plan.
        at_once: How many backups may run at the same time.
        requested_by: Who asks for these backups, for the audit; may stay empty.
    """
    if skipped := skipped_as_duplicate():
        return skipped
    with admin_page_follows(), own_failure_reported():
        return report(back_up(choose(plans, at_once, requested_by), requested_by), requested_by)


def main() -> int:
    """The command `python -m flows.backup_all`; returns its exit status."""
    return run_flow(backup_all)


if __name__ == "__main__":
    sys.exit(main())
