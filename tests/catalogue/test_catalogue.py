"""The catalogue keeps what is true, refuses what is not its own, and never gets into the dump that it records."""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2 import sql

from deployments.quick_start.postgres import PostgresCluster
from tasks.backup.dump import pg_dump_arguments
from tasks.catalogue import schema
from tasks.catalogue.catalogue import Catalogue
from tasks.catalogue.rows import Event
from tasks.errors import AccessRefused, BackupSystemError, BadSetting, CatalogueUnavailable, Superseded
from tasks.postgres.dsn import parse
from tasks.postgres.server import source_session
from tests.conftest import DatabaseFactory
from tests.support import whole_story
from tests.support.servers import catalogue_at_a_standby

CHECKOUT = Path(__file__).parents[2]
START = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
FACTS: dict[str, Any] = {
    "file_size": 100,
    "plain_size": 100,
    "table_count": 3,
    "row_count": 5,
    "manifest_sha256": "0" * 64,
    "completed_at": START,
    "suspicious": "",
}
ODD = "ü💾 '\"\\ %s $1 %(x)s\n; DROP TABLE database_backups --"


def _event(outcome: str = "completed", **more: Any) -> Event:
    return Event("backup", outcome, "p", "me", "run-1", **more)


def _run(url: str, *statements: str | sql.Composable) -> list[tuple[Any, ...]]:
    """Runs statements one by one; returns the rows of the last."""
    with contextlib.closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []


def _open(
    catalogue: Catalogue, filename: str = "a.sql", run_id: str = "run-1", plan: str = "p", at: datetime = START
) -> int:
    return catalogue.open(filename, f"f/{plan}/{filename}", plan, run_id, "me", at, "full")


@pytest.fixture
def url(postgres_server: PostgresCluster, fresh_database: DatabaseFactory) -> str:
    return fresh_database(postgres_server)


@pytest.fixture
def catalogue(url: str) -> Catalogue:
    """An empty catalogue, made by the set-up."""
    made = Catalogue(parse(url))
    assert made.prepare()
    return made


# --- the tables


def test_preparing_twice_changes_nothing_and_says_so(catalogue: Catalogue, url: str) -> None:
    _open(catalogue)
    assert not catalogue.prepare()
    assert len(catalogue.rows("p")) == 1
    catalogue.check()


def test_many_may_prepare_at_the_same_moment_and_one_of_them_does(url: str) -> None:
    barrier = threading.Barrier(6)
    outcomes: list[object] = []

    def prepare() -> None:
        barrier.wait()
        try:
            outcomes.append(Catalogue(parse(url)).prepare())
        except Exception as error:
            outcomes.append(error)

    threads = [threading.Thread(target=prepare) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes, key=repr) == [False] * 5 + [True]


def test_the_columns_that_people_were_promised_are_there(catalogue: Catalogue, url: str) -> None:
    found = dict(
        _run(
            url,
            "SELECT column_name::text, data_type::text FROM information_schema.columns"
            " WHERE table_name = 'database_backups'",
        )
    )
    promised = {
        "id": "integer",
        "filename": "text",
        "s3_key": "text",
        "file_size": "bigint",
        "backup_type": "text",
        "status": "text",
        "created_by": "text",
        "metadata": "jsonb",
        "created_at": "timestamp with time zone",
        "completed_at": "timestamp with time zone",
        "plan": "text",
        "run_id": "text",
    }
    assert promised.items() <= found.items()
    assert _run(
        url,
        "INSERT INTO database_backups (filename, s3_key, plan, run_id) VALUES ('f', 'k', 'p', 'r')"
        " RETURNING id, backup_type, status, created_by",
    ) == [(1, "full", "in_progress", "system")]


def test_the_sql_for_people_is_the_file_that_the_set_up_runs() -> None:
    assert (CHECKOUT / "docs" / "catalogue.sql").samefile(schema.SCHEMA_FILE)


