"""Backs up the database of one plan. `python -m flows.backup` runs this directly, with or without a Prefect server."""

from __future__ import annotations

import sys

from prefect import State, flow
from prefect.runtime import flow_run
from prefect.states import Failed

from tasks.admin_page.steps import admin_page_follows
from tasks.alarms.event_names import REFUSED, all_backups_of, backup_name
from tasks.alarms.run_reports import databases_watched, watched
from tasks.backup.steps import make_backup, replicate, sole_backup
from tasks.backup_all.start_order import Ended
from tasks.backup_all.steps import DATABASES_AT_ONCE, Outcome, back_up, choose, ended_here, find_databases, report
from tasks.errors import BackupUnderWay
from tasks.plans.find_plan import backs_up_server
from tasks.retention.steps import apply_retention
from tasks.runs.at_once import SIDE_BY_SIDE
from tasks.runs.command_line import run_flow
from tasks.runs.other_runs import skipped_as_duplicate
from tasks.runs.reporting import fails_in_one_sentence, is_direct, warn
from tasks.runs.retries import no_restore
from tasks.storage.backup_stages import Backup


def _name() -> str:
    plan = str((flow_run.parameters or {}).get("plan", "default"))
    return all_backups_of(plan) if backs_up_server(plan) else backup_name(plan)


@flow(name="backup", flow_run_name=_name, persist_result=False, task_runner=SIDE_BY_SIDE)
@fails_in_one_sentence
def backup(plan: str = "default", requested_by: str = "") -> Backup | tuple[Outcome, ...] | State[None]:
    """Backs up the plan's database to its bucket now, then removes the backups that are due.

    The database stays in use meanwhile. When the backup fails, nothing of it stays in the bucket. A plan with patterns
    in Databases stands for the databases of its server: each is backed up in a run of its own, a few at a time.

    Args:
        plan: Name of the backup plan (a block of the type Backup Plan), or <plan>.<database> for one database of a
            server.
        requested_by: Who asks for this backup, for the audit; may stay empty.
    """
    if skipped := skipped_as_duplicate():
        return skipped
    if backs_up_server(plan):
        return _backup_of_server(plan, requested_by)
    try:
        with admin_page_follows(), watched(plan), no_restore(plan), sole_backup(plan):
            completed = make_backup(plan, requested_by)
            copied = replicate(completed, return_state=True)
            apply_retention(plan, requested_by)
            copied.result()  # a copy that failed fails the run, after everything else
    except BackupUnderWay as refusal:  # raises no alarm: the run that is under way reports how it ends
        warn(str(refusal))
        return Failed(name=REFUSED, message=str(refusal), data=refusal)
    return completed


def _backup_of_server(plan: str, requested_by: str) -> tuple[Outcome, ...]:
    """Each database in a run of its own, by the workers; without one of them, one after the other in this process."""
    with admin_page_follows(), databases_watched(plan):
        names = find_databases(plan, requested_by)
        if is_direct():
            ended = tuple(_ended_here(name, requested_by) for name in names)
        else:
            ended = back_up(choose(names, DATABASES_AT_ONCE), requested_by, plan)
        return report(ended, requested_by, plan)


def _ended_here(plan: str, requested_by: str) -> Ended:
    return ended_here(plan, backup(plan, requested_by, return_state=True))


def main() -> int:
    """The command `python -m flows.backup`; returns its exit status."""
    return run_flow(backup)


if __name__ == "__main__":
    sys.exit(main())
