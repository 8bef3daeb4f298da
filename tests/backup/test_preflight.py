"""The preflight says no exactly where pg_dump would fail or lose rows, and says it in words that help."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NoReturn

import psycopg2
import pytest
from psycopg2 import sql
from psycopg2.extensions import connection as Connection

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.processes import free_port
from tasks.backup import preflight
from tasks.errors import Unreachable
from tasks.postgres.dsn import parse
from tests.support.servers import pgbouncer

ODD_NAMES = (
    "blank space",
    'quo"te',
    "back\\slash",
    "ümlaut",
    "💾",
    "-dash",
    "new\nline",
    "per%cent$",
    "x" * 63,
)


@contextmanager
def _open(url: str, role: str | None = None) -> Iterator[Connection]:
    """An autocommit connection of the superuser's, acting as `role` if one is named."""
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        if role is not None:
            _run(connection, "SET ROLE {r}", r=role)
        yield connection


def _run(connection: Connection, statement: str, **names: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL(statement).format(**{key: sql.Identifier(name) for key, name in names.items()}))


def _pg_dump_complaint(server: PostgresCluster, url: str, role: str) -> str:
    """What pg_dump says when it fails as `role`; empty when the dump succeeds."""
    dsn = parse(url)
    program = [str(server.bin_directory / "pg_dump"), f"--role={role}", f"--dbname={dsn.conninfo()}"]
    done = subprocess.run(program, capture_output=True, text=True, env=dsn.child_environment("test"))
    return done.stderr if done.returncode else ""


def _quoted(connection: Connection, name: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute("SELECT quote_ident(%s)", (name,))
        return str(cursor.fetchone()[0])


@pytest.fixture
def role(postgres_server: PostgresCluster) -> Iterator[Callable[[str], str]]:
    """`role(name) -> name`: a new role with no privilege of its own; dropped at the end."""
    made: list[str] = []

    def create(name: str) -> str:
        with _open(postgres_server.url()) as connection:
            _run(connection, "CREATE ROLE {r} LOGIN", r=name)
        made.append(name)
        return name

    yield create
    with _open(postgres_server.url()) as connection:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT DISTINCT datname FROM pg_shdepend s JOIN pg_database d ON d.oid = s.dbid"
                " JOIN pg_roles r ON r.oid = s.refobjid WHERE rolname = ANY (%s) AND datallowconn AND datconnlimit <> -2",
                [made],
            )
            databases = [row[0] for row in cursor.fetchall()]
        for database in databases:
            with _open(postgres_server.url(database)) as inside:
                for name in made:
                    _run(inside, "DROP OWNED BY {r} CASCADE", r=name)
        for name in made:
            _run(connection, "DROP ROLE {r}", r=name)


@pytest.fixture
def database(postgres_server: PostgresCluster, fresh_database: Callable[..., str]) -> Iterator[str]:
    """An empty database, dropped at the end."""
    url = fresh_database(postgres_server)
    yield url
    with _open(postgres_server.url()) as connection:
        _run(connection, "DROP DATABASE {d} WITH (FORCE)", d=parse(url).dbname)


def test_a_superuser_reads_everything(database: str) -> None:
    with _open(database) as connection:
        _run(connection, "CREATE TABLE t (); ALTER TABLE t ENABLE ROW LEVEL SECURITY; SELECT lo_create(1)")
        assert preflight.unreadable(connection) == [] == preflight.hidden_rows(connection)


def test_the_advice_for_an_unreadable_database_is_what_it_takes(
    postgres_server: PostgresCluster, database: str, role: Callable[[str], str]
) -> None:
    name = role('back "up" ü')
    with _open(database) as admin, _open(database, name) as connection:
        _run(
            admin,
            "CREATE SCHEMA {s}; CREATE TABLE {s}.{t} (id serial); SELECT lo_create(4711)",
            s="a b",
            t="T",
        )
        schemas, relations, objects = preflight.unreadable(connection)
        assert schemas.startswith('Role "back ""up"" ü" has no USAGE on schema "a b": run GRANT pg_read_all_data TO')
        assert 'no SELECT on table "a b"."T", sequence "a b"."T_id_seq": run GRANT pg_read_all_data' in relations
        assert 'cannot read large object 4711: run GRANT SELECT ON LARGE OBJECT … TO "back ""up"" ü"' in objects
        assert "permission denied" in _pg_dump_complaint(postgres_server, database, name)

        _run(admin, "GRANT pg_read_all_data TO {r}", r=name)
        assert preflight.unreadable(connection) == [objects]
        assert "large object" in _pg_dump_complaint(postgres_server, database, name)

        _run(admin, "GRANT SELECT ON LARGE OBJECT 4711 TO {r}", r=name)
        assert preflight.unreadable(connection) == []
        assert _pg_dump_complaint(postgres_server, database, name) == ""


