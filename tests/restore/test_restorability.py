"""What a server will not take is named before a restore begins, all at once, and the rest comes back without it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.s3 import S3Server
from tasks.admin_page.gather import read
from tasks.admin_page.page import page
from tasks.admin_page.view import Links, PlanView
from tasks.errors import EntriesFailed, PreflightFailed
from tasks.postgres.dsn import parse
from tasks.postgres.locks import verify_lock
from tasks.restore.compare import compare_run
from tasks.restore.preflight import survey
from tasks.restore.preflight.target_entries import Findings
from tasks.restore.preflight.target_server import extension_findings
from tasks.storage.manifest_text import read_manifest
from tasks.verify.subject import examine, identify
from tests.conftest import BIN_DIRECTORIES, DatabaseFactory
from tests.support import ci_skip
from tests.support.every_kind import OWNER
from tests.support.scene import Scene, SceneFactory, make_scene, now

#: What only a superuser makes, and what belongs to a role that the plan's role is no member of.
OF_OTHERS = """
    CREATE TABLE t (i int); INSERT INTO t VALUES (1); CREATE FUNCTION e() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';
    CREATE EVENT TRIGGER audit ON ddl_command_end EXECUTE FUNCTION e();
    ALTER FUNCTION e() OWNER TO every_kind_owner; ALTER TABLE t OWNER TO every_kind_owner;
    ALTER DEFAULT PRIVILEGES FOR ROLE every_kind_reader IN SCHEMA public GRANT SELECT ON TABLES TO every_kind_owner;
    SET allow_system_table_mods = on; CREATE COLLATION pg_catalog."de_XX.utf8" (locale = 'C');
    CREATE DOMAIN sorted AS text COLLATE "de_XX.utf8"; ALTER DOMAIN sorted OWNER TO every_kind_owner;
"""
NAMES_OF_OTHERS = (
    "EVENT TRIGGER audit",
    "DEFAULT ACL public.DEFAULT PRIVILEGES FOR TABLES",
    "DOMAIN public.sorted",
)
#: What PostgreSQL 18 refuses, or a server without ICU, or a newer version of an extension.
OF_OLDER = """
    CREATE TABLE rows_stay (i int); INSERT INTO rows_stay VALUES (1);
    CREATE UNLOGGED TABLE parts (i int PRIMARY KEY, t text) PARTITION BY RANGE (i);
    CREATE TABLE "Part" PARTITION OF parts FOR VALUES FROM (0) TO (10);
    CREATE INDEX by_t ON parts (t); INSERT INTO parts VALUES (1, 'a');
    CREATE DOMAIN icu AS text COLLATE "de-x-icu";
    CREATE EXTENSION postgres_fdw;
    GRANT EXECUTE ON FUNCTION postgres_fdw_get_connections() TO every_kind_reader;
    REVOKE ALL ON FUNCTION postgres_fdw_get_connections() FROM PUBLIC;
