"""A pinned address: every name comes from the open connection, and every later session meets the same server."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest
from psycopg2.extensions import parse_dsn

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.processes import free_port
from tasks.backup.preflight import pooler_problems
from tasks.errors import AccessRefused, BadSetting, Unreachable
from tasks.postgres.as_ordinary_user import prefix_for
from tasks.postgres.dsn import Dsn, parse
from tasks.postgres.server import maintenance
from tests.conftest import BIN_DIRECTORIES, DatabaseFactory
from tests.support import eventually
from tests.support.servers import in_turn, pair_of, pgbouncer

SECRET = "mArKeR-5ecret"


@pytest.fixture
def app(postgres_server: PostgresCluster, fresh_database: DatabaseFactory) -> str:
    """The name of a new database; `role_of` it may connect to it."""
    name = parse(fresh_database(postgres_server)).dbname
    run(
        postgres_server.url(), f"DROP ROLE IF EXISTS app_of_{name}; CREATE ROLE app_of_{name} LOGIN PASSWORD '{SECRET}'"
    )
    return name


def run(url: str, statements: str) -> list[tuple[Any, ...]]:
    with closing(psycopg2.connect(url)) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(statements)
        return cursor.fetchall() if cursor.description else []


def answer(dsn: Dsn, query: str) -> Any:
    with dsn.session("test") as connection, connection.cursor() as cursor:
        cursor.execute(query)
        (value,) = cursor.fetchone()
        return value


def of_psql(dsn: Dsn, server: PostgresCluster, query: str) -> str:
    """The answer to psql, which is given what a run gives it."""
    program = [str(server.bin_directory / "psql"), "-XqAt", "-d", dsn.conninfo(), "-c", query]
    done = subprocess.run(program, env=dsn.child_environment("test"), capture_output=True, text=True, check=True)
    return done.stdout.strip()


WHO = "SELECT current_database() || ' ' || session_user || ' ' || inet_server_port()"


def check_names(dsn: Dsn, server: PostgresCluster, database: str, role: str) -> None:
    """Sessions of ours and of psql meet this database as this role; so does a session in another database."""
    assert (dsn.dbname, dsn.user, dsn.port) == (database, role, server.port)
    assert (dsn.parameters["host"], dsn.parameters["hostaddr"]) == ("127.0.0.1", "127.0.0.1")
    expected = f"{database} {role} {server.port}"
    assert answer(dsn, WHO) == of_psql(dsn, server, WHO) == expected
    assert of_psql(dsn.with_dbname("postgres"), server, WHO) == expected.replace(database, "postgres", 1)
    assert SECRET not in dsn.conninfo() and "password" not in parse_dsn(dsn.conninfo())


def test_names_that_the_environment_gives_are_those_of_the_open_connection(
    postgres_server: PostgresCluster, app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("PGUSER", f"app_of_{app}"), ("PGPASSWORD", SECRET), ("PGDATABASE", app)):
        monkeypatch.setenv(name, value)
    pinned = parse(f"postgresql://127.0.0.1:{postgres_server.port}").pinned()
    check_names(pinned, postgres_server, app, f"app_of_{app}")
    assert pinned.clean(f"x{SECRET}x") == "x[hidden]x"


@pytest.mark.parametrize("by_environment", [False, True], ids=["in the address", "in the environment"])
def test_a_service_file_names_database_server_and_role(
    postgres_server: PostgresCluster, app: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by_environment: bool
) -> None:
    lines = ["[prod]", "host=127.0.0.1", f"port={postgres_server.port}", f"dbname={app}", f"user=app_of_{app}"]
    lines += ["gssencmode=disable"]
    (tmp_path / "services").write_text("\n".join([*lines, f"password={SECRET}", "options=-c geqo_seed=0.5"]) + "\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    if by_environment:
        monkeypatch.setenv("PGSERVICE", "prod")
    pinned = parse("application_name=x" if by_environment else "service=prod").pinned()
    check_names(pinned, postgres_server, app, f"app_of_{app}")
    assert pinned.parameters["gssencmode"] == "disable" and "service" not in pinned.parameters
    assert of_psql(pinned.with_options({"work_mem": "1MB"}), postgres_server, "SHOW geqo_seed") == "0.5"
    assert of_psql(pinned.with_options({"work_mem": "1MB"}), postgres_server, "SHOW work_mem") == "1MB"


def test_a_password_file_gives_programs_the_password_too(
    postgres_server: PostgresCluster, app: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "pgpass"
    file.write_text(f"*:{postgres_server.port}:*:app_of_{app}:{SECRET}\n")
    file.chmod(0o600)
    monkeypatch.setenv("PGPASSFILE", str(file))
    pinned = parse(f"postgresql://app_of_{app}@127.0.0.1:{postgres_server.port}/{app}").pinned()
    file.unlink()
    check_names(pinned, postgres_server, app, f"app_of_{app}")


def test_the_address_is_asked_once(postgres_server: PostgresCluster, app: str, monkeypatch: pytest.MonkeyPatch) -> None:
    dsn = parse(postgres_server.url(app))
    pinned = dsn.pinned()
    monkeypatch.setattr(psycopg2, "connect", lambda **_: pytest.fail("asked again"))
    assert dsn.pinned() is pinned and pinned.pinned() is pinned
    assert pinned.with_dbname("other").pinned().dbname == "other"


def test_a_database_that_is_gone_keeps_its_name_and_its_server(
    postgres_server: PostgresCluster, app: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A restore makes it anew."""
    run(postgres_server.url(), f"DROP DATABASE {app}")
    address = f"postgresql://app_of_{app}:{SECRET}@127.0.0.1:{postgres_server.port}"
    assert parse(f"{address}/{app}").pinned().place == f"127.0.0.1:{postgres_server.port}/{app}"
    monkeypatch.setenv("PGDATABASE", app)
    pinned = parse(address).pinned()
    assert (pinned.dbname, maintenance(pinned).dbname) == (app, "postgres")
    with pytest.raises(AccessRefused, match=f'database "{app}" does not exist'):
        pinned.connect("test")


