"""Entries of chosen tables that are left out by name: an index, rows, a view; in one transaction as ever."""

from __future__ import annotations

import pytest

from tasks.errors import RestoreRefused
from tests.support.scene import Scene, SceneFactory, in_words

#: An index that can only be made while a setting is as it was on that day.
SOURCE = """
SET app.day = 'sunny'; CREATE TABLE rates (i int); INSERT INTO rates VALUES (1);
CREATE FUNCTION rate(int) RETURNS int IMMUTABLE LANGUAGE sql RETURN $1 / length(current_setting('app.day'));
CREATE TABLE wanted (i int PRIMARY KEY, t text); INSERT INTO wanted SELECT n, 'x' FROM generate_series(1, 30) n;
CREATE INDEX by_rate ON wanted (rate(i)); CREATE INDEX by_t ON wanted (t);
COMMENT ON INDEX by_rate IS 'by rate';
CREATE TABLE other (i int); CREATE INDEX of_other ON other (i); CREATE TABLE "Odd; name" (i int); INSERT INTO "Odd; name" VALUES (7);
CREATE MATERIALIZED VIEW seen AS SELECT i FROM wanted;
"""
INDEXES = "SELECT indexname FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1"
#: What has to be named too, since it is about the index.
NAMED = ("INDEX public.by_rate", "COMMENT public.INDEX by_rate")


@pytest.fixture
def shop(scene: SceneFactory) -> Scene:
    made = scene()
    made.sql(SOURCE)
    made.back_up()
    return made


@pytest.fixture
def target(shop: Scene) -> str:
    return f"{shop.name}_tables"


def test_an_index_that_cannot_be_made_is_left_out_of_a_new_database_by_its_name(shop: Scene, target: str) -> None:
    asked = {"mode": "new_database", "target": target, "tables": ("wanted",)}
    with pytest.raises(RestoreRefused) as failure:
        shop.restore(**asked)
    in_words(r'INDEX public\.by_rate: unrecognized configuration parameter "app.day"', failure.value)
    in_words(r"name the entry in `without`", failure.value)
    with pytest.raises(RestoreRefused) as failure:
        shop.restore(**asked, without=NAMED[:1])
    in_words(r'COMMENT public\.INDEX by_rate: relation "public\.by_rate" does not exist', failure.value)
    assert target not in shop.databases() and shop.left_behind() == []
    done = shop.restore(**asked, without=NAMED)
    assert shop.sql(INDEXES, target) == [("by_t",), ("wanted_pkey",)]
    assert shop.sql("SELECT count(*) FROM wanted", target) == [(30,)]
    assert [one for one in done.warnings if "left out" in one] == [f"{name} was left out." for name in NAMED]
    shop.discard(target)


def test_in_place_the_same_entries_stay_away_and_nothing_else_changes(shop: Scene) -> None:
    shop.sql("DROP MATERIALIZED VIEW seen; DROP INDEX by_rate; UPDATE wanted SET t = 'changed'")
    others = "SELECT count(*) FROM other, rates"
    asked = {"mode": "in_place", "tables": ("wanted", '"Odd; name"')}
    before = shop.dumped_whole()
    with pytest.raises(RestoreRefused) as failure:
        shop.restore(**asked)
    in_words(r"INDEX public\.by_rate: unrecognized configuration parameter", failure.value)
    assert shop.dumped_whole() == before
    done = shop.restore(**asked, without=("*by_rate", "TABLE DATA public.Odd; name", "INDEX public.*_t"))
    assert shop.sql(INDEXES) == [("of_other",), ("wanted_pkey",)]
    assert shop.sql("SELECT count(*) FROM wanted WHERE t = 'x'") == [(30,)]
    assert shop.sql('SELECT count(*) FROM "Odd; name"') == [(0,)]
    assert shop.sql(others) == [(0,)]
    left = {one.removesuffix(" was left out.") for one in done.warnings if "left out" in one}
    assert left == {*NAMED, "TABLE DATA public.Odd; name", "INDEX public.by_t"}


@pytest.mark.parametrize("mode", ["new_database", "in_place"])
def test_a_name_that_no_entry_has_is_refused_and_an_entry_of_another_table_is_not_told_of(
    shop: Scene, target: str, mode: str
) -> None:
    shop.sql("DROP MATERIALIZED VIEW seen")
    asked = {"mode": mode, "tables": ("rates",), **({"target": target} if mode == "new_database" else {})}
    before = shop.dumped_whole()
    with pytest.raises(RestoreRefused, match=r"No entry of .* is called INDEX public\.by_nothing \(without\)"):
        shop.restore(**asked, without=("INDEX *", "COMMENT *", "INDEX public.by_nothing"))
    assert shop.dumped_whole() == before and target not in shop.databases()
    done = shop.restore(**asked, without=("INDEX *", "COMMENT *"))
    assert not [one for one in done.warnings if "INDEX" in one]
    if mode == "new_database":
        shop.discard(target)


def test_a_materialised_view_is_left_empty(shop: Scene, target: str) -> None:
    shop.restore(
        mode="new_database", target=target, tables=("wanted",), without=(*NAMED, "MATERIALIZED VIEW DATA public.seen")
    )
    assert shop.sql("SELECT relispopulated FROM pg_class WHERE relname = 'seen'", target) == [(False,)]
    shop.discard(target)
