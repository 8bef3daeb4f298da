"""Filling a database with the sample shop: afterwards it is all there, or nothing is."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg2
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from deployments.sample import copying, objects, rows, sizes, small
from deployments.sample.copying import Progress
from tasks.errors import Permanent
from tasks.postgres.dsn import parse

#: Goes up whenever the same size and seed would make other rows, or another order of them, than before.
LAYOUT = 2

#: Up to this size the rows are settled into the order that a plain restore keeps; more is for measuring speed.
SETTLED_MEGABYTES = 200

_LOCK = 0x53484F50  # "SHOP": two fills of one database take turns
_SESSION = """
    SET LOCAL search_path = pg_catalog;
    SET LOCAL standard_conforming_strings = on;
    SET LOCAL TimeZone = 'UTC';
    SET LOCAL DateStyle = 'ISO';
    SET LOCAL IntervalStyle = 'postgres';
    SET LOCAL synchronous_commit = off;
    SET LOCAL maintenance_work_mem = '128MB';
    SET LOCAL statement_timeout = 0;
    SET LOCAL default_statistics_target = 10;
"""


class SampleRefused(Permanent):
    """The sample shop cannot be put into this database; nothing was changed."""


def fill(
    connection_or_url: Connection | str, megabytes: int = 50, seed: int = 1, progress: Progress | None = None
) -> None:
    """Leave the sample shop in the database, of a size whose plain dump has `megabytes` MB within 10 %.

    The same size and seed make the same dump on the same major version; up to SETTLED_MEGABYTES, so does a
    plain restore of that dump (`psql -f`). A database that holds this very shop already is left as it is.

    It takes several transactions, and the row of public.sample_database comes with the last: a failure or an
    interrupt takes everything away again but the role shop_reader. What a fill that was killed left is known
    by the lack of that row, and removed by the next. A connection that is passed in talks UTF-8, is committed
    and stays open. `progress` gets a line now and then.

    Raises SampleRefused when the database holds something else under these names or is not fit for the shop,
    and what `tasks.postgres.dsn` raises when it cannot be reached.
    """
    report = progress or _silent
    if megabytes < 1:
        raise SampleRefused(f"The sample database cannot have {megabytes} MB: ask for 1 or more.")
    if isinstance(connection_or_url, str):
        with parse(connection_or_url).session("sample-database", client_encoding="UTF8") as connection:
            _fill(connection, megabytes, seed, report)
    else:
        _fill(connection_or_url, megabytes, seed, report)


def _fill(connection: Connection, megabytes: int, seed: int, report: Progress) -> None:
    with _turn(connection):
        with _begin(connection) as cursor:
            if _already_filled(connection, cursor, megabytes, seed, report):
                report(f"The sample database of {megabytes} MB is there already.")
                return
            _ensure_reader(cursor)
            _run_file(cursor, "schema.sql")
            _create_partitions(cursor)
        try:
            _fill_tables(connection, megabytes, seed, report)
            _finish(connection, megabytes, seed, report)
        except BaseException:
            if not connection.closed:
                with _begin(connection) as cursor:
                    if not _whole_shop(cursor):
                        _clear(cursor)
            raise
    report(f"The sample database of {megabytes} MB is ready.")


def _fill_tables(connection: Connection, megabytes: int, seed: int, report: Progress) -> None:
    """The rows of every table that grows, committed table by table."""
    for content in rows.contents(sizes.sizes_for(megabytes), seed):
        if megabytes > SETTLED_MEGABYTES:
            with _begin(connection) as cursor:
                cursor.execute(f"TRUNCATE {content.table}")  # FREEZE asks for a table that nobody else can see
                copying.load(cursor, content, report, "(FREEZE)")
            continue
        with _begin(connection) as cursor:
            copying.load(cursor, content, report)
        if not copying.settle(lambda: _begin(connection), content.table, content.columns):
            report(f"{content.table}: a restore may put its rows into another order")


def _finish(connection: Connection, megabytes: int, seed: int, report: Progress) -> None:
    """Everything but the tables' rows, and last the row that says that the shop is whole."""
    wanted = sizes.sizes_for(megabytes)
    with _begin(connection) as cursor:
        small.insert(cursor)
        objects.store(cursor, wanted.large_object, seed)
        report("indexes, keys, views and grants")
        _run_file(cursor, "constraints.sql")
        _set_sequences(cursor, wanted)
        cursor.execute(
            "INSERT INTO public.sample_database (megabytes, seed, layout) VALUES (%s, %s, %s)",
            (megabytes, seed, LAYOUT),
        )
        cursor.execute("ANALYZE")