def test_a_wrong_password_is_no_other_database(postgres_server: PostgresCluster, app: str) -> None:
    with pytest.raises(AccessRefused, match="the password is wrong"):
        parse(f"postgresql://app_of_{app}:{SECRET}x@127.0.0.1:{postgres_server.port}/{app}").pinned()


def test_of_several_hosts_the_one_that_answers_stays(postgres_server: PostgresCluster, app: str) -> None:
    user = f"app_of_{app}:{SECRET}"
    dsn = parse(f"postgresql://{user}@127.0.0.1:{free_port()},127.0.0.1:{postgres_server.port}/{app}")
    check_names(dsn.pinned(), postgres_server, app, f"app_of_{app}")


def test_the_name_of_a_host_stays_beside_its_address(postgres_server: PostgresCluster, app: str) -> None:
    """Certificates are checked by the name; that the name has two addresses does not matter any more."""
    dsn = parse(f"postgresql://app_of_{app}:{SECRET}@localhost:{postgres_server.port}/{app}").pinned()
    assert (dsn.parameters["host"], dsn.parameters["hostaddr"]) == ("localhost", "127.0.0.1")
    assert of_psql(dsn, postgres_server, WHO).startswith(app)


@pytest.fixture(scope="module", params=list(BIN_DIRECTORIES), ids=lambda major: f"pg{major}")
def pair(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[PostgresCluster, PostgresCluster]]:
    """A primary and its standby."""
    with pair_of(BIN_DIRECTORIES[request.param], tmp_path_factory.mktemp("pair")) as pair:
        yield pair


def hosts(*servers: PostgresCluster, **options: str) -> str:
    places = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    asked = "&".join(f"{name}={value}" for name, value in options.items())
    return f"postgresql://postgres:{servers[0].password}@{places}/postgres?{asked}"


def test_a_standby_first_in_the_list_is_passed_over_to_the_end(pair: tuple[PostgresCluster, PostgresCluster]) -> None:
    primary, standby = pair
    dsn = parse(hosts(standby, primary, target_session_attrs="read-write"))
    check_names(dsn.pinned(), primary, "postgres", "postgres")
    check_names(parse(hosts(standby, primary)).pinned(), standby, "postgres", "postgres")