def test_the_documented_psql_command_makes_the_tables(url: str, postgres_server: PostgresCluster) -> None:
    [command] = re.findall(r"(?m)^psql .*docs/catalogue\.sql.*$", (CHECKOUT / "docs" / "catalogue.md").read_text())
    environment = {**os.environ, "PATH": f"{postgres_server.bin_directory}:{os.environ['PATH']}", "CATALOG_URL": url}
    subprocess.run(["sh", "-ec", command], cwd=CHECKOUT, env=environment, check=True, capture_output=True)
    made = Catalogue(parse(url))
    made.check()
    assert made.prepare() is False and made.lost_tables() == ()


def test_without_tables_the_sentence_says_what_to_run(url: str) -> None:
    with pytest.raises(BadSetting, match="set_up"):
        Catalogue(parse(url)).check()
    with pytest.raises(BadSetting, match="run the set-up again"):
        Catalogue(parse(url)).rows("p")


@pytest.mark.parametrize(
    "taken",
    [
        "CREATE TABLE database_backups (id int)",
        "CREATE VIEW database_backups AS SELECT 1 AS id",
        "CREATE TABLE database_backups (id int); COMMENT ON TABLE database_backups IS 'mine'",
        "CREATE TABLE database_backups (id int);"
        " COMMENT ON TABLE database_backups IS 'Database Backup System, catalogue version x'",
        "CREATE TABLE backup_events (id int)",
        "CREATE SEQUENCE backup_events_id_seq; CREATE TABLE backup_events (id int)",
        "CREATE TYPE database_backups AS (x int)",
    ],
    ids=lambda text: text[:60],
)
def test_something_of_somebody_elses_with_a_name_of_ours_is_refused_and_left_alone(url: str, taken: str) -> None:
    _run(url, taken)
    listed = "SELECT relname, relkind FROM pg_class WHERE relnamespace = 'public'::regnamespace ORDER BY 1"
    before = _run(url, listed)
    with pytest.raises(BadSetting, match="name another database in CATALOG_URL"):
        Catalogue(parse(url)).prepare()
    assert _run(url, listed) == before


def test_a_catalogue_of_a_newer_program_is_refused(catalogue: Catalogue, url: str) -> None:
    _run(url, "COMMENT ON TABLE database_backups IS 'Database Backup System, catalogue version 2'")
    for ask in (catalogue.prepare, catalogue.check):
        with pytest.raises(BadSetting, match="version 2, this program knows 1: update"):
            ask()


def test_the_function_of_a_restored_dump_does_not_stand_in_the_way(catalogue: Catalogue, url: str) -> None:
    _run(url, "DROP TABLE database_backups, backup_events")  # what a dump without our tables restores
    assert catalogue.prepare()


