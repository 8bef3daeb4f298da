"""The catalogue: tables `database_backups` and `backup_events` in a database of their own.

Rows outlive their objects. A row goes from `in_progress` to `completed` or `failed`, once, and from `completed` to
`expired`, `deleted` or `missing`. Whoever finds an `in_progress` row of a dead run fences it first (`claim_dead`), so
that a run that was only thought dead can no longer complete it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg2
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import quote_ident
from psycopg2.extras import Json, RealDictCursor

from tasks.catalogue.removal_intent import GONE_STATUS, Intended, note_intent, withdraw_intent
from tasks.errors import AccessRefused, BadSetting, CatalogueUnavailable, Superseded, Unreachable
from tasks.names import FULL
from tasks.postgres.dsn import Dsn

VERSION = 1
SCHEMA_FILE = Path(__file__).with_name("schema.sql")
TABLES = ("database_backups", "backup_events")
_RELATIONS = """
    SELECT format('%%I.%%I', n.nspname, c.relname) AS name FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid IN (
      SELECT to_regclass(t) FROM unnest(%(tables)s) t UNION ALL
      SELECT pg_get_serial_sequence(t, 'id')::regclass FROM unnest(%(tables)s) t) ORDER BY 1
"""
_COMMENT = re.compile(r"Database Backup System, catalogue version (\d+)")


@dataclass(frozen=True)
class Event:
    """One line of the audit: what was done, by whom, with what outcome."""

    action: str
    outcome: str
    plan: str
    actor: str
    run_id: str
    backup_id: int | None = None
    filename: str | None = None
    duration_seconds: float | None = None
    bytes: int | None = None
    error: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Unfinished:
    """A row that says `in_progress`."""

    backup_id: int
    run_id: str
    filename: str
    key: str


class Catalogue:
    """One catalogue. Each method is one short transaction on a connection of its own.

    Raises CatalogueUnavailable when the server does not answer, BadSetting when the tables are not there.
    """

    def __init__(self, dsn: Dsn) -> None:
        self.dsn = dsn

    # --- the tables

    def prepare(self) -> bool:
        """Creates the tables, or leaves those of this version alone; says whether it created them."""
        with self.cursor() as cursor:
            cursor.execute("SELECT pg_advisory_xact_lock(hashtext('database-backup-system set-up'))")
            version = _version(cursor)
            if version == 0:
                try:
                    cursor.execute(SCHEMA_FILE.read_text(encoding="utf-8"))
                except (psycopg2.errors.DuplicateTable, psycopg2.errors.DuplicateObject):
                    raise _foreign("backup_events") from None
            return version == 0

    def check(self) -> None:
        """Raises when the catalogue cannot be used."""
        with self.cursor() as cursor:
            if _version(cursor) == 0:
                raise BadSetting(
                    f"There is no catalogue in {self.dsn.place}: run the set-up (make up, or "
                    "python -m deployments.set_up), or docs/catalogue.sql by hand."
                )
            cursor.execute("SELECT count(*) FROM database_backups WHERE false")

    def own_tables_in(self, source: Connection) -> tuple[str, ...]:
        """The relations of this catalogue, as `schema.name`, if they lie in the database of `source`; else nothing.

        Told by a lock that this catalogue's connection takes and `source` looks for: addresses may differ and
        names may be equal, but a database sees only its own advisory locks.
        """
        with self.cursor() as cursor, source.cursor() as there:
            cursor.execute(
                "SELECT (random() * 1e9)::bigint + (extract(epoch FROM clock_timestamp()) * 1e6)::bigint AS k"
            )
            key = cursor.fetchone()["k"]
            cursor.execute("SELECT pg_advisory_xact_lock(%s)", [key])
            there.execute(
                "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
                " WHERE d.datname = current_database() AND l.locktype = 'advisory'"
                " AND (l.classid::bigint << 32 | l.objid::bigint) = %s AND l.objsubid = 1 AND l.granted",
                [key],
            )
            if not there.fetchone()[0]:
                return ()
            cursor.execute(_RELATIONS, {"tables": list(TABLES)})
            return tuple(row["name"] for row in cursor.fetchall())

    # --- the life of a backup

    def open(self, filename: str, key: str, plan: str, run_id: str, created_by: str, at: datetime, kind: str) -> int:
        """A new row, `in_progress`; returns its id. The same run asking again gets the same row.

        Raises Superseded when another run has a row of that name.
        """
        with self.cursor() as cursor:
            cursor.execute(
                "INSERT INTO database_backups (filename, s3_key, plan, run_id, created_by, created_at, backup_type)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s)"
                " ON CONFLICT (filename) DO UPDATE SET run_id = excluded.run_id"
                " WHERE database_backups.run_id = excluded.run_id AND database_backups.plan = excluded.plan"
                " RETURNING id",
                [filename, key, plan, run_id, created_by, at, kind],
            )
            row = cursor.fetchone()
            if row is None:
                raise Superseded(f"Another run made {filename} already: back up again.")
            return int(row["id"])

    def complete(
        self, backup_id: int, run_id: str, facts: dict[str, Any], metadata: dict[str, Any], event: Event
    ) -> None:
        """The row becomes `completed` and the audit says so, both or neither. Asking twice is no error.

        Raises Superseded when another run has declared this one dead.
        """
        columns = {**facts, "metadata": Json(metadata)}
        assignments = ", ".join(f"{name} = %({name})s" for name in columns)
        with self.cursor() as cursor:
            cursor.execute(
                f"UPDATE database_backups SET status = 'completed', error = NULL, {assignments}"
                " WHERE id = %(id)s AND run_id = %(run)s AND status = 'in_progress' AND error IS NULL",
                {**columns, "id": backup_id, "run": run_id},
            )
            if cursor.rowcount == 0:
                self._check_completed(cursor, backup_id, run_id)
                return
            append_event(cursor, event)

    def fence(self, backup_id: int, error: str) -> bool:
        """Keeps the error in a row that is `in_progress`, which can never be completed from then on; says whether."""
        with self.cursor() as cursor:
            cursor.execute(
                "UPDATE database_backups SET error = coalesce(error, %s) WHERE id = %s AND status = 'in_progress'",
                [error, backup_id],
            )
            return bool(cursor.rowcount)

    def fail(self, backup_id: int, error: str, event: Event) -> None:
        """The row becomes `failed`, unless it is completed; the first error that it was given stays."""
        with self.cursor() as cursor:
            cursor.execute(
                "UPDATE database_backups SET status = 'failed', error = coalesce(error, %s)"
                " WHERE id = %s AND status = 'in_progress'",
                [error, backup_id],
            )
            if cursor.rowcount:
                append_event(cursor, event)

    def claim_dead(self, plan: str, but_not: str, note: str) -> list[Unfinished]:
        """Fences and returns every `in_progress` row of a plan whose lock the caller (run `but_not`) holds."""
        with self.cursor() as cursor:
            cursor.execute(
                "UPDATE database_backups SET error = coalesce(error, %s)"
                " WHERE plan = %s AND status = 'in_progress' AND run_id <> %s RETURNING id, run_id, filename, s3_key",
                [note, plan, but_not],
            )
            return [Unfinished(row["id"], row["run_id"], row["filename"], row["s3_key"]) for row in cursor.fetchall()]

    def remove(self, filename: str, status: str, event: Event) -> None:
        """A completed row's object is gone: the row becomes `expired`, `deleted` or `missing`, and stays.

        What would be `missing` becomes what a removal that somebody began, and did not end, has noted in the row.
        """
        with self.cursor() as cursor:
            cursor.execute(
                f"UPDATE database_backups SET status = CASE %(s)s WHEN 'missing' THEN {GONE_STATUS} ELSE %(s)s END"
                " WHERE filename = %(filename)s AND status = 'completed' RETURNING status",
                {"s": status, "filename": filename},
            )
            row = cursor.fetchone()
            if row is not None:
                became = row["status"]
                append_event(cursor, event if became == status else replace(event, outcome=became, error=None))

    def intend(self, filename: str, status: Intended, actor: str) -> None:
        """A completed row says what its object is about to be removed as; for as long as that is under way."""
        with self.cursor() as cursor:
            note_intent(cursor, filename, status, actor)

    def forgo(self, filename: str) -> None:
        """Takes back what `intend` noted: the object stays."""
        with self.cursor() as cursor:
            withdraw_intent(cursor, filename)

    # --- what there is

    def completed(self, plan: str, bucket: str = "") -> list[Candidate]:
        """Every completed backup of a plan, newest first, as retention sees it.

        With `bucket`, those alone that lie there: a plan may have had another before.
        """
        return [
            Candidate(
                filename=row["filename"],
                created_at=row["created_at"],
                plain_size=row["plain_size"] or 0,
                table_count=row["table_count"] or 0,
                verified=row["verified_at"] is not None,
                suspicious=bool(row["suspicious"]),
                backup_type=row["backup_type"],
            )
            for row in self.rows(plan)
            if row["status"] == "completed" and (not bucket or row["metadata"].get("bucket", bucket) == bucket)
        ]

    def rows(self, plan: str) -> list[dict[str, Any]]:
        """Every row of a plan, newest first."""
        with self.cursor() as cursor:
            cursor.execute("SELECT * FROM database_backups WHERE plan = %s ORDER BY created_at DESC, id DESC", [plan])
            return [dict(row) for row in cursor.fetchall()]

    def plan_of(self, backup: str) -> str:
        """The plan of the backup with this file name or id; empty when there is no such backup."""
        with self.cursor() as cursor:
            cursor.execute(
                "SELECT plan FROM database_backups WHERE filename = %(it)s OR id::text = %(it)s", {"it": backup}
            )
            row = cursor.fetchone()
            return str(row["plan"]) if row else ""

    def note(self, event: Event) -> None:
        """Appends one line to the audit."""
        with self.cursor() as cursor:
            append_event(cursor, event)

    def _check_completed(self, cursor: RealDictCursor, backup_id: int, run_id: str) -> None:
        cursor.execute("SELECT status, run_id FROM database_backups WHERE id = %s", [backup_id])
        row = cursor.fetchone()
        if row is None or row["status"] != "completed" or row["run_id"] != run_id:
            raise Superseded("Another run took this backup for dead and cleared it away: back up again.")

    @contextmanager
    def cursor(self) -> Iterator[RealDictCursor]:
        """A cursor whose transaction is committed at the end of the block, or rolled back by an error."""
        try:
            with self.dsn.session("backup catalogue") as connection:
                connection.autocommit = False
                with connection, connection.cursor(cursor_factory=RealDictCursor) as cursor:
                    yield cursor
        except Unreachable as error:
            raise CatalogueUnavailable(f"The catalogue does not answer. {error}") from None
        except psycopg2.errors.UndefinedTable:
            raise BadSetting(f"The catalogue in {self.dsn.place} lacks a table: run the set-up again.") from None
        except psycopg2.errors.ReadOnlySqlTransaction:
            raise AccessRefused(f"The catalogue in {self.dsn.place} is read-only: name its primary server.") from None


def labelled_tables(connection: Connection) -> tuple[str, ...]:
    """The relations, as `schema.name`, of every catalogue in the database of `connection`, known by its label."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relname = 'database_backups' AND obj_description(c.oid, 'pg_class') LIKE %s",
            ["Database Backup System, catalogue version %"],
        )
        schemas = [schema for (schema,) in cursor.fetchall()]
        found: list[str] = []
        for schema in schemas:
            names = [f"{quote_ident(schema, connection)}.{table}" for table in TABLES]
            cursor.execute(_RELATIONS, {"tables": names})
            found += [name for (name,) in cursor.fetchall()]
        return tuple(found)