@pytest.mark.parametrize(
    ("missing", "statement"),
    [
        ("table s.t", "REVOKE SELECT ON s.t FROM {r}"),
        ("table s.t", "REVOKE SELECT ON s.t FROM {r}; GRANT SELECT (a) ON s.t TO {r}"),
        ("table s.p", "REVOKE SELECT ON s.p FROM {r}"),
        ("table s.leaf", "REVOKE SELECT ON s.leaf FROM {r}"),
        ("table s.u", "REVOKE SELECT ON s.u FROM {r}"),
        ("sequence s.t_b_seq", "REVOKE SELECT ON SEQUENCE s.t_b_seq FROM {r}"),
        ("schema s", "REVOKE USAGE ON SCHEMA s FROM {r}"),
        ("large object 5", "REVOKE SELECT ON LARGE OBJECT 5 FROM {r}"),
    ],
)
def test_one_missing_privilege_stops_pg_dump_and_is_named(
    postgres_server: PostgresCluster, database: str, role: Callable[[str], str], missing: str, statement: str
) -> None:
    name = role("reader")
    with _open(database) as admin, _open(database, name) as connection:
        _run(
            admin,
            "CREATE SCHEMA s; CREATE TABLE s.t (a int, b serial); CREATE UNLOGGED TABLE s.u (); SELECT lo_create(5)",
        )
        _run(
            admin,
            "CREATE TABLE s.p (a int) PARTITION BY LIST (a); CREATE TABLE s.leaf PARTITION OF s.p DEFAULT",
        )
        _run(admin, "GRANT USAGE ON SCHEMA s TO {r}; GRANT SELECT ON LARGE OBJECT 5 TO {r}", r=name)
        _run(
            admin,
            "GRANT SELECT ON ALL TABLES IN SCHEMA s TO {r}; GRANT SELECT ON ALL SEQUENCES IN SCHEMA s TO {r}",
            r=name,
        )
        assert preflight.unreadable(connection) == []
        assert _pg_dump_complaint(postgres_server, database, name) == ""
        _run(admin, statement, r=name)
        [sentence] = preflight.unreadable(connection)
        assert f" {missing}: run GRANT " in sentence
        assert (
            "permission denied" in (said := _pg_dump_complaint(postgres_server, database, name))
            or "lack SELECT" in said
        )


def test_what_a_dump_does_not_read_need_not_be_readable(
    postgres_server: PostgresCluster, database: str, role: Callable[[str], str]
) -> None:
    name = role("reader")
    with _open(database) as admin, _open(database, name) as connection:
        _run(
            admin,
            "CREATE SCHEMA closed; CREATE VIEW closed.v AS SELECT 1; CREATE MATERIALIZED VIEW closed.m AS SELECT 1",
        )
        _run(admin, "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w")
        _run(
            admin,
            "CREATE FOREIGN TABLE closed.f () SERVER s; CREATE FUNCTION closed.g() RETURNS int RETURN 1",
        )
        _run(
            admin,
            "CREATE EXTENSION citext; CREATE TABLE closed.member (); ALTER EXTENSION citext ADD TABLE closed.member",
        )
        _run(admin, "CREATE TEMPORARY TABLE gone ()")
        assert preflight.unreadable(connection) == []
        assert _pg_dump_complaint(postgres_server, database, name) == ""


