"""Schemas with odd names, and schemas that others lean on, restored alone."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.errors import EntriesFailed
from tests.restore.test_chosen_schemas import OWN, of_schemas
from tests.support.scene import Scene, SceneFactory

NAMES = ["Shop", "order", "sélect", 'Odd " Schema', "a.b", "SCHEMA x", "x*y", " lead "]


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def alone(one: Scene, *schemas: str, **request: Any) -> str:
    """The name of a new database with these schemas."""
    name = f"{one.name}_new"
    one.restore(mode="new_database", target=name, schemas=schemas, compare="content", **request)
    return name


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_whose_name_needs_quotes_comes_back_with_its_comment_and_grants(
    scene: SceneFactory, name: str
) -> None:
    one, schema = scene(), quoted(name)
    one.sql(f"CREATE SCHEMA {schema}; COMMENT ON SCHEMA {schema} IS 'sells'; GRANT USAGE ON SCHEMA {schema} TO PUBLIC")
    one.sql(f"CREATE TABLE {schema}.t AS SELECT 1 AS i; CREATE SCHEMA other; CREATE TABLE other.t AS SELECT 1 AS i")
    one.sql("COMMENT ON SCHEMA other IS 'not this one'; GRANT USAGE ON SCHEMA other TO PUBLIC")
    one.back_up()
    new = alone(one, schema)
    assert of_schemas(one, new, schema) == of_schemas(one, one.name, schema)
    assert {found for (found,) in one.sql(OWN, new)} == {name, "public"}


def test_the_schema_of_an_extension_comes_with_its_grants(scene: SceneFactory) -> None:
    one = scene()
    one.sql('CREATE SCHEMA "Ext"; GRANT USAGE ON SCHEMA "Ext" TO PUBLIC; CREATE EXTENSION citext SCHEMA "Ext"')
    one.sql('CREATE SCHEMA shop; CREATE TABLE shop.t (who "Ext".citext); CREATE TABLE "Ext".mine AS SELECT 1 AS i')
    one.back_up()
    new = alone(one, "shop")
    assert one.sql("SELECT has_schema_privilege('public', 'Ext', 'USAGE'), to_regclass('\"Ext\".mine')", new) == [
        (True, None)
    ]


def test_a_restore_of_other_schemas_does_not_go_on_where_one_has_failed(scene: SceneFactory) -> None:
    """What that one had loaded would come along."""
    one = scene()
    one.sql("CREATE SCHEMA shop; CREATE TABLE shop.orders (i int PRIMARY KEY); CREATE SCHEMA hidden")
    one.sql("CREATE TABLE hidden.lines (i int REFERENCES shop.orders)")
    one.back_up()
    with pytest.raises(EntriesFailed):
        alone(one, "hidden")
    new = alone(one, "shop")
    assert one.sql("SELECT to_regnamespace('hidden')::text, to_regclass('shop.orders')::text", new) == [
        (None, "shop.orders")
    ]
