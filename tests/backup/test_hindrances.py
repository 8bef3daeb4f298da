"""What will not load everywhere is written to the manifest when the backup is made, by the names that a restore uses."""

from __future__ import annotations

import time
from typing import Any

import pytest

from deployments.sample.load import fill
from tasks.backup.hindrances import hindrances as everything
from tasks.backup.hindrances import qualified_calls, tables_read, unqualified
from tasks.errors import EntriesFailed, PreflightFailed
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
#: The same by way of an array, a composite type, another domain, a key, an operator, a class, another function, a text.
BY_WAY_OF_OTHERS = """
    CREATE SCHEMA app;
    CREATE FUNCTION app.inner_f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
    CREATE FUNCTION app.uses(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
    CREATE DOMAIN app.low AS int CHECK (app.uses(VALUE) > 0); CREATE DOMAIN app.lower AS app.low;
    CREATE TYPE app.pair AS (a app.low, b int);
    CREATE TABLE app.arrays (a app.low[]); INSERT INTO app.arrays VALUES ('{1,2}');
    CREATE TABLE app.pairs (p app.pair); INSERT INTO app.pairs VALUES ('(1,2)');
    CREATE TABLE app.domains (d app.lower); INSERT INTO app.domains VALUES (1);
    CREATE TABLE app.keyed (i int) PARTITION BY RANGE (app.uses(i));
    CREATE TABLE app.part PARTITION OF app.keyed FOR VALUES FROM (0) TO (10); INSERT INTO app.keyed VALUES (1);
    CREATE FUNCTION app.same(int, int) RETURNS bool IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN true; END';
    CREATE OPERATOR app.=== (LEFTARG = int, RIGHTARG = int, FUNCTION = app.same);
    CREATE TABLE app.compared (i int CHECK (i OPERATOR(app.===) 1)); INSERT INTO app.compared VALUES (1);
    CREATE FUNCTION app.order_of(int, int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN sign($1 - $2); END';
    CREATE OPERATOR CLASS app.ints FOR TYPE int USING btree AS OPERATOR 1 <, OPERATOR 2 <=, OPERATOR 3 =,
      OPERATOR 4 >=, OPERATOR 5 >, FUNCTION 1 app.order_of(int, int);
    CREATE TABLE app.several (i int, j int); INSERT INTO app.several VALUES (1, 2), (2, 3), (3, 4);
    CREATE INDEX by_class ON app.several (i app.ints);
    CREATE FUNCTION app.called(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
    CREATE FUNCTION app.calls(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN app.called($1); END';
    CREATE INDEX by_call ON app.several (app.calls(i));
    CREATE TEXT SEARCH CONFIGURATION app.plain (COPY = simple);
    CREATE FUNCTION app.words(text) RETURNS tsvector IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN RETURN ''; END $$;
    CREATE TABLE app.texts (t text, w tsvector GENERATED ALWAYS AS (app.words(t)) STORED);
    INSERT INTO app.texts VALUES ('a b');
    CREATE MATERIALIZED VIEW app.first AS SELECT app.uses(1); CREATE MATERIALIZED VIEW app.second AS TABLE app.first;

    CREATE STATISTICS app.of_f ON (app.uses(i)), j FROM app.several;
    CREATE TABLE app.policed (i int DEFAULT app.uses(1)); INSERT INTO app.policed VALUES (1);
    ALTER TABLE app.policed ENABLE ROW LEVEL SECURITY; CREATE POLICY p ON app.policed USING (app.uses(i) > 0);
    CREATE RULE r AS ON INSERT TO app.policed WHERE app.uses(1) = 2 DO NOTHING;
    ALTER TABLE app.several ADD CHECK (app.uses(i) > 0) NOT VALID;

    CREATE OR REPLACE FUNCTION app.uses(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN inner_f($1); END';
    CREATE OR REPLACE FUNCTION app.called(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN inner_f($1); END';
    CREATE OR REPLACE FUNCTION app.same(int, int) RETURNS bool IMMUTABLE LANGUAGE plpgsql
      AS 'BEGIN RETURN inner_f($1) > 0; END';
    CREATE OR REPLACE FUNCTION app.order_of(int, int) RETURNS int IMMUTABLE LANGUAGE plpgsql
      AS 'BEGIN RETURN inner_f($1) - $2; END';
    CREATE OR REPLACE FUNCTION app.words(text) RETURNS tsvector IMMUTABLE LANGUAGE plpgsql
      AS $$ BEGIN RETURN to_tsvector('plain', $1); END $$;
"""
#: What is widely used and loads in newer versions alone; written again later, as PostgreSQL 17 refuses it at first.
OF_EXTENSIONS = """
    CREATE EXTENSION cube; CREATE EXTENSION earthdistance; CREATE EXTENSION unaccent;
    CREATE TABLE places (id int, lat float8, lon float8, name text); INSERT INTO places VALUES (1, 52.5, 13.4, 'Zürich');
    CREATE INDEX by_place ON places USING gist (ll_to_earth(lat, lon));
    CREATE FUNCTION plain(text) RETURNS text IMMUTABLE STRICT LANGUAGE sql
      AS $$ SELECT public.unaccent('public.unaccent', $1) $$;
    CREATE FUNCTION no_function(text) RETURNS text IMMUTABLE STRICT LANGUAGE plpgsql AS $$ BEGIN RETURN $1; END $$;
    CREATE FUNCTION no_dictionary(text) RETURNS text IMMUTABLE STRICT LANGUAGE plpgsql AS $$ BEGIN RETURN $1; END $$;
    CREATE INDEX by_plain ON places (plain(name)); CREATE INDEX by_function ON places (no_function(name));
    CREATE INDEX by_dictionary ON places (no_dictionary(name));
    CREATE OR REPLACE FUNCTION no_function(text) RETURNS text IMMUTABLE STRICT LANGUAGE plpgsql
      AS $$ BEGIN RETURN unaccent($1); END $$;
    CREATE OR REPLACE FUNCTION no_dictionary(text) RETURNS text IMMUTABLE STRICT LANGUAGE plpgsql
      AS $$ BEGIN RETURN public.unaccent('unaccent', $1); END $$;
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


@pytest.mark.parametrize("statements", [BY_WAY_OF_OTHERS, OF_EXTENSIONS], ids=["others", "extensions"])
def test_all_that_does_not_load_for_want_of_a_search_path_is_named_and_nothing_that_does(
    scene: SceneFactory, statements: str
) -> None:
    one = scene()
    one.sql(statements)
    found = hindrances(one)
    assert {kind for kind, _ in found} == {"search_path"}
    with pytest.raises(EntriesFailed) as failed:
        one.restore()
    assert {name for name, _, _ in failed.value.entries} == {
        entry for entries, _ in found.values() for entry in entries
    }
    if statements == OF_EXTENSIONS:
        earth = {"public.ll_to_earth(double precision, double precision)"} if one.cluster.major < 17 else set()
        assert {name for _, name in found} == {"public.no_function(text)", "public.no_dictionary(text)", *earth}


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


#: Checks that look into other tables, in each way that a catalogue tells of. `a…` is loaded first, and looks into `z`.
OTHER_TABLES = """
    CREATE TABLE z (i int); INSERT INTO z VALUES (1);
    CREATE FUNCTION by_text(int) RETURNS bool LANGUAGE plpgsql AS
      'BEGIN RETURN EXISTS (SELECT FROM public.z WHERE z.i = $1); END';
    CREATE FUNCTION fixed(int) RETURNS bool LANGUAGE sql SET search_path = public
      AS 'SELECT EXISTS (SELECT FROM z WHERE z.i = $1)';
    CREATE FUNCTION parsed(int) RETURNS bool BEGIN ATOMIC SELECT EXISTS (SELECT FROM z WHERE z.i = $1); END;
    CREATE FUNCTION extracts(date) RETURNS bool LANGUAGE sql AS 'SELECT extract(year FROM $1) > 0';
    CREATE DOMAIN known AS int CHECK (by_text(VALUE));
    CREATE TABLE a1 (i int CHECK (by_text(i))); INSERT INTO a1 VALUES (1);
    CREATE TABLE a2 (i int CHECK (fixed(i))); INSERT INTO a2 VALUES (1);
    CREATE TABLE a3 (i int CHECK (parsed(i))); INSERT INTO a3 VALUES (1);
    CREATE TABLE a4 (i known); INSERT INTO a4 VALUES (1);
    CREATE TABLE a5 (i date CHECK (extracts(i))); INSERT INTO a5 VALUES ('2026-03-01');
    CREATE TABLE a6 (i int); INSERT INTO a6 VALUES (2); ALTER TABLE a6 ADD CHECK (by_text(i)) NOT VALID;
