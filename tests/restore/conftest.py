"""Databases for the tests of restores."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from deployments.embedded.postgres import PostgresCluster
from tasks.core.postgres import parse
from tests.conftest import DatabaseFactory
from tests.restore.chosen_tables import psql


@pytest.fixture
def database(postgres_server: PostgresCluster, fresh_database: DatabaseFactory) -> Callable[..., str]:
    """`database(*scripts) -> url`: a new database in which the scripts have been run."""

    def create(*scripts: str) -> str:
        url = fresh_database(postgres_server)
        for script in scripts:
            assert not psql(postgres_server, url, script)
        return url

    return create


@pytest.fixture
def owned(postgres_server: PostgresCluster, database: Callable[..., str]) -> Callable[[], str]:
    """`owned() -> url`: a new database for the role that owns it, is no superuser, and cannot make temporary tables."""

    def create() -> str:
        url = database(
            "DO $$ BEGIN CREATE ROLE table_owner LOGIN PASSWORD 'pw'; EXCEPTION WHEN duplicate_object THEN NULL; END $$;"
        )
        name = parse(url).dbname
        grant = f"ALTER DATABASE {name} OWNER TO table_owner; REVOKE TEMP ON DATABASE {name} FROM PUBLIC, table_owner"
        assert not psql(postgres_server, url, grant)
        return postgres_server.url(name, "table_owner", "pw")

    return create
