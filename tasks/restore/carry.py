"""Copies the catalogue into the restored database when it lies in the replaced one: no restore rolls it back.

Its rows are copied while its tables are locked, and the session that holds the lock is the last to leave the old
database, when no other session can connect to it any more: no row is lost.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import connection as Connection

from tasks.catalogue.own_tables import TABLES, refuse_strange, strange_in
from tasks.catalogue.schema import SCHEMA_FILE
from tasks.errors import SwapFailed
from tasks.postgres.dsn import Dsn
from tasks.postgres.server import first_row, primary, rows

NAME = "restore: catalogue comes along"
_IN_MEMORY = 1 << 20  # bytes of rows; what is more goes through a temporary file
#: With these, no setting of the databases gets in the way.
_SETTINGS = (
    "SET ROLE NONE",
    "SET default_transaction_read_only = off",
    "SET search_path = pg_catalog",
    "SET statement_timeout = 0",
    "SET lock_timeout = '10s'",
    "SET row_security = off",
    "SET idle_in_transaction_session_timeout = '5min'",
    "SET default_transaction_isolation = 'read committed'",
    "SET tcp_keepalives_idle = 5",
    "SET tcp_keepalives_interval = 2",
    "SET tcp_keepalives_count = 3",
)
_LATER_SETTINGS = ("SET transaction_timeout = 0",)
_DESCRIBED = """
    SELECT c.relname AS name, n.nspname AS schema, c.relkind = 'S' AS is_sequence, pg_get_userbyid(c.relowner) AS owner,
           ARRAY(SELECT attname::text FROM pg_attribute WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped
                   AND attgenerated = '' ORDER BY attnum) AS columns,
           ARRAY(SELECT format('%%s%%s', a.privilege_type, E'\\x1f' || CASE a.grantee WHEN 0 THEN '' ELSE
                   pg_get_userbyid(a.grantee) END) FROM aclexplode(c.relacl) a WHERE a.grantee <> c.relowner) AS grants,
           pg_get_userbyid(n.nspowner) AS schema_owner
      FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
     WHERE c.oid = ANY (%(names)s::regclass[]) ORDER BY is_sequence, name
"""


class Lines:
    """The catalogue's rows in the old database, which nobody can change until `release`."""

    def __init__(self, holder: Connection) -> None:
        self._holder = holder
        self.pid: int = holder.info.backend_pid

    def release(self) -> None:
        """Leaves the old database. Raises when the lock was lost before."""
        with self._holder.cursor() as cursor:
            cursor.execute("SELECT 1")
        self._holder.close()


@contextmanager
def carried(dsn: Dsn, database: str, incoming: str, relations: Sequence[str]) -> Iterator[Lines | None]:
    """During the block, the catalogue's tables in `incoming` hold the same rows as those in `database`.

    `relations` are tables and sequences, written as `schema.name`; when there are none, this yields None.
    Raises SwapFailed when the role may not lock or copy them; the tables in `database` are as they were.
    """
    if not relations:
        yield None
        return
    with dsn.with_dbname(database).session(NAME) as source:
        with dsn.with_dbname(incoming).session(NAME) as target, _explained(dsn, database, source):
            for connection in (source, target):
                _run(connection, *_SETTINGS, *_LATER_SETTINGS * (connection.server_version >= 170000))
                _run(connection, "BEGIN READ WRITE")
            _copy(source, target, list(relations))
            _run(target, "COMMIT")
        yield Lines(source)


@contextmanager
def _explained(dsn: Dsn, database: str, source: Connection) -> Iterator[None]:
    try:
        yield
    except psycopg2.Error as error:
        if error.pgcode is None or source.closed:
            raise
        raise SwapFailed(
            f"The catalogue's tables in {database} could not be copied ({primary(error)}); "
            f"{database} is as it was: let role {dsn.user} own them, or move the catalogue to a "
            "database of its own."
        ) from None


