"""Kept databases: what a swap replaced, until undo-restore takes it back or cleanup drops it.

Each is known by its label alone (tasks.restore.labels), so this works without the catalogue, and a person's own
database of such a name is never touched.
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
#: The size is told to those who may connect to a database or read all statistics; others would get an error.
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
    """What it was called."""
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
    """What replaced it: `restore`, or `undo-restore`."""


def kept(server: Connection, database: str | None = None) -> list[Kept]:
    """Every kept database of the server, or of `database` alone; newest first."""
    found = []
    for row in rows(server, _ALL):
        label = label_of(row["name"], row["comment"])
        if label and label.kind == "kept" and label.at and database in (None, label.database):
            found.append(
                Kept(
                    label.name,
                    label.database,
                    label.at,
                    label.run_id,
                    row["size"],
                    label.comment,
                    label.plan,
                    label.replaced_by,
                )
            )
    return sorted(found, key=lambda one: (one.at, len(one.name), one.name), reverse=True)


def of_plan(server: Connection, plan: str, database: str) -> list[Kept]:
    """Every kept database that a restore of `plan` replaced, or that was `database`; newest first."""
    return [one for one in kept(server) if belongs(one, plan, database)]


def belongs(one: Kept, plan: str, database: str) -> bool:
    """Whether a restore of `plan` replaced it, or, of a label that names no plan, whether it was `database`. Pure."""
    return plan == one.plan or (not one.plan and one.database == database)


def due(found: Iterable[Kept], now: datetime, days: int) -> list[Kept]:
    """Those that were replaced `days` ago or earlier. Pure."""
    return [one for one in found if one.at + timedelta(days=days) <= now]


def drop_due(dsn: Dsn, plan: str, now: datetime, days: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Drops the kept databases of `plan` that were replaced `days` ago or earlier.

    Returns the names of those that were dropped, and a sentence for each that had to stay; no session is ended, so
    one that somebody uses stays. The caller holds the database's lock.
    """
    dropped, problems = [], []
    with maintenance(dsn).session(NAME) as server:
        for one in due(of_plan(server, plan, dsn.dbname), now, days):
            if one.name == server.info.dbname:
                continue
            if problem := drop(server, one.name):
                problems.append(problem)
            else:
                dropped.append(one.name)
    return tuple(dropped), tuple(problems)