def test_a_role_that_owns_nothing_else_can_do_everything(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    url = fresh_database(postgres_server)
    name = parse(url).dbname
    _run(
        url,
        "DROP ROLE IF EXISTS keeper",
        "CREATE ROLE keeper LOGIN PASSWORD 'pw' NOINHERIT",
        sql.SQL("ALTER DATABASE {} OWNER TO keeper").format(sql.Identifier(name)),
        "GRANT CREATE ON SCHEMA public TO keeper",
    )
    _use(Catalogue(parse(postgres_server.url(name, "keeper", "pw"))), prepare=True)
    _run(
        url,
        sql.SQL("ALTER DATABASE {} OWNER TO postgres").format(sql.Identifier(name)),
        "DROP OWNED BY keeper",
        "DROP ROLE keeper",
    )


def test_a_role_with_mere_grants_on_the_tables_can_use_them(
    postgres_server: PostgresCluster, catalogue: Catalogue, url: str
) -> None:
    _run(
        url,
        "DROP ROLE IF EXISTS user_of_it",
        "CREATE ROLE user_of_it LOGIN PASSWORD 'pw'",
        "GRANT SELECT, INSERT, UPDATE ON database_backups, backup_events TO user_of_it",
        "GRANT USAGE ON ALL SEQUENCES IN SCHEMA public TO user_of_it",
    )
    _use(Catalogue(parse(postgres_server.url(catalogue.dsn.dbname, "user_of_it", "pw"))), prepare=False)
    _run(url, "DROP OWNED BY user_of_it", "DROP ROLE user_of_it")


def _use(catalogue: Catalogue, prepare: bool) -> None:
    assert catalogue.prepare() is prepare
    catalogue.check()
    kept, dead = _open(catalogue, "a.sql"), _open(catalogue, "b.sql", "run-0")
    catalogue.complete(kept, "run-1", FACTS, {}, _event())
    assert [row.id for row in catalogue.claim_dead("p", "run-1", "died")] == [dead]
    catalogue.fail(dead, "died", _event("died"))
    catalogue.remove("a.sql", "expired", _event("expired"))
    catalogue.note(_event("refused"))
    assert {row.status for row in catalogue.rows("p")} == {"expired", "failed"}


def test_a_role_without_privileges_is_refused_in_one_sentence(
    postgres_server: PostgresCluster, catalogue: Catalogue, url: str
) -> None:
    _run(url, "DROP ROLE IF EXISTS stranger", "CREATE ROLE stranger LOGIN PASSWORD 'pw'")
    with pytest.raises(AccessRefused, match="refused role stranger") as refused:
        Catalogue(parse(postgres_server.url(catalogue.dsn.dbname, "stranger", "pw"))).check()
    assert "\n" not in str(refused.value)
    _run(url, "DROP ROLE stranger")


@pytest.mark.slow
def test_a_read_only_catalogue_is_refused_in_one_sentence(postgres_server: PostgresCluster, tmp_path: Path) -> None:
    with (
        catalogue_at_a_standby(postgres_server.bin_directory, tmp_path / "pair") as catalogue,
        pytest.raises(AccessRefused, match="read-only: name its primary"),
    ):
        _open(catalogue)


def test_a_catalogue_in_a_database_with_limits_for_sessions_is_used_all_the_same(
    catalogue: Catalogue, url: str
) -> None:
    settings = (
        "default_transaction_read_only = on",
        "default_transaction_isolation = serializable",
        "idle_in_transaction_session_timeout = 1",
        "exit_on_error = on",
    )
    name = sql.Identifier(catalogue.dsn.dbname)
    _run(url, *(sql.SQL("ALTER DATABASE {} SET " + setting).format(name) for setting in settings))
    assert _open(catalogue)
    with catalogue.cursor() as cursor:
        cursor.execute("SHOW transaction_isolation")
        assert cursor.fetchone() == {"transaction_isolation": "read committed"}


def test_a_server_that_does_not_answer_is_told_from_one_that_refuses() -> None:
    with pytest.raises(CatalogueUnavailable, match="does not answer"):
        Catalogue(parse("postgresql://u:mArKeR@127.0.0.1:1/d")).check()


# --- the life of a backup


def test_the_same_run_asking_again_gets_the_same_row(catalogue: Catalogue) -> None:
    assert _open(catalogue) == _open(catalogue)
    assert len(catalogue.rows("p")) == 1


@pytest.mark.parametrize(("run_id", "plan"), [("run-2", "p"), ("run-2", "q")])
def test_a_name_that_another_run_has_is_never_taken_over(catalogue: Catalogue, run_id: str, plan: str) -> None:
    first = _open(catalogue)
    with pytest.raises(BackupSystemError):
        _open(catalogue, run_id=run_id, plan=plan)
    catalogue.complete(first, "run-1", FACTS, {}, _event())
    with pytest.raises(BackupSystemError):
        _open(catalogue, run_id=run_id, plan=plan)
    [row] = catalogue.rows("p")
    assert (row.run_id, row.status) == ("run-1", "completed")


def test_completing_writes_row_and_audit_once_however_often_it_is_asked(catalogue: Catalogue, url: str) -> None:
    backup = _open(catalogue)
    for _ in range(3):
        catalogue.complete(backup, "run-1", FACTS, {"sha256": "x"}, _event(backup_id=backup))
    [row] = catalogue.rows("p")
    assert (row.status, row.file_size, row.metadata, row.completed_at) == (
        "completed",
        100,
        {"sha256": "x"},
        START,
    )
    assert _is_completed(catalogue, backup)
    assert _run(url, "SELECT action, outcome, backup_id FROM backup_events") == [("backup", "completed", backup)]


def test_neither_row_nor_audit_is_written_when_the_audit_cannot_be(catalogue: Catalogue, url: str) -> None:
    backup = _open(catalogue)
    _run(url, "ALTER TABLE backup_events ADD CHECK (outcome <> 'completed')")
    with pytest.raises(psycopg2.errors.CheckViolation):
        catalogue.complete(backup, "run-1", FACTS, {}, _event())
    assert not _is_completed(catalogue, backup)


@pytest.mark.parametrize("lacking", ["file_size", "manifest_sha256", "completed_at"])
def test_the_table_itself_refuses_a_completed_row_without_an_object(
    catalogue: Catalogue, url: str, lacking: str
) -> None:
    backup = _open(catalogue)
    with pytest.raises(psycopg2.errors.CheckViolation):
        catalogue.complete(backup, "run-1", {**FACTS, lacking: None}, {}, _event())
    with pytest.raises(psycopg2.errors.CheckViolation):
        _run(url, "UPDATE database_backups SET status = 'done'")


def test_a_run_that_was_taken_for_dead_can_no_longer_complete(catalogue: Catalogue, url: str) -> None:
    backup = _open(catalogue)
    [dead] = catalogue.claim_dead("p", "run-2", "taken for dead")
    assert (dead.id, dead.run_id, dead.filename, dead.s3_key) == (backup, "run-1", "a.sql", "f/p/a.sql")
    for _ in range(2):
        with pytest.raises(Superseded):
            catalogue.complete(backup, "run-1", FACTS, {}, _event())
    catalogue.fail(backup, "taken for dead", _event("died"))
    with pytest.raises(Superseded):
        catalogue.complete(backup, "run-1", FACTS, {}, _event())
    assert catalogue.rows("p")[0].status == "failed"
    assert _run(url, "SELECT outcome FROM backup_events") == [("died",)]


def test_another_run_cannot_complete_a_row_that_is_not_its_own(catalogue: Catalogue) -> None:
    backup = _open(catalogue)
    with pytest.raises(Superseded):
        catalogue.complete(backup, "run-2", FACTS, {}, _event())
    catalogue.complete(backup, "run-1", FACTS, {}, _event())
    with pytest.raises(Superseded):
        catalogue.complete(backup, "run-2", FACTS, {}, _event())
    with pytest.raises(Superseded):
        catalogue.complete(backup + 99, "run-1", FACTS, {}, _event())


def test_completion_and_claim_at_the_same_moment_have_one_winner(catalogue: Catalogue) -> None:
    def claim(claimed: list[object], barrier: threading.Barrier) -> None:
        barrier.wait()
        claimed.extend(catalogue.claim_dead("p", "another", "dead"))

    def complete(completed: list[object], barrier: threading.Barrier, backup: int, run_id: str) -> None:
        barrier.wait()
        with contextlib.suppress(Superseded):
            catalogue.complete(backup, run_id, FACTS, {}, _event())
            completed.append(True)

    for number in range(10):
        backup, barrier = _open(catalogue, f"{number}.sql", f"run-{number}"), threading.Barrier(2)
        claimed: list[object] = []
        completed: list[object] = []
        threads = [
            threading.Thread(target=claim, args=(claimed, barrier)),
            threading.Thread(target=complete, args=(completed, barrier, backup, f"run-{number}")),
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert bool(claimed) != bool(completed)
        assert _is_completed(catalogue, backup) == bool(completed)
        catalogue.fail(backup, "dead", _event("died"))


def test_only_the_unfinished_rows_of_the_plan_and_of_other_runs_are_claimed(catalogue: Catalogue) -> None:
    done = _open(catalogue, "done.sql", "run-0")
    catalogue.complete(done, "run-0", FACTS, {}, _event())
    failed = _open(catalogue, "failed.sql", "run-0")
    catalogue.fail(failed, "x", _event("failed"))
    _open(catalogue, "mine.sql", "run-1")
    _open(catalogue, "other-plan.sql", "run-0", plan="p-other")
    dead = _open(catalogue, "dead.sql", "run-0")
    assert [one.id for one in catalogue.claim_dead("p", "run-1", "dead")] == [dead]


def test_a_clear_up_that_died_itself_is_taken_up_by_the_next(catalogue: Catalogue) -> None:
    dead = _open(catalogue, run_id="run-0")
    for claimer in ("run-1", "run-2"):
        assert [one.id for one in catalogue.claim_dead("p", claimer, f"claimed by {claimer}")] == [dead]
    assert catalogue.rows("p")[0].error == "claimed by run-1"


def test_a_completed_row_never_fails_and_a_failed_one_keeps_its_first_error(catalogue: Catalogue, url: str) -> None:
    done, failed = _open(catalogue), _open(catalogue, "b.sql")
    catalogue.complete(done, "run-1", FACTS, {}, _event())
    catalogue.fail(done, "too late", _event("failed"))
    for reason in ("the reason", "another"):
        catalogue.fail(failed, reason, _event("failed"))
    rows = {row.id: row for row in catalogue.rows("p")}
    assert (rows[done].status, rows[done].error) == ("completed", None)
    assert (rows[failed].status, rows[failed].error) == ("failed", "the reason")
    assert _run(url, "SELECT outcome FROM backup_events ORDER BY id") == [("completed",), ("failed",)]


@pytest.mark.parametrize("status", ["expired", "deleted", "missing"])
def test_rows_outlive_their_objects(catalogue: Catalogue, url: str, status: str) -> None:
    backup = _open(catalogue)
    catalogue.complete(backup, "run-1", FACTS, {}, _event())
    for _ in range(2):
        catalogue.remove("a.sql", status, _event(status))
    [row] = catalogue.rows("p")
    assert (row.status, row.file_size, row.completed_at) == (status, 100, START)
    assert not _is_completed(catalogue, backup) and catalogue.completed("p") == []
    assert _run(url, f"SELECT count(*) FROM backup_events WHERE outcome = '{status}'") == [(1,)]


def test_what_was_never_completed_is_not_removed(catalogue: Catalogue, url: str) -> None:
    _open(catalogue)
    catalogue.remove("a.sql", "expired", _event("expired"))
    catalogue.remove("no-such.sql", "expired", _event("expired"))
    assert catalogue.rows("p")[0].status == "in_progress"
    assert _run(url, "SELECT count(*) FROM backup_events") == [(0,)]


def test_backups_are_listed_by_plan_the_newest_first(catalogue: Catalogue) -> None:
    for number in (2, 1, 3):
        backup = _open(catalogue, f"{number}.sql", at=START + timedelta(days=number))
        catalogue.complete(backup, "run-1", {**FACTS, "suspicious": "shrank" if number == 1 else ""}, {}, _event())
    other = _open(catalogue, "x.sql", plan="p2", at=START + timedelta(days=9))
    catalogue.complete(other, "run-1", FACTS, {}, _event())
    found = catalogue.completed("p")
    assert [(one.filename, one.suspicious) for one in found] == [("3.sql", ""), ("2.sql", ""), ("1.sql", "shrank")]
    assert all(one.created_at.utcoffset() is not None for one in found)


def test_texts_of_any_kind_come_back_as_they_were(catalogue: Catalogue, url: str) -> None:
    backup = catalogue.open("a.sql", f"f/{ODD}/a.sql", "p", ODD, ODD, START, "full")
    event = Event("backup", "completed", "p", ODD, ODD, backup, "a.sql", error=ODD)
    catalogue.complete(backup, ODD, FACTS, {ODD: [ODD]}, event)
    [row] = catalogue.rows("p")
    assert (row.s3_key, row.run_id, row.created_by, row.metadata) == (
        f"f/{ODD}/a.sql",
        ODD,
        ODD,
        {ODD: [ODD]},
    )
    assert _run(url, "SELECT actor, run_id, error FROM backup_events") == [(ODD, ODD, ODD)]


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE backup_events SET outcome = 'x'",
        "DELETE FROM backup_events",
        "TRUNCATE backup_events",
        "UPDATE backup_events SET outcome = 'x' WHERE false",
        "DELETE FROM backup_events WHERE id = 1",
    ],
)
def test_the_audit_can_only_grow(catalogue: Catalogue, url: str, statement: str) -> None:
    catalogue.note(_event())
    with pytest.raises(psycopg2.errors.RaiseException, match="append-only"):
        _run(url, statement)
    assert _run(url, "SELECT outcome FROM backup_events") == [("completed",)]