def test_the_content_of_an_extension_s_configuration_table_must_be_readable(
    postgres_server: PostgresCluster, database: str, role: Callable[[str], str]
) -> None:
    name = role("reader")
    with _open(database) as admin, _open(database, name) as connection:
        _run(
            admin,
            "CREATE EXTENSION citext; CREATE TABLE config (a int); ALTER EXTENSION citext ADD TABLE config",
        )
        _run(admin, "SET allow_system_table_mods = on")
        _run(
            admin,
            "UPDATE pg_extension SET extconfig = ARRAY['config'::regclass::oid], extcondition = ARRAY['']"
            " WHERE extname = 'citext'",
        )
        [sentence] = preflight.unreadable(connection)
        assert " no SELECT on table public.config: " in sentence
        assert "permission denied" in _pg_dump_complaint(postgres_server, database, name)


def test_excluded_tables_are_not_missed(database: str, role: Callable[[str], str]) -> None:
    name = role("reader")
    with _open(database) as admin, _open(database, name) as connection:
        _run(
            admin,
            "CREATE TABLE ours (); ALTER TABLE ours ENABLE ROW LEVEL SECURITY; CREATE TABLE {t} ()",
            t="O dd",
        )
        assert preflight.unreadable(connection, ["public.ours", 'public."O dd"']) == []
        assert preflight.hidden_rows(connection, ["public.ours"]) == []


def test_ten_are_named_and_the_rest_is_counted(database: str, role: Callable[[str], str]) -> None:
    name = role("reader")
    with _open(database) as admin, _open(database, name) as connection:
        for number in range(12):
            _run(admin, "CREATE TABLE {t} ()", t=f"t{number:02}")
        [sentence] = preflight.unreadable(connection)
        assert "public.t09 and 2 more: run " in sentence and "t10" not in sentence


def test_odd_names_stand_as_postgresql_writes_them(database: str, role: Callable[[str], str]) -> None:
    reader = role('od"d -- \n reader')
    with _open(database) as admin, _open(database, reader) as connection:
        for name in ODD_NAMES:
            _run(
                admin,
                "CREATE SCHEMA {n}; CREATE TABLE {n}.{n} (); ALTER TABLE {n}.{n} ENABLE ROW LEVEL SECURITY",
                n=name,
            )
        schemas, relations = preflight.unreadable(connection)
        [hidden] = preflight.hidden_rows(connection)
        for name in ODD_NAMES:
            quoted = _quoted(admin, name)
            assert quoted in schemas and f"{quoted}.{quoted}" in relations and f"{quoted}.{quoted}" in hidden
        assert all('role "od""d -- \n reader" ' in sentence.lower() for sentence in (schemas, relations, hidden))


@pytest.mark.parametrize(
    ("arrangement", "hides"),
    [
        ("GRANT SELECT ON t TO {r}", "as the owner of the tables"),
        ("GRANT SELECT ON t TO {r}; CREATE POLICY p ON t USING (true)", "as the owner of the tables"),
        ("GRANT SELECT ON t TO {r}; ALTER ROLE {r} BYPASSRLS", ""),
        ("ALTER TABLE t OWNER TO {r}", ""),
        ("ALTER TABLE t OWNER TO {o}; GRANT {o} TO {r}", ""),
        ("ALTER TABLE t OWNER TO {r}; ALTER TABLE t FORCE ROW LEVEL SECURITY", "NO FORCE ROW LEVEL SECURITY"),
        ("ALTER TABLE t OWNER TO {r}; ALTER TABLE t FORCE ROW LEVEL SECURITY; ALTER ROLE {r} BYPASSRLS", ""),
        ("GRANT SELECT ON t TO {r}; ALTER TABLE t DISABLE ROW LEVEL SECURITY", ""),
    ],
)
def test_hidden_rows_are_told_exactly_where_pg_dump_would_fail(
    postgres_server: PostgresCluster, database: str, role: Callable[[str], str], arrangement: str, hides: str
) -> None:
    name, owner = role("reader"), role("owner")
    with _open(database) as admin, _open(database, name) as connection:
        _run(admin, "CREATE TABLE t (a int); ALTER TABLE t ENABLE ROW LEVEL SECURITY")
        _run(admin, arrangement, r=name, o=owner)
        problems = preflight.hidden_rows(connection)
        said = _pg_dump_complaint(postgres_server, database, name)
        assert preflight.unreadable(connection) == []
        if not hides:
            assert (problems, said) == ([], "")
        else:
            [sentence] = problems
            assert "public.t: run ALTER ROLE reader BYPASSRLS" in sentence and hides in sentence
            assert "row-level security" in said