@contextmanager
def _begin(connection: Connection) -> Iterator[Cursor]:
    """A transaction with the settings of a fill; rolled back when its block raises."""
    with connection, connection.cursor() as cursor:
        cursor.execute(_SESSION)
        yield cursor


@contextmanager
def _turn(connection: Connection) -> Iterator[None]:
    """No other fill of this database runs in this block."""
    with _begin(connection) as cursor:
        cursor.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
    try:
        yield
    finally:
        if not connection.closed:
            with _begin(connection) as cursor:
                cursor.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))


def _whole_shop(cursor: Cursor) -> tuple[int, int, int] | None:
    """Megabytes, seed and layout of the shop that is there; None when its last transaction is missing."""
    cursor.execute("SELECT megabytes, seed, layout FROM public.sample_database")
    found: tuple[int, int, int] | None = cursor.fetchone()
    return found


def _clear(cursor: Cursor) -> None:
    """Remove what the transactions before the last one have made."""
    cursor.execute("DROP SCHEMA IF EXISTS shop CASCADE")
    cursor.execute('DROP TABLE IF EXISTS public.sample_database, public."Währungs ""Kurse"" 🪙"')


def _already_filled(connection: Connection, cursor: Cursor, megabytes: int, seed: int, report: Progress) -> bool:
    """True when this very shop is there, False when nothing is in its way (any more); raises SampleRefused."""
    database = connection.info.dbname
    encoding = connection.info.parameter_status("server_encoding")
    if connection.server_version < 140_000 or encoding != "UTF8":
        raise SampleRefused(
            f"The sample shop needs PostgreSQL 14 or newer and a database in UTF8: "
            f"{database} is in {encoding} on version {connection.server_version // 10_000}."
        )
    cursor.execute("SELECT FROM pg_class WHERE oid = to_regclass('public.sample_database')")
    if cursor.rowcount:
        found = _whole_shop(cursor)
        if found == (megabytes, seed, LAYOUT):
            return True
        if found:
            raise SampleRefused(
                f"The database {database} already holds a sample shop of {found[0]} MB with seed {found[1]}, "
                f"layout {found[2]}: name an empty database, or ask for the same one (this is layout {LAYOUT})."
            )
        report(f"The database {database} holds what an interrupted fill has left: it is removed.")
        _clear(cursor)
    cursor.execute(
        "SELECT FROM pg_namespace WHERE nspname = 'shop'"
        " UNION ALL SELECT FROM pg_largeobject_metadata WHERE oid = ANY (%s::oid[])",
        (list(objects.OIDS),),
    )
    if cursor.rowcount:
        raise SampleRefused(
            f"The database {database} already has a schema shop or large objects: name an empty database."
        )
    return False


def _ensure_reader(cursor: Cursor) -> None:
    """Create the role shop_reader unless it is there, even when another database's fill does so right now."""
    cursor.execute("SELECT FROM pg_roles WHERE rolname = 'shop_reader'")
    if cursor.rowcount:
        return
    try:
        cursor.execute("SAVEPOINT reader; CREATE ROLE shop_reader NOLOGIN")
    except (psycopg2.errors.UniqueViolation, psycopg2.errors.DuplicateObject):
        cursor.execute("ROLLBACK TO SAVEPOINT reader")
    except psycopg2.errors.InsufficientPrivilege:
        raise SampleRefused(
            "The sample shop needs the role shop_reader, and this role may not create it: "
            "run CREATE ROLE shop_reader NOLOGIN as an administrator."
        ) from None


def _run_file(cursor: Cursor, name: str) -> None:
    cursor.execute(Path(__file__).with_name(name).read_text(encoding="utf-8"))


def _create_partitions(cursor: Cursor) -> None:
    months = rows.MONTHS
    for month, following in zip(months, (*months[1:], "2025-01"), strict=True):
        cursor.execute(
            f"CREATE TABLE shop.events_{month.replace('-', '_')} PARTITION OF shop.events"
            f" FOR VALUES FROM ('{month}-01 00:00:00+00') TO ('{following}-01 00:00:00+00')"
        )
    cursor.execute("CREATE TABLE shop.events_other PARTITION OF shop.events DEFAULT")


def _set_sequences(cursor: Cursor, wanted: sizes.Sizes) -> None:
    """Every sequence goes on where the rows end."""
    for table, count in (
        ("customers", wanted.customers),
        ("products", wanted.products),
        ("orders", wanted.orders),
    ):
        cursor.execute("SELECT setval(pg_get_serial_sequence(%s, 'id'), %s)", (f"shop.{table}", count))
    cursor.execute("SELECT setval('shop.invoice_numbers', %s)", (99_993 + 7 * wanted.orders,))


def _silent(line: str) -> None:
    """Tell nobody."""
