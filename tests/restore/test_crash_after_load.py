"""A server that crashes once everything is loaded has not forgotten any of it."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import closing

import psycopg2
import pytest

from deployments.quick_start.postgres import PostgresCluster
from tests.support import eventually
from tests.support.scene import Scene, SceneFactory


@pytest.fixture
def forgetful(postgres_server: PostgresCluster) -> Iterator[None]:
    """The server writes its log down late, unless a commit waits for that."""
    _configure(
        postgres_server, "ALTER SYSTEM SET wal_writer_delay = '10s'", "ALTER SYSTEM SET synchronous_commit = off"
    )
    yield
    _configure(postgres_server, "ALTER SYSTEM RESET wal_writer_delay", "ALTER SYSTEM RESET synchronous_commit")


def _configure(server: PostgresCluster, *statements: str) -> None:
    with closing(psycopg2.connect(server.url())) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        for statement in (*statements, "SELECT pg_reload_conf()"):
            cursor.execute(statement)


def crash(server: PostgresCluster) -> None:
    """Kills a process of the server, which then ends all others and reads its log again.

    That another session has ended shows that the server has noticed: until then it still takes connections.
    """
    with closing(psycopg2.connect(server.url())) as killed, closing(psycopg2.connect(server.url())) as other:
        os.kill(killed.info.backend_pid, signal.SIGKILL)
        assert eventually(lambda: _is_gone(other), 60)
    assert eventually(lambda: _answers(server), 60)


def _is_gone(connection: psycopg2.extensions.connection) -> bool:
    try:
        connection.cursor().execute("SELECT 1")
    except psycopg2.Error:
        return True
    return False


def _answers(server: PostgresCluster) -> bool:
    try:
        psycopg2.connect(server.url()).close()
    except psycopg2.Error:
        return False
    return True


@pytest.mark.parametrize("owner", [False, True], ids=["superuser", "owner"])
@pytest.mark.parametrize("tables", [(), ("public.t",)], ids=["everything", "tables"])
def test_a_crash_behind_the_last_entry_takes_nothing_away(
    scene: SceneFactory, postgres_server: PostgresCluster, forgetful: None, owner: bool, tables: tuple[str, ...]
) -> None:
    made: Scene = scene(owner=owner)
    made.sql(
        "CREATE TABLE t (i int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 100); CREATE INDEX last ON t (i)"
    )
    made.back_up()
    before = made.dumped()
    run = made.validated(mode="new_database", target="a new one", tables=list(tables))
    made.load(run)
    crash(postgres_server)
    assert made.dumped(run.scratch) == before
    made.discard(run.scratch)