def test_with_hosts_in_random_order_all_sessions_meet_the_same(pair: tuple[PostgresCluster, PostgresCluster]) -> None:
    met = set()
    for _ in range(12):
        dsn = parse(hosts(*pair, load_balance_hosts="random")).pinned()
        ports = {dsn.port, *(answer(dsn, "SELECT inet_server_port()") for _ in range(4))}
        assert ports == {int(of_psql(dsn, pair[0], "SELECT inet_server_port()"))}
        met |= ports
    assert met == {server.port for server in pair}


def test_two_servers_behind_one_address_are_refused(pair: tuple[PostgresCluster, PostgresCluster]) -> None:
    primary, standby = pair
    for ports in ((primary.port, standby.port), (standby.port, primary.port)):
        with in_turn(*ports) as port:
            dsn = parse(f"postgresql://postgres:{primary.password}@127.0.0.1:{port}/postgres").pinned()
            with pytest.raises(
                BadSetting, match=f"Two servers answer at 127.0.0.1:{port}/postgres, and a run needs one"
            ):
                pooler_problems(lambda dsn=dsn: dsn.connect("test"), dsn.host, dsn.port)


def test_servers_of_other_clusters_behind_one_address_are_refused(
    pair: tuple[PostgresCluster, PostgresCluster], any_postgres: PostgresCluster
) -> None:
    """Also the one that was started later, which could be the first one after a new start."""
    first, second = sorted((pair[0], any_postgres), key=lambda server: str(run(server.url(), STARTED)))
    run(second.url(), f"ALTER ROLE postgres PASSWORD '{first.password}'")
    try:
        with in_turn(first.port, second.port) as port:
            dsn = parse(f"postgresql://postgres:{first.password}@127.0.0.1:{port}/postgres").pinned()
            with pytest.raises(BadSetting, match="Two servers answer"):
                dsn.connect("test")
    finally:
        run(second.url(password=first.password), f"ALTER ROLE postgres PASSWORD '{second.password}'")


STARTED = "SELECT pg_postmaster_start_time()"


def test_a_server_that_was_started_again_is_the_same(tmp_path: Path) -> None:
    server = PostgresCluster(tmp_path / "one", next(iter(BIN_DIRECTORIES.values())), durable=False, owned=True)
    server.start()
    dsn = parse(server.url()).pinned()
    before = answer(dsn, STARTED)
    server.stop(immediate=True)
    with pytest.raises(Unreachable):
        dsn.connect("test")
    server.start()
    try:
        assert answer(dsn, STARTED) > before
        assert answer(dsn.with_dbname("template1"), "SELECT current_database()") == "template1"
    finally:
        server.stop(immediate=True)


def test_a_role_that_may_not_ask_which_cluster_it_is_is_pinned_too(postgres_server: PostgresCluster, app: str) -> None:
    run(postgres_server.url(app), "REVOKE EXECUTE ON FUNCTION pg_control_system() FROM PUBLIC")
    pinned = parse(f"postgresql://app_of_{app}:{SECRET}@127.0.0.1:{postgres_server.port}/{app}").pinned()
    assert answer(pinned, "SELECT current_database()") == app


LIMITS = {
    "statement_timeout": "400",
    "lock_timeout": "400",
    "idle_in_transaction_session_timeout": "400",
    "default_transaction_read_only": "on",
    "idle_session_timeout": "400",
    "transaction_timeout": "400",
}


@pytest.mark.parametrize("whose", ["ROLE app_of_{0}", "DATABASE {0}", "ROLE app_of_{0} IN DATABASE {0}"])
def test_limits_of_role_and_database_do_not_hold_for_our_sessions(
    postgres_server: PostgresCluster, app: str, whose: str
) -> None:
    known = {name for (name,) in run(postgres_server.url(), "SELECT name FROM pg_settings")}
    for name, value in LIMITS.items():
        if name in known:
            run(postgres_server.url(), f"ALTER {whose.format(app)} SET {name} = '{value}'")
    dsn = parse(f"postgresql://app_of_{app}:{SECRET}@127.0.0.1:{postgres_server.port}/{app}").pinned()
    with dsn.session("test") as connection, connection.cursor() as cursor:
        for name in LIMITS.keys() & known:
            cursor.execute(f"SHOW {name}")
            assert cursor.fetchone() in [("0",), ("off",)], name
        cursor.execute("BEGIN; SELECT pg_sleep(0.8); CREATE TEMPORARY TABLE t ()")


