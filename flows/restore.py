"""Puts a backup back. `python -m flows.restore` runs it directly, with or without a Prefect server."""

from __future__ import annotations

import sys
from typing import Literal

from prefect import flow

from tasks.admin_page.steps import admin_page_follows
from tasks.restore.step_compare import compare
from tasks.restore.step_download import download
from tasks.restore.step_psql import psql
from tasks.restore.step_record import record_restore
from tasks.restore.step_surround import all_or_nothing, restore_spool, secure, sole_restore
from tasks.restore.step_swap import swap
from tasks.restore.step_validate import validate
from tasks.restore.values import Restored, RestoreRequest
from tasks.runs.command_line import run_flow
from tasks.runs.side_by_side import SIDE_BY_SIDE, together


@flow(name="restore", flow_run_name="restore-{plan}-{mode}", persist_result=False, task_runner=SIDE_BY_SIDE)
def restore(
    backup: str = "latest",
    plan: str = "default",
    mode: Literal["swap", "new_database", "in_place"] = "swap",
    target: str = "",
    tables: list[str] = [],  # noqa: B006 - never changed; the form of the Prefect UI needs a list
    confirm: str = "",
    create_missing_roles: bool = False,
    analyze: Literal["before", "after"] = "before",
    drop_dependents: bool = False,
    requested_by: str = "",
) -> Restored:
    """Put a backup back: into a new database that is proved first, then takes the place of the live one.

    Args:
        backup: latest, or the file name or the id of a completed backup.
        plan: Name of the backup plan (a block of the type Backup Plan).
        mode: swap replaces the live database and keeps it for undo-restore; new_database leaves it alone and needs a
            target; in_place is for servers that allow no new database, and for single tables; it needs confirm.
        target: The database to make or, with swap, the one to replace; may stay empty for the plan's own.
        tables: Only these tables, such as shop.orders or shop.order*, with new_database or in_place; empty: everything.
        confirm: With in_place, type the name of the database whose content is to be replaced.
        create_missing_roles: Create roles that the backup names and the server lacks, unable to log in.
        analyze: Collect the planner's statistics before the swap, or after it to be live sooner.
        drop_dependents: With tables in place, drop what else depends on them, such as views made after the backup.
        requested_by: Who asks for this restore, for the records; may stay empty.
    """
    request = RestoreRequest(
        backup, mode, target, tuple(tables), confirm, create_missing_roles, analyze, drop_dependents
    )
    with admin_page_follows(), sole_restore(plan, target, requested_by):
        run = validate(plan, request, requested_by)
        with all_or_nothing(run):
            secure(run)
            with restore_spool(run) as parts:
                loaded, _ = together(parts, psql.submit(run, parts), download.submit(run, parts))
            compared = compare(run, loaded)
            done = swap(run, loaded, compared)
            return record_restore(run, compared, done)


def main() -> int:
    """The command `python -m flows.restore`; returns its exit status."""
    return run_flow(restore)


if __name__ == "__main__":
    sys.exit(main())
