"""Filling a database with the sample shop, in one transaction: afterwards it is all there, or nothing is."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from tasks.errors import Permanent
from tasks.postgres.dsn import parse

Progress = Callable[[str], None]

#: Goes up whenever the same size and seed would make other rows, or another order of them, than before.
LAYOUT = 3

_SESSION = """
    SET LOCAL search_path = pg_catalog;
    SET LOCAL standard_conforming_strings = on;
    SET LOCAL TimeZone = 'UTC';
    SET LOCAL synchronous_commit = off;
    SET LOCAL maintenance_work_mem = '128MB';
    SET LOCAL work_mem = '64MB';
    SET LOCAL statement_timeout = 0;
    SET LOCAL default_statistics_target = 10;
    SELECT pg_advisory_xact_lock(1397247824); -- "SHOP": two fills of one database take turns
"""


class SampleRefused(Permanent):
    """The sample shop cannot be put into this database; nothing was changed."""


def fill(
    connection_or_url: Connection | str, megabytes: int = 50, seed: int = 1, progress: Progress = lambda _: None
) -> None:
    """Leave the sample shop in the database, of a size whose plain dump has `megabytes` MB within 10 %.

    The same size and seed make the same dump on the same major version, and so does a plain restore of that dump
    (`psql -f`). A database that holds this very shop already is left as it is. A connection that is passed in talks
    UTF-8, is committed and stays open. `progress` gets a line now and then.

    Raises SampleRefused when the database holds something else under these names or is not fit for the shop,
    and what `tasks.postgres.dsn` raises when it cannot be reached.
    """
    if megabytes < 1:
        raise SampleRefused(f"The sample database cannot have {megabytes} MB: ask for 1 or more.")
    if isinstance(connection_or_url, str):
        with parse(connection_or_url).session("sample-database", client_encoding="UTF8") as connection:
            return fill(connection, megabytes, seed, progress)
    with connection_or_url as connection, connection.cursor() as cursor:
        cursor.execute(_SESSION)
        there = _is_there(connection, cursor, megabytes, seed)
        if not there:
            _make(cursor, megabytes, seed, progress)
    progress(f"The sample database of {megabytes} MB is {'there already' if there else 'ready'}.")
    return None


def _is_there(connection: Connection, cursor: Cursor, megabytes: int, seed: int) -> bool:
    """True when this very shop is there, False when nothing is in its way; raises SampleRefused."""
    database, encoding = connection.info.dbname, connection.info.parameter_status("server_encoding")
    if connection.server_version < 140_000 or encoding != "UTF8":
        raise SampleRefused(
            f"The sample shop needs PostgreSQL 14 or newer and a database in UTF8: "
            f"{database} is in {encoding} on version {connection.server_version // 10_000}."
        )
    cursor.execute(
        "SELECT to_regclass('public.sample_database'), to_regnamespace('shop'), count(*) FROM"
        " pg_largeobject_metadata WHERE oid BETWEEN 4200001 AND 4200004"
    )
    table, schema, large_objects = cursor.fetchone()
    if table:
        cursor.execute("SELECT megabytes, seed, layout FROM public.sample_database")
        found = cursor.fetchone()
        if found == (megabytes, seed, LAYOUT):
            return True
        raise SampleRefused(
            f"The database {database} already holds a sample shop of {found[0]} MB with seed {found[1]}, "
            f"layout {found[2]}: name an empty database, or ask for the same one (this is layout {LAYOUT})."
        )
    if schema or large_objects:
        raise SampleRefused(
            f"The database {database} already has a schema shop or large objects: name an empty database."
        )
    return False


def _make(cursor: Cursor, megabytes: int, seed: int, progress: Progress) -> None:
    """The whole shop; the row of public.sample_database says what was asked for."""
    cursor.execute(_text("schema.sql"))
    cursor.execute("INSERT INTO public.sample_database VALUES (%s, %s, %s)", (megabytes, seed, LAYOUT))
    for statement in _text("rows.sql").split(";\n\n"):
        cursor.execute(statement)
        if statement.startswith("INSERT INTO"):
            progress(f"{statement.split()[2]}: {cursor.rowcount:,} rows")
    progress("indexes, keys, views and grants")
    cursor.execute(_text("constraints.sql"))
    cursor.execute("ANALYZE")


def _text(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")
