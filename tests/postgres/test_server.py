"""Sessions on a server, and where to stand while a database is renamed, dropped or locked."""

from __future__ import annotations

from pathlib import Path

from deployments.quick_start.postgres import PostgresCluster
from tasks.postgres.dsn import parse
from tasks.postgres.server import maintenance
from tests.conftest import DatabaseFactory
from tests.support.scene import SceneFactory
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
    assert "keepalives_idle=77" in parse(f"{url}?keepalives_idle=77").conninfo(mostly_reads=True)


def test_pg_dump_notices_too_and_psql_may_be_kept_waiting_by_a_server_that_does_not_read_on(
    scene: SceneFactory, tmp_path: Path
) -> None:
    one = scene()
    program, given = one.cluster.bin_directory / "pg_dump", tmp_path / "given"
    (tmp_path / "pg_dump").write_text(f'#!/bin/sh\necho "$@" >> {given}\nexec "{program}" "$@"\n')
    (tmp_path / "pg_dump").chmod(0o755)
    one = one.with_plan(tools_directory=f"{tmp_path}:{one.cluster.bin_directory}")
    one.back_up()
    one.restore(compare="content")
    calls = [line for line in given.read_text().splitlines() if "--format=plain" in line]
    assert len(calls) == 2, given.read_text()
    for call in calls:
        assert all(call.count(f"{word}=") == 1 for word in ("keepalives_idle", "keepalives_count", "tcp_user_timeout"))
    assert "tcp_user_timeout" not in one.plan.database.conninfo()
