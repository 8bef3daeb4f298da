"""Chosen tables of a backup alone in a new database, with what they need."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deployments.quick_start.postgres import PostgresCluster
from tasks.restore.psql import Script
from tasks.restore.tables.table_scripts import new_database_tables
from tests.support.chosen_tables import ODD, ROWS, SCHEMA, Backup, table_dump, tables_in, values


@pytest.mark.slow
def test_each_table_with_an_odd_name_goes_alone_into_a_new_database(
    postgres_server: PostgresCluster, database: Callable[..., str]
) -> None:
    url = database(ODD)
    backup = Backup(postgres_server, url)
    for table in backup.stored.tables:
        new = database()
        assert backup.fill(new, table.name) == "", table.name
        assert tables_in(new) == {table.name}
        assert table_dump(postgres_server, new, table.name) == table_dump(postgres_server, url, table.name)


NEEDED = """
CREATE TABLE free_of (id integer PRIMARY KEY); CREATE TABLE lists (id serial, name text); INSERT INTO lists (name) VALUES ('x');
CREATE FUNCTION listed(text) RETURNS boolean LANGUAGE sql BEGIN ATOMIC SELECT EXISTS (SELECT FROM public.lists l WHERE l.name = $1); END;
CREATE TABLE others (id integer); CREATE TABLE parent (a integer CHECK (a > 0)); CREATE TABLE typed_by (x integer);
CREATE SEQUENCE counted OWNED BY others.id;
CREATE TABLE wanted (id integer DEFAULT nextval('counted'), free integer REFERENCES free_of, kept typed_by) INHERITS (parent);
CREATE POLICY by_list ON wanted USING (listed('x')); ALTER TABLE wanted ENABLE ROW LEVEL SECURITY;
COMMENT ON CONSTRAINT wanted_free_fkey ON wanted IS 'gone';
INSERT INTO free_of VALUES (1); INSERT INTO wanted (a, free, kept) VALUES (1, 1, '(5)'); INSERT INTO others VALUES (1);
CREATE VIEW of_wanted AS SELECT id FROM wanted; CREATE VIEW of_both AS SELECT o.id FROM wanted w, others o;
CREATE MATERIALIZED VIEW filled AS SELECT id FROM of_wanted; CREATE MATERIALIZED VIEW gone AS SELECT id FROM others;
CREATE MATERIALIZED VIEW twice AS SELECT id FROM filled;
CREATE FUNCTION on_drop() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'nothing may be dropped'; END $$;
CREATE EVENT TRIGGER dropped ON sql_drop EXECUTE FUNCTION on_drop(); COMMENT ON EVENT TRIGGER dropped IS 'e';
SELECT lo_from_bytea(77, 'x'); COMMENT ON LARGE OBJECT 77 IS 'l'; GRANT SELECT ON LARGE OBJECT 77 TO PUBLIC;
"""


def test_only_what_a_chosen_table_needs_stays_in_a_new_database(
    postgres_server: PostgresCluster, database: Callable[..., str]
) -> None:
    url, new = database(NEEDED), database()
    assert Backup(postgres_server, url).fill(new, "wanted") == ""
    assert tables_in(new) == {"public.wanted", "public.lists", "public.typed_by"}
    assert values(new, "SELECT (SELECT count(*) FROM public.lists), w.* FROM public.wanted w") == [(0, 1, 1, 1, "(5)")]
    assert values(new, "SELECT * FROM public.twice") == values(url, "SELECT * FROM public.twice")
    views = (
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('v', 'm') ORDER BY 1"
    )
    assert values(new, views) == [("filled",), ("of_wanted",), ("twice",)]
    assert values(new, "SELECT evtname FROM pg_event_trigger") == [("dropped",)]
    assert values(new, "SELECT nextval('public.counted')") == [(2,)]
    assert values(new, "SELECT count(*) FROM pg_policy") == [(1,)]


def test_a_materialised_view_whose_function_reads_other_tables_stays_empty(
    postgres_server: PostgresCluster, database: Callable[..., str]
) -> None:
    url, new = (
        database("""
            CREATE TABLE wanted (i int); INSERT INTO wanted VALUES (1); CREATE TABLE par (a int);
            CREATE FUNCTION mf() RETURNS int STABLE LANGUAGE sql AS 'SELECT max(a) FROM public.par';
            CREATE VIEW zv AS SELECT public.mf() x; CREATE MATERIALIZED VIEW am AS SELECT * FROM zv;
        """),
        database(),
    )
    assert Backup(postgres_server, url).fill(new, "wanted") == ""
    assert values(new, "SELECT * FROM public.wanted") == [(1,)]
    assert values(new, "SELECT relispopulated FROM pg_class WHERE relname = 'am'") == [(False,)]


@pytest.mark.parametrize("chunk", [70, 999, 1 << 20])
def test_what_psql_gets_does_not_hang_on_where_the_text_is_cut(
    postgres_server: PostgresCluster, database: Callable[..., str], chunk: int
) -> None:
    backup = Backup(postgres_server, database(SCHEMA, ROWS, ODD))
    script = lambda: new_database_tables(backup.stored, ["orders", "a"])  # noqa: E731
    whole = b"".join(backup.statements(script(), 1 << 30))
    assert b"".join(backup.statements(script(), chunk)) == whole
    assert b"".join(backup.statements(Script(selection=script().selection), chunk)) == whole
