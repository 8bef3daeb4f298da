"""Filling a database with the sample shop, in one transaction: afterwards it is all there, or nothing is."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg2
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor

from deployments.sample import objects, rows, sizes, small
from tasks.core.errors import Permanent
from tasks.core.postgres import parse

#: Goes up whenever the same size and seed would make other rows than before.
LAYOUT = 1

Progress = Callable[[str], None]

_LOCK = 0x53484F50  # "SHOP": two fills of one database take turns
_REPORT_EVERY = 250_000_000  # bytes
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

    The same size and seed make the same dump. One transaction: a failure leaves nothing behind. A database
    that holds this very shop already is left as it is. A connection that is passed in talks UTF-8, is
    committed and stays open. `progress` gets a line now and then.

    Raises SampleRefused when the database holds something else under these names or is not fit for the shop,
    and what `tasks.core.postgres` raises when it cannot be reached.
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
    with connection, connection.cursor() as cursor:
        cursor.execute(_SESSION)
        cursor.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
        if _already_filled(connection, cursor, megabytes, seed):
            report(f"The sample database of {megabytes} MB is there already.")
            return
        wanted = sizes.sizes_for(megabytes)
        _ensure_reader(cursor)
        _run_file(cursor, "schema.sql")
        small.insert(cursor)
        _create_partitions(cursor)
        for content in rows.contents(wanted, seed):
            _copy(cursor, content, report)
        objects.store(cursor, wanted.large_object, seed)
        report("indexes, keys, views and grants")
        _run_file(cursor, "constraints.sql")
        _set_sequences(cursor, wanted)
        cursor.execute(
            "INSERT INTO public.sample_database (megabytes, seed, layout) VALUES (%s, %s, %s)",
            (megabytes, seed, LAYOUT),
        )
        cursor.execute("ANALYZE")
    report(f"The sample database of {megabytes} MB is ready.")


def _already_filled(connection: Connection, cursor: Cursor, megabytes: int, seed: int) -> bool:
    """True when this very shop is there, False when nothing is in its way; raises SampleRefused otherwise."""
    database = connection.info.dbname
    encoding = connection.info.parameter_status("server_encoding")
    if connection.server_version < 140_000 or encoding != "UTF8":
        raise SampleRefused(
            f"The sample shop needs PostgreSQL 14 or newer and a database in UTF8: "
            f"{database} is in {encoding} on version {connection.server_version // 10_000}."
        )
    cursor.execute("SELECT to_regclass('public.sample_database'), to_regnamespace('shop')")
    marker, schema = _row(cursor)
    if marker:
        cursor.execute("SELECT megabytes, seed, layout FROM public.sample_database")
        found = _row(cursor)
        if found == (megabytes, seed, LAYOUT):
            return True
        raise SampleRefused(
            f"The database {database} already holds a sample shop of {found[0]} MB with seed {found[1]}: "
            "name an empty database, or ask for the same size and seed."
        )
    cursor.execute("SELECT count(*) FROM pg_largeobject_metadata WHERE oid = ANY (%s::oid[])", (list(objects.OIDS),))
    if schema or _row(cursor)[0]:
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


def _copy(cursor: Cursor, content: rows.Content, report: Progress) -> None:
    """Stream one table's rows to the server; memory holds one batch."""
    stream = _Stream(content, report)
    cursor.copy_expert(f"COPY {content.table} ({content.columns}) FROM STDIN (FREEZE)", stream, size=1 << 16)
    report(f"{content.table}: {cursor.rowcount:,} rows")


def _set_sequences(cursor: Cursor, wanted: sizes.Sizes) -> None:
    """Every sequence goes on where the rows end."""
    for table, count in (
        ("customers", wanted.customers),
        ("products", wanted.products),
        ("orders", wanted.orders),
    ):
        cursor.execute("SELECT setval(pg_get_serial_sequence(%s, 'id'), %s)", (f"shop.{table}", count))
    cursor.execute("SELECT setval('shop.invoice_numbers', %s)", (99_993 + 7 * wanted.orders,))


def _row(cursor: Cursor) -> tuple[object, ...]:
    found: tuple[object, ...] | None = cursor.fetchone()
    if found is None:
        raise SampleRefused("The table public.sample_database is empty: name a database that nobody has changed.")
    return found


def _silent(line: str) -> None:
    """Tell nobody."""


class _Stream(io.RawIOBase):
    """A table's rows as the file that COPY reads from; a read gives at most `size` bytes."""

    def __init__(self, content: rows.Content, report: Progress) -> None:
        self._table, self._batches, self._report = content.table, content.batches, report
        self._pieces: Iterator[bytes] = iter(())
        self._sent = self._reported = 0

    def read(self, size: int = -1) -> bytes:
        """The next bytes."""
        piece = next(self._pieces, b"")
        while not piece:
            batch = next(self._batches, None)
            if batch is None:
                return b""
            data = batch.encode()
            step = size if size > 0 else max(len(data), 1)
            self._pieces = (data[at : at + step] for at in range(0, len(data), step))
            piece = next(self._pieces, b"")
        self._sent += len(piece)
        if self._sent - self._reported >= _REPORT_EVERY:
            self._reported = self._sent
            self._report(f"{self._table}: {self._sent // 1_000_000:,} MB so far")
        return piece
