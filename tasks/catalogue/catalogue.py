"""The catalogue: tables `database_backups` and `backup_events` in a database of their own.

Rows outlive their objects. A row goes from `in_progress` to `completed` or `failed`, once, and from `completed` to
`expired`, `deleted` or `missing`. A row that was made from the bucket alone is `unproved` until a person confirms it.
Whoever finds an `in_progress` row of a dead run fences it first (`claim_dead`), so
that a run that was wrongly believed dead can no longer complete it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import psycopg2
from psycopg2.extensions import connection as Connection
from psycopg2.extras import Json

from tasks.catalogue import schema
from tasks.catalogue.own_tables import CatalogueCursor
from tasks.catalogue.rows import COLUMNS, STATUS_WHEN_GONE, WITHOUT_REMOVAL, Event, Record, Removal, append_event
from tasks.errors import AccessRefused, BadSetting, CatalogueUnavailable, Superseded, Unreachable
from tasks.postgres.dsn import Dsn
from tasks.postgres.server import ensure_database, maintenance, source_session

#: The clocks of two machines may differ by so much.
CLOCK_SECONDS = 300.0
_SELECT = f"SELECT {COLUMNS} FROM database_backups"


class Catalogue:
    """One catalogue. Each method is one short transaction on a connection of its own.

    Raises CatalogueUnavailable when the server does not answer, BadSetting when the tables are not there.
    """

    def __init__(self, dsn: Dsn) -> None:
        self.dsn = dsn

    def prepare(self) -> bool:
        """Creates the tables, or leaves those of this version as they are; says whether it created them."""
        with self.cursor(lock=False) as cursor:
            return schema.create(cursor)

    def check(self) -> None:
        """Raises when the catalogue cannot be used."""
        with self.cursor() as cursor:
            if not schema.version(cursor):
                raise BadSetting(
                    f"There is no catalogue in {self.dsn.place}: run the set-up (make up, or "
                    "python -m deployments.set_up), or docs/catalogue.sql by hand."
                )
            cursor.execute("SELECT count(*) FROM database_backups WHERE false")

    def check_clock(self) -> None:
        """Raises BadSetting when the clock of this machine and that of the catalogue's server do not agree.

        Ages of backups, and which is the newest, rest on both.
        """
        with self.cursor() as cursor:
            cursor.execute("SELECT clock_timestamp() AS now")
            apart = (datetime.now(UTC) - cursor.fetchall()[0]["now"]).total_seconds()
        if abs(apart) > CLOCK_SECONDS:
            raise BadSetting(
                f"The clock of this machine is {abs(apart):,.0f} s {'ahead of' if apart > 0 else 'behind'} that of the "
                f"catalogue's server {self.dsn.place}: set the clock that is wrong."
            )

    def lost_tables(self) -> tuple[str, ...]:
        """The names of the tables that are not there. Raises BadSetting when one is not this system's."""
        with self.cursor() as cursor:
            return schema.lost_tables(cursor)

    def create_lost_database(self) -> None:
        """Creates the database, empty, unless it is there. Raises AccessRefused when this role may not do that."""
        with source_session(maintenance(self.dsn), "makes the catalogue's database") as connection:
            ensure_database(connection, self.dsn.dbname)

    def create_lost_tables(self) -> None:
        """Creates the tables that are lost, empty, and leaves the others as they are. Raises as `lost_tables`."""
        with self.cursor(lock=False) as cursor:
            schema.create_lost_tables(cursor)

    def own_tables_in(self, source: Connection) -> tuple[str, ...]:
        """The relations of this catalogue, as `schema.name`, if they lie in the database of `source`; else none."""
        with self.cursor() as cursor:
            return schema.relations_in(source, cursor)

    def open(self, filename: str, key: str, plan: str, run_id: str, created_by: str, at: datetime, kind: str) -> int:
        """A new row, `in_progress`; returns its id. The same run asking again gets the same row.

        Raises Superseded when another run has a row of that name.
        """
        rows = self._records(
            "INSERT INTO database_backups (filename, s3_key, plan, run_id, created_by, created_at, backup_type)"
            " VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT (filename) DO UPDATE SET run_id = excluded.run_id"
            " WHERE database_backups.run_id = excluded.run_id AND database_backups.plan = excluded.plan"
            f" RETURNING {COLUMNS}",
            [filename, key, plan, run_id, created_by, at, kind],
        )
        if not rows:
            raise Superseded(f"Another run made {filename} already: back up again.")
        return rows[0].id

    def complete(
        self,
        backup_id: int,
        run_id: str,
        facts: dict[str, Any],
        metadata: dict[str, Any],
        event: Event,
        status: str = "completed",
    ) -> None:
        """The row gets this status and the audit gets the event, both or neither. Asking twice is no error.

        Raises Superseded when another run has declared this one dead.
        """
        columns = {**facts, "metadata": Json(metadata)}
        assignments = ", ".join(f"{name} = %({name})s" for name in columns)
        with self.cursor() as cursor:
            cursor.execute(
                f"UPDATE database_backups SET status = %(status)s, error = NULL, {assignments}"
                " WHERE id = %(id)s AND run_id = %(run)s AND status = 'in_progress' AND error IS NULL",
                {**columns, "id": backup_id, "run": run_id, "status": status},
            )
            if cursor.rowcount:
                append_event(cursor, event)
                return
            cursor.execute(
                "SELECT FROM database_backups WHERE id = %s AND run_id = %s AND status = %s",
                [backup_id, run_id, status],
            )
            if not cursor.rowcount:
                raise Superseded("Another run took this backup for dead and cleared it away: back up again.")

    def fence(self, backup_id: int, error: str) -> bool:
        """Keeps the error in a row that is `in_progress`, which can never be completed from then on; says whether."""
        statement = "UPDATE database_backups SET error = coalesce(error, %s) WHERE id = %s AND status = 'in_progress'"
        return bool(self._records(f"{statement} RETURNING {COLUMNS}", [error, backup_id]))

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

    def claim_dead(self, plan: str, but_not: str, note: str) -> list[Record]:
        """Fences and returns every `in_progress` row of a plan whose lock the caller (run `but_not`) holds."""
        return self._records(
            "UPDATE database_backups SET error = coalesce(error, %s)"
            f" WHERE plan = %s AND status = 'in_progress' AND run_id <> %s RETURNING {COLUMNS}",
            [note, plan, but_not],
        )

    def begin_removal(self, filename: str, status: Removal, actor: str) -> None:
        """Notes in a completed row, before its object goes, what the row is to become and who asked for that.

        Whoever dies between object and row leaves this note, so whoever misses the object knows why it is gone.
        """
        self._note_removal(filename, {"removal": status, "removal_by": actor})

    def cancel_removal(self, filename: str) -> None:
        """Takes back what `begin_removal` noted: the object stays."""
        self._note_removal(filename, {})

    def remove(self, filename: str, status: str, event: Event) -> None:
        """A completed row's object is gone: the row becomes `expired`, `deleted` or `missing`, and stays.

        A row in which a removal was noted and not ended becomes what was noted, not `missing`.
        """
        with self.cursor() as cursor:
            cursor.execute(
                f"UPDATE database_backups SET status = CASE %(s)s WHEN 'missing' THEN {STATUS_WHEN_GONE} ELSE %(s)s END"
                " WHERE filename = %(filename)s AND status IN ('completed', 'unproved') RETURNING status",
                {"s": status, "filename": filename},
            )
            row = cursor.fetchone()
            if row is not None:
                became = row["status"]
                append_event(cursor, event if became == status else replace(event, outcome=became, error=None))

    def keep(self, filename: str, note: Mapping[str, str] | None, event: Event) -> None:
        """Notes in a completed row why it is kept for ever, or takes that back; the audit gets the event."""
        with self.cursor() as cursor:
            cursor.execute(
                f"UPDATE database_backups SET metadata = {WITHOUT_REMOVAL} - 'kept' || %s WHERE filename = %s"
                " AND status = 'completed' AND (%s OR metadata ? 'kept')",
                [Json({"kept": note} if note else {}), filename, note is not None],
            )
            if cursor.rowcount:
                append_event(cursor, replace(event, details={"kept": note}))

    def rows(self, plan: str) -> list[Record]:
        """Every row of a plan, newest first."""
        return self._records(f"{_SELECT} WHERE plan = %s ORDER BY created_at DESC, id DESC", [plan])

    def newest(self, plan: str, count: int) -> list[Record]:
        """The newest rows, newest first; those of a plan, of a server's databases, or of every plan when empty."""
        return self._records(
            f"{_SELECT} WHERE %s IN (plan, split_part(plan, '.', 1), '') ORDER BY created_at DESC, id DESC LIMIT %s",
            [plan, count],
        )

    def plans_of_server(self, plan: str, *, backed_up: bool = False) -> list[str]:
        """The plans of the databases that have rows of the plan of a server: `server.shop`, by name.

        With `backed_up`, only those that have, or had, a backup that was completed.
        """
        with self.cursor() as cursor:
            cursor.execute(
                "SELECT DISTINCT plan FROM database_backups WHERE left(plan, length(%s)) = %s"
                " AND (completed_at IS NOT NULL OR NOT %s)",
                [f"{plan}.", f"{plan}.", backed_up],
            )
            return sorted(row["plan"] for row in cursor.fetchall())

    def completed(self, plan: str, bucket: str = "") -> list[Record]:
        """Every completed row of a plan, newest first; with `bucket`, only backups that lie there."""
        return [row for row in self.rows(plan) if row.is_completed and (not bucket or row.lies_in(bucket))]

    def named(self, filenames: Iterable[str]) -> dict[str, Record]:
        """The rows of these file names, of any plan, by file name."""
        return {row.filename: row for row in self._records(f"{_SELECT} WHERE filename = ANY (%s)", [list(filenames)])}

    def plan_of(self, backup: str) -> str:
        """The plan of the backup with this file name or id; empty when there is no such backup."""
        rows = self._records(f"{_SELECT} WHERE %s IN (filename, id::text)", [backup])
        return rows[0].plan if rows else ""

    def note(self, event: Event) -> None:
        """Adds one line to the audit."""
        with self.cursor() as cursor:
            append_event(cursor, event)

    def _note_removal(self, filename: str, note: dict[str, str]) -> None:
        with self.cursor() as cursor:
            cursor.execute(
                f"UPDATE database_backups SET metadata = {WITHOUT_REMOVAL} || %s"
                " WHERE filename = %s AND status IN ('completed', 'unproved')",
                [Json(note), filename],
            )

    def _records(self, statement: str, values: Sequence[object]) -> list[Record]:
        with self.cursor() as cursor:
            cursor.execute(statement, values)
            return [Record.of(row) for row in cursor.fetchall()]

    @contextmanager
    def cursor(self, lock: bool = True) -> Iterator[CatalogueCursor]:
        """A cursor whose transaction is committed at the end of the block, or rolled back by an error.

        While it lasts, nobody replaces the tables, unless not to `lock` them.
        """
        try:
            with self.dsn.session("backup catalogue") as connection:
                connection.autocommit = False
                with connection, connection.cursor(cursor_factory=CatalogueCursor) as cursor:
                    cursor.begin(lock)
                    yield cursor
        except Unreachable as error:
            raise CatalogueUnavailable(f"The catalogue does not answer. {error}") from None
        except psycopg2.errors.UndefinedTable:
            raise BadSetting(f"The catalogue in {self.dsn.place} lacks a table: run the set-up again.") from None
        except psycopg2.errors.ReadOnlySqlTransaction:
            raise AccessRefused(f"The catalogue in {self.dsn.place} is read-only: name its primary server.") from None
