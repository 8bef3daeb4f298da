"""The dump scanner on what pg_dump really writes of a database full of traps."""

from __future__ import annotations

import io
import os
import random
import subprocess
from collections.abc import Callable
from contextlib import closing

import psycopg2
import pytest
from psycopg2 import sql
from psycopg2.extensions import connection as Connection
from psycopg2.extensions import cursor as Cursor
from psycopg2.extensions import parse_dsn

from deployments.quick_start.postgres import PostgresCluster
from tasks.backup.scanner import DumpScanner
from tasks.errors import DumpFailed
from tasks.storage.backup_values import TableData

TRAILER = "--\n-- PostgreSQL database dump complete\n--\n\n"
BAIT = f"\nCOPY public.fake (a) FROM stdin;\n1\n\\.\n\n{TRAILER}"

ODD_TABLES = {
    ('s "q"; (x)', 'a "table" (1) FROM stdin;\n\\.\n'): [
        'c "1"',
        "c)2(",
        "c;\n3",
        "c'4",
        "$$5",
        "--6",
        "/*7",
    ],
    ("Größe 🐘", "Tisch; COPY x FROM stdin;"): ["Maß", "é\tè", "\\.", "E'"],
    ("public", "-- PostgreSQL database dump complete"): ["FROM stdin;", "from", "SELECT"],
    ("public", "ordinary"): ["id", "name"],
}
ODD_VALUES: list[str | None] = [
    "\\.",
    "\\\\.",
    "\\",
    "\n",
    "\n\\.\n",
    BAIT,
    "\t",
    "\r\n",
    "",
    "'",
    '"',
    "$$",
    "NULL",
    "\\N",
    None,
]
ODD_VALUES += ["🐘 ü", "--", "/*", "x" * 300_000, "\\" * 999, "\x01\x7f"]

SCHEMA = """
CREATE TYPE mood AS ENUM ('sad''', 'o"k', E'\nCOPY x (a) FROM stdin;\n');
CREATE TABLE empty (a integer, m mood DEFAULT 'o"k');
CREATE TABLE no_columns ();
INSERT INTO no_columns SELECT FROM generate_series(1, 3);
CREATE TABLE parted (id integer, at date DEFAULT '2026-01-01') PARTITION BY RANGE (id);
CREATE TABLE parted_1 PARTITION OF parted FOR VALUES FROM (0) TO (10);
CREATE TABLE parted_2 PARTITION OF parted FOR VALUES FROM (10) TO (1000);
CREATE TABLE parted_3 PARTITION OF parted FOR VALUES FROM (1000) TO (2000);
INSERT INTO parted SELECT generate_series(5, 104);
CREATE TABLE defaults (a text DEFAULT %(bait)s, b text DEFAULT E'\\\\''$$', CHECK (a || 'x' <> %(bait)s), id serial);
INSERT INTO defaults DEFAULT VALUES;
CREATE VIEW looks AS SELECT %(bait)s::text AS "COPY x (a) FROM stdin;", a AS "$$" FROM defaults;
CREATE MATERIALIZED VIEW kept AS SELECT * FROM defaults;
CREATE FUNCTION atomic(a integer) RETURNS integer LANGUAGE sql BEGIN ATOMIC
  SELECT CASE WHEN a > 1 THEN 2 ELSE (SELECT length(%(bait)s)) END; SELECT 1 AS "Begin"; END;
CREATE PROCEDURE several() LANGUAGE sql BEGIN ATOMIC
  DELETE FROM defaults WHERE a = %(bait)s; DELETE FROM empty; END;
CREATE RULE logged AS ON DELETE TO empty DO ALSO (
  INSERT INTO defaults (a) VALUES (%(bait)s); INSERT INTO defaults (a) VALUES (')'); );
"""


def _connect(url: str) -> Connection:
    connection = psycopg2.connect(url)
    connection.set_client_encoding("UTF8")
    return connection


def _make_functions(cursor: Cursor) -> None:
    """Functions whose names, bodies and comments hold bait and every kind of quote."""
    cursor.execute("SET LOCAL check_function_bodies = off")
    for tag in ("$$", "$_$", "$a$"):
        name = sql.Identifier(f"f {tag} (")
        body = f"BEGIN -- {tag} ' \" /* \n{BAIT} END"
        create = sql.SQL("CREATE FUNCTION {}(integer) RETURNS text LANGUAGE plpgsql AS %s")
        cursor.execute(create.format(name), [body])
        cursor.execute(sql.SQL("COMMENT ON FUNCTION {}(integer) IS %s").format(name), [body])


def _make_odd_tables(cursor: Cursor) -> None:
    for (schema, table), columns in ODD_TABLES.items():
        target = sql.Identifier(schema, table)
        named = sql.SQL(", ").join(sql.SQL("{} text").format(sql.Identifier(column)) for column in columns)
        marks = sql.SQL(", ").join([sql.Placeholder()] * len(columns))
        cursor.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(schema)))
        cursor.execute(sql.SQL("CREATE TABLE {} ({})").format(target, named))
        cursor.execute(sql.SQL("COMMENT ON TABLE {} IS %s").format(target), [f"it's $$ \\ \" {BAIT}"])
        for value in ODD_VALUES:
            insert = sql.SQL("INSERT INTO {} VALUES ({})").format(target, marks)
            cursor.execute(insert, [value] * len(columns))