"""
NAMES_OF_OLDER = (
    "CONSTRAINT public.parts parts_pkey",
    "INDEX ATTACH public.Part_pkey",
    "INDEX ATTACH public.Part_t_idx",
    "INDEX public.by_t",
    "TABLE ATTACH public.Part",
    "TABLE public.parts",
)
GRANT = "ACL public.FUNCTION postgres_fdw_get_connections(OUT server_name text, OUT valid boolean)"


def refusal(one: Scene, **request: Any) -> str:
    before = one.databases()
    with pytest.raises(PreflightFailed) as refused:
        one.restore(**request)
    assert one.databases() == before
    return str(refused.value)


@pytest.fixture
def of_others(scene: SceneFactory) -> Scene:
    one = scene(owner=True)
    one.sql(OF_OTHERS, superuser=True)
    return one


def test_everything_that_a_restore_cannot_make_is_named_at_once_and_may_be_left_out(
    of_others: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = of_others
    backup = one.back_up()
    superuser, privileges, collation = backup.attention
    assert "EVENT TRIGGER audit" in superuser and NAMES_OF_OTHERS[1] in privileges and "de_XX.utf8" in collation

    message = refusal(one)
    assert all(name in message for name in NAMES_OF_OTHERS), message
    assert f"Role {OWNER} is no superuser and cannot create EVENT TRIGGER audit: " in message
    assert f"Role {OWNER} is no member of role every_kind_reader and cannot set DEFAULT ACL" in message
    assert 'does not have the collation "de_XX.utf8" of DOMAIN public.sorted' in message
    assert NAMES_OF_OTHERS[0] not in refusal(one, without=NAMES_OF_OTHERS[:1])

    done = one.restore(without=NAMES_OF_OTHERS)
    assert {f"{name} was left out." for name in NAMES_OF_OTHERS} <= set(done.warnings)
    assert one.sql("SELECT count(*) FROM t") == [(1,)]

    one.undo()
    monkeypatch.setattr(survey, "entry_findings", lambda *_: Findings())
    with pytest.raises(EntriesFailed) as failed:
        one.restore()
    assert {name for name, _, _ in failed.value.entries} == set(NAMES_OF_OTHERS), "not what the server refuses"


def test_what_was_so_with_the_backup_before_is_not_said_again(of_others: Scene) -> None:
    one = of_others
    assert len(one.back_up().attention) == 3
    assert one.back_up().attention == ()
    one.sql("CREATE EVENT TRIGGER second ON sql_drop EXECUTE FUNCTION e()", superuser=True)
    one.sql('CREATE DOMAIN more AS text COLLATE "de_XX.utf8"', superuser=True)
    assert one.back_up().attention == (), "more of the same, such as a new partition each night"
    one.sql("ALTER DEFAULT PRIVILEGES FOR ROLE postgres GRANT SELECT ON TABLES TO every_kind_owner", superuser=True)
    [new] = one.back_up().attention
    assert "what postgres has granted in advance: DEFAULT ACL DEFAULT PRIVILEGES FOR TABLES" in new
    one.sql("DROP EVENT TRIGGER second; DROP EVENT TRIGGER audit", superuser=True)
    assert one.back_up().attention == ()
    one.sql("CREATE EVENT TRIGGER audit ON sql_drop EXECUTE FUNCTION e()", superuser=True)
    assert len(one.back_up().attention) == 1, "it was gone in between"


def test_the_admin_page_shows_it_once_and_not_when_it_is_gone(of_others: Scene) -> None:
    one = of_others

    def shown() -> str:
        reading = read(one.plan.catalogue, [one.plan.name], [], 10, now()).plans[one.plan.name]
        return page([PlanView(one.plan.name, reading)], Links(), now())

    one.back_up(), one.back_up()
    text = shown()
    assert text.count("Will need attention when restored:") == text.count("EVENT TRIGGER audit") == 1
    assert "leave them out by name in without" in text
    one.sql("DROP EVENT TRIGGER audit; DROP DOMAIN sorted; DROP OWNED BY every_kind_reader", superuser=True)
    one.back_up()
    assert "attention" not in shown()


def test_a_superuser_needs_no_attention_for_what_superusers_make(of_others: Scene, scene: SceneFactory) -> None:
    one = scene(of_others.cluster.url(of_others.name))
    [collation] = one.back_up().attention
    assert "de_XX.utf8" in collation and "EVENT TRIGGER" not in collation
    one.restore(without=("DOMAIN public.sorted",))
    assert one.sql("SELECT evtname FROM pg_event_trigger") == [("audit",)]


def test_an_extension_that_can_only_be_in_another_schema_is_refused_by_name(scene: SceneFactory) -> None:
    one = scene()
    one.sql("CREATE TABLE t (i int)")
    backup = one.back_up()

    def elsewhere(told: dict[str, Any]) -> None:
        told["extensions"] = [{"name": "plpgsql", "version": "1.0", "schema": "elsewhere"}]

    one.rewrite(backup, elsewhere)
    assert "another schema of EXTENSION plpgsql (schema pg_catalog, was elsewhere)" in refusal(one)
    stored = read_manifest(one.stored(backup)[1], f"{backup.key}.manifest.json").backup
    with one.plan.database.session("test") as connection:
        assert extension_findings(connection, one_superuser(), stored, {}, ("EXTENSION plpgsql",)) == ([], [])


def one_superuser() -> Any:
    return type("Me", (), {"name": "postgres", "is_superuser": True})()


def test_timescaledb_is_refused_with_what_to_do(scene: SceneFactory) -> None:
    one = scene()
    one.sql("CREATE TABLE t (i int)")
    hindrance = {"kind": "timescaledb", "needs": "timescaledb", "entries": ["EXTENSION timescaledb"], "here": True}
    one.rewrite(one.back_up(), lambda told: told["conditions"].update(hindrances=[hindrance]))
    for mode in ("swap", "in_place"):
        message = refusal(one, mode=mode)
        assert "EXTENSION timescaledb" in message and "timescaledb_pre_restore()" in message


def test_chosen_tables_are_looked_at_with_all_else(scene: SceneFactory) -> None:
    one = scene()
    one.sql("CREATE TABLE t (i int); CREATE TABLE kept (i int)")
    one.back_up()
    one.sql("CREATE VIEW on_t AS SELECT * FROM t")
    message = refusal(one, mode="in_place", confirm="typo", tables=("public.t",))
    assert "write its name" in message and "view public.on_t" in message
    message = refusal(one, mode="new_database", target=one.name, tables=("public.tt",))
    assert "There is a database" in message and "no table 'public.tt'" in message


@pytest.mark.slow
def test_more_locks_than_a_server_has_are_refused_before_the_safety_backup(scene: SceneFactory) -> None:
    one = scene()
    one.sql("SELECT count(lo_create(0)) FROM generate_series(1, 30000)")
    one.back_up()
    assert "locks in one transaction" in refusal(one, mode="in_place")


# --- from an older server to a newer one


@pytest.fixture
def older(
    start_postgres: Callable[[int], PostgresCluster],
    fresh_database: DatabaseFactory,
    s3_server: S3Server,
    s3_bucket: Callable[[], str],
    tmp_path: Path,
) -> Callable[[], tuple[Scene, Scene]]:
    """`older() -> (scene of the oldest server, the same with a plan for the newest)`."""

    def make() -> tuple[Scene, Scene]:
        old, new = start_postgres(min(BIN_DIRECTORIES)), start_postgres(max(BIN_DIRECTORIES))
        if old.major >= 18 or new.major < 18:
            ci_skip("PostgreSQL 18 and an older one are not both installed")
        url = fresh_database(old)
        one = make_scene(old, url, fresh_database(old), s3_server, s3_bucket(), tmp_path / "spool")
        there = parse(new.url(parse(fresh_database(new)).dbname)).pinned()
        return one, Scene(new, str(there), one.plan).with_plan(database=there, tools_directory=str(new.bin_directory))

    return make


def test_what_a_newer_server_refuses_is_named_before_anything_is_loaded(
    older: Callable[[], tuple[Scene, Scene]], monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.support.every_kind import make_roles

    one, newer = older()
    make_roles(one.cluster), make_roles(newer.cluster)
    one.sql(OF_OLDER)
    [unlogged] = one.back_up().attention
    assert "PostgreSQL 18 refuses" in unlogged and "make public.parts again" in unlogged

    request: dict[str, Any] = {"mode": "new_database", "target": f"{newer.name}_new"}
    message = refusal(newer, **request)
    assert all(name in message for name in NAMES_OF_OLDER), message
    has_icu = newer.sql("SELECT count(*) > 100 FROM pg_collation WHERE collprovider = 'i'", "postgres") == [(True,)]
    assert has_icu or 'the collation "de-x-icu" of DOMAIN public.icu' in message

    without = (*NAMES_OF_OLDER, *(() if has_icu else ("DOMAIN public.icu",)))
    [warning] = [w for w in newer.validated(**request, without=without).warnings if "postgres_fdw_get" in w]
    assert GRANT in warning
    with pytest.raises(EntriesFailed) as failed:
        newer.restore(**request, without=without)
    assert [name for name, _, _ in failed.value.entries] == [GRANT]
    newer.restore(**request, without=(*without, GRANT))
    assert newer.sql('SELECT (SELECT count(*) FROM rows_stay), (SELECT count(*) FROM "Part")', request["target"]) == [
        (1, 1)
    ]


# --- pg_cron


@contextmanager
def with_cron(major: int, directory: Path) -> Iterator[PostgresCluster]:
    """A server with pg_cron in its database `shop`."""
    server = PostgresCluster(directory, BIN_DIRECTORIES[major], durable=False, owned=True)
    server.start()
    server.stop()
    with (server.data_directory / "postgresql.auto.conf").open("a") as file:
        file.write("shared_preload_libraries = 'pg_cron'\ncron.database_name = 'shop'\n")
    server.start()
    try:
        yield server
    finally:
        server.stop(immediate=True)


@pytest.fixture
def cron(servers_directory: Path, s3_server: S3Server, s3_bucket: Callable[[], str], tmp_path: Path) -> Iterator[Scene]:
    """A scene whose database has pg_cron, a job and a grant."""
    majors = [m for m, bin_directory in BIN_DIRECTORIES.items() if has_cron(bin_directory)]
    if not majors:
        ci_skip("pg_cron is not installed (Debian: apt-get install postgresql-<version>-cron)")
    with with_cron(majors[0], servers_directory / f"cron-{uuid.uuid4()}") as server:
        one = make_scene(
            server,
            server.ensure_database("shop"),
            server.ensure_database("catalogue"),
            s3_server,
            s3_bucket(),
            tmp_path / "s",
        )
        one.sql("CREATE EXTENSION pg_cron; CREATE ROLE app; GRANT USAGE ON SCHEMA cron TO app")
        one.sql("SELECT cron.schedule('nightly', '0 3 * * *', 'SELECT 1')")
        one.sql("CREATE TABLE t (i int); INSERT INTO t VALUES (1)")
        yield one


def has_cron(bin_directory: Path) -> bool:
    places = (Path("/usr/share/postgresql") / bin_directory.parent.name, bin_directory.parent / "share" / "postgresql")
    return any((place / "extension" / "pg_cron.control").exists() for place in places)


NAMES_OF_CRON = (
    "ACL SCHEMA cron",
    "COMMENT EXTENSION pg_cron",
    "EXTENSION pg_cron",
    "SEQUENCE SET cron.jobid_seq",
    "SEQUENCE SET cron.runid_seq",
    "TABLE DATA cron.job",
    "TABLE DATA cron.job_run_details",
)


def test_pg_cron_is_refused_in_a_new_database_by_all_its_entries_and_left_out_by_a_drill(cron: Scene) -> None:
    one = cron
    [sentence] = one.back_up().attention
    assert all(name in sentence for name in NAMES_OF_CRON) and "CREATE EXTENSION pg_cron" in sentence
    message = refusal(one)
    assert ", ".join(NAMES_OF_CRON) in message and "works in the database shop alone" in message
    assert "pg_cron" in refusal(one, mode="new_database", target="other")

    drill = examine(one.plan, identify(one.plan, "latest", str(uuid.uuid4()), "tester", now()), lambda _: None)
    with verify_lock(one.plan.database, f"run {drill.run_id}"):
        loaded = one.load(drill)
        compared = compare_run(one.plan, drill, loaded)
    assert {f"{name} was left out." for name in NAMES_OF_CRON} == {f"{name} was left out." for name in loaded.left_out}
    assert compared.by_content
    one.discard(drill.scratch)

    one.sql("INSERT INTO t VALUES (2); DELETE FROM cron.job")
    one.restore(mode="in_place")
    assert one.sql("SELECT (SELECT count(*) FROM t), (SELECT jobname FROM cron.job)") == [(1, "nightly")]
    one.restore(mode="new_database", target="part", tables=("public.t",), without=NAMES_OF_CRON)
    assert one.sql("SELECT count(*) FROM t", "part") == [(1,)]
    one.restore(without=NAMES_OF_CRON)
    assert one.sql("SELECT count(*) FROM pg_extension WHERE extname = 'pg_cron'") == [(0,)]
    one.sql("CREATE EXTENSION pg_cron")
