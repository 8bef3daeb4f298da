"""Databases that the quick start makes on a server: the catalogue's, and the sample shop."""

from __future__ import annotations

from collections.abc import Callable

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import make_dsn

from deployments.sample import fill
from tasks.errors import AccessRefused
from tasks.postgres.dsn import parse

CATALOG_DATABASE = "backup_catalog"
_PROGRAM = "database-backup-system set-up"


def catalog_url_beside(database_url: str) -> str:
    """The address of the database `backup_catalog` on the server, and for the role, of `database_url`."""
    return str(make_dsn(**parse(database_url).with_dbname(CATALOG_DATABASE).parameters))


def ensure_catalog_database(database_url: str) -> str:
    """`backup_catalog` exists on the server of `database_url`, seen from a connection to it; its address.

    Raises AccessRefused when the role may not create databases and there is none.
    """
    source = parse(database_url)
    with source.session(_PROGRAM) as connection:
        if not _exists(connection, CATALOG_DATABASE):
            try:
                _create(connection, CATALOG_DATABASE)
            except psycopg2.errors.InsufficientPrivilege:
                raise AccessRefused(
                    f"Role {source.user} may not create the catalogue's database {CATALOG_DATABASE} "
                    f"at {source.host}: create it yourself, or name one in CATALOG_URL."
                ) from None
    return catalog_url_beside(database_url)


def ensure_sample_database(server_url: str, name: str, megabytes: int, say: Callable[[str], None]) -> None:
    """Database `name` exists on the server; it is made, and filled with the sample shop, when it was missing.

    It is filled aside and renamed when whole; one that exists is left as it is.
    """
    aside = f"{name}_being_made"
    server = parse(server_url)
    with server.session(_PROGRAM) as connection:
        if _exists(connection, name):
            return
        say(f"Making the sample database {name} of {megabytes} MB …")
        with connection.cursor() as cursor:
            cursor.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(aside)))
        _create(connection, aside)
        fill(str(make_dsn(**server.with_dbname(aside).parameters)), megabytes=megabytes)
        with connection.cursor() as cursor:
            rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
            cursor.execute(rename.format(sql.Identifier(aside), sql.Identifier(name)))


def _exists(connection: Connection, name: str) -> bool:
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
        return cursor.fetchone() is not None


def _create(connection: Connection, name: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL("CREATE DATABASE {} TEMPLATE template0").format(sql.Identifier(name)))
