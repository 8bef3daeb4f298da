"""Schemas that are restored alone, into a new database: exactly what pg_dump says of them, and nothing of the others."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.errors import EntriesFailed, PreflightFailed
from tests.support.scene import Scene, SceneFactory
from tests.support.world import plain_dump

SCHEMAS = """
    CREATE SCHEMA ext; CREATE EXTENSION citext SCHEMA ext; CREATE EXTENSION postgres_fdw;
    CREATE SERVER far FOREIGN DATA WRAPPER postgres_fdw; COMMENT ON SERVER far IS 'far away';
    CREATE SCHEMA shop; COMMENT ON SCHEMA shop IS 'sells'; GRANT USAGE ON SCHEMA shop TO PUBLIC;
    CREATE TYPE shop.state AS ENUM ('new', 'paid');
    CREATE TABLE shop.orders (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, state shop.state, who ext.citext);
    INSERT INTO shop.orders (state, who) SELECT 'new', 'a' || i FROM generate_series(1, 500) i;
    COMMENT ON COLUMN shop.orders.who IS 'a customer'; GRANT SELECT ON shop.orders TO PUBLIC;
    CREATE INDEX by_who ON shop.orders (who);
    CREATE FUNCTION shop.count() RETURNS bigint LANGUAGE sql AS 'SELECT count(*) FROM shop.orders';
    CREATE MATERIALIZED VIEW shop.busy AS SELECT state, count(*) FROM shop.orders GROUP BY state;
    CREATE FOREIGN TABLE shop.elsewhere (i int) SERVER far;
    ALTER DEFAULT PRIVILEGES IN SCHEMA shop GRANT SELECT ON TABLES TO PUBLIC;
    CREATE PUBLICATION told FOR TABLE shop.orders;
    CREATE SCHEMA "Odd "" Schema"; CREATE TABLE "Odd "" Schema".t (i int); INSERT INTO "Odd "" Schema".t VALUES (7);
    CREATE TABLE "Odd "" Schema".parts (i int) PARTITION BY LIST (i);
    CREATE TABLE "Odd "" Schema".part PARTITION OF "Odd "" Schema".parts DEFAULT; INSERT INTO "Odd "" Schema".parts VALUES (1);
    CREATE SCHEMA hidden; CREATE TABLE hidden.secrets (i int); INSERT INTO hidden.secrets VALUES (1);
    CREATE TABLE public.plain (i int); CREATE FUNCTION e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
    CREATE EVENT TRIGGER audit ON ddl_command_end EXECUTE FUNCTION e(); SELECT lo_create(0);
    CREATE CAST (shop.state AS int) WITH INOUT;
"""
OWN = "SELECT nspname FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema' ORDER BY 1"


@pytest.fixture
def one(scene: SceneFactory) -> Scene:
    made = scene()
    made.sql(SCHEMAS)
    made.back_up()
    return made


def of_schemas(one: Scene, database: str, *patterns: str) -> bytes:
    return plain_dump(one.cluster, one.cluster.url(database), *(f"--schema={pattern}" for pattern in patterns))


def refused(one: Scene, error: type[Exception], **request: Any) -> str:
    before = one.databases()
    with pytest.raises(error) as raised:
        one.restore(**request)
    assert f"{one.name}_new" not in one.databases() and set(before) <= set(one.databases())
    return str(raised.value)


@pytest.mark.parametrize(
    ("patterns", "found"),
    [
        (["shop"], ["ext", "public", "shop"]),
        (["SHOP", '"Odd "" Schema"'], ['Odd " Schema', "ext", "public", "shop"]),
        (["sh?p", "hid*"], ["ext", "hidden", "public", "shop"]),
        (["public", "hidden"], ["ext", "hidden", "public"]),
    ],
    ids=["one", "quoted", "wildcards", "public"],
)
def test_chosen_schemas_come_back_as_pg_dump_shows_them_and_nothing_of_the_others(
    one: Scene, patterns: list[str], found: list[str]
) -> None:
    name = f"{one.name}_new"
    done = one.restore(mode="new_database", target=name, schemas=tuple(patterns), compare="content")
    assert of_schemas(one, name, *patterns) == of_schemas(one, one.name, *patterns)
    assert [schema for (schema,) in one.sql(OWN, name)] == found
    assert one.sql("SELECT count(*) FROM pg_extension WHERE extname IN ('citext', 'postgres_fdw')", name) == [(2,)]
    others = "SELECT (SELECT count(*) FROM pg_largeobject_metadata), (SELECT count(*) FROM pg_publication)"
    assert one.sql(f"{others}, (SELECT count(*) FROM pg_event_trigger)", name) == [(0, 0, 0)]
    assert [warning for warning in done.warnings if f"only {', '.join(patterns)} came back" in warning]
    assert not [warning for warning in done.warnings if warning.endswith("was left out.")]


@pytest.mark.parametrize("codec", ["none", "zstd"])
def test_rows_of_other_schemas_are_neither_loaded_nor_counted(scene: SceneFactory, codec: str) -> None:
    one = scene(codec=codec)
    one.sql(SCHEMAS)
    one.sql("INSERT INTO hidden.secrets SELECT i FROM generate_series(1, 200000) i")
    one.back_up()
    done = one.restore(mode="new_database", target=f"{one.name}_new", schemas=("shop",))
    assert (done.rows, done.tables) == (500, 1)
    assert one.sql("SELECT count(*), sum(count) FROM shop.busy", f"{one.name}_new") == [(1, 500)]


def test_a_schema_that_the_backup_does_not_have_is_named_and_no_database_is_made(one: Scene) -> None:
    said = refused(one, EntriesFailed, mode="new_database", target=f"{one.name}_new", schemas=("shop", "shpo"))
    assert "has nothing in a schema shpo (schemas)" in said


def test_what_needs_another_schema_is_named_and_can_be_left_out(one: Scene) -> None:
    one.sql("CREATE TABLE hidden.lines (id int REFERENCES shop.orders)")
    one.back_up()
    request = {"mode": "new_database", "target": f"{one.name}_new", "schemas": ("hidden",)}
    said = refused(one, EntriesFailed, **request)
    assert "FK CONSTRAINT hidden.lines lines_id_fkey" in said and "`without`" in said
    done = one.restore(**request, without=("FK CONSTRAINT *",))
    assert "FK CONSTRAINT hidden.lines lines_id_fkey was left out." in done.warnings
    assert one.sql("SELECT to_regclass('hidden.lines')::text", f"{one.name}_new") == [("hidden.lines",)]


def test_what_makes_no_sense_is_refused_before_anything_is_begun(one: Scene) -> None:
    new = {"mode": "new_database", "target": f"{one.name}_new"}
    for request, sentence in [
        ({"mode": "swap"}, "use the mode new_database, without tables"),
        ({"mode": "in_place"}, "use the mode new_database, without tables"),
        ({**new, "tables": ("orders",)}, "use the mode new_database, without tables"),
        ({**new, "schemas": ("shop.orders",)}, "'shop.orders' names no schema"),
        ({**new, "schemas": ('"shop',)}, "names no schema: write its name alone"),
        ({**new, "schemas": ("",)}, "'' names no schema"),
    ]:
        assert sentence in refused(one, PreflightFailed, **{"schemas": ("shop",), **request})
