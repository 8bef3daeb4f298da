"""Backs up every plan, a few at a time, on the work pools. `python -m flows.backup_all` starts the same by hand."""

from __future__ import annotations

import argparse
import sys

from prefect import State, flow

from tasks.admin_page.steps import admin_page_follows
from tasks.alarms.event_names import ALL_BACKUPS
from tasks.backup_all.report import tell, watched_round
from tasks.backup_all.steps import back_up, choose
from tasks.backup_all.summary import Outcome
from tasks.runs.command_line import run_directly
from tasks.runs.skip_duplicates import left_to_another


@flow(name="backup-all", flow_run_name=ALL_BACKUPS, persist_result=False)
def backup_all(
    plans: list[str] = [],  # noqa: B006 - never changed; the form of the Prefect UI needs a list
    at_once: int = 5,
    requested_by: str = "",
) -> tuple[Outcome, ...] | State[None]:
    """Back up every plan, or some of them: each in a run of its own on its work pool, a few at a time.

    A backup that fails stops no other; the run fails at the end and names those that failed. The artifact
    summary-of-backup-all shows what became of every plan.

    Args:
        plans: Names of the backup plans (blocks of the type Backup Plan); leave the list empty for every plan.
        at_once: So many backups go on at the same time, at most.
        requested_by: Who asks for these backups, for the records; may stay empty.
    """
    if skipped := left_to_another():
        return skipped
    with admin_page_follows(), watched_round():
        return tell(back_up(choose(plans, at_once), requested_by), requested_by)


def main() -> int:
    """`python -m flows.backup_all [--plan NAME …]`: exit status 0, or 1 and one sentence on stderr."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.backup_all", description="Back up every plan on the workers of the Prefect server."
    )
    parser.add_argument(
        "--plan",
        action="append",
        default=[],
        dest="plans",
        metavar="NAME",
        help="only this plan; may be given several times (default: every plan)",
    )
    parser.add_argument("--at-once", type=int, default=5, help="so many at the same time (default: %(default)s)")
    parser.add_argument("--requested-by", default="", help="who asks, for the records (default: the user's name)")
    return run_directly(lambda: backup_all(**vars(parser.parse_args())))


if __name__ == "__main__":
    sys.exit(main())
