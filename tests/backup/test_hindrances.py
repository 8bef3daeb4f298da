"""What will not load everywhere is written to the manifest when the backup is made, by the names that a restore uses."""

from __future__ import annotations

import time
from typing import Any

import pytest

from deployments.sample.load import fill
from tasks.backup.hindrances import hindrances as everything
from tasks.backup.hindrances import unqualified
from tasks.errors import EntriesFailed
from tasks.postgres.server import source_session
from tasks.restore.dump_reader import DumpReader
from tasks.restore.entries import entry_name
from tasks.storage.attention import attention
from tests.support.scene import Scene, SceneFactory

#: Since PostgreSQL 17 such functions cannot be used first: they are written later.
FUNCTIONS = """
    CREATE SCHEMA other;
    CREATE TYPE other.mood AS ENUM ('a', 'b');
    CREATE TABLE later (i int, of_type text);
    CREATE FUNCTION inner_f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
    CREATE FUNCTION other.outer_f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
    CREATE FUNCTION counts() RETURNS bool LANGUAGE sql AS 'SELECT true';
    CREATE FUNCTION moods(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN 1; END';
    INSERT INTO later VALUES (1);
    CREATE INDEX by_f ON later (other.outer_f(i));
    CREATE INDEX "by g" ON later (i) WHERE other.outer_f(i) > 0;
    ALTER TABLE later ADD EXCLUDE USING btree (other.outer_f(i) WITH =);
    CREATE TABLE checked (i int CHECK (counts())); INSERT INTO checked VALUES (1);
    CREATE TABLE made (i int, m int GENERATED ALWAYS AS (moods(i)) STORED); INSERT INTO made VALUES (1);
    CREATE MATERIALIZED VIEW counted AS SELECT counts() AS n;
    CREATE VIEW one AS SELECT counts() AS n; CREATE VIEW two AS SELECT * FROM one;
    CREATE MATERIALIZED VIEW by_views AS SELECT * FROM two; CREATE MATERIALIZED VIEW empty AS TABLE two WITH NO DATA;
    CREATE DOMAIN limited AS int CHECK (counts()); CREATE TABLE domains (l limited); INSERT INTO domains VALUES (1);
    CREATE OR REPLACE FUNCTION other.outer_f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql
      AS 'BEGIN RETURN inner_f($1); END';
    CREATE OR REPLACE FUNCTION counts() RETURNS bool LANGUAGE sql AS 'SELECT count(*) >= 0 FROM later';
    CREATE OR REPLACE FUNCTION moods(int) RETURNS int IMMUTABLE LANGUAGE plpgsql
      AS 'BEGIN RETURN length((''a''::mood)::text); END';
"""
#: Functions of the same kind that do no harm, whatever else they name.
HARMLESS = """
    CREATE FUNCTION qualified(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN public.inner_g($1); END';
    CREATE FUNCTION inner_g(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
      'DECLARE later int := 1; BEGIN -- calls later() FROM later
       RETURN length(''FROM later'') + abs($1) + later; END';
    CREATE FUNCTION fixed(int) RETURNS int IMMUTABLE LANGUAGE plpgsql SET search_path = public
      AS 'BEGIN RETURN inner_g($1); END';
    CREATE FUNCTION parsed(int) RETURNS int IMMUTABLE BEGIN ATOMIC SELECT inner_g($1); END;
    CREATE FUNCTION unused(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN inner_g($1); END';
    CREATE FUNCTION sums() RETURNS bigint LANGUAGE sql AS 'WITH later AS (SELECT 1 AS i) SELECT sum(i) FROM later';
    CREATE TABLE later (i int); INSERT INTO later VALUES (1);
    CREATE INDEX ON later (qualified(i), inner_g(i), fixed(i), parsed(i), (i + 1));
    CREATE TABLE checked (i int CHECK (qualified(i) > 0), j int DEFAULT unused(1)); INSERT INTO checked VALUES (1);
    CREATE MATERIALIZED VIEW summed AS SELECT sums();
"""


def hindrances(one: Scene) -> dict[tuple[str, str], tuple[tuple[str, ...], bool]]:
    """Kind and needs → entries, and whether it holds here, as the manifest of a new backup says."""
    one.back_up()
    found = one.validated(mode="new_database", target="never").backup.conditions.hindrances
    return {(hindrance.kind, hindrance.needs): (hindrance.entries, hindrance.here) for hindrance in found}


def in_dump(one: Scene) -> set[str]:
    """The names of the entries that pg_dump writes."""
    reader = DumpReader(one.cluster.major * 10000)
    return {entry_name(piece.entry) for piece in [*reader.feed(one.dumped()), *reader.finish()]}