def test_a_database_that_lets_nobody_in_is_told(postgres_server: PostgresCluster, database: str) -> None:
    name = parse(database).dbname
    with _open(postgres_server.url()) as admin, _open(database) as connection:
        assert preflight.closed_database(connection) == []
        _run(admin, "ALTER DATABASE {d} ALLOW_CONNECTIONS false", d=name)
        [sentence] = preflight.closed_database(connection)
        assert f"ALTER DATABASE {name} ALLOW_CONNECTIONS true" in sentence
        _run(admin, "ALTER DATABASE {d} ALLOW_CONNECTIONS true", d=name)
        _run(admin, f"UPDATE pg_database SET datconnlimit = -2 WHERE datname = '{name}'")
        [sentence] = preflight.closed_database(connection)
        assert "invalid" in sentence and name in sentence
        _run(admin, f"UPDATE pg_database SET datconnlimit = -1 WHERE datname = '{name}'")


def test_every_problem_of_a_database_is_told_at_once_without_writing_and_without_waiting(
    database: str, role: Callable[[str], str]
) -> None:
    name = role("reader")
    opened: list[Connection] = []

    def connect() -> Connection:
        opened.append(psycopg2.connect(database, options="-c default_transaction_read_only=on -c lock_timeout=1s"))
        _run(opened[-1], "SET ROLE {r}", r=name)
        opened[-1].commit()
        return opened[-1]

    with _open(database) as admin, closing(psycopg2.connect(database)) as holder:
        _run(admin, "CREATE SCHEMA s; CREATE TABLE s.t (a int); ALTER TABLE s.t ENABLE ROW LEVEL SECURITY")
        _run(admin, "SELECT lo_create(7)")
        _run(holder, "LOCK TABLE s.t IN ACCESS EXCLUSIVE MODE")
        problems = preflight.database_problems(connect, "db.example", 5432)
    assert [
        words in problem
        for words, problem in zip(("USAGE", "SELECT on", "object 7", "Row-level"), problems, strict=True)
    ]
    assert all(problem.endswith(".") for problem in problems)
    assert opened and all(connection.closed for connection in opened)


def _through(port: int, **more: str) -> Callable[[], Connection]:
    return lambda: psycopg2.connect(host="127.0.0.1", port=port, user="postgres", dbname="postgres", **more)


def _no_connection() -> NoReturn:
    raise AssertionError("a known address needs no connection")


@pytest.mark.parametrize("settings", [(), ("default_pool_size = 1",), ("server_round_robin = 1", "min_pool_size = 4")])
def test_a_transaction_pooler_is_refused(
    postgres_server: PostgresCluster, tmp_path: Path, settings: tuple[str, ...]
) -> None:
    with pgbouncer(postgres_server, tmp_path, "transaction", *settings) as (host, port):
        [sentence] = preflight.database_problems(_through(port), host, port)
        assert f"{host}:{port} lends out server connections for one transaction at a time" in sentence
        assert "session mode" in sentence


def test_a_transaction_pooler_is_refused_while_others_use_it(postgres_server: PostgresCluster, tmp_path: Path) -> None:
    with (
        pgbouncer(postgres_server, tmp_path, "transaction") as (host, port),
        closing(_through(port)()) as busy,
    ):
        _run(busy, "SELECT 1")
        assert preflight.pooler_problems(_through(port), host, port)


def test_a_statement_pooler_is_refused(postgres_server: PostgresCluster, tmp_path: Path) -> None:
    with pgbouncer(postgres_server, tmp_path, "statement", "server_round_robin = 1", "min_pool_size = 4") as (
        host,
        port,
    ):
        assert preflight.pooler_problems(_through(port), host, port)


def test_a_session_pooler_is_accepted(postgres_server: PostgresCluster, tmp_path: Path) -> None:
    with pgbouncer(postgres_server, tmp_path, "session") as (host, port):
        assert preflight.database_problems(_through(port), host, port) == []


