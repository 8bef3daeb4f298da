"""Entries that cannot be restored: all are named by one run, left out or mended by the next, and no row is loaded twice."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from deployments.quick_start.postgres import PostgresCluster
from tasks.errors import EntriesFailed, PreflightFailed, RestoreFailed, RestoreRefused, RowsDiffer
from tasks.postgres.server import maintenance
from tasks.restore.compare import compare_run
from tasks.restore.dump_reader import Entry
from tasks.restore.entries import LeftOut, entry_name
from tasks.restore.kept_databases import UNFINISHED, UNFINISHED_STAYS, kept, labelled
from tasks.restore.labels import is_scratch_name, label_of
from tasks.restore.sql_errors import last_error
from tasks.restore.stages import Stages
from tasks.restore.values import LARGE
from tasks.retention.debris import clear_databases
from tests.conftest import DatabaseFactory
from tests.support.every_kind import OWNER
from tests.support.scene import Scene, SceneFactory, in_words

MARKER = "Zebra-4711"
#: Five entries that no restore takes: each works in the database as it is, and fails in a new one.
BROKEN = f"""
CREATE TABLE big AS SELECT i AS id, repeat('x', 100) AS t FROM generate_series(1, 5000) i;
CREATE TABLE doubled (i int, name text); CREATE UNIQUE INDEX once ON doubled (name);
CREATE TABLE later (i int); INSERT INTO later VALUES (1);
CREATE FUNCTION inner_f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
CREATE FUNCTION outer_f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN $1; END';
CREATE INDEX by_f ON later (outer_f(i));
CREATE OR REPLACE FUNCTION outer_f(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS 'BEGIN RETURN inner_f($1); END';
CREATE FUNCTION cast_name(text) RETURNS int IMMUTABLE LANGUAGE plpgsql AS
  'BEGIN IF current_setting(''app.quiet'', true) IS NULL AND $1 <> '''' THEN RAISE EXCEPTION ''no % here'', $1; END IF; RETURN 1; END';
CREATE TABLE named (name text); SET app.quiet = 'yes'; INSERT INTO named VALUES ('{MARKER}');
CREATE INDEX by_cast ON named (cast_name(name));
CREATE TABLE parent (i int PRIMARY KEY); CREATE TABLE child (i int REFERENCES parent);
CREATE MATERIALIZED VIEW counted AS SELECT inner_f(i) AS n FROM later;
CREATE TABLE checked (i int);
CREATE FUNCTION counts_later() RETURNS bool LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM later) >= 0; END';
ALTER TABLE checked ADD CONSTRAINT reads_another CHECK (counts_later()); INSERT INTO checked VALUES (1);
"""
#: What only a superuser can do to a database that works: rows that break their own rules.
CORRUPTED = f"""
UPDATE pg_index SET indisunique = false WHERE indexrelid = 'once'::regclass;
INSERT INTO doubled VALUES (1, '{MARKER}'), (2, '{MARKER}');
UPDATE pg_index SET indisunique = true WHERE indexrelid = 'once'::regclass;
SET session_replication_role = replica; INSERT INTO child VALUES (42);
"""


def broken(scene: SceneFactory) -> Scene:
    one = scene()
    one.sql(BROKEN)
    one.sql(CORRUPTED)
    return one


def unfinished_of(one: Scene) -> list[str]:
    """The scratch databases that are there."""
    return [name for name in one.databases() if is_scratch_name(name, one.name)]


def file_of(one: Scene, table: str, database: str) -> int:
    """The file of a table on disk: another one when its rows were loaded again."""
    return int(one.sql(f"SELECT pg_relation_filenode('{table}')", database)[0][0])


def failure(one: Scene, **request: object) -> EntriesFailed:
    with pytest.raises(EntriesFailed) as failed:
        one.restore(**request)
    return failed.value


@pytest.mark.parametrize("mode", ["swap", "new_database"])
def test_all_entries_that_fail_are_named_by_one_run_and_a_second_one_goes_on_without_them(
    scene: SceneFactory, mode: str
) -> None:
    one = broken(scene)
    one.back_up()
    before = one.dumped_whole()
    target = {"target": f"{one.name}_new"} if mode == "new_database" else {}

    error = failure(one, mode=mode, **target)

    names = {name: sqlstate for name, sqlstate, _ in error.entries}
    assert names == {
        "TABLE DATA public.checked": "42P01",
        "INDEX public.once": "23505",
        "INDEX public.by_f": "42883",
        "INDEX public.by_cast": "P0001",
        "FK CONSTRAINT public.child child_i_fkey": "23503",
    }
    assert all(name in str(error) for name in names) and MARKER not in str(error)
    assert one.dumped_whole() == before
    name = target.get("target", one.name)
    [scratch] = [database for database in one.databases() if is_scratch_name(database, name)]
    file = file_of(one, "big", scratch)

    more = failure(one, mode=mode, without=("INDEX *", "FK CONSTRAINT *"), **target)
    assert [entry for entry, _, _ in more.entries] == ["TABLE DATA public.checked"]
    again = failure(one, mode=mode, without=("TABLE DATA public.checked",), **target)
    assert {entry for entry, _, _ in again.entries} == names.keys() - {"TABLE DATA public.checked"}, "left out unasked"
    done = one.restore(mode=mode, without=("INDEX *", "FK CONSTRAINT *", "TABLE DATA public.checked"), **target)

    assert file_of(one, "big", name) == file, "the rows were loaded again"
    assert {f"{entry} was left out." for entry in names} <= set(done.warnings)
    assert one.sql("SELECT count(*) FROM big", name) == [(5000,)]
    assert one.sql("SELECT count(*) FROM checked", name) == [(0,)]
    if mode == "swap":
        one.undo()
        assert one.dumped_whole() == before
    assert [label_of(*row) for row in one.sql(COMMENTS, "postgres") if row[0] == name] == [None]


COMMENTS = "SELECT datname, shobj_description(oid, 'pg_database') FROM pg_database"


def test_a_restore_goes_on_once_its_cause_was_mended(
    scene: SceneFactory,
) -> None:
    one = scene()
    one.sql("CREATE TABLE big AS SELECT i AS id, repeat('x', 100) AS t FROM generate_series(1, 5000) i")
    one.sql("CREATE TABLE small (i int); CREATE PUBLICATION p FOR TABLE small")
    one.back_up()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.restore.stages.Stages._add", broken_once("PUBLICATION TABLE public.p small"))
        error = failure(one)
    assert [name for name, _, _ in error.entries] == ["PUBLICATION TABLE public.p small"]
    [scratch] = unfinished_of(one)
    file = file_of(one, "big", scratch)

    done = one.restore(compare="content")

    assert not [warning for warning in done.warnings if "content" in warning]
    assert file_of(one, "big", one.name) == file
    assert one.sql("SELECT count(*) FROM pg_publication_rel") == [(1,)]


def broken_once(*names: str) -> Callable[..., None]:
    """In place of `Stages._add`: the text of some entries is no SQL."""
    real = Stages._add

    def add(self: Stages, entry: Entry, text: bytes) -> None:
        real(self, entry, b"THIS IS NO SQL;\n" if entry_name(entry) in names else text)

    return add


def test_an_entry_of_which_nothing_is_known_stops_the_restore(
    scene: SceneFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = scene()
    one.sql("CREATE TABLE t (i integer); COMMENT ON TABLE t IS 'the last entry'")
    one.back_up()
    before = one.dumped_whole()
    real = Stages._hand_over

    def hand_over(self: Stages) -> None:
        real(self)
        monkeypatch.setattr(self, "_end_group", lambda: None)  # the comment's transaction stays open

    monkeypatch.setattr(Stages, "_hand_over", hand_over)
    with pytest.raises(RestoreRefused, match="neither restored nor refused: nothing was replaced"):
        one.restore()
    assert one.dumped_whole() == before and one.left_behind() == []


def test_a_name_that_no_entry_has_stops_the_restore_and_costs_no_second_loading(scene: SceneFactory) -> None:
    one = scene()
    one.sql("CREATE TABLE big AS SELECT i AS id, repeat('x', 100) AS t FROM generate_series(1, 5000) i")
    one.back_up()

    one.sql("CREATE INDEX by_id ON big (id)")
    one.back_up()
    error = failure(one, without=("INDEX public.nowhere",))

    in_words("No entry of .* is called INDEX public.nowhere", error)
    [scratch] = unfinished_of(one)
    file = file_of(one, "big", scratch)
    done = one.restore(without=("INDEX public.by_id",))
    assert file_of(one, "big", one.name) == file
    assert "INDEX public.by_id was restored by an earlier run, and stays." in done.warnings
    assert "INDEX public.by_id was left out." not in done.warnings


@pytest.mark.parametrize("strings", ["on", "off"])
def test_a_database_with_quotes_in_its_name_goes_on_too(
    scene: SceneFactory, fresh_database: DatabaseFactory, postgres_server: PostgresCluster, strings: str
) -> None:
    """Two entries are missing; the next restore notes that one is done, and is asked again for the other."""
    one = scene(fresh_database(postgres_server, f'it\'s "ours" ü {strings}'))
    one.sql(f'ALTER DATABASE "it\'s ""ours"" ü {strings}" SET standard_conforming_strings = {strings}', "postgres")
    one.sql("CREATE TABLE a (i int); CREATE TABLE b (i int); CREATE INDEX by_a ON a (i); CREATE INDEX by_b ON b (i)")
    one.back_up()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.restore.stages.Stages._add", broken_once("INDEX public.by_a", "INDEX public.by_b"))
        assert len(failure(one).entries) == 2
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.restore.stages.Stages._add", broken_once("INDEX public.by_b"))
        assert [name for name, _, _ in failure(one).entries] == ["INDEX public.by_b"]
    one.restore()
    assert one.sql("SELECT count(*) FROM pg_indexes WHERE schemaname = 'public'") == [(2,)]


def test_a_second_restore_that_is_cut_off_has_noted_what_it_has_done(scene: SceneFactory) -> None:
    one = scene()
    one.sql("CREATE TABLE a (i int); CREATE INDEX by_a ON a (i); CREATE INDEX by_b ON a (i)")
    one.back_up()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.restore.stages.Stages._add", broken_once("INDEX public.by_a", "INDEX public.by_b"))
        failure(one)

    def cut_off(_: Stages) -> None:
        raise RestoreFailed("cut off")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.restore.stages.Stages.finish", cut_off)
        with pytest.raises(RestoreFailed):
            one.restore()
    one.restore()
    assert one.sql("SELECT count(*) FROM pg_indexes WHERE schemaname = 'public'") == [(2,)]


def test_a_restore_of_another_backup_drops_what_cannot_go_on(scene: SceneFactory) -> None:
    one = broken(scene)
    one.back_up()
    failure(one)
    [scratch] = unfinished_of(one)
    one.sql("DROP INDEX once, by_f, by_cast; ALTER TABLE child DROP CONSTRAINT child_i_fkey; DROP TABLE checked")
    one.back_up()

    one.restore()

    assert scratch not in one.databases()


def test_clean_up_drops_the_scratch_of_a_failed_restore_after_a_day(scene: SceneFactory) -> None:
    one = broken(scene)
    one.back_up()
    failure(one)
    [scratch] = unfinished_of(one)
    now = datetime.now(UTC)
    with maintenance(one.plan.database).session("test") as server:
        assert [old.replaced_by for old in labelled(server) if old.name == scratch] == [UNFINISHED]
        assert not [old for old in kept(server) if old.name == scratch]

    clear_databases(one.plan, now + UNFINISHED_STAYS - timedelta(minutes=5))
    assert scratch in one.databases()
    later = now + UNFINISHED_STAYS + timedelta(minutes=5)
    [would] = [said for said in clear_databases(one.plan, later, dry_run=True).scratches if scratch in said]
    assert "would be dropped" in would and scratch in one.databases()
    [was] = [said for said in clear_databases(one.plan, later).scratches if scratch in said]
    assert "was dropped" in was and scratch not in one.databases()


def test_entries_are_left_out_in_place_too(scene: SceneFactory) -> None:
    one = broken(scene)
    one.back_up()
    before = one.dumped()

    with pytest.raises(RestoreRefused) as refused:
        one.restore(mode="in_place")
    assert MARKER not in str(refused.value) and one.dumped() == before
    with pytest.raises(RestoreRefused, match=r"No entry of .* is called INDEX public\.nowhere"):
        one.restore(
            mode="in_place", without=("INDEX *", "FK CONSTRAINT *", "TABLE DATA public.checked", "INDEX public.nowhere")
        )
    assert one.dumped() == before

    one.restore(mode="in_place", without=("INDEX *", "FK CONSTRAINT *", "TABLE DATA public.checked"))

    assert one.sql("SELECT count(*) FROM checked") == [(0,)]


def test_default_privileges_of_a_foreign_superuser_are_left_out_with_a_warning(
    scene: SceneFactory,
) -> None:
    """As Neon makes them in each database of an ordinary owner."""
    one = scene(owner=True)
    one.sql("CREATE TABLE t AS SELECT 1 AS i")
    one.sql(
        f'ALTER DEFAULT PRIVILEGES FOR ROLE postgres IN SCHEMA public GRANT ALL ON SEQUENCES TO "{OWNER}"'
        " WITH GRANT OPTION",
        superuser=True,
    )
    one.back_up()
    for mode in ("swap", "new_database", "in_place"):
        done = one.restore(mode=mode, **({"target": f"{one.name}_new"} if mode == "new_database" else {}))
        assert [w for w in done.warnings if "DEFAULT ACL public.DEFAULT PRIVILEGES FOR SEQUENCES was left out" in w]
        assert one.sql("SELECT * FROM t") == [(1,)]


def test_what_only_a_superuser_can_make_is_refused_before_anything_is_loaded(
    scene: SceneFactory,
) -> None:
    one = scene(owner=True)
    one.sql("CREATE TABLE t AS SELECT 1 AS i")
    one.sql("CREATE FUNCTION on_ddl() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END'")
    one.sql(
        "CREATE EVENT TRIGGER watch ON ddl_command_end EXECUTE FUNCTION on_ddl();"
        "CREATE PUBLICATION everything FOR ALL TABLES; CREATE FOREIGN DATA WRAPPER nothing;"
        "CREATE FUNCTION c_text(text) RETURNS text LANGUAGE internal AS 'textin'",
        superuser=True,
    )
    one.back_up()

    with pytest.raises(PreflightFailed) as refused:
        one.restore()

    wanted = ["EVENT TRIGGER watch", "PUBLICATION everything", "FOREIGN DATA WRAPPER nothing"]
    wanted += ["FUNCTION public.c_text(text)"]
    assert all(name in str(refused.value) for name in wanted), refused.value
    assert not unfinished_of(one)
    done = one.restore(
        without=("EVENT TRIGGER *", "PUBLICATION *", "FOREIGN DATA WRAPPER *", "FUNCTION public.c_text*")
    )
    assert {f"{name} was left out." for name in wanted} <= set(done.warnings)


def test_names_of_entries_are_what_the_dump_calls_them() -> None:
    assert entry_name(Entry(1, "INDEX", "public", "by_f")) == "INDEX public.by_f"
    assert entry_name(Entry(1, "EXTENSION", "-", "pg_cron")) == "EXTENSION pg_cron"
    left = LeftOut(["INDEX a.[x]", "VIEW *"], ["postgres"])
    taken = [
        entry
        for entry in (
            Entry(1, "INDEX", "a", "[x]"),
            Entry(2, "INDEX", "a", "x"),
            Entry(3, "VIEW", "s", "v"),
            Entry(4, "MATERIALIZED VIEW", "s", "v"),
            Entry(5, "DEFAULT ACL", "s", "x", "postgres"),
            Entry(6, "DEFAULT ACL", "s", "x", "owner"),
        )
        if left.takes(entry)
    ]
    assert [entry.number for entry in taken] == [1, 2, 3, 5] and not left.unused


def test_the_error_that_ended_psql_is_the_last_one_and_shows_no_row() -> None:
    printed = "\n".join(
        [
            "psql:<stdin>:9: WARNING:  55000: wal_level is insufficient",
            "LOCATION:  f, a.c:1",
            'psql:<stdin>:12: FEHLER:  23505: konnte Index "once" nicht erzeugen',
            f"DETAIL:  Schlüssel (name)=({MARKER}) ist doppelt",
            "SCHEMA NAME:  public",
            "TABLE NAME:  doubled",
            "CONSTRAINT NAME:  once",
            "LOCATION:  comparetup, tuplesort.c:5",
        ]
    )
    error = last_error(printed)
    assert error is not None and error.sqlstate == "23505"
    assert error.sentence(reads_rows=True) == 'konnte Index "once" nicht erzeugen (SQLSTATE 23505)'
    value = last_error(f'psql:<stdin>:3: ERROR:  22P02: invalid input syntax for type integer: "{MARKER}"')
    assert value is not None and value.sentence(reads_rows=True) == "invalid text representation (SQLSTATE 22P02)"
    assert last_error("server closed the connection unexpectedly") is None


def test_rows_are_streamed_when_they_are_many_and_grouped_when_they_are_few(scene: SceneFactory) -> None:
    """Tables around the border between the two, with text that looks like the end of rows or like a setting."""
    one = scene()
    for number, size in enumerate((0, 1, LARGE - 500, LARGE, LARGE + 500, 5 * LARGE)):
        one.sql(f"CREATE TABLE t{number} AS SELECT repeat('y', 99) AS t FROM generate_series(1, {size} / 100)")
    one.sql(
        "CREATE TABLE odd AS SELECT E'\\\\.\\nSET default_tablespace = x;\\n\\n' || i AS t FROM generate_series(1, 9) i"
    )
    one.sql("SELECT lo_from_bytea(0, convert_to(repeat('z', 300000), 'UTF8')) FROM generate_series(1, 3)")
    one.back_up()
    before = one.dumped()
    one.restore()
    assert one.dumped() == before


def test_a_chosen_partition_whose_rows_stand_under_its_table_is_refused(scene: SceneFactory) -> None:
    one = scene()
    one.sql(HASHED)
    one.back_up()
    for mode, target in (("in_place", {}), ("new_database", {"target": f"{one.name}_new"})):
        with pytest.raises(PreflightFailed, match=r"rows of public\.p0 among those of public\.p"):
            one.restore(mode=mode, tables=("public.p0",), **target)
    assert one.sql("SELECT count(*) FROM p") == [(100,)]
    one.sql("DELETE FROM p")
    one.restore(mode="in_place", tables=("public.p",))
    assert one.sql("SELECT count(*) FROM p") == [(100,)]


HASHED = """
CREATE TYPE m AS ENUM ('a', 'b', 'c');
CREATE TABLE p (m m, n int) PARTITION BY HASH (m);
CREATE TABLE p0 PARTITION OF p FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE p1 PARTITION OF p FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO p SELECT (ARRAY['a', 'b', 'c'])[1 + i % 3]::m, i FROM generate_series(1, 100) i;
CREATE TABLE tree (k text, m m) PARTITION BY LIST (k);
CREATE TABLE plain_part PARTITION OF tree FOR VALUES IN ('x');
CREATE TABLE hashed_part PARTITION OF tree FOR VALUES IN ('y') PARTITION BY HASH (m);
CREATE TABLE hashed_leaf PARTITION OF hashed_part FOR VALUES WITH (MODULUS 1, REMAINDER 0);
INSERT INTO tree SELECT CASE WHEN i % 2 = 0 THEN 'x' ELSE 'y' END, 'b' FROM generate_series(1, 30) i;
"""


@pytest.mark.parametrize("mode", ["swap", "new_database", "in_place"])
def test_partitions_that_are_dumped_through_their_table_are_counted_over_the_tree(
    scene: SceneFactory, mode: str
) -> None:
    one = scene()
    one.sql(HASHED)
    one.back_up()
    target = {"target": f"{one.name}_new"} if mode == "new_database" else {}
    done = one.restore(mode=mode, **target)
    name = target.get("target", one.name)
    assert done.rows == 130
    assert one.sql("SELECT count(*) FROM p", name) == [(100,)]
    assert one.sql("SELECT k, count(*) FROM tree GROUP BY 1 ORDER BY 1", name) == [("x", 15), ("y", 15)]


def test_a_row_that_is_lost_from_such_a_tree_is_noticed(scene: SceneFactory) -> None:
    one = scene()
    one.sql(HASHED)
    one.back_up()
    run = one.validated()
    loaded = one.load(run)
    one.sql("DELETE FROM hashed_leaf WHERE ctid = (SELECT ctid FROM hashed_leaf LIMIT 1)", run.scratch)

    with pytest.raises(RowsDiffer, match=r"public\.tree has 14 rows, expected 15"):
        compare_run(one.plan, run, loaded)
