"""A scratch is loaded under the conditions of the backed-up database: its settings, its schemas, its triggers at login."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.s3 import S3Server
from tasks.errors import PreflightFailed
from tasks.postgres.locks import verify_lock
from tasks.restore.compare import compare_run
from tasks.verify.subject import examine, identify
from tests.conftest import BIN_DIRECTORIES, DatabaseFactory
from tests.support import ci_skip
from tests.support.every_kind import OWNER
from tests.support.scene import Scene, SceneFactory, make_scene, now
from tests.support.server_side import drop

MODES = ("swap", "new_database", "in_place")


def restored(one: Scene, mode: str) -> str:
    """Restores; the name of the result."""
    target = {"target": f"{one.name}_new"} if mode == "new_database" else {}
    one.restore(mode=mode, **target)
    return target.get("target", one.name)


def verify(one: Scene) -> None:
    """Restores into the scratch of a verify run, compares it, and drops it."""
    with verify_lock(one.plan.database, "test"):
        run = examine(one.plan, identify(one.plan, "latest", "run", "tester", now()), lambda _: None)
        try:
            compare_run(one.plan, run, one.load(run))
        finally:
            drop(one.cluster, run.scratch)


# --- settings

SETTINGS = """
ALTER DATABASE {d} SET app.most = '10'; ALTER DATABASE {d} SET TimeZone = 'Asia/Tokyo';
ALTER DATABASE {d} SET DateStyle = 'German'; ALTER DATABASE {d} SET default_text_search_config = 'german';
ALTER DATABASE {d} SET default_transaction_read_only = on; ALTER DATABASE {d} SET statement_timeout = '900ms';
ALTER ROLE postgres IN DATABASE {d} SET app.least = '3'; ALTER ROLE postgres IN DATABASE {d} SET lock_timeout = '500ms'
"""
CONTENT = """
SET default_transaction_read_only = off;
BEGIN READ WRITE;
CREATE TABLE bounded (i int CHECK (i < current_setting('app.most')::int AND i > current_setting('app.least')::int));
INSERT INTO bounded VALUES (5);
CREATE TABLE moments (t timestamptz, CHECK (t::date = '02.01.2020'::date)); INSERT INTO moments VALUES ('2020-01-01 20:00:00+00');
CREATE TABLE words (t text, v tsvector); INSERT INTO words VALUES ('Häuser', to_tsvector('Häuser'));
CREATE MATERIALIZED VIEW days AS SELECT extract(hour FROM t)::int AS h, to_tsvector('Häuser')::text AS v FROM moments;
COMMIT;
"""


@pytest.mark.parametrize("style", ["SQL, DMY", "German", "Postgres, MDY"])
def test_a_view_that_shows_dates_in_the_style_of_its_database_is_no_difference(scene: SceneFactory, style: str) -> None:
    """The client library of Python sets a style of its own."""
    one = scene()
    one.sql(
        f"""ALTER DATABASE "{one.name}" SET DateStyle = '{style}'; CREATE TABLE t AS SELECT '2024-02-03'::timestamp AS at"""
    )
    one.sql("RESET DateStyle; CREATE MATERIALIZED VIEW m AS SELECT at::text FROM t")
    view = one.sql("TABLE m")
    one.back_up()
    verify(one)
    one.restore(compare="content")
    assert one.sql("TABLE m") == view


@pytest.mark.parametrize("mode", MODES)
def test_checks_and_views_that_depend_on_settings_of_the_database_come_back(scene: SceneFactory, mode: str) -> None:
    one = scene()
    one.sql(SETTINGS.format(d=one.name), "postgres")
    one.sql(CONTENT)
    one.back_up()
    before, view = one.dumped_whole(), one.sql("SELECT * FROM days")
    verify(one)

    name = restored(one, mode)

    assert one.sql("SELECT * FROM days", name) == view
    assert one.sql("SELECT * FROM bounded", name) == [(5,)]
    if mode != "new_database":
        assert one.dumped_whole() == before


@pytest.mark.parametrize("mode", MODES)
def test_settings_that_change_how_a_dump_is_read_change_no_row(
    scene: SceneFactory, mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With array_nulls off, `{NULL}` is read as a text; enable_seqscan changes in which order a guard is found."""
    monkeypatch.setattr("tasks.backup.large_tables.LARGE", 1)
    one = scene(jobs=2)
    one.sql("CREATE TABLE t (i int, a text[] DEFAULT '{NULL,x}'); INSERT INTO t VALUES (1, ARRAY[NULL, 'NULL'])")
    one.sql('CREATE TABLE "select" (i int); INSERT INTO "select" VALUES (1)')
    for setting in ("array_nulls", "standard_conforming_strings", "enable_seqscan"):
        one.sql(f"ALTER DATABASE {one.name} SET {setting} = off", "postgres")
    for setting in ("quote_all_identifiers", "exit_on_error"):
        one.sql(f"ALTER DATABASE {one.name} SET {setting} = on", "postgres")
    before = one.dumped()
    one.back_up()
    verify(one)

    name = restored(one, mode)

    assert one.dumped(name) == before
    one.restore(mode="in_place", tables=("public.t",))
    assert one.dumped() == before


