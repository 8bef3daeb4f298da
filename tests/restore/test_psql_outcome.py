"""What became of a transaction whose psql died while it committed: the server's own records say."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import psycopg2.extensions
import pytest

from deployments.quick_start.postgres import PostgresCluster
from tasks.errors import AccessRefused, RestoreFailed, Unreachable
from tasks.postgres.child_processes import child
from tasks.postgres.dsn import Dsn, parse
from tasks.restore import psql_session
from tasks.restore.psql import psql_arguments
from tasks.restore.psql_session import PsqlSession
from tests.conftest import DatabaseFactory


@dataclass(frozen=True)
class Starting(Dsn):
    """A server that refuses everybody for a while, as one does that is starting and says so in another language."""

    refusals: list[str] = field(default_factory=list)

    @contextmanager
    def session(self, purpose: str, **options: str) -> Iterator[psycopg2.extensions.connection]:  # type: ignore[override]
        if self.refusals:
            raise AccessRefused(self.refusals.pop())
        with super().session(purpose, **options) as connection:
            yield connection


def outcome_after_death(server: PostgresCluster, url: str, refusals: int) -> None:
    """psql dies before its COMMIT; then the session asks a server that refuses so often what became of it."""
    dsn = parse(url)
    starting = Starting(dsn.parameters, refusals=["FATAL: le système de base de données démarre"] * refusals)
    arguments = psql_arguments(server.bin_directory / "psql", dsn.conninfo())
    with child(arguments, dsn.child_environment("outcome"), with_input=True) as psql:
        session = PsqlSession(psql, starting, "backup.sql", str, str, key="")
        session.begin(b"CREATE TABLE never (id int);")
        psql.kill()
        session.commit()


def test_a_server_that_refuses_while_it_starts_is_asked_again_until_it_says_what_became_of_the_commit(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    url = fresh_database(postgres_server)

    with pytest.raises(RestoreFailed, match="everything was rolled back"):
        outcome_after_death(postgres_server, url, refusals=2)


def test_a_server_that_goes_on_refusing_leaves_the_outcome_unknown_and_not_refused(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(psql_session, "_OUTCOME_SECONDS", 1.0)

    with pytest.raises(Unreachable, match="le système"):
        outcome_after_death(postgres_server, fresh_database(postgres_server), refusals=9)