def test_a_session_pooler_with_one_connection_to_give_is_unreachable(
    postgres_server: PostgresCluster, tmp_path: Path
) -> None:
    limits = ("default_pool_size = 1", "query_wait_timeout = 1")
    with (
        pgbouncer(postgres_server, tmp_path, "session", *limits) as (host, port),
        pytest.raises(Unreachable, match="did not serve two connections at once"),
    ):
        preflight.pooler_problems(_through(port), host, port)


def test_a_direct_connection_is_accepted(postgres_server: PostgresCluster) -> None:
    assert (
        preflight.pooler_problems(lambda: psycopg2.connect(postgres_server.url()), "127.0.0.1", postgres_server.port)
        == []
    )


def test_a_pooler_that_refuses_a_startup_parameter_is_recognised(
    postgres_server: PostgresCluster, tmp_path: Path
) -> None:
    with pgbouncer(postgres_server, tmp_path, "session") as (host, port):
        [sentence] = preflight.pooler_problems(_through(port, options="-c geqo=off"), host, port)
        assert "refuses a setting" in sentence and "direct address" in sentence
        dsn = parse(f"postgresql://postgres@{host}:{port}/postgres?options=-cgeqo%3Doff")
        assert preflight.pooler_problems(lambda: dsn.connect("test"), host, port) == [sentence]


def test_any_other_failure_to_connect_comes_through() -> None:
    with pytest.raises(psycopg2.OperationalError):
        preflight.pooler_problems(_through(free_port()), "127.0.0.1", 1)


@pytest.mark.parametrize(
    ("host", "port", "advice"),
    [
        ("ep-cool-1-pooler.eu-central-1.aws.neon.tech", 5432, "(ep-cool-1.eu-central-1.aws.neon.tech)"),
        ("EP-COOL-1-POOLER.eu-central-1.aws.neon.tech", 5432, "(ep-cool-1.eu-central-1.aws.neon.tech)"),
        ("aws-0-eu-central-1.pooler.supabase.com", 6543, "port 5432"),
        ("db.abcdefgh.supabase.co", 6543, "port 5432"),
    ],
)
def test_known_addresses_of_transaction_poolers_are_refused_unasked(host: str, port: int, advice: str) -> None:
    [sentence] = preflight.pooler_problems(_no_connection, host, port)
    assert host in sentence and advice in sentence


@pytest.mark.parametrize(
    ("host", "port"),
    [
        ("ep-cool-1.eu-central-1.aws.neon.tech", 5432),
        ("aws-0-eu-central-1.pooler.supabase.com", 5432),
        ("cluster-pooler.database.svc", 5432),
        ("db.example", 6543),
        ("/run/postgresql", 5432),
    ],
)
def test_an_address_that_proves_nothing_is_judged_by_behaviour(
    postgres_server: PostgresCluster, host: str, port: int
) -> None:
    assert preflight.pooler_problems(lambda: psycopg2.connect(postgres_server.url()), host, port) == []


def test_a_spool_with_room_is_fine_and_left_empty(tmp_path: Path) -> None:
    spool = tmp_path / "new" / "spool ü"
    assert preflight.spool_problems(spool, 1 << 20) == []
    assert list(spool.iterdir()) == [] and spool.stat().st_mode & 0o777 == 0o700


def test_a_spool_that_is_too_small_is_told_with_both_amounts(tmp_path: Path) -> None:
    [sentence] = preflight.spool_problems(tmp_path, 1 << 60)
    free = shutil.disk_usage(tmp_path).free >> 20
    assert "needs 1,099,511,627,776 MiB and has " in sentence and "SPOOL_DIRECTORY" in sentence
    assert abs(int(sentence.split(" has ")[1].split(" MiB")[0].replace(",", "")) - free) < 4096


def test_what_is_needed_is_rounded_up_and_what_is_free_down() -> None:
    assert (preflight._mebibytes((5 << 20) + 1, up=True), preflight._mebibytes((5 << 20) + 1)) == (
        "6 MiB",
        "5 MiB",
    )


def test_a_spool_that_cannot_be_a_directory_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/none")):
        [sentence] = preflight.spool_problems(place, 1)
        assert f"{place} cannot be written to (" in sentence and "SPOOL_DIRECTORY" in sentence
