"""An error of the server that leaves a session, and a warning of psql, repeat no value of a row."""

from __future__ import annotations

import traceback

import psycopg2
import pytest

from deployments.quick_start.postgres import PostgresCluster
from tasks.errors import AccessRefused, BackupSystemError, Unreachable
from tasks.postgres.dsn import Dsn, parse
from tasks.restore.sql_errors import warnings_in
from tasks.runs.retries import reason_of
from tests.conftest import DatabaseFactory
from tests.support.scene import SceneFactory
from tests.verify.test_verify import one_version

MARKER = "mArKeR-of-a-row"
SOURCE = f"""
CREATE TABLE t (i int PRIMARY KEY, note text); INSERT INTO t VALUES (1, '{MARKER}');
CREATE FUNCTION complain(code text) RETURNS int LANGUAGE plpgsql AS $$ BEGIN
    RAISE EXCEPTION USING ERRCODE = code, MESSAGE = (SELECT note FROM t), DETAIL = (SELECT note FROM t),
        HINT = (SELECT note FROM t); END $$;
"""
#: What is run, and what is said of it.
ERRORS = {
    "SELECT note::int FROM t": "invalid text representation (SQLSTATE 22P02)",
    "INSERT INTO t SELECT 1, note FROM t": 'duplicate key value violates unique constraint "t_pkey"',
    "SELECT complain('P0001')": "raise exception (SQLSTATE P0001)",
    "SELECT complain('XX000')": "internal error (SQLSTATE XX000)",
    "SELECT complain('HV000')": "fdw error (SQLSTATE HV000)",
    "SELECT complain('99999')": "an error of the server (SQLSTATE 99999)",
    "SELECT no_such_column FROM t": 'column "no_such_column" does not exist',
}


@pytest.fixture
def dsn(postgres_server: PostgresCluster, fresh_database: DatabaseFactory) -> Dsn:
    made = parse(fresh_database(postgres_server))
    with made.session("test") as connection:
        connection.cursor().execute(SOURCE)
    return made


def failing(dsn: Dsn, statement: str) -> BaseException:
    with pytest.raises((psycopg2.Error, BackupSystemError)) as failure, dsn.session("test") as connection:
        connection.cursor().execute(statement)
    return failure.value


@one_version
@pytest.mark.parametrize("statement", ERRORS)
def test_what_leaves_a_session_has_class_and_sqlstate_and_no_value(dsn: Dsn, statement: str) -> None:
    error = failing(dsn, statement)
    assert ERRORS[statement] in str(error)
    shown = "".join(traceback.format_exception(error))  # what a log shows
    assert MARKER not in shown + reason_of(error)
    if isinstance(error, psycopg2.Error) and "99999" not in statement:
        assert error.pgcode and type(error) is psycopg2.errors.lookup(error.pgcode)


@one_version
def test_a_refusal_and_a_broken_connection_stay_what_they_are(dsn: Dsn) -> None:
    assert isinstance(failing(dsn, "SELECT complain('57014')"), Unreachable)
    with dsn.session("test") as connection:
        connection.cursor().execute("CREATE ROLE refused_one")
    error = failing(dsn, "SET ROLE refused_one; SELECT * FROM t")
    assert isinstance(error, AccessRefused) and str(error).endswith("permission denied for table t")
    with dsn.session("test") as connection:
        connection.cursor().execute("DROP ROLE refused_one")
    error = failing(dsn, "SELECT pg_terminate_backend(pg_backend_pid())")
    assert isinstance(error, Unreachable) and " broke: " in str(error)


@one_version
@pytest.mark.parametrize(
    ("sqlstate", "said"),
    [
        ("53200", "has not enough of what this needs: no. Raise max_locks_per_transaction"),
        ("53300", "has not enough of what this needs: no. Raise max_connections"),
        ("53100", "has not enough of what this needs: no. Make room on the server's disk."),
        ("57014", "ended what was asked: no."),
        ("57P01", "broke: no."),
    ],
)
def test_what_the_server_lacks_is_no_broken_connection(dsn: Dsn, sqlstate: str, said: str) -> None:
    error = failing(dsn, f"DO $$ BEGIN RAISE 'no' USING ERRCODE = '{sqlstate}'; END $$")
    assert isinstance(error, Unreachable) and said in str(error)


@one_version
def test_a_function_that_fails_in_analyze_says_nothing_of_its_rows(
    scene: SceneFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = scene()
    shop.sql(f"""
        CREATE TABLE t (note text); INSERT INTO t VALUES ('{MARKER}');
        CREATE FUNCTION picky(text) RETURNS text IMMUTABLE LANGUAGE plpgsql AS $$ BEGIN
            IF current_query() ILIKE 'ANALYZE%' THEN RAISE EXCEPTION 'bad row %', $1; END IF;
            RAISE WARNING 'odd row %', $1; RETURN $1; END $$;
        CREATE INDEX by_picky ON t (picky(note));
    """)
    shop.back_up()
    done = shop.restore()
    said = " ".join(done.warnings)
    assert "ANALYZE of public.t failed (raise exception (SQLSTATE P0001))" in said
    assert "WARNING: warning of a function" in said and MARKER not in said
    shop.discard(done.kept)


def test_a_warning_of_psql_is_shown_unless_a_function_gives_it() -> None:
    printed = "\n".join(
        [
            "psql:<stdin>:9: WARNING:  55000: wal_level is insufficient to publish logical changes",
            "HINT:  Set it.",
            "LOCATION:  CreatePublication, publicationcmds.c:1",
            f"psql:<stdin>:10: WARNING:  01000: {MARKER}",
            "CONTEXT:  PL/pgSQL function f() line 1 at RAISE",
            "LOCATION:  exec_stmt_raise, pl_exec.c:1",
            "psql:<stdin>:11: WARNING:  01006: no privileges could be revoked",
        ]
    )
    assert warnings_in(printed) == [
        "WARNING:  wal_level is insufficient to publish logical changes",
        "WARNING:  warning of a function",
        "WARNING:  no privileges could be revoked",
    ]