def _copy(source: Connection, target: Connection, relations: list[str]) -> None:
    described = rows(source, _DESCRIBED, names=relations)
    tables = [relation for relation in described if not relation["is_sequence"]]
    for table in tables:
        _run(source, _of(table, "LOCK TABLE {t} IN EXCLUSIVE MODE"))
    _prepare(target, tables)
    refuse_strange(strange_in(target, {table["name"]: table["schema"] for table in tables}))
    for table in tables:
        _replace_rows(source, target, table)
    for sequence in (relation for relation in described if relation["is_sequence"]):
        last, called = first_row(source, _of(sequence, "SELECT last_value, is_called FROM {t}"))
        rows(
            target,
            "SELECT setval(%(name)s::regclass, %(last)s, %(called)s)",
            last=last,
            called=called,
            name=_of(sequence, "{t}").as_string(target),
        )
    for relation in described:
        _give(target, relation)


def _prepare(target: Connection, tables: Sequence[dict[str, Any]]) -> None:
    """Makes the tables where there are none, as the set-up makes them."""
    schemas = {table["schema"]: table["schema_owner"] for table in tables}
    for schema, owner in schemas.items():
        _run(target, sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
        missing = [table for table in tables if table["schema"] == schema and not _exists(target, table)]
        if len(missing) == len(TABLES):
            _run(target, sql.SQL("SET LOCAL search_path = {}").format(sql.Identifier(schema)))
            _run(target, sql.SQL(SCHEMA_FILE.read_text(encoding="utf-8")), "SET LOCAL search_path = pg_catalog")
        _try(target, sql.SQL("ALTER SCHEMA {} OWNER TO {}").format(*map(sql.Identifier, (schema, owner))))


def _replace_rows(source: Connection, target: Connection, table: dict[str, Any]) -> None:
    """Replaces the rows of the table in `target`; triggers and rules do not fire."""
    columns = sql.SQL(", ").join(map(sql.Identifier, table["columns"]))
    _run(target, _of(table, "ALTER TABLE {t} DISABLE TRIGGER USER"), _of(table, "DELETE FROM {t}"))
    with tempfile.SpooledTemporaryFile(_IN_MEMORY) as lines, source.cursor() as out, target.cursor() as into:
        out.copy_expert(_of(table, "COPY {t} ({c}) TO STDOUT", c=columns), lines)
        lines.seek(0)
        into.copy_expert(_of(table, "COPY {t} ({c}) FROM STDIN", c=columns), lines)
    _run(target, _of(table, "ALTER TABLE {t} ENABLE TRIGGER USER"))


def _give(target: Connection, relation: dict[str, Any]) -> None:
    """Grants and owner, as far as this role may."""
    for grant in relation["grants"]:
        privilege, _, grantee = grant.partition("\x1f")
        who = sql.Identifier(grantee) if grantee else sql.SQL("PUBLIC")
        kind = "SEQUENCE " if relation["is_sequence"] else "TABLE "
        _try(target, _of(relation, f"GRANT {privilege} ON {kind}{{t}} TO {{w}}", w=who))
    if not relation["is_sequence"]:  # sequences follow their tables
        _try(target, _of(relation, "ALTER TABLE {t} OWNER TO {o}", o=sql.Identifier(relation["owner"])))


def _exists(target: Connection, table: dict[str, Any]) -> bool:
    [row] = rows(target, "SELECT to_regclass(%(name)s) IS NOT NULL AS there", name=_of(table, "{t}").as_string(target))
    return bool(row["there"])


def _of(relation: dict[str, Any], statement: str, **more: sql.Composable) -> sql.Composed:
    return sql.SQL(statement).format(t=sql.Identifier(relation["schema"], relation["name"]), **more)


def _try(target: Connection, statement: sql.Composable) -> None:
    _run(target, "SAVEPOINT step")
    try:
        _run(target, statement)
    except psycopg2.Error as error:
        if error.pgcode is None or target.closed:
            raise
        _run(target, "ROLLBACK TO SAVEPOINT step")


def _run(connection: Connection, *statements: str | sql.Composable) -> None:
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(statement)