# --- in the database that is backed up


@contextlib.contextmanager
def _source(url: str) -> Iterator[Any]:
    with source_session(parse(url), "test") as connection:
        yield connection


def _own_tables(catalogue: Catalogue, url: str) -> tuple[str, ...]:
    with _source(url) as connection:
        return catalogue.own_tables_in(connection)


def _dump(cluster: PostgresCluster, url: str, excluded: tuple[str, ...]) -> str:
    dsn = parse(url)
    arguments = pg_dump_arguments(str(cluster.bin_directory / "pg_dump"), dsn.conninfo(), "", "UTF8", excluded)
    arguments = [one for one in arguments if not one.startswith("--snapshot")]
    return subprocess.run(
        arguments, env=dsn.child_environment("test"), capture_output=True, text=True, check=True
    ).stdout


OWN = (
    "public.backup_events",
    "public.backup_events_id_seq",
    "public.database_backups",
    "public.database_backups_id_seq",
)


def test_a_catalogue_in_a_database_of_its_own_keeps_nothing_out(
    catalogue: Catalogue, postgres_server: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    source = fresh_database(postgres_server)
    _run(source, "CREATE TABLE database_backups (mine int)", "CREATE TABLE backup_events (mine int)")
    assert _own_tables(catalogue, source) == ()


@pytest.mark.parametrize(
    "alias",
    ["127.0.0.1", "localhost", "hostaddr", "two hosts", "conninfo"],
)
def test_a_catalogue_in_the_database_that_is_backed_up_is_known_under_any_address(
    catalogue: Catalogue, url: str, alias: str
) -> None:
    given = dict(parse(url).parameters)
    port = given["port"]
    changes = {
        "127.0.0.1": {},
        "localhost": {"host": "localhost"},
        "hostaddr": {"host": "a-name-that-leads-nowhere", "hostaddr": "127.0.0.1"},
        "two hosts": {"host": "127.0.0.1,localhost", "port": f"{port},{port}"},
        "conninfo": {"application_name": "other", "client_encoding": "LATIN1"},
    }[alias]
    from psycopg2.extensions import make_dsn

    try:
        assert _own_tables(catalogue, make_dsn(**{**given, **changes})) == OWN
    except BackupSystemError as error:  # a machine whose localhost is not 127.0.0.1 alone
        assert alias == "localhost" and "::1" in str(error)


def test_databases_of_one_name_on_two_servers_are_not_mixed_up(
    postgres_server: PostgresCluster, start_postgres: Any, fresh_database: DatabaseFactory
) -> None:
    from tests.conftest import BIN_DIRECTORIES

    other_major = next((major for major in BIN_DIRECTORIES if major != postgres_server.major), None)
    if other_major is None:
        pytest.skip("needs two servers, and only one major version of PostgreSQL is installed")
    here, there = (fresh_database(server, "same_name") for server in (postgres_server, start_postgres(other_major)))
    made = Catalogue(parse(here))
    made.prepare()
    Catalogue(parse(there)).prepare()
    assert _own_tables(made, there) == ()
    assert _own_tables(made, here) == OWN


def test_the_dump_leaves_out_the_catalogue_and_its_sequences_and_nothing_else(
    catalogue: Catalogue, postgres_server: PostgresCluster, url: str
) -> None:
    _run(
        url,
        "CREATE SCHEMA mine",
        "CREATE TABLE mine.database_backups (id serial, t text)",
        "INSERT INTO mine.database_backups (t) VALUES ('of mine')",
        "CREATE TABLE mine.backup_events (id bigserial)",
        'CREATE TABLE "Database_Backups" (i int)',
        "CREATE TABLE database_backups2 (i int)",
        "CREATE TABLE customers (i int)",
    )
    _open(catalogue, "secret-of-the-catalogue.sql")
    catalogue.note(_event(error="secret-of-the-catalogue"))
    excluded = _own_tables(catalogue, url)
    assert excluded == OWN
    text = _dump(postgres_server, url, excluded)
    assert "secret-of-the-catalogue" not in text
    for gone in OWN:
        assert f" {gone} " not in text and f"'{gone}'" not in text
    for kept in (
        "mine.database_backups",
        "mine.database_backups_id_seq",
        "mine.backup_events",
        "of mine",
        'public."Database_Backups"',
        "public.database_backups2",
        "public.customers",
    ):
        assert kept in text


@pytest.mark.parametrize(
    "schema", ["with space", 'quo"te', "per%cent", "dol$lar", "Upper", "a.b", "st*r?", "ü💾", "(a|b)", "-dash"]
)
def test_a_catalogue_in_a_schema_of_any_name_is_left_out(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory, schema: str
) -> None:
    url = fresh_database(postgres_server)
    role = "keeper_in_schema"
    _run(
        url,
        f"DROP ROLE IF EXISTS {role}",
        f"CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'pw'",
        sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)),
        sql.SQL("ALTER ROLE {} SET search_path = {}").format(sql.Identifier(role), sql.Identifier(schema)),
        "CREATE TABLE public.database_backups (mine text)",
        "INSERT INTO public.database_backups VALUES ('of mine')",
    )
    made = Catalogue(parse(postgres_server.url(parse(url).dbname, role, "pw")))
    assert made.prepare()
    _open(made, "secret-of-the-catalogue.sql")
    excluded = _own_tables(made, url)
    assert len(excluded) == 4
    text = _dump(postgres_server, url, excluded)
    assert "secret-of-the-catalogue" not in text and "of mine" in text
    _run(url, f"DROP OWNED BY {role} CASCADE", f"DROP ROLE {role}")