def test_a_setting_of_the_role_that_is_gone_since_still_holds_while_rows_are_loaded(scene: SceneFactory) -> None:
    one = scene(owner=True)
    one.sql(f"ALTER ROLE {OWNER} SET TimeZone = 'Asia/Tokyo'", superuser=True)
    try:
        one.sql("CREATE TABLE t (t timestamptz CHECK (extract(hour FROM t) = 5))")
        one.sql("INSERT INTO t VALUES ('2020-01-01 20:00:00+00')")
        one.back_up()
    finally:
        one.sql(f"ALTER ROLE {OWNER} RESET TimeZone", superuser=True)
    one.restore()
    assert one.sql("SELECT count(*) FROM t") == [(1,)]


def test_settings_that_the_live_database_has_lost_are_not_brought_back_by_a_swap(scene: SceneFactory) -> None:
    """The database is like the one that it replaces; the backup's own settings hold while it is loaded."""
    one = scene()
    one.sql(SETTINGS.format(d=one.name), "postgres")
    one.sql(CONTENT)
    one.back_up()
    one.sql(f"ALTER DATABASE {one.name} RESET ALL; ALTER ROLE postgres IN DATABASE {one.name} RESET ALL", "postgres")
    one.sql(f"ALTER DATABASE {one.name} SET app.most = '20'", "postgres")
    before = one.dumped_whole()
    one.restore()
    assert one.dumped_whole() == before


def test_a_library_that_the_server_lacks_locks_nobody_out_of_the_restored_database(scene: SceneFactory) -> None:
    """A server takes the setting without a look, and then nobody can connect to the database."""
    one = scene()
    backup = one.back_up()
    missing = ["session_preload_libraries=plpgsql, nope", "local_preload_libraries=nope"]

    def change(told: dict[str, Any]) -> None:
        told["database"]["settings"] = [
            {"role": None, "settings": ["session_preload_libraries=plpgsql", *missing[1:]]},
            {"role": "postgres", "settings": missing[:1]},
        ]

    one.rewrite(backup, change)
    one.discard(one.name)
    done = one.restore()
    assert one.sql("SHOW session_preload_libraries") == [("plpgsql",)]
    told = " ".join(done.warnings)
    assert f"The setting local_preload_libraries of database {one.name} was not applied" in told
    assert f"The setting session_preload_libraries of role postgres of database {one.name} was not applied" in told
    assert told.count("could not access file") == 2 and 'nope"' in told


