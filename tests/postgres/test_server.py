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