"""


def test_checks_that_look_into_other_tables_are_named_and_can_be_left_out(scene: SceneFactory) -> None:
    one = scene()
    one.sql(OTHER_TABLES)
    found = hindrances(one)
    assert found == {
        ("other_tables", "public.by_text(integer)"): (("TABLE DATA public.a1", "TABLE DATA public.a4"), True),
        ("other_tables", "public.fixed(integer)"): (("TABLE DATA public.a2",), True),
        ("other_tables", "public.parsed(integer)"): (("TABLE DATA public.a3",), True),
    }
    with pytest.raises(EntriesFailed) as failed:
        one.restore()
    assert {name for name, _, _ in failed.value.entries} == {f"TABLE DATA public.a{i}" for i in range(1, 5)}
    one.restore(without=tuple(name for name, _, _ in failed.value.entries))
    assert one.sql("SELECT (SELECT count(*) FROM a5), (SELECT count(*) FROM a1)") == [(1, 0)]


@pytest.mark.parametrize(
    ("body", "tables"),
    [
        ('SELECT FROM a.b JOIN ONLY "C" . d ON true, e', {("a", "b"), ("C", "d")}),
        ("SELECT extract(year FROM x), 'FROM y' FROM f(1) -- FROM z", {("", "x")}),
    ],
)
def test_the_tables_that_a_body_reads(body: str, tables: set[tuple[str, str]]) -> None:
    assert tables_read(body) == tables


BODIES: dict[str, set[tuple[str, str]]] = {
    'SELECT f(a), s.g(b), "G" (c)': {("functions", "f"), ("functions", "G")},
    'SELECT 1 FROM t JOIN ONLY s.u ON x = y JOIN "a ""b" v ON true': {("tables", "t"), ("tables", 'a "b')},
    "SELECT * FROM f(1), 'FROM x'": {("functions", "f")},
    "SELECT 'a'::mood, 1::pg_catalog.int4": {("types", "mood")},
    "-- FROM t\n/* g() \n FROM u */ SELECT 'it''s FROM w'": set(),
    "BEGIN PERFORM set_config('search_path', 's', true); RETURN f(1); END": set(),
    "WITH t AS (SELECT 1) SELECT * FROM t, u": {("functions", "as")},  # a word of SQL, which no function is called
    "SELECT FROM Größe": {("tables", "größe")},
    "RETURN public.unaccent('unaccent', $1) || s.f('s.t', 'u') -- ('v')": {("given", "unaccent")},
}


@pytest.mark.parametrize("body", BODIES)
def test_what_a_body_names_without_a_schema(body: str) -> None:
    assert unqualified(body) == BODIES[body]


def test_what_a_body_calls_with_its_schema() -> None:
    body = """SELECT a.f(1), "B".g (2), h(3), 'a.i(4)' FROM c.d WHERE x.y = "p ""q"."R"(5) -- a.j(6)"""
    assert qualified_calls(body) == {("a", "f"), ("B", "g"), ('p "q', "R")}
    assert qualified_calls("PERFORM set_config('search_path', 'a', true); RETURN a.f(1)") == set()


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


def test_triggers_of_foreign_keys_that_are_switched_off_are_named_as_a_dump_has_them(scene: SceneFactory) -> None:
    """pg_dump writes those of a partition by their numbers, and those of other tables not at all."""
    one = scene()
    one.sql(
        """
        CREATE TABLE a (i int PRIMARY KEY); INSERT INTO a VALUES (1);
        CREATE TABLE p (i int, k int REFERENCES a) PARTITION BY RANGE (i);
        CREATE TABLE "P 1" PARTITION OF p FOR VALUES FROM (0) TO (10);
        CREATE TABLE p2 PARTITION OF p FOR VALUES FROM (10) TO (20);
        CREATE TABLE plain (k int CONSTRAINT "to a" REFERENCES a); CREATE TABLE well (k int REFERENCES a);
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
        CREATE TRIGGER mine BEFORE INSERT ON p FOR EACH ROW EXECUTE FUNCTION f();
        ALTER TABLE "P 1" DISABLE TRIGGER ALL; ALTER TABLE p2 DISABLE TRIGGER mine; ALTER TABLE plain DISABLE TRIGGER ALL;
        """
    )
    with source_session(one.plan.database, "test") as connection:
        found = {(it.kind, it.needs): (it.entries, it.here) for it in everything(connection)}
    written = sorted(name for name in in_dump(one) if "RI_ConstraintTrigger" in name)
    assert len(written) == 2 and found.pop(("disabled_triggers", 'public."P 1"')) == (tuple(written), True)
    assert found == {("disabled_keys", "public.plain"): (("FK CONSTRAINT public.plain to a",), True)}
    [off, keys] = one.back_up().attention
    assert written[0] in off and "ENABLE TRIGGER ALL" in off and "FK CONSTRAINT public.plain to a" in keys
    with pytest.raises(PreflightFailed, match=f"No database can hold {written[0]}, {written[1]}, whose names"):
        one.validated(mode="new_database", target="never")
    run = one.validated(mode="new_database", target="another", without=written)
    assert any("FK CONSTRAINT public.plain to a" in warning for warning in run.warnings)
    one.load(run)
    assert "TRIGGER public.p2 mine" in in_dump(one)


def test_where_all_partitions_have_their_triggers_switched_off_the_key_is_named(scene: SceneFactory) -> None:
    one = scene()
    one.sql(
        """
        CREATE TABLE a (i int PRIMARY KEY); CREATE TABLE p (i int, k int REFERENCES a) PARTITION BY RANGE (i);
        CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10); ALTER TABLE p DISABLE TRIGGER ALL;
        """
    )
    assert hindrances(one) == {("disabled_keys", "public.p"): (("FK CONSTRAINT public.p p_k_fkey",), True)}
    assert not [name for name in in_dump(one) if "RI_ConstraintTrigger" in name]