@pytest.fixture(scope="module")
def locales(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with the locale es_AR, made from what Debian's package `locales` has."""
    directory = tmp_path_factory.mktemp("locales")
    made = subprocess.run(
        ["localedef", "-i", "es_AR", "-f", "UTF-8", str(directory / "es_AR.UTF-8")], capture_output=True, check=False
    )
    if not (directory / "es_AR.UTF-8").is_dir():
        ci_skip(f"the locale es_AR cannot be made: {made.stderr.decode()[:200]}")
    return directory


@pytest.fixture(scope="module", params=list(BIN_DIRECTORIES) or [0], ids=lambda major: f"pg{major}")
def argentine(request: pytest.FixtureRequest, servers_directory: Path, locales: Path) -> Iterator[PostgresCluster]:
    """A server whose own monetary locale is C, and which knows es_AR.UTF-8 too."""
    if not request.param:
        ci_skip("no PostgreSQL server is installed")
    directory = servers_directory / f"argentine-{request.param}"
    cluster = PostgresCluster(directory, BIN_DIRECTORIES[request.param], durable=False, owned=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(os.environ, "LOCPATH", str(locales))
        cluster.start()
        yield cluster
        cluster.stop(immediate=True)


@pytest.mark.parametrize("mode", MODES)
def test_money_comes_back_as_the_same_amount(
    argentine: PostgresCluster,
    fresh_database: DatabaseFactory,
    s3_server: S3Server,
    s3_bucket: object,
    tmp_path: Path,
    mode: str,
) -> None:
    one = make_scene(
        argentine,
        fresh_database(argentine),
        fresh_database(argentine),
        s3_server,
        s3_bucket(),  # type: ignore[operator]
        tmp_path / "spool",
    )
    one.sql(f"ALTER DATABASE {one.name} SET lc_monetary = 'es_AR.UTF-8'", "postgres")
    one.sql("CREATE TABLE price (i int PRIMARY KEY, p money); INSERT INTO price VALUES (1, 12.50::numeric::money)")
    one.back_up()
    verify(one)
    name = restored(one, mode)
    assert one.sql("SELECT p::numeric::text FROM price", name) == [("12.50",)]


def test_a_server_without_the_monetary_locale_is_refused_where_money_is_stored(scene: SceneFactory) -> None:
    one = scene()
    one.sql("CREATE TABLE price (p money); INSERT INTO price VALUES (1)")
    backup = one.back_up()
    settings = ["lc_monetary=xx_XX.UTF-8", "TimeZone=Nowhere/Land"]
    one.rewrite(backup, lambda told: told["conditions"].update(settings=settings))
    with pytest.raises(PreflightFailed, match="backed-up database had for lc_monetary: install that locale"):
        one.restore()
    one.rewrite(backup, lambda told: told["conditions"].update(settings=["TimeZone=Nowhere/Land"]))
    done = one.restore()
    assert [warning for warning in done.warnings if "had for TimeZone" in warning]


# --- the schema public


@pytest.mark.parametrize("mode", MODES)
def test_a_dropped_schema_public_stays_dropped(scene: SceneFactory, mode: str) -> None:
    for owner in (False, True):
        one = scene(owner=owner)
        one.sql("CREATE SCHEMA own; CREATE TABLE own.t AS SELECT 1 AS i")
        one.sql("DROP SCHEMA public", superuser=True)
        one.back_up()
        before = one.dumped()
        name = restored(one, mode)
        there = one.sql("SELECT to_regnamespace('public') IS NULL", name)
        major_allows = one.cluster.major >= 15 or not owner
        assert there == [(major_allows,)] and one.dumped(name) == before


# --- triggers at login

LOGIN = """
CREATE TABLE user_login_log (who text, at timestamptz);
CREATE FUNCTION init_session() RETURNS event_trigger SECURITY DEFINER LANGUAGE plpgsql AS
  'BEGIN INSERT INTO public.user_login_log VALUES (session_user, now()); END';
CREATE EVENT TRIGGER init_session ON login EXECUTE FUNCTION init_session();
ALTER EVENT TRIGGER init_session ENABLE ALWAYS;
"""
REFUSES = """
CREATE FUNCTION only_here() RETURNS event_trigger LANGUAGE plpgsql AS
  'BEGIN IF current_database() <> ''{d}'' THEN RAISE EXCEPTION ''not here''; END IF; END';
CREATE EVENT TRIGGER only_here ON login EXECUTE FUNCTION only_here(); ALTER EVENT TRIGGER only_here ENABLE ALWAYS;
"""


@pytest.mark.parametrize("mode", ["swap", "new_database"])
def test_a_trigger_at_login_neither_adds_rows_nor_locks_anybody_out(scene: SceneFactory, mode: str) -> None:
    one = scene()
    if one.cluster.major < 17:
        pytest.skip("event triggers fire at a login from PostgreSQL 17 on")
    one.sql(LOGIN)
    one.sql(REFUSES.format(d=one.name))
    one.back_up()
    verify(one)
    name = f"{one.name}_new" if mode == "new_database" else one.name
    one.restore(mode=mode, target=name if mode == "new_database" else "")
    assert name in one.databases()


# --- rows that a standby does not have


def test_rows_of_unlogged_tables_that_a_standby_lacks_are_told_before_a_swap(scene: SceneFactory) -> None:
    one = scene()
    one.sql("CREATE UNLOGGED TABLE fast (i int)")
    backup = one.back_up()
    assert not [warning for warning in one.validated().warnings if "unlogged" in warning]
    one.rewrite(backup, lambda told: told["conditions"].update(rows_left_out=["public.fast"]))
    [warning] = [warning for warning in one.validated().warnings if "unlogged" in warning]
    assert "public.fast" in warning


# --- locks


@pytest.mark.thorough
def test_thousands_of_tables_and_large_objects_are_restored_on_a_server_with_default_settings(
    scene: SceneFactory, fresh_database: DatabaseFactory
) -> None:
    one = scene()
    assert one.sql("SHOW max_locks_per_transaction") == [("64",)]
    for start in range(0, 4000, 400):
        one.sql(
            f"DO $$ BEGIN FOR i IN {start}..{start + 399} LOOP"
            " EXECUTE format('CREATE TABLE t%s (id serial, name text UNIQUE)', i);"
            " EXECUTE format('INSERT INTO t%s (name) VALUES (''a''), (''b'')', i); END LOOP; END $$"
        )
    for _ in range(20):
        one.sql("SELECT lo_from_bytea(0, 'content') FROM generate_series(1, 1000)")
    one.back_up()
    failed: list[str] = []
    ended = threading.Event()
    url = fresh_database(one.cluster)

    def work() -> None:
        with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
            cursor.execute("; ".join(f"CREATE TABLE w{i} (i int)" for i in range(500)))
            connection.commit()
            while not ended.wait(0.1):
                try:
                    cursor.execute("; ".join(f"LOCK TABLE w{i}" for i in range(500)))
                except psycopg2.Error as error:
                    failed.append(str(error))
                connection.rollback()

    worker = threading.Thread(target=work, daemon=True)
    worker.start()
    try:
        done = one.restore()
    finally:
        ended.set()
        worker.join()
    assert done.tables == 4000 and done.rows == 8000 and not failed
    assert one.sql("SELECT count(*) FROM pg_largeobject_metadata") == [(20000,)]
