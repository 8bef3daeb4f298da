"""Proves that a backup can be restored. `python -m flows.verify_backup` runs it directly."""

from __future__ import annotations

import sys

from prefect import State, flow
from prefect.runtime import flow_run

from tasks.admin_page.steps import admin_page_follows
from tasks.alarms.event_names import verify_name
from tasks.alarms.run_reports import outcome_reported
from tasks.restore.safeguards import restore_spool
from tasks.restore.steps import compare, download, psql
from tasks.runs.at_once import SIDE_BY_SIDE, together
from tasks.runs.command_line import run_flow
from tasks.runs.other_runs import skipped_as_duplicate
from tasks.runs.reporting import fails_in_one_sentence
from tasks.verify.steps import checks, examine, identify, no_scratch_left, record_verification, sole_verify
from tasks.verify.verdict import Verified


def _name() -> str:
    given = flow_run.parameters or {}
    return verify_name(str(given.get("plan", "default")), str(given.get("backup", "latest")).strip())


@flow(name="verify-backup", flow_run_name=_name, persist_result=False, task_runner=SIDE_BY_SIDE)
@fails_in_one_sentence
def verify_backup(
    backup: str = "latest", plan: str = "default", requested_by: str = "", major: int = 0
) -> Verified | State[None]:
    """Submit restores a backup into a scratch database, compares every table, and drops the scratch database.

    The live database is not touched. The plan's checks must be true of what was restored. The plan says in Drill on
    where the scratch database is made: it needs as much room there as the database had. A backup that passes counts as
    verified. If it does not pass, the run fails.

    Args:
        backup: Which backup: latest, or the file name or id of a completed backup.
        plan: Name of the backup plan (a block of the type Backup Plan).
        requested_by: Your name, for the records. May stay empty.
        major: Rehearse an upgrade: restore into this major version of PostgreSQL, such as 18, which the worker must
            have. A rehearsal that fails takes nothing from the backup. 0: as the plan says.
    """
    if skipped := skipped_as_duplicate():
        return skipped
    with admin_page_follows(unasked=plan), outcome_reported(_name(), plan):
        subject = identify(plan, backup, requested_by, major)
        with sole_verify(subject) as place:
            run = examine(subject, place)
            with no_scratch_left(run):
                with restore_spool(run) as parts:
                    loaded, _ = together(parts, psql.submit(run, parts), download.submit(run, parts))
                compared = compare(run, loaded)
                checked = checks(run)
            return record_verification(subject, run, loaded, compared, checked)


def main() -> int:
    """The command `python -m flows.verify_backup`; returns its exit status."""
    return run_flow(verify_backup)


if __name__ == "__main__":
    sys.exit(main())
