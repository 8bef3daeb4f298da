"""Kept databases: what a swap replaced, until undo-restore takes it back or cleanup drops it.

Its label alone proves that a database is kept (labels). So this works without the catalogue, and never touches a
person's own database with such a name.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from psycopg2.extensions import connection as Connection

from tasks.postgres.dsn import Dsn
from tasks.postgres.server import maintenance, rows
from tasks.restore.databases import drop
from tasks.restore.labels import label_of

NAME = "kept databases"
#: What stands in `Kept.replaced_by` for the scratch of a restore that failed, and how long that stays.
UNFINISHED = "unfinished"
UNFINISHED_STAYS = timedelta(days=1)
#: A role that may neither connect to the database nor read all statistics would get an error for its size.
_ALL = """
    SELECT datname AS name, shobj_description(oid, 'pg_database') AS comment,
           CASE WHEN has_database_privilege(oid, 'CONNECT') OR pg_has_role('pg_read_all_stats', 'USAGE')
                THEN pg_database_size(oid) END AS size
      FROM pg_database WHERE shobj_description(oid, 'pg_database') IS NOT NULL ORDER BY datname
"""


@dataclass(frozen=True)
class Kept:
    """A database that a swap replaced."""

    name: str
    database: str
    """The name that it had."""
    at: datetime
    """When it was replaced."""
    run_id: str
    size: int | None
    """Bytes; None when this role may not know."""
    comment: str | None
    """The comment that it had by itself."""
    plan: str = ""
    """The plan whose restore replaced it."""
    replaced_by: str = "restore"
    """The flow that replaced it: `restore` or `undo-restore`; UNFINISHED for the scratch of a restore that failed."""


def kept(server: Connection, database: str | None = None) -> list[Kept]:
    """Every kept database of the server, or of `database` alone; newest first."""
    return [old for old in labelled(server) if old.replaced_by != UNFINISHED and database in (None, old.database)]


def labelled(server: Connection) -> list[Kept]:
    """Every kept database of the server, newest first; then the scratches in which a failed restore can go on."""
    labels = [(label_of(row["name"], row["comment"]), row["size"]) for row in rows(server, _ALL)]
    databases = [
        Kept(
            label.name,
            label.database,
            label.at,
            label.run_id,
            size,
            label.comment,
            label.plan,
            UNFINISHED if label.kind == "unfinished" else label.replaced_by,
        )
        for label, size in labels
        if label and label.kind in ("kept", "unfinished") and label.at
    ]
    databases.sort(key=lambda old: (old.at, len(old.name), old.name), reverse=True)
    return sorted(databases, key=lambda old: old.replaced_by == UNFINISHED)


def of_plan(server: Connection, plan: str, database: str) -> list[Kept]:
    """Every kept database that a restore of `plan` replaced, or that was `database`; newest first."""
    return [old for old in kept(server) if belongs(old, plan, database)]


def belongs(old: Kept, plan: str, database: str) -> bool:
    """Whether a restore of `plan` replaced it; where the label names no plan, whether it was `database`. Pure."""
    return plan == old.plan or (not old.plan and old.database == database)


def due(kept_databases: Iterable[Kept], now: datetime, days: int) -> list[Kept]:
    """Those that were replaced `days` ago or earlier. Pure."""
    return [old for old in kept_databases if old.at + timedelta(days=days) <= now]


def drop_due(dsn: Dsn, plan: str, now: datetime, days: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Drops the kept databases of `plan` that were replaced `days` ago or earlier.

    Returns the names of those that were dropped, and a sentence for each that could not be dropped. No session is
    ended, so a database in use stays. The caller holds the database's lock.
    """
    dropped, problems = [], []
    with maintenance(dsn).session(NAME) as server:
        for old in due(of_plan(server, plan, dsn.dbname), now, days):
            if old.name == server.info.dbname:
                continue
            if problem := drop(server, old.name):
                problems.append(problem)
            else:
                dropped.append(old.name)
    return tuple(dropped), tuple(problems)
