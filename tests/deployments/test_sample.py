"""Filling a database with the sample shop on real servers: all or nothing, once, and never over something else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from deployments.quick_start.postgres import PostgresCluster
from deployments.sample import SampleRefused, fill, load
from deployments.sample.__main__ import main
from tasks.errors import Unreachable
from tests.conftest import DatabaseFactory
from tests.support.shop import plain_dump, query


@pytest.fixture(scope="module")
def shop(postgres_server: PostgresCluster, fresh_database: DatabaseFactory) -> Iterator[str]:
    """URL of a database that holds the shop of 2 MB with seed 1."""
    url = fresh_database(postgres_server)
    fill(url, 2, 1)
    yield url


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


def test_a_fill_that_lost_its_connection_leaves_nothing_and_can_be_repeated(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    url = fresh_database(postgres_server)

    def cut(line: str) -> None:
        if line.startswith("shop.order_items:"):
            query(
                url,
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
            )

    with pytest.raises(Unreachable):
        fill(url, 1, 1, cut)
    assert query(url, "SELECT to_regclass('public.sample_database'), to_regnamespace('shop')") == [(None, None)]
    fill(url, 1)
    assert query(url, "SELECT megabytes, seed, layout FROM public.sample_database") == [(1, 1, load.LAYOUT)]


def test_a_role_that_may_not_create_the_second_role_learns_what_to_run(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    url = fresh_database(postgres_server)
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        cursor.execute(
            "CREATE ROLE plain_filler; ALTER ROLE shop_reader RENAME TO shop_reader_aside; SET ROLE plain_filler"
        )
        with pytest.raises(psycopg2.errors.InsufficientPrivilege, match="must run CREATE ROLE shop_reader NOLOGIN"):
            cursor.execute((Path(load.__file__).with_name("schema.sql")).read_text(encoding="utf-8"))


def test_a_connection_that_is_passed_in_is_committed_and_stays_open(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    url = fresh_database(postgres_server)
    with closing(psycopg2.connect(url)) as connection:
        fill(connection, 1)
        assert not connection.closed
        assert query(url, "SELECT count(*) > 0 FROM shop.customers") == [(True,)]


def test_progress_is_a_line_for_each_table_that_grows_and_for_what_follows(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    url, lines = fresh_database(postgres_server), list[str]()
    fill(url, 1, 1, lines.append)
    for table, line in zip(("customers", "products", "orders", "order_items", "events"), lines, strict=False):
        assert line == f"shop.{table}: {query(url, f'SELECT count(*) FROM shop.{table}')[0][0]:,} rows"
    assert lines[5:] == ["indexes, keys, views and grants", "The sample database of 1 MB is ready."]


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