def _version(cursor: RealDictCursor) -> int:
    """The version of the catalogue's tables; 0 when there are none. Raises BadSetting when they are not ours."""
    cursor.execute(
        "SELECT obj_description(to_regclass('database_backups')) AS note, to_regclass('database_backups') AS t"
    )
    row = cursor.fetchone()
    if row["t"] is None:
        return 0
    found = _COMMENT.fullmatch(row["note"] or "")
    if not found:
        raise _foreign("database_backups")
    if int(found[1]) > VERSION:
        raise BadSetting(f"The catalogue has version {found[1]}, this program knows {VERSION}: update the program.")
    return int(found[1])


def _foreign(table: str) -> BadSetting:
    return BadSetting(f"There is a table {table} that is not this system's: name another database in CATALOG_URL.")


def append_event(cursor: RealDictCursor, event: Event) -> None:
    """One line of the audit, as part of the cursor's transaction."""
    values = {**vars(event), "details": Json(dict(event.details))}
    columns, places = ", ".join(values), ", ".join(f"%({name})s" for name in values)
    cursor.execute(f"INSERT INTO backup_events ({columns}) VALUES ({places})", values)


@dataclass(frozen=True)
class Candidate:
    """A completed backup. `plain_size` is in bytes, before compression."""

    filename: str
    created_at: datetime
    plain_size: int
    table_count: int
    verified: bool = False
    suspicious: bool = False
    backup_type: str = FULL
