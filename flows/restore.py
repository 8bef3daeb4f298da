"""Puts a backup back. `python -m flows.restore` runs it directly, with or without a Prefect server."""

from __future__ import annotations

import sys
from typing import Literal

from prefect import flow

from tasks.admin_page.steps import admin_page_follows
from tasks.restore.safeguards import all_or_nothing, restore_spool, secure, sole_restore
from tasks.restore.steps import compare as compare_with_backup
from tasks.restore.steps import download, psql, record_restore, swap, validate
from tasks.restore.values import Restored, RestoreRequest
from tasks.runs.at_once import SIDE_BY_SIDE, together
from tasks.runs.audit import restore_name
from tasks.runs.command_line import run_flow
from tasks.runs.reporting import fails_in_one_sentence


@flow(name="restore", flow_run_name=restore_name, persist_result=False, task_runner=SIDE_BY_SIDE)
@fails_in_one_sentence
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
    without: list[str] = [],  # noqa: B006 - never changed; the form of the Prefect UI needs a list
    compare: Literal["rows", "content"] = "rows",
    into: str = "",
    owners: Literal["as_backed_up", "target"] = "as_backed_up",
    privileges: bool = True,
    schemas: list[str] = [],  # noqa: B006 - never changed; the form of the Prefect UI needs a list
    requested_by: str = "",
) -> Restored:
    """Submit replaces the live database by the backup. The replaced database is kept for three days.

    To take the restore back, run undo-restore/undo-last-restore: the replaced database is live again.
    The backup is first restored into a new database, and every table is compared with what was backed up. Only then
    the new database gets the name of the live one, which takes some milliseconds. If anything fails before that, the
    live database stays as it is.

    Args:
        backup: Which backup: latest, or the file name or id of a completed backup.
        plan: Name of the backup plan (a block of the type Backup Plan).
        mode: swap: replaces the live database, and keeps it for undo-restore. new_database: restores into a new
            database, named in target; the live database stays as it is. in_place: empties the live database and
            fills it again, after a safety backup; for single tables, and for servers that allow no new database.
        target: For new_database, the name of the new database. For swap, the database to replace; empty for the
            plan's own. Leave it empty for in_place.
        tables: Only for new_database and in_place: restore these tables alone, such as shop.orders or shop.order*.
            Empty for the whole database. Leave it empty for swap.
        confirm: For in_place, and for swap with into: the name of the database whose content is replaced. For every
            swap, the same if the backup was made without some tables or rows. Leave it empty otherwise.
        create_missing_roles: For every mode: create the roles that the backup needs and the server does not have.
            They cannot log in.
        analyze: For swap and new_database: collect the planner's statistics before the swap, or after it, so that the
            restored database is live sooner. in_place always collects them at the end.
        drop_dependents: Only for in_place with tables: drop what depends on these tables, such as views that were made
            after the backup. Without it, such a restore is refused.
        without: Leave these entries of the backup out, such as INDEX public.by_day or EXTENSION pg_cron, as the message
            of a failed restore names them. * stands for any text.
        compare: For swap and new_database of a whole database: rows counts the rows of every table before the swap.
            content also dumps the restored database again and compares every row and every definition, which takes
            as long as a backup.
        into: Restore into the server of this other plan, such as staging: its database is replaced and kept, and its
            after_restore runs before. Or the name of a PostgreSQL Database block, for new_database. Empty for the
            plan's own server.
        owners: as_backed_up needs every role of the backup. target gives everything to the owner of the target
            database.
        privileges: Restore grants and default privileges. Without them, and with the owner of the target, no role of
            the backup is needed.
        schemas: Only for new_database: restore what is in these schemas alone, such as shop or shop_*; extensions come
            with it. Empty for all. Leave it empty for swap, for in_place and with tables.
        requested_by: Your name, for the records. May stay empty.
    """
    request = RestoreRequest(
        backup,
        mode,
        target,
        tuple(tables),
        confirm,
        create_missing_roles,
        analyze,
        drop_dependents,
        tuple(without),
        compare,
        into,
        owners,
        privileges,
        tuple(schemas),
    )
    with admin_page_follows(), sole_restore(plan, target, requested_by, into=into):
        run = validate(plan, request, requested_by)
        with all_or_nothing(run) as milestones:
            secure(run)
            with restore_spool(run) as parts:
                loaded, _ = together(parts, psql.submit(run, parts, milestones), download.submit(run, parts))
            compared = compare_with_backup(run, loaded)
            done = swap(run, loaded, compared)
            return record_restore(run, compared, done, milestones)


def main() -> int:
    """The command `python -m flows.restore`; returns its exit status."""
    return run_flow(restore)


if __name__ == "__main__":
    sys.exit(main())