def test_functions_that_find_others_by_the_search_path_are_named_with_what_calls_them(scene: SceneFactory) -> None:
    one = scene()
    one.sql(FUNCTIONS)
    found = hindrances(one)
    indexes = ("CONSTRAINT public.later later_outer_f_excl", "INDEX public.by g", "INDEX public.by_f")
    assert found == {
        ("search_path", "other.outer_f(integer)"): (indexes, True),
        ("search_path", "public.counts()"): (
            (
                "MATERIALIZED VIEW DATA public.by_views",
                "MATERIALIZED VIEW DATA public.counted",
                "TABLE DATA public.checked",
                "TABLE DATA public.domains",
            ),
            True,
        ),
        ("search_path", "public.moods(integer)"): (("TABLE DATA public.made",), True),
    }
    entries = {entry for entries, _ in found.values() for entry in entries}
    assert entries <= in_dump(one)

    with pytest.raises(EntriesFailed) as failed:
        one.restore()
    assert {name for name, _, _ in failed.value.entries} == entries
    assert one.restore(without=tuple(entries)).rows > 0


def test_functions_that_do_no_harm_are_not_named(scene: SceneFactory) -> None:
    one = scene()
    one.sql(HARMLESS)
    assert hindrances(one) == {}
    one.restore()


def test_a_database_with_none_of_it_says_nothing(scene: SceneFactory) -> None:
    one = scene()
    fill(one.url, 1)
    found = hindrances(one)
    assert {kind for kind, _ in found} == {"default_privileges"}, "the sample's owner has some of its own"
    assert not any(here for _, here in found.values())
    assert not any("CVE" not in warning for warning in one.restore().warnings)


@pytest.mark.thorough
def test_it_takes_no_time_to_speak_of_with_thousands_of_tables(scene: SceneFactory) -> None:
    one = scene()
    one.sql("CREATE FUNCTION f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1; END'")
    for start in range(0, 4000, 400):
        one.sql(
            f"DO $$ BEGIN FOR i IN {start}..{start + 399} LOOP EXECUTE format('CREATE TABLE t%s (i int CHECK (f(i) > 0),"
            " name text COLLATE \"C.utf8\" UNIQUE)', i); EXECUTE format('CREATE INDEX ON t%s (f(i))', i); END LOOP; END $$"
        )
    with source_session(one.plan.database, "test") as connection:
        start_at = time.monotonic()
        everything(connection)
        assert time.monotonic() - start_at < 5


BODIES: dict[str, set[tuple[str, str]]] = {
    'SELECT f(a), s.g(b), "G" (c)': {("functions", "f"), ("functions", "G")},
    'SELECT 1 FROM t JOIN ONLY s.u ON x = y JOIN "a ""b" v ON true': {("tables", "t"), ("tables", 'a "b')},
    "SELECT * FROM f(1), 'FROM x'": {("functions", "f")},
    "SELECT 'a'::mood, 1::pg_catalog.int4": {("types", "mood")},
    "-- FROM t\n/* g() \n FROM u */ SELECT 'it''s FROM w'": set(),
    "BEGIN PERFORM set_config('search_path', 's', true); RETURN f(1); END": set(),
    "WITH t AS (SELECT 1) SELECT * FROM t, u": {("functions", "as")},  # a word of SQL, which no function is called
    "SELECT FROM Größe": {("tables", "größe")},
}


@pytest.mark.parametrize("body", BODIES)
def test_what_a_body_names_without_a_schema(body: str) -> None:
    assert unqualified(body) == BODIES[body]


def test_a_sentence_for_each_kind_names_the_entries_and_what_to_do() -> None:
    from tasks.storage.backup_values import Hindrance

    given: list[Any] = [
        ("superuser", "a superuser", ("EVENT TRIGGER audit",), True),
        ("superuser", "a superuser", ("CAST CAST (a AS b)",), False),
        ("search_path", "public.f(integer)", ("INDEX public.a", "INDEX public.b"), True),
        ("search_path", "public.g()", ("INDEX public.b", "INDEX public.c"), True),
        ("collation", "de_DE.utf8", ("TABLE public.t",), False),
    ]
    superuser, search_path = attention(Hindrance(*each) for each in given)
    assert superuser.startswith("Only a superuser can create EVENT TRIGGER audit: restore as a superuser")
    assert "public.f(integer), public.g() names" in search_path
    assert "INDEX public.a, INDEX public.b, INDEX public.c: " in search_path and "ALTER FUNCTION" in search_path
