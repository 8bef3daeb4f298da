"""Chosen tables of a backup, put into the live database, on real servers."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deployments.quick_start.postgres import PostgresCluster
from tasks.postgres.dsn import parse
from tasks.postgres.server import source_session
from tasks.restore.tables import table_scripts as table_replacement
from tests.support.chosen_tables import ODD, ROWS, SCHEMA, Backup, pg_dump, psql, tables_in, values

BACKSLASHES = r"""
CREATE TABLE "a\' b" ("\" serial, t text DEFAULT 'x\y'); INSERT INTO "a\' b" (t) VALUES ('\.');
COMMENT ON TABLE "a\' b" IS '\'; CREATE TABLE other ();
"""


def test_a_table_is_replaced_as_it_was_and_what_stays_keeps_its_keys(
    postgres_server: PostgresCluster, database: Callable[..., str]
) -> None:
    url = database(SCHEMA, ROWS)
    backup = Backup(postgres_server, url)
    before = pg_dump(postgres_server, url)
    changed = """
        UPDATE shop.orders SET note = 'changed'; ALTER TABLE shop.orders ADD more integer; DROP INDEX shop."by note";
        INSERT INTO shop.orders (customer) SELECT 1 FROM generate_series(1, 9);
        ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC; ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO PUBLIC;
    """
    assert not psql(postgres_server, url, changed)
    assert backup.replace(url, "shop.orders") == ""
    undo = "ALTER DEFAULT PRIVILEGES REVOKE ALL ON TABLES FROM PUBLIC; ALTER DEFAULT PRIVILEGES REVOKE ALL ON SEQUENCES FROM PUBLIC;"
    assert not psql(postgres_server, url, undo)
    assert pg_dump(postgres_server, url) == before


def test_a_table_that_is_gone_comes_back_with_its_schema(
    postgres_server: PostgresCluster, database: Callable[..., str]
) -> None:
    url = database(ODD, "GRANT USAGE ON SCHEMA other TO PUBLIC; COMMENT ON SCHEMA other IS 'x';")
    backup, before = Backup(postgres_server, url), pg_dump(postgres_server, url)
    assert not psql(postgres_server, url, "DROP SCHEMA other CASCADE; DROP TABLE a;")
    assert backup.replace(url, "a") == ""
    assert pg_dump(postgres_server, url) == before


def test_names_of_every_sort_are_told_apart(postgres_server: PostgresCluster, database: Callable[..., str]) -> None:
    url = database(ODD)
    backup, before = Backup(postgres_server, url), pg_dump(postgres_server, url)
    for table in backup.stored.tables:
        assert not psql(postgres_server, url, f"ALTER TABLE {table.name} ADD spoilt integer;")
        assert backup.replace(url, table.name) == "", table.name
        assert pg_dump(postgres_server, url) == before, table.name


def test_rows_that_a_staying_table_points_to_must_be_there(
    postgres_server: PostgresCluster, database: Callable[..., str]
) -> None:
    url = database(SCHEMA, ROWS)
    backup = Backup(postgres_server, url)
    new = "INSERT INTO shop.orders (customer) VALUES (1); ALTER TABLE shop.items DROP CONSTRAINT loose;"
    new += "INSERT INTO shop.items SELECT 500, max(id) FROM shop.orders;"
    assert not psql(postgres_server, url, new)
    now = pg_dump(postgres_server, url)
    assert '"of; order"' in backup.replace(url, "shop.orders")
    assert pg_dump(postgres_server, url) == now
    assert not psql(
        postgres_server,
        url,
        "DELETE FROM shop.items WHERE id = 500; DELETE FROM shop.customers CASCADE"
        if 0
        else "DELETE FROM shop.items WHERE id = 500",
    )
    assert backup.replace(url, "shop.orders") == ""


def test_rows_that_a_restored_table_points_to_must_be_there(
    postgres_server: PostgresCluster, database: Callable[..., str]
) -> None:
    url = database(SCHEMA, ROWS)
    backup = Backup(postgres_server, url)
    assert not psql(
        postgres_server, url, "DELETE FROM shop.orders WHERE id = 50; DELETE FROM shop.customers WHERE id = 50"
    )
    now = pg_dump(postgres_server, url)
    assert "orders_customer_fkey" in backup.replace(url, "shop.orders")
    assert pg_dump(postgres_server, url) == now
    assert backup.replace(url, "shop.orders", "shop.customers") == ""
    assert values(url, "SELECT count(*) FROM shop.orders") == [(50,)]


def test_publications_keep_the_tables_that_they_had(
    postgres_server: PostgresCluster, database: Callable[..., str]
) -> None:
    url = database(
        SCHEMA, ROWS, "CREATE PUBLICATION old FOR TABLE shop.orders; CREATE PUBLICATION gone FOR TABLE shop.orders"
    )
    backup = Backup(postgres_server, url)
    changes = "DROP PUBLICATION gone; CREATE PUBLICATION later FOR TABLE shop.orders (id) WHERE (id > 3);"
    assert not psql(postgres_server, url, changes)
    before = pg_dump(postgres_server, url)
    assert backup.replace(url, "shop.orders") == ""
    assert pg_dump(postgres_server, url) == before


def test_an_owner_without_superuser_puts_a_table_back(
    postgres_server: PostgresCluster, owned: Callable[[], str]
) -> None:
    url, new = owned(), owned()
    assert not psql(postgres_server, url, SCHEMA + ROWS + "ALTER TABLE shop.orders DISABLE ROW LEVEL SECURITY")
    backup, before = Backup(postgres_server, url), pg_dump(postgres_server, url)
    assert not psql(postgres_server, url, "UPDATE shop.orders SET note = 'x'")
    assert backup.replace(url, "shop.orders") == ""
    assert pg_dump(postgres_server, url) == before
    assert backup.fill(new, "shop.orders") == ""
    assert tables_in(new) == {"shop.orders"}


def test_a_table_in_a_database_of_another_encoding_is_found_by_its_name(
    postgres_server: PostgresCluster, database: Callable[..., str]
) -> None:
    name = f"latin_{postgres_server.major}"
    create = f"DROP DATABASE IF EXISTS {name}; CREATE DATABASE {name} ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0;"
    assert not psql(postgres_server, postgres_server.url(), create.replace(";", ";\n"))
    url = postgres_server.url(name)
    assert not psql(
        postgres_server, url, 'SET client_encoding = utf8; CREATE TABLE "Größe" (id serial); CREATE TABLE o ();'
    )
    backup, before = Backup(postgres_server, url), pg_dump(postgres_server, url)
    assert backup.replace(url, '"Größe"') == ""
    assert pg_dump(postgres_server, url) == before
    utf8 = database()
    assert backup.fill(utf8, '"Größe"') == ""
    assert tables_in(utf8) == {'public."Größe"'}


def test_names_with_backslashes_are_found_where_strings_take_them_for_escapes(
    postgres_server: PostgresCluster, database: Callable[..., str]
) -> None:
    url = database(BACKSLASHES)
    name = parse(url).dbname
    off = f"ALTER DATABASE {name} SET standard_conforming_strings = off; "
    assert not psql(postgres_server, url, off + f"ALTER DATABASE {name} SET escape_string_warning = off")
    backup, before, new = Backup(postgres_server, url), pg_dump(postgres_server, url), database()
    assert b"standard_conforming_strings = off" in backup.text
    assert backup.replace(url, "a*") == ""
    assert pg_dump(postgres_server, url) == before
    assert backup.fill(new, "a*") == ""
    assert values(new, "SELECT last_value FROM pg_sequences") == [(1,)]


def test_the_wait_for_a_lock_is_bounded(
    postgres_server: PostgresCluster, database: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(table_replacement, "LOCK_WAIT", "200ms")
    url = database(ODD)
    backup = Backup(postgres_server, url)
    with source_session(parse(url), "test") as connection, connection.cursor() as cursor:
        cursor.execute("BEGIN; SELECT * FROM public.a")
        assert "lock timeout" in backup.replace(url, "public.a")
    assert backup.replace(url, "public.a") == ""
