"""What the tests of databases, swaps and kept ones share: connections, roles, whole databases."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager

from psycopg2 import sql
from psycopg2.extensions import connection as Connection

from deployments.quick_start.postgres import PostgresCluster
from tasks.backup.source import database_properties
from tasks.postgres.dsn import Dsn, parse
from tasks.postgres.server import rows
from tasks.restore import databases
from tasks.storage.backup_values import DatabaseProperties


def address(cluster: PostgresCluster, database: str = "postgres", user: str | None = None) -> Dsn:
    """The address of a database; for a role other than the superuser, one that `role` made."""
    return parse(cluster.url(database, user, "pw" if user else None))


@contextmanager
def session(cluster: PostgresCluster, database: str = "postgres", user: str | None = None) -> Iterator[Connection]:
    """A connection in autocommit mode for a `with` block."""
    with closing(address(cluster, database, user).connect("test")) as connection:
        yield connection


def run(connection: Connection, *statements: str, **names: str) -> None:
    """Runs statements in which words in braces stand for names."""
    with connection.cursor() as cursor:
        for statement in statements:
            cursor.execute(sql.SQL(statement).format(**{word: sql.Identifier(name) for word, name in names.items()}))


def value(connection: Connection, query: str, **parameters: object) -> object:
    """The only value that a query answers."""
    [row] = rows(connection, query, **parameters)
    [answer] = row.values()
    return answer


def properties(cluster: PostgresCluster, database: str) -> DatabaseProperties:
    """What there is to know of a database."""
    with session(cluster, database) as connection:
        return database_properties(connection)


def role(cluster: PostgresCluster, name: str, options: str = "") -> None:
    """A role that can log in with the password `pw`, and has nothing beside the `options`."""
    with session(cluster) as server:
        if value(server, "SELECT count(*) FROM pg_roles WHERE rolname = %(n)s", n=name):
            run(server, f"ALTER ROLE {{r}} LOGIN PASSWORD 'pw' NOSUPERUSER {options or 'NOCREATEDB'}", r=name)
        else:
            run(server, f"CREATE ROLE {{r}} LOGIN PASSWORD 'pw' {options}", r=name)


def names(cluster: PostgresCluster) -> set[str]:
    """The databases of a server."""
    with session(cluster) as server:
        return {row["datname"] for row in rows(server, "SELECT datname FROM pg_database")}


def drop(cluster: PostgresCluster, *databases_: str) -> None:
    """Drops databases, with the sessions in them."""
    with session(cluster) as server:
        for name in databases_:
            assert databases.drop(server, name, force=True) == ""
