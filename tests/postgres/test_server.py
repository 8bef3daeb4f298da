"""Sessions on a server, and where to stand while a database is renamed, dropped or locked."""

from __future__ import annotations

from deployments.quick_start.postgres import PostgresCluster
from tasks.postgres.dsn import parse
from tasks.postgres.server import maintenance
from tests.conftest import DatabaseFactory
from tests.support.server_side import role, run, session


def test_maintenance_is_never_the_target_and_lets_the_role_in(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    dsn = parse(fresh_database(postgres_server))
    assert maintenance(dsn).dbname == "postgres"
    assert maintenance(dsn.with_dbname("postgres")).dbname == "template1"
    role(postgres_server, "shut out", "")
    shut_out = parse(postgres_server.url(dsn.dbname, "shut out", "pw"))
    with session(postgres_server) as server:
        try:
            run(server, "REVOKE CONNECT ON DATABASE postgres FROM PUBLIC")
            assert maintenance(shut_out).dbname == "template1"
            run(server, "REVOKE CONNECT ON DATABASE template1 FROM PUBLIC")
            assert maintenance(shut_out) == shut_out
        finally:
            run(server, "GRANT CONNECT ON DATABASE postgres TO PUBLIC; GRANT CONNECT ON DATABASE template1 TO PUBLIC")


def test_a_server_that_vanishes_is_noticed_within_a_minute_unless_the_address_says_otherwise(
    postgres_server: PostgresCluster,
) -> None:
    expected = {
        "keepalives": "1",
        "keepalives_idle": "20",
        "keepalives_interval": "10",
        "keepalives_count": "3",
        "tcp_user_timeout": "60000",
    }
    url = postgres_server.url()
    with parse(url).session("test") as connection:
        assert expected.items() <= connection.info.dsn_parameters.items()
    with parse(f"{url}?keepalives_idle=77&tcp_user_timeout=5000").session("test") as connection:
        given = connection.info.dsn_parameters
    assert given == {**given, **expected, "keepalives_idle": "77", "tcp_user_timeout": "5000"}
    assert "keepalives_idle=20" in parse(url).conninfo() and "tcp_user_timeout" not in parse(url).conninfo()
