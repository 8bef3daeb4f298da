"""What depends on chosen tables in the live database, or cannot be replaced, is named and refused."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deployments.quick_start.postgres import PostgresCluster
from tasks.errors import RestoreRefused
from tasks.postgres.dsn import parse
from tasks.postgres.server import source_session
from tasks.restore.tables.table_scripts import replacement
from tests.support.chosen_tables import ODD, ROWS, SCHEMA, Backup, pg_dump, psql, table_dump, tables_in, values

DEPENDENTS = """
CREATE VIEW seen AS SELECT id FROM shop.orders; CREATE VIEW seen_twice AS SELECT id FROM seen;
CREATE MATERIALIZED VIEW "kept; x" AS SELECT count(*) FROM shop.orders;
CREATE VIEW grouped AS SELECT id, note FROM shop.orders GROUP BY id;
CREATE FUNCTION of_row(shop.orders) RETURNS integer LANGUAGE sql AS 'SELECT 1';
CREATE FUNCTION atomic() RETURNS bigint LANGUAGE sql BEGIN ATOMIC SELECT count(*) FROM shop.orders; END;
CREATE TABLE child () INHERITS (shop.orders); CREATE TABLE holder (o shop.orders, os shop.orders[]);
CREATE TABLE uses (id integer DEFAULT nextval('shop.customers_id_seq'));
CREATE POLICY elsewhere ON shop.items USING (EXISTS (SELECT FROM shop.orders));
CREATE RULE other AS ON INSERT TO shop.items DO ALSO DELETE FROM shop.orders WHERE false;
CREATE CONSTRAINT TRIGGER from_other AFTER INSERT ON shop.items FROM shop.orders FOR EACH ROW EXECUTE FUNCTION shop.tell();
"""


def test_what_depends_on_a_chosen_table_is_named_and_refused(
    postgres_server: PostgresCluster, database: Callable[..., str]
) -> None:
    url = database(SCHEMA, ROWS)
    backup = Backup(postgres_server, url)
    assert not psql(postgres_server, url, DEPENDENTS)
    now = pg_dump(postgres_server, url)
    with pytest.raises(RestoreRefused) as refused:
        backup.replace(url, "shop.orders")
    said = str(refused.value)
    assert " and 1 more" in said
    everything = [
        "view public.seen",
        'materialized view public."kept; x"',
        "view public.grouped",
        "function public.of_row",
        "function public.atomic()",
        "table public.child",
        "column o of table public.holder",
        "column os of table public.holder",
        "policy elsewhere",
        "rule other",
        "trigger from_other",
    ]
    assert sum(name in said for name in everything) >= 9, said
    assert pg_dump(postgres_server, url) == now
    with pytest.raises(RestoreRefused, match=r"default value for column id of table public\.uses"):
        backup.replace(url, "shop.customers")


def test_what_depends_on_a_chosen_table_is_dropped_when_that_was_asked_for(
    postgres_server: PostgresCluster, database: Callable[..., str]
) -> None:
    url = database(SCHEMA, ROWS)
    backup, before = Backup(postgres_server, url), table_dump(postgres_server, url, "shop.*")
    assert not psql(postgres_server, url, DEPENDENTS)
    assert backup.replace(url, "shop.orders", "shop.customers", drop_dependents=True) == ""
    assert table_dump(postgres_server, url, "shop.*") == before
    assert tables_in(url) == {"shop.orders", "shop.customers", "shop.items", "public.holder", "public.uses"}


def test_what_appears_after_the_check_is_refused_too(
    postgres_server: PostgresCluster, database: Callable[..., str]
) -> None:
    url = database(SCHEMA, ROWS)
    backup = Backup(postgres_server, url)
    with source_session(parse(url), "test") as connection:
        script = replacement(connection, backup.stored, ["shop.orders"])
    assert not psql(postgres_server, url, "CREATE VIEW late AS SELECT * FROM shop.orders")
    assert "view public.late" in backup.run(url, script)
    assert values(url, "SELECT count(*) FROM public.late") == [(50,)]


def test_a_name_that_is_something_else_in_the_live_database_is_refused(
    postgres_server: PostgresCluster, database: Callable[..., str]
) -> None:
    url = database(ODD)
    backup = Backup(postgres_server, url)
    assert not psql(postgres_server, url, 'DROP TABLE "a b c"; CREATE VIEW "a b c" AS SELECT 1;')
    with pytest.raises(RestoreRefused, match=r'has a view called public\."a b c"'):
        backup.replace(url, '"a b c"')


def test_a_table_of_an_extension_is_refused(postgres_server: PostgresCluster, database: Callable[..., str]) -> None:
    url = database("CREATE EXTENSION hstore; CREATE TABLE t (id integer);")
    backup = Backup(postgres_server, url)
    assert not psql(postgres_server, url, "ALTER EXTENSION hstore ADD TABLE t")
    with pytest.raises(RestoreRefused, match=r"public\.t belongs to the extension hstore"):
        backup.replace(url, "t")
