"""Texts that nobody would write, made by hypothesis: each is read rightly or refused, and no reader breaks."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments.quick_start.postgres import PostgresCluster
from tasks.backup.scanner import DumpScanner
from tasks.errors import BackupDamaged, BackupSystemError, BadSetting, DumpFailed
from tasks.postgres.dsn import parse
from tasks.restore.dump_reader import DumpReader
from tasks.restore.tables.patterns import TableName, name_in, named, written_name
from tasks.storage.backup_values import Part
from tasks.storage.manifest_text import read_manifest
from tests.conftest import DatabaseFactory
from tests.restore.test_psql_and_reader import TEXTS
from tests.support.manifests import manifest_bytes
from tests.support.original import run_psql
from tests.support.world import plain_dump

pytestmark = [pytest.mark.faults, pytest.mark.thorough]
#: The same texts always.
STEADY = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck), "database": None}
SECRET = "mArKeR-5ecret"
KEY = "folder/shop/backup.sql.manifest.json"
MANIFEST = manifest_bytes("backup.sql", "folder/shop/backup.sql", 28, "0" * 64, (Part(1, 28, "0" * 64),))


def recorded(request: pytest.FixtureRequest, what: str, count: int) -> None:
    request.node.user_properties += [("kind", "fuzz"), ("what", what), ("count", count)]


def test_the_scanner_answers_the_same_for_chunks_of_any_size_or_refuses(request: pytest.FixtureRequest) -> None:
    @settings(max_examples=1000, **STEADY)
    @given(TEXTS | st.binary(max_size=200), st.integers(1, 40))
    def agree(text: bytes, size: int) -> None:
        assert scanned(text, size) == scanned(text, 1 << 20)

    agree()
    recorded(request, "the scanner of dumps, in chunks of any size", 1000)


def scanned(text: bytes, size: int) -> object:
    """What the scanner finds in a dump that ends as one; None when it refuses it."""
    scanner = DumpScanner()
    with suppress(DumpFailed):
        whole = text + b"\n--\n-- PostgreSQL database dump complete\n--\n\n"
        for at in range(0, len(whole), size):
            scanner.feed(whole[at : at + size])
        return scanner.finish()
    return None


def test_the_reader_refuses_what_it_does_not_know_and_never_breaks(request: pytest.FixtureRequest) -> None:
    @settings(max_examples=1000, **STEADY)
    @given(TEXTS | st.binary(max_size=200), st.integers(1, 40))
    def read(text: bytes, size: int) -> None:
        reader = DumpReader(180000)
        with suppress(BackupDamaged, DumpFailed):
            for at in range(0, len(text), size):
                list(reader.feed(text[at : at + size]))
            list(reader.finish())

    read()
    recorded(request, "the reader of dumps", 1000)


def test_a_manifest_of_anything_is_refused_in_one_sentence(request: pytest.FixtureRequest) -> None:
    edits = st.lists(
        st.tuples(st.integers(0, len(MANIFEST)), st.integers(0, 9), st.binary(max_size=6)), min_size=1, max_size=4
    )

    @settings(max_examples=2000, **STEADY)
    @given(edits)
    def refuse(changes: list[tuple[int, int, bytes]]) -> None:
        content = MANIFEST
        for at, cut, inserted in changes:
            content = content[:at] + inserted + content[at + cut :]
        if content != MANIFEST:
            with pytest.raises(BackupDamaged) as refused:
                read_manifest(content, KEY)
            assert "\n" not in str(refused.value)

    refuse()
    recorded(request, "manifests", 2000)


def test_a_name_of_any_table_is_found_by_what_is_written_for_it(request: pytest.FixtureRequest) -> None:
    names = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), min_size=1, max_size=20)

    @settings(max_examples=1000, **STEADY)
    @given(names, names, st.text(max_size=20))
    def find(schema: str, table: str, pattern: str) -> None:
        name = TableName(schema, table)
        assert name_in(written_name(name)) == name
        assert named({name, TableName("other", "table")}, [written_name(name)]) == {name}
        with suppress(BadSetting):
            named({name}, [pattern])

    find()
    recorded(request, "names and patterns of tables", 1000)


def test_no_password_of_an_address_breaks_its_reader_or_is_shown(request: pytest.FixtureRequest) -> None:
    pieces = st.sampled_from(
        [
            ":",
            "@",
            "/",
            "?",
            "&",
            "=",
            "%",
            "%41",
            "[",
            "]",
            "::1",
            "host",
            "port",
            "5432",
            "sslmode",
            " ",
            "'",
            "\\",
            "ü",
            "#",
            ",",
        ]
    )
    texts = st.lists(pieces, max_size=8).map("".join)

    @settings(max_examples=2000, **STEADY)
    @given(texts, texts)
    def read(before: str, after: str) -> None:
        address = f"postgresql://app:{before}{SECRET}{after}@127.0.0.1/shop"
        try:
            shown = parse(address).place
        except BackupSystemError as error:
            shown = str(error)
        assert SECRET not in shown and "\n" not in shown

    read()
    recorded(request, "passwords in addresses of databases", 2000)


VALUES = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=12) | st.sampled_from(
    ["\\.", "\n\\.\n", "\\", "\t", "\r\n", "COPY public.t (a) FROM stdin;", "--", "'", "$$", "\\N"]
)


def test_the_scanner_counts_the_rows_that_psql_restores(
    request: pytest.FixtureRequest, any_postgres: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    url, other = fresh_database(any_postgres), fresh_database(any_postgres)
    number, compared = 0, 0

    @settings(max_examples=40, **STEADY)
    @given(st.lists(st.lists(VALUES | st.none(), max_size=6), min_size=1, max_size=4))
    def count(tables: list[list[str | None]]) -> None:
        nonlocal number, compared
        number += 1
        schema = f"s{number}"
        with parse(url).session("test") as connection, connection.cursor() as cursor:
            cursor.execute(f"CREATE SCHEMA {schema}")
            for at, values in enumerate(tables):
                cursor.execute(f"CREATE TABLE {schema}.t{at} (a text DEFAULT %s)", [str(values)])
                for value in values:
                    cursor.execute(f"INSERT INTO {schema}.t{at} VALUES (%s)", [value])
            connection.commit()
        compared += sum(map(len, tables))

    count()
    text = plain_dump(any_postgres, url)
    found = scanned(text, 4096)
    assert isinstance(found, tuple) and sum(table.rows for table in found) == compared
    run_psql(any_postgres, other, text)
    with parse(other).session("test") as connection, connection.cursor() as cursor:
        for table in found:
            cursor.execute(f"SELECT count(*) FROM {table.name}")
            assert cursor.fetchone() == (table.rows,), table.name
    recorded(request, "rows of dumps that scanner and psql count alike", compared)
