"""Databases for the tests of restores."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.s3 import S3Server
from tasks.postgres.dsn import parse
from tests.conftest import DatabaseFactory
from tests.support.chosen_tables import psql
from tests.support.every_kind import OWNER, make_roles
from tests.support.live_database import LiveDatabase
from tests.support.original import own
from tests.support.scene import Scene, SceneFactory, make_scene

_numbers = itertools.count(1)


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


@pytest.fixture
def scene(
    postgres_server: PostgresCluster,
    fresh_database: DatabaseFactory,
    s3_server: S3Server,
    s3_bucket: Callable[[], str],
    tmp_path: Path,
) -> SceneFactory:
    """`scene(url="", owner=False, catalogue_url="", **plan)`: a plan for a database, an empty one unless it is named.

    With `owner`, the plan's role is no superuser, owns the database and may create others.
    """

    def make(url: str = "", owner: bool = False, catalogue_url: str = "", **plan: Any) -> Scene:
        make_roles(postgres_server)
        url = url or fresh_database(postgres_server)
        if owner:
            url = own(postgres_server, url)
            assert not psql(postgres_server, postgres_server.url(), f"ALTER ROLE {OWNER} CREATEDB")
        catalogue_url = catalogue_url or fresh_database(postgres_server)
        return make_scene(postgres_server, url, catalogue_url, s3_server, s3_bucket(), tmp_path / "spool", **plan)

    return make


@pytest.fixture
def live(postgres_server: PostgresCluster, fresh_database: DatabaseFactory, tmp_path: Path) -> Iterator[LiveDatabase]:
    """A live database with a backup of it; roles and databases that the test makes on its server go with the test."""
    made = LiveDatabase(postgres_server, fresh_database(postgres_server, f"live_{next(_numbers)}"), tmp_path)
    yield made
    made.drop()
