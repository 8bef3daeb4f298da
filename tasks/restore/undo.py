"""Takes a restore back: the database that it replaced gets its name again."""

from __future__ import annotations

from datetime import datetime

from tasks.plans.plan import Plan
from tasks.postgres.server import maintenance, rows, source_session
from tasks.restore.load import catalogue_relations
from tasks.restore.swap import undo as swap_back
from tasks.restore.values import Restored

NAME = "restore: undo"


def undo(plan: Plan, target: str, run_id: str, at: datetime) -> Restored:
    """The newest kept database of `target` (the plan's own when empty) is live again; the live one is kept in turn.

    Raises BackupNotFound when none is kept, else as the swap.
    """
    live = plan.database.with_dbname(target or plan.database.dbname)
    with maintenance(live).session(NAME) as server:
        there = rows(server, "SELECT FROM pg_database WHERE datname = %(name)s", name=live.dbname)
    carry: tuple[str, ...] = ()
    if there:
        with source_session(live, NAME) as connection:
            carry = catalogue_relations(plan.catalogue, connection)
    swapped = swap_back(live, live.dbname, at, run_id, carry, plan.name)
    return Restored(
        database=live.dbname,
        filename="",
        mode="swap",
        kept=swapped.kept,
        rows=0,
        tables=0,
        seconds=swapped.seconds,
        swap_seconds=swapped.seconds,
    )
