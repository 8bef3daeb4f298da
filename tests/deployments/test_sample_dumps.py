"""The dump of the sample shop: its size, that it can be repeated, what it holds, and that a restore keeps it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import closing

import psycopg2
import pytest

from deployments.quick_start.postgres import PostgresCluster
from deployments.sample import fill
from tests.conftest import BIN_DIRECTORIES, DatabaseFactory
from tests.support import ci_skip
from tests.support.shop import AWKWARD, plain_dump, query, restore


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


def test_another_seed_gives_other_rows_of_every_table_that_grows(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory, shop: str
) -> None:
    other = fresh_database(postgres_server)
    fill(other, 2, 2)
    copied = re.compile(rb"(?ms)^COPY shop\.(customers|products|orders|order_items|events_\w+) .*?^\\\.$")
    ones, others = ([m[0] for m in copied.finditer(plain_dump(postgres_server, url))] for url in (shop, other))
    assert len(ones) == len(others) == 17
    assert not set(ones) & set(others)


def test_every_major_version_gets_the_same_rows_in_the_same_order(
    start_postgres: Callable[[int], PostgresCluster], fresh_database: DatabaseFactory
) -> None:
    if len(BIN_DIRECTORIES) < 2:
        ci_skip("one major version of PostgreSQL alone is installed")
    rows = set()
    for server in map(start_postgres, BIN_DIRECTORIES):
        url = fresh_database(server)
        fill(url, 1)
        copied = re.findall(rb"(?ms)^COPY .*?^\\\.$|^SELECT pg_catalog\.lo.*?$", plain_dump(server, url))
        rows.add(tuple(sorted(copied)))  # pg_dump of 18 writes large objects elsewhere
    assert len(rows) == 1


@pytest.mark.parametrize("megabytes", [1, 5, 20])
def test_the_plain_dump_has_the_wanted_size_within_ten_percent(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory, megabytes: int
) -> None:
    url = fresh_database(postgres_server)
    fill(url, megabytes, 3)
    assert len(plain_dump(postgres_server, url)) == pytest.approx(megabytes * 1_000_000, rel=0.1)


@pytest.mark.parametrize("megabytes", [5, pytest.param(50, marks=pytest.mark.slow)])
def test_a_plain_psql_restore_of_the_sample_dumps_to_the_same_text(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory, megabytes: int
) -> None:
    """COPY into a table that is older than its transaction puts later rows into gaps of earlier pages."""
    url, copy = fresh_database(postgres_server), fresh_database(postgres_server)
    fill(url, megabytes)
    restore(postgres_server, url, copy)
    assert plain_dump(postgres_server, copy) == plain_dump(postgres_server, url)


def test_the_dump_restored_in_one_transaction_dumps_again_to_the_same_text(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory, shop: str
) -> None:
    copy = fresh_database(postgres_server)
    restore(postgres_server, shop, copy, "-1")
    assert plain_dump(postgres_server, copy) == plain_dump(postgres_server, shop)


def test_awkward_texts_and_large_objects_come_back_as_they_were(shop: str) -> None:
    assert {label for (label,) in query(shop, "SELECT label FROM shop.delivery_slots")} == AWKWARD
    handbook, every_byte, empty, scan = (
        bytes(content) for (content,) in query(shop, "SELECT lo_get(content) FROM shop.documents ORDER BY content")
    )
    assert handbook.decode() == "Grüß Gott! 🎁\nCOPY handbook FROM stdin;\n\\.\n" * 50
    assert (every_byte, empty) == (bytes(range(256)), b"")
    assert len(scan) == (2_000_000 - 65_000) // 50
    assert len({scan[at : at + 64] for at in range(0, len(scan), 64)}) > len(scan) // 64


def test_every_awkward_text_is_in_tables_that_grow(shop: str) -> None:
    texts = query(
        shop,
        "SELECT note FROM shop.orders UNION SELECT notes FROM shop.customers UNION SELECT preferences ->> 'theme'"
        " FROM shop.customers UNION SELECT payload ->> 'text' FROM shop.events"
        " UNION SELECT jsonb_array_elements_text(payload -> 'more') FROM shop.events",
    )
    assert {text for (text,) in texts} >= AWKWARD


def test_every_partition_and_the_materialised_view_have_rows(shop: str) -> None:
    partitions = query(
        shop, "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'shop.events'::regclass"
    )
    assert len(partitions) == 13
    assert all(query(shop, f"SELECT count(*) FROM {name}")[0][0] > 0 for (name,) in partitions)
    assert query(shop, "SELECT count(*) FROM shop.sales_by_month") == [(12,)]


def test_the_triggers_work_and_new_rows_get_numbers_that_are_free(shop: str) -> None:
    [(before,)] = query(shop, "SELECT max(id) FROM shop.orders")
    with closing(psycopg2.connect(shop)) as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE shop.products SET name = 'new' WHERE id = 1 RETURNING updated_at = now()")
        assert cursor.fetchone() == (True,)
        cursor.execute("SELECT action, old_row ->> 'id' FROM shop.audit_log ORDER BY id DESC LIMIT 1")
        assert cursor.fetchone() == ("UPDATE", "1")
        cursor.execute("INSERT INTO shop.orders (customer_id) VALUES (1) RETURNING id")
        assert cursor.fetchone() == (before + 1,)
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
    known = "SELECT reltuples FROM pg_class WHERE oid = 'shop.customers'::regclass"
    assert query(shop, known) == query(shop, "SELECT count(*) FROM shop.customers")