@pytest.mark.parametrize("given_by", ["address", "environment"])
def test_options_that_people_wrote_count_beside_ours(
    postgres_server: PostgresCluster, app: str, given_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = f"postgresql://app_of_{app}:{SECRET}@127.0.0.1:{postgres_server.port}/{app}"
    if given_by == "environment":
        monkeypatch.setenv("PGOPTIONS", "-c geqo_seed=0.25")
    else:
        url += "?options=-c%20geqo_seed%3D0.25"
    for dsn in (parse(url), parse(url).pinned()):
        both = dsn.with_options({"work_mem": "1MB"})
        for setting, value in (("geqo_seed", "0.25"), ("work_mem", "1MB")):
            assert answer(both, f"SHOW {setting}") == of_psql(both, postgres_server, f"SHOW {setting}") == value
        assert "geqo" not in both.conninfo()


@pytest.mark.parametrize("whose", ["ROLE app_of_{0}", "DATABASE {0}"])
def test_names_are_read_as_utf_8_whatever_the_encoding_of_role_and_database(
    postgres_server: PostgresCluster, app: str, whose: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(postgres_server.url(), f"ALTER {whose.format(app)} SET client_encoding = 'LATIN1'")
    monkeypatch.setenv("PGCLIENTENCODING", "LATIN9")
    dsn = parse(f"postgresql://app_of_{app}:{SECRET}@127.0.0.1:{postgres_server.port}/{app}").pinned()
    assert answer(dsn, "SELECT 'Größe €'") == of_psql(dsn, postgres_server, "SELECT 'Größe €'") == "Größe €"


def test_a_pooler_may_have_another_name_for_the_database(
    postgres_server: PostgresCluster, app: str, tmp_path: Path
) -> None:
    with pgbouncer(postgres_server, tmp_path, "session", name="prod", of=app) as (host, port):
        pinned = parse(f"postgresql://postgres@{host}:{port}/prod").pinned()
        assert pinned.dbname == app
        current = "SELECT current_database()"
        assert answer(pinned, current) == of_psql(pinned, postgres_server, current) == app
        assert pinned.with_dbname("postgres").with_dbname(app).conninfo() == pinned.conninfo()


@pytest.mark.parametrize("major", list(BIN_DIRECTORIES))
def test_a_certificate_is_checked_against_the_name_of_the_host(major: int, tmp_path: Path) -> None:
    server = PostgresCluster(tmp_path / "one", BIN_DIRECTORIES[major], durable=False, owned=True)
    server.start()
    try:
        certificate = with_certificate(server, "localhost")
        login = f"postgresql://postgres:{server.password}"
        asked = f"{server.port}/postgres?sslmode=verify-full&sslrootcert={certificate}"
        pinned = parse(f"{login}@localhost:{asked}").pinned()
        assert pinned.parameters["hostaddr"] == "127.0.0.1"
        uses_tls = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        assert answer(pinned, uses_tls) is True and of_psql(pinned, server, uses_tls) == "t"
        with pytest.raises(AccessRefused, match="certificate"):
            parse(f"{login}@127.0.0.1:{asked}").pinned()
    finally:
        server.stop(immediate=True)


def with_certificate(server: PostgresCluster, name: str) -> Path:
    """The server has a certificate for a host of this name; returns its file."""
    certificate = server.data_directory / "server.crt"
    words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}", "-days", "2"]
    words += ["-addext", f"subjectAltName=DNS:{name}", "-keyout", str(certificate.with_name("server.key"))]
    subprocess.run(
        [*prefix_for(server.data_directory), *words, "-out", str(certificate)], check=True, capture_output=True
    )
    try:
        run(server.url(), "ALTER SYSTEM SET ssl = on")
    except psycopg2.Error:
        pytest.skip("this server was built without TLS")
    run(server.url(), "SELECT pg_reload_conf()")
    assert eventually(lambda: run(server.url(), "SHOW ssl") == [("on",)])
    return certificate
