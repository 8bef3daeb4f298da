"""Work on a PostgreSQL server: sessions, rows, transactions, statements about whole databases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import BYTES, BYTESARRAY, encodings, register_type
from psycopg2.extensions import connection as Connection

from tasks.errors import AccessRefused
from tasks.postgres.dsn import MAINTENANCE, Dsn


@contextmanager
def source_session(dsn: Dsn, application_name: str) -> Iterator[Connection]:
    """A session in a database that is backed up or restored, with the search path of `within_pg_catalog`."""
    with dsn.session(application_name) as connection:
        yield within_pg_catalog(connection)


def within_pg_catalog(connection: Connection) -> Connection:
    """The same connection. From now on, no function or table of the database's owner can shadow PostgreSQL's own."""
    with connection.cursor() as cursor:
        cursor.execute("SET search_path = pg_catalog")
    return connection


def maintenance(dsn: Dsn) -> Dsn:
    """A database of the same server from which the database of `dsn` can be renamed, dropped or locked.

    That is `postgres`, else `template1`, else the database itself: the first that this role may connect to.
    Raises Unreachable when the server does not answer.
    """
    for name in MAINTENANCE:
        if name != dsn.dbname and _may_connect(dsn.with_dbname(name)):
            return dsn.with_dbname(name)
    return dsn


def ensure_database(connection: Connection, name: str) -> bool:
    """Creates the database, empty, unless the server has it; says whether it did. `connection` is in autocommit mode.

    Raises psycopg2.errors.InsufficientPrivilege.
    """
    with connection.cursor() as cursor:
        cursor.execute("SELECT FROM pg_database WHERE datname = %s", (name,))
        if cursor.fetchone() is not None:
            return False
        cursor.execute(on("CREATE DATABASE {d} TEMPLATE template0", name))
    return True


def _may_connect(dsn: Dsn) -> bool:
    try:
        dsn.connect("looks for a maintenance database").close()
    except AccessRefused:
        return False
    return True


def rows(connection: Connection, query: str, **parameters: Any) -> list[dict[str, Any]]:
    """The rows of the result, each a mapping from column to value.

    Names and comments of roles and databases are in the encoding of the database in which they were made, and each
    session sees all of them. Bytes that are none of the session stay what they are, as surrogates.
    """
    with connection.cursor() as cursor:
        for texts_as_bytes in (BYTES, BYTESARRAY):
            register_type(texts_as_bytes, cursor)
        cursor.execute(query, parameters)
        names = [column.name for column in cursor.description]
        codec = encodings[connection.encoding]
        return [dict(zip(names, (_text(value, codec) for value in row), strict=True)) for row in cursor.fetchall()]


def _text(value: Any, codec: str) -> Any:
    if isinstance(value, list):
        return [_text(item, codec) for item in value]
    return value.decode(codec, "surrogateescape") if isinstance(value, bytes) else value


def first_row(connection: Connection, statement: sql.Composable) -> tuple[Any, ...]:
    """The first row of the result. Names in the statement may hold a per cent sign: it takes no parameters."""
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return tuple(cursor.fetchone())


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """A transaction on a connection in autocommit mode: committed at the end of the block, rolled back by an error."""
    with connection.cursor() as cursor:
        cursor.execute("BEGIN READ WRITE")
        try:
            yield
        except BaseException:
            if not connection.closed:
                cursor.execute("ROLLBACK")
            raise
        cursor.execute("COMMIT")


def on(statement: str, database: str, **names: str) -> sql.Composed:
    """The statement, with the database's name in place of `{d}` and the other names in place of their words. Pure."""
    identifiers = {word: sql.Identifier(name) for word, name in names.items()}
    return sql.SQL(statement).format(d=sql.Identifier(database), **identifiers)


def primary(error: psycopg2.Error) -> str:
    """The server's message and detail on one line, without hint, context and statement."""
    message = error.diag.message_primary or str(error)
    if error.diag.message_detail:
        message += f" ({error.diag.message_detail})"
    return " ".join(message.split()).strip(".")
