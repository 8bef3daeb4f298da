"""The sample shop on real servers: its size, that it can be repeated, and that it keeps what it was given."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest

from deployments.quick_start.postgres import PostgresCluster
from deployments.sample import SampleRefused, fill, load
from deployments.sample.__main__ import main
from deployments.sample.objects import HANDBOOK, HANDBOOK_TEXT, SCAN, large_objects
from deployments.sample.sizes import sizes_for
from deployments.sample.texts import AWKWARD
from tasks.errors import Unreachable
from tests.conftest import DatabaseFactory


def query(url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """All rows of one statement."""
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())


def plain_dump(server: PostgresCluster, url: str) -> bytes:
    """What pg_dump says of a database, its random keys masked."""
    done = subprocess.run([server.bin_directory / "pg_dump", "-d", url], check=True, capture_output=True)
    return re.sub(rb"(?m)^\\(un)?restrict .*$", rb"\\restrict", done.stdout)


def restore(server: PostgresCluster, url: str, copy: str, *options: str) -> None:
    """The plain dump of the database at `url`, played by psql into the empty one at `copy`."""
    psql = [str(server.bin_directory / "psql"), *["-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", os.devnull], *options]
    with tempfile.NamedTemporaryFile(suffix=".sql") as file:
        subprocess.run([server.bin_directory / "pg_dump", "-d", url, "-f", file.name], check=True)
        subprocess.run([*psql, "-f", file.name, "-d", copy], check=True, capture_output=True)


@pytest.fixture(scope="module")
def shop(postgres_server: PostgresCluster, fresh_database: DatabaseFactory) -> Iterator[str]:
    """URL of a database that holds the shop of 2 MB with seed 1."""
    url = fresh_database(postgres_server)
    fill(url, 2, 1)
    yield url


def test_the_same_seed_and_size_give_the_same_dump(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory, shop: str
) -> None:
    other = fresh_database(postgres_server)
    fill(other, 2, 1)
    assert plain_dump(postgres_server, other) == plain_dump(postgres_server, shop)


@pytest.mark.parametrize("megabytes", [1, 5, 20])
def test_the_plain_dump_has_the_wanted_size_within_ten_percent(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory, megabytes: int
) -> None:
    url = fresh_database(postgres_server)
    fill(url, megabytes, 3)
    assert len(plain_dump(postgres_server, url)) == pytest.approx(megabytes * 1_000_000, rel=0.1)


def test_a_second_fill_with_the_same_seed_and_size_changes_nothing(postgres_server: PostgresCluster, shop: str) -> None:
    before, lines = plain_dump(postgres_server, shop), list[str]()
    fill(shop, 2, 1, lines.append)
    assert lines == ["The sample database of 2 MB is there already."]
    assert plain_dump(postgres_server, shop) == before


@pytest.mark.parametrize(("megabytes", "seed"), [(3, 1), (2, 9)])
def test_a_second_fill_with_another_seed_or_size_is_refused(shop: str, megabytes: int, seed: int) -> None:
    with pytest.raises(SampleRefused, match="already holds a sample shop of 2 MB with seed 1"):
        fill(shop, megabytes, seed)


def test_a_database_with_a_schema_shop_of_its_own_is_refused(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    url = fresh_database(postgres_server)
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute("CREATE SCHEMA shop")
    with pytest.raises(SampleRefused, match="already has a schema shop"):
        fill(url, 1)


def test_a_database_in_another_encoding_is_refused(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    url = fresh_database(postgres_server, "sample_latin1")
    with closing(psycopg2.connect(postgres_server.url())) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute("DROP DATABASE sample_latin1")
        cursor.execute("CREATE DATABASE sample_latin1 TEMPLATE template0 ENCODING 'LATIN1' LOCALE 'C'")
    with pytest.raises(SampleRefused, match="a database in UTF8"):
        fill(url, 1)


@pytest.mark.parametrize("point", ["shop.orders:", "indexes", "The sample database of 1 MB is ready"])
def test_a_fill_that_is_interrupted_leaves_nothing_or_all_and_can_be_repeated(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory, point: str
) -> None:
    url = fresh_database(postgres_server)

    def break_off(line: str) -> None:
        if line.startswith(point):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fill(url, 1, 1, break_off)
    left = query(
        url,
        "SELECT (SELECT count(*) FROM pg_class WHERE relnamespace IN ('public'::regnamespace, to_regnamespace('shop')))"
        " + (SELECT count(*) FROM pg_largeobject_metadata) > 0, to_regnamespace('shop') IS NOT NULL",
    )
    whole = point.endswith("ready")
    assert left == [(whole, whole)]
    fill(url, 1, 1)
    assert query(url, "SELECT megabytes, seed, layout FROM public.sample_database") == [(1, 1, load.LAYOUT)]


def test_what_a_fill_that_lost_its_connection_left_is_removed_by_the_next(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    url, lines = fresh_database(postgres_server), list[str]()

    def cut(line: str) -> None:
        if line.startswith("shop.order_items:"):
            query(
                url,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
            )

    with pytest.raises(Unreachable):
        fill(url, 1, 1, cut)
    assert query(url, "SELECT count(*) FROM public.sample_database") == [(0,)]
    fill(url, 1, 1, lines.append)
    assert lines[0].endswith("holds what an interrupted fill has left: it is removed.")
    assert query(url, "SELECT megabytes, seed, layout FROM public.sample_database") == [(1, 1, load.LAYOUT)]


def test_a_connection_that_is_passed_in_is_committed_and_stays_open(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    url = fresh_database(postgres_server)
    with closing(psycopg2.connect(url)) as connection:
        fill(connection, 1)
        assert not connection.closed
        assert query(url, "SELECT count(*) FROM shop.customers") == [(sizes_for(1).customers,)]


@pytest.mark.parametrize("megabytes", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_a_plain_psql_restore_of_the_sample_dumps_to_the_same_text(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory, megabytes: int
) -> None:
    """COPY into a table that is older than its transaction puts later rows into gaps of earlier pages."""
    url, copy, lines = fresh_database(postgres_server), fresh_database(postgres_server), list[str]()
    fill(url, megabytes, 1, lines.append)
    restore(postgres_server, url, copy)
    assert not [line for line in lines if "another order" in line]
    assert plain_dump(postgres_server, copy) == plain_dump(postgres_server, url)


def test_the_dump_restored_in_one_transaction_dumps_again_to_the_same_text(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory, shop: str
) -> None:
    copy = fresh_database(postgres_server)
    restore(postgres_server, shop, copy, "-1")
    assert plain_dump(postgres_server, copy) == plain_dump(postgres_server, shop)


def test_a_size_above_the_settled_ones_is_loaded_with_the_same_rows(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory, shop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load, "SETTLED_MEGABYTES", 1)
    other = fresh_database(postgres_server)
    fill(other, 2, 1)
    lines = plain_dump(postgres_server, other).splitlines()
    assert sorted(lines) == sorted(plain_dump(postgres_server, shop).splitlines())


def test_awkward_texts_and_large_objects_come_back_as_they_were(shop: str) -> None:
    kept = {row[0] for row in query(shop, "SELECT label FROM shop.delivery_slots")}
    assert kept == set(AWKWARD)
    assert bytes(query(shop, "SELECT lo_get(%s)", HANDBOOK)[0][0]).decode() == HANDBOOK_TEXT
    scan = next(content for number, _, content in large_objects(sizes_for(2).large_object, 1) if number == SCAN)
    digest = hashlib.sha256(b"".join(scan)).hexdigest()
    assert query(shop, "SELECT encode(sha256(lo_get(%s)), 'hex')", SCAN) == [(digest,)]


def test_every_partition_and_the_materialised_view_have_rows(shop: str) -> None:
    partitions = query(
        shop, "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'shop.events'::regclass"
    )
    assert len(partitions) == 13
    assert all(query(shop, f"SELECT count(*) FROM {name}")[0][0] > 0 for (name,) in partitions)
    assert query(shop, "SELECT count(*) FROM shop.sales_by_month") == [(12,)]


def test_the_triggers_work_and_new_rows_get_numbers_that_are_free(shop: str) -> None:
    with closing(psycopg2.connect(shop)) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE shop.products SET name = 'new' WHERE id = 1 RETURNING updated_at = now()")
        assert cursor.fetchone() == (True,)
        cursor.execute("SELECT action, old_row ->> 'id' FROM shop.audit_log ORDER BY id DESC LIMIT 1")
        assert cursor.fetchone() == ("UPDATE", "1")
        cursor.execute("INSERT INTO shop.orders (customer_id) VALUES (1) RETURNING id")
        assert cursor.fetchone() == (sizes_for(2).orders + 1,)
        connection.rollback()


def test_the_second_role_may_read_the_shop_and_not_its_log(shop: str) -> None:
    answer = query(
        shop,
        "SELECT has_table_privilege('shop_reader', 'shop.orders', 'SELECT'),"
        " has_table_privilege('shop_reader', 'shop.audit_log', 'SELECT'),"
        " (SELECT rolcanlogin FROM pg_roles WHERE rolname = 'shop_reader')",
    )
    assert answer == [(True, False, False)]


def test_the_planner_knows_the_tables(shop: str) -> None:
    assert query(shop, "SELECT reltuples FROM pg_class WHERE oid = 'shop.customers'::regclass") == [
        (sizes_for(2).customers,)
    ]


def test_the_command_fills_the_database_of_the_environment(
    postgres_server: PostgresCluster,
    fresh_database: DatabaseFactory,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DATABASE_URL", fresh_database(postgres_server))
    assert main(["--megabytes", "1"]) == 0
    assert capsys.readouterr().out.endswith("The sample database of 1 MB is ready.\n")
    assert main(["--megabytes", "2"]) == 1
    assert "already holds a sample shop of 1 MB" in capsys.readouterr().err
