"""The tables of the catalogue: made, checked, made again when they are lost, and recognised in other databases."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import psycopg2
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import quote_ident

from tasks.catalogue.own_tables import TABLES, CatalogueCursor, foreign
from tasks.errors import BadSetting

VERSION = 1
SCHEMA_FILE = Path(__file__).with_name("schema.sql")
_STATUSES = re.compile(r"CHECK \(status IN \([^()]*\)\)")
_EVENTS, _LABEL = "CREATE TABLE backup_events", "COMMENT ON TABLE"
_COMMENT = re.compile(r"Database Backup System, catalogue version (\d+)")
_RELATIONS = """
    SELECT format('%%I.%%I', n.nspname, c.relname) AS name FROM pg_class c
      JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid IN (
      SELECT to_regclass(t) FROM unnest(%(tables)s) t UNION ALL
      SELECT pg_get_serial_sequence(t, 'id')::regclass FROM unnest(%(tables)s) t) ORDER BY 1
"""


def create(cursor: CatalogueCursor) -> bool:
    """Creates the tables, or leaves those of this version as they are; says whether it created them.

    Raises BadSetting when there are tables of these names that are not this system's, or of a newer version.
    """
    _lock(cursor)
    if version(cursor):
        return False
    try:
        cursor.make(SCHEMA_FILE.read_text(encoding="utf-8"))
    except (psycopg2.errors.DuplicateTable, psycopg2.errors.DuplicateObject):
        raise foreign("backup_events") from None
    return True


def version(cursor: CatalogueCursor) -> int:
    """The version of the tables; 0 when there are none. Raises BadSetting as `create` does."""
    cursor.execute(
        "SELECT obj_description(to_regclass('database_backups')) AS note, to_regclass('database_backups') AS t"
    )
    row = cursor.fetchone()
    if row["t"] is None:
        return 0
    label = _COMMENT.fullmatch(row["note"] or "")
    if not label:
        raise foreign("database_backups")
    if int(label[1]) > VERSION:
        raise BadSetting(f"The catalogue has version {label[1]}, this program knows {VERSION}: update the program.")
    return int(label[1])


def lost_tables(cursor: CatalogueCursor) -> tuple[str, ...]:
    """The names of the tables that are not there. Raises BadSetting when one that is there is not this system's."""
    cursor.execute(
        "SELECT t FROM unnest(%s, %s) WITH ORDINALITY t(t, name, n) WHERE to_regclass(name) IS NULL ORDER BY n",
        [list(TABLES), [cursor.name_of(table) for table in TABLES]],
    )
    lost = tuple(str(row["t"]) for row in cursor.fetchall())
    if TABLES[0] not in lost:
        version(cursor)
    elif TABLES[1] not in lost:
        _check_events(cursor)
    return lost


def create_lost_tables(cursor: CatalogueCursor) -> None:
    """Creates the tables that are lost, empty, and leaves the others as they are. Raises BadSetting as above."""
    _lock(cursor)
    lost = lost_tables(cursor)
    backups, _, rest = SCHEMA_FILE.read_text(encoding="utf-8").partition(_EVENTS)
    events, _, label = rest.partition(_LABEL)
    if TABLES[0] in lost:
        cursor.make(f"{backups}{_LABEL}{label}")
    if TABLES[1] in lost:
        cursor.make(f"{_EVENTS}{events}")
    _admit_unproved(cursor)


def _admit_unproved(cursor: CatalogueCursor) -> None:
    """Tables that were made before there was the status `unproved` take it too."""
    cursor.execute(
        "SELECT conname FROM pg_constraint WHERE conrelid = 'database_backups'::regclass AND contype = 'c'"
        " AND pg_get_constraintdef(oid) LIKE '%''missing''%' AND pg_get_constraintdef(oid) NOT LIKE '%''unproved''%'"
    )
    statuses = _STATUSES.search(SCHEMA_FILE.read_text(encoding="utf-8"))
    for row in cursor.fetchall():
        assert statuses is not None
        name = f'"{row["conname"]}"'
        cursor.execute(f"ALTER TABLE database_backups DROP CONSTRAINT {name}, ADD CONSTRAINT {name} {statuses[0]}")


def relations_in(source: Connection, cursor: CatalogueCursor) -> tuple[str, ...]:
    """The relations of the cursor's catalogue, as `schema.name`, if they lie in the database of `source`; else none.

    The cursor takes an advisory lock, and `source` looks for it. Addresses may differ and names may be equal, but a
    session sees only the advisory locks of its own database.
    """
    cursor.execute("SELECT (random() * 1e9)::bigint + (extract(epoch FROM clock_timestamp()) * 1e6)::bigint AS k")
    key = cursor.fetchone()["k"]
    cursor.execute("SELECT pg_advisory_xact_lock(%s)", [key])
    with source.cursor() as there:
        there.execute(
            "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database"
            " WHERE d.datname = current_database() AND l.locktype = 'advisory'"
            " AND (l.classid::bigint << 32 | l.objid::bigint) = %s AND l.objsubid = 1 AND l.granted",
            [key],
        )
        if not there.fetchone()[0]:
            return ()
    cursor.execute(_RELATIONS, {"tables": [cursor.name_of(table) for table in TABLES]})
    return tuple(row["name"] for row in cursor.fetchall())


def labelled_tables(connection: Connection) -> tuple[str, ...]:
    """The relations, as `schema.name`, of every catalogue in the database of `connection`, known by its comment."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT n.nspname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
            " WHERE c.relname = 'database_backups' AND obj_description(c.oid, 'pg_class') LIKE %s",
            ["Database Backup System, catalogue version %"],
        )
        schemas: Sequence[str] = [schema for (schema,) in cursor.fetchall()]
        relations: list[str] = []
        for schema in schemas:
            names = [f"{quote_ident(schema, connection)}.{table}" for table in TABLES]
            cursor.execute(_RELATIONS, {"tables": names})
            relations += [name for (name,) in cursor.fetchall()]
        return tuple(relations)


def _lock(cursor: CatalogueCursor) -> None:
    cursor.execute("SELECT pg_advisory_xact_lock(hashtext('database-backup-system set-up'))")


def _check_events(cursor: CatalogueCursor) -> None:
    """The table of events that is left by itself must be this system's: it has the columns, and refuses changes."""
    try:
        cursor.execute("SELECT action, outcome, plan, actor, run_id, details FROM backup_events WHERE false")
        cursor.execute("SELECT FROM pg_trigger WHERE tgrelid = 'backup_events'::regclass AND tgname = 'append_only'")
    except psycopg2.errors.UndefinedColumn:
        raise foreign("backup_events") from None
    if not cursor.rowcount:
        raise foreign("backup_events")
