"""Takes a restore back: the database that it replaced gets its name again."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from tasks.errors import BackupNotFound
from tasks.plans.plan import Plan
from tasks.postgres.dsn import Dsn
from tasks.postgres.server import maintenance, rows, source_session
from tasks.restore.kept_databases import kept
from tasks.restore.load import catalogue_relations
from tasks.restore.swap import Swapped, swap
from tasks.restore.values import Undone

NAME = "restore: undo"


def undo(plan: Plan, target: str, run_id: str, at: datetime) -> Undone:
    """The newest kept database of `target` (the plan's own when empty) is live again; the live one is kept in turn.

    Raises BackupNotFound when none is kept, else as the swap.
    """
    live = plan.database.with_dbname(target or plan.database.dbname)
    with maintenance(live).session(NAME) as server:
        live_exists = rows(server, "SELECT FROM pg_database WHERE datname = %(name)s", name=live.dbname)
    carry: tuple[str, ...] = ()
    if live_exists:
        with source_session(live, NAME) as connection:
            carry = catalogue_relations(plan.catalogue, connection)
    swapped = swap_back(live, live.dbname, at, run_id, carry, plan.name)
    return Undone(live.dbname, swapped.kept, swapped.seconds)


def swap_back(dsn: Dsn, database: str, at: datetime, run_id: str, carry: Sequence[str] = (), plan: str = "") -> Swapped:
    """The swap that undoes a restore; its parameters are those of `swap`. Raises BackupNotFound when none is kept."""
    with maintenance(dsn).session(NAME) as server:
        newest_first = kept(server, database)
    if not newest_first:
        raise BackupNotFound(
            f"No database is kept that {database} could be swapped back to: cleanup drops replaced databases after "
            "some days. Restore a backup instead."
        )
    return swap(dsn, database, newest_first[0].name, at, run_id, carry, plan=plan, replaced_by="undo-restore")