def _fill(url: str, standard_strings: bool) -> None:
    with closing(_connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(SCHEMA, {"bait": BAIT})
        _make_functions(cursor)
        _make_odd_tables(cursor)
        for content in (b"", b"\\.", b"'\\\n" * 100_000, BAIT.encode()):
            cursor.execute("SELECT lo_from_bytea(0, %s)", [psycopg2.Binary(content)])
        if not standard_strings:
            name = sql.Identifier(connection.info.dbname)
            cursor.execute(sql.SQL("ALTER DATABASE {} SET standard_conforming_strings = off").format(name))


def _dump(server: PostgresCluster, url: str, *options: str) -> bytes:
    names = {
        "host": "PGHOST",
        "port": "PGPORT",
        "user": "PGUSER",
        "password": "PGPASSWORD",
        "dbname": "PGDATABASE",
    }
    environment = os.environ | {names[key]: value for key, value in parse_dsn(url).items() if key in names}
    command = [str(server.bin_directory / "pg_dump"), "--encoding=UTF8", *options]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, env=environment)
    return done.stdout


def _scan(text: bytes, chunk: int = 65_536) -> tuple[TableData, ...]:
    scanner = DumpScanner()
    for start in range(0, len(text), chunk):
        scanner.feed(text[start : start + chunk])
    return scanner.finish()


def _tables_of(cursor: Cursor) -> dict[str, int]:
    cursor.execute(
        "SELECT format('%I.%I', n.nspname, c.relname) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
    )
    counts = {}
    for (name,) in cursor.fetchall():
        cursor.execute(f"SELECT count(*) FROM {name}")
        counts[name] = cursor.fetchone()[0]
    return counts


@pytest.fixture(scope="module", params=[True, False], ids=["standard strings", "backslash strings"])
def nasty(
    request: pytest.FixtureRequest, postgres_server: PostgresCluster, fresh_database: Callable[..., str]
) -> tuple[str, bytes]:
    """URL and dump of a database full of traps."""
    url = fresh_database(postgres_server)
    _fill(url, request.param)
    text = _dump(postgres_server, url)
    assert (b"SET standard_conforming_strings = on;" in text) is request.param
    return url, text


def test_rows_per_table_are_those_of_the_database(nasty: tuple[str, bytes]) -> None:
    url, text = nasty
    found = _scan(text)
    with closing(_connect(url)) as connection, connection.cursor() as cursor:
        expected = _tables_of(cursor)
    assert {table.name: table.rows for table in found} == expected
    assert len(found) == len(expected)


def test_the_byte_range_of_each_table_is_what_copy_gives(nasty: tuple[str, bytes]) -> None:
    url, text = nasty
    with closing(_connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute("SET standard_conforming_strings = on")
        for table in _scan(text):
            data = io.BytesIO()
            cursor.copy_expert(f"COPY {table.name} TO STDOUT", data)
            assert text[table.start : table.end] == data.getvalue(), table.name
            assert text[table.end :].startswith(b"\\.\n")


@pytest.mark.parametrize("chunk", [61, 4096, 65_537, 1 << 30])
def test_the_answer_is_the_same_for_chunks_of_any_size(nasty: tuple[str, bytes], chunk: int) -> None:
    assert _scan(nasty[1], chunk) == _scan(nasty[1])


def test_a_dump_cut_anywhere_is_refused(nasty: tuple[str, bytes]) -> None:
    text = nasty[1]
    chance = random.Random(1)
    baits = [at + len(BAIT) for at in _places(text, b"dump complete")]
    for end in [chance.randrange(len(text)) for _ in range(50)] + baits[:100] + list(range(len(text) - 200, len(text))):
        with pytest.raises(DumpFailed):
            _scan(text[: min(end, len(text) - 1)], 1 << 20)


def _places(text: bytes, wanted: bytes) -> list[int]:
    places, at = [], text.find(wanted)
    while at >= 0:
        places.append(at)
        at = text.find(wanted, at + 1)
    return places


def test_a_small_dump_cut_at_every_place_is_refused(
    postgres_server: PostgresCluster, fresh_database: Callable[..., str]
) -> None:
    url = fresh_database(postgres_server)
    with closing(_connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("CREATE TABLE t (a text); INSERT INTO t VALUES ('x'), (E'\\n\\\\.\\n'), (NULL)")
        cursor.execute("SELECT lo_from_bytea(0, 'x')")
        _make_functions(cursor)
    text = _dump(postgres_server, url)
    assert [(table.name, table.rows) for table in _scan(text)] == [("public.t", 3)]
    for end in range(len(text)):
        with pytest.raises(DumpFailed):
            _scan(text[:end])


def test_every_other_form_of_plain_dump_is_whole_too(
    nasty: tuple[str, bytes], postgres_server: PostgresCluster
) -> None:
    rows = {table.name: table.rows for table in _scan(nasty[1])}
    forms = [["--clean", "--if-exists", "--create"], ["--verbose"], ["--inserts"], ["--schema-only"]]
    forms += [["--disable-dollar-quoting"], ["--quote-all-identifiers"], ["--section=data"]]
    for options in forms:
        found = {table.name: table.rows for table in _scan(_dump(postgres_server, nasty[0], *options))}
        empty = options[0] in ("--inserts", "--schema-only")
        assert (sorted(found.values()) == sorted(rows.values())) is not empty, options
