"""SQL statements about whole databases: composed, run in a transaction, and what a server says against them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import connection as Connection

_NO_TEXT = re.compile(r"\\x([89a-f][0-9a-f])")


@contextmanager
def transaction(server: Connection) -> Iterator[None]:
    """A transaction on a connection in autocommit mode: committed at the end of the block, rolled back by an error."""
    with server.cursor() as cursor:
        cursor.execute("BEGIN READ WRITE")
        try:
            yield
        except BaseException:
            if not server.closed:
                cursor.execute("ROLLBACK")
            raise
        cursor.execute("COMMIT")


def primary(error: psycopg2.Error) -> str:
    """What the server said, on one line, without hints and without the statement."""
    said = error.diag.message_primary or str(error)
    return " ".join((f"{said} ({error.diag.message_detail})" if error.diag.message_detail else said).split()).strip(".")


def on(statement: str, database: str, **names: str) -> sql.Composed:
    """The statement, in which `{d}` stands for the database, and other words in braces for other names."""
    identifiers = {word: sql.Identifier(name) for word, name in names.items()}
    return sql.SQL(statement).format(d=sql.Identifier(database), **identifiers)


def first_row(connection: Connection, statement: sql.Composable) -> tuple[Any, ...]:
    """The first row of the answer. A name in the statement may hold a per cent sign, since nothing is filled in."""
    with connection.cursor() as cursor:
        cursor.execute(statement)
        return tuple(cursor.fetchone())


def raw_name(name: str) -> str:
    """A name as a manifest writes it, with the bytes that are no UTF-8 in it (`\\xfc`) as surrogates. Pure."""
    return _NO_TEXT.sub(lambda found: chr(0xDC00 + int(found[1], 16)), name)
