"""Sessions on a PostgreSQL server: in a database that is backed up, and in one to stand in while others change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from psycopg2.extensions import connection as Connection

from tasks.errors import AccessRefused
from tasks.postgres.dsn import Dsn


@contextmanager
def source_session(dsn: Dsn, application_name: str) -> Iterator[Connection]:
    """A session in a database that is backed up, as by `within_pg_catalog`."""
    with dsn.session(application_name) as connection:
        yield within_pg_catalog(connection)


def within_pg_catalog(connection: Connection) -> Connection:
    """The connection, on which no schema of the database's owner can shadow what queries name from now on."""
    with connection.cursor() as cursor:
        cursor.execute("SET search_path = pg_catalog")
    return connection


def rows(connection: Connection, query: str, **parameters: Any) -> list[dict[str, Any]]:
    """The answer to `query`, one mapping a row."""
    with connection.cursor() as cursor:
        cursor.execute(query, parameters)
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


_MAINTENANCE = ("postgres", "template1")


def maintenance(dsn: Dsn) -> Dsn:
    """Where to stand while a database is renamed or locked: `postgres`, else `template1`, else the database itself.

    The first that lets this role in, and is not the database of `dsn`. Raises Unreachable when nobody answers.
    """
    for name in _MAINTENANCE:
        if name != dsn.dbname and _lets_in(dsn.with_dbname(name)):
            return dsn.with_dbname(name)
    return dsn


def _lets_in(dsn: Dsn) -> bool:
    try:
        dsn.connect("looks for a database to stand in").close()
    except AccessRefused:
        return False
    return True