def test_metadata_is_json_that_other_tools_can_query(catalogue: Catalogue, url: str) -> None:
    backup = _open(catalogue)
    catalogue.complete(backup, "run-1", FACTS, {"tool": "pg_dump 15"}, _event())
    assert _run(url, "SELECT metadata ->> 'tool' FROM database_backups") == [("pg_dump 15",)]
    assert json.dumps(catalogue.rows("p")[0].metadata) == '{"tool": "pg_dump 15"}'


def test_a_wrong_password_is_told_without_it(postgres_server: PostgresCluster, catalogue: Catalogue) -> None:
    wrong = Catalogue(parse(postgres_server.url(catalogue.dsn.dbname, "postgres", "mArKeR")))
    with pytest.raises(AccessRefused) as refused:
        wrong.check()
    assert "mArKeR" not in whole_story(refused.value) and "mArKeR" not in repr(wrong) + repr(vars(wrong))


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_a_catalogue_may_lie_in_a_database_of_another_encoding(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory, encoding: str
) -> None:
    name = f"catalogue_{encoding.lower()}"
    _run(
        postgres_server.url(),
        f"DROP DATABASE IF EXISTS {name}",
        f"CREATE DATABASE {name} TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'",
    )
    made = Catalogue(parse(postgres_server.url(name)))
    assert made.prepare() and not made.prepare()
    made.open("a.sql", "f/p/a.sql", "p", "run-1", "Änne", START, "full")
    assert made.rows("p")[0].created_by == "Änne"


def _is_completed(catalogue: Catalogue, backup: int) -> bool:
    return any(row.id == backup and row.status == "completed" for row in catalogue.rows("p"))
