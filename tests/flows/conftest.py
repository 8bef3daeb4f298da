"""Fixtures for whole flows: worlds to back up, and a store that fails on demand."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments.embedded.postgres import PostgresCluster
from deployments.embedded.prefect_services import PrefectServer
from deployments.embedded.s3 import S3Server
from tests.conftest import DatabaseFactory
from tests.flows.faulty_store import FaultyStore
from tests.flows.world import MIB, Heard, World

#: `make_world(**fields of the plan)`: a new world, its plan stored. Knows `cluster` and `megabytes` too.
WorldFactory = Callable[..., World]

_numbers = itertools.count(1)


@pytest.fixture
def make_world(
    request: pytest.FixtureRequest,
    prefect_api: PrefectServer,
    s3_server: S3Server,
    s3_bucket: Callable[[], str],
    fresh_database: DatabaseFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> WorldFactory:
    """`make_world(cluster=None, mebibytes=2, part_size=MIB, **fields)`: a world whose plan is a stored block.

    Runs in this process take parts of `part_size`, and try again after moments instead of seconds.
    """

    def make(cluster: PostgresCluster | None = None, mebibytes: int = 2, part_size: int = MIB, **fields: Any) -> World:
        cluster = cluster or request.getfixturevalue("any_postgres")
        number = next(_numbers)
        monkeypatch.setattr("tasks.core.upload.SMALLEST_PART", part_size)
        world = World(
            plan=f"world-{number}",
            cluster=cluster,
            s3=s3_server,
            bucket=s3_bucket(),
            database_url=fresh_database(cluster, f"world_{number}"),
            catalogue_url=fresh_database(cluster, f"world_{number}_catalogue"),
            spool=tmp_path / "spool",
            part_size=part_size,
            environment=prefect_api.environment(),
        )
        if mebibytes:
            world.fill(mebibytes)
        return world.save_plan(**fields)

    return make


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of flows in this process are tried again after moments, as often as ever."""
    import flows.backup

    for name in ("open_backup", "dump", "upload", "record"):
        step = getattr(flows.backup, name)
        monkeypatch.setattr(flows.backup, name, step.with_options(retry_delay_seconds=[0.1, 0.2, 0.3]))


@pytest.fixture
def faulty_store(s3_server: S3Server) -> Iterator[FaultyStore]:
    """A proxy before `s3_server` that counts requests and fails those that it is told to fail."""
    with FaultyStore(s3_server.endpoint_url) as store:
        yield store


@pytest.fixture
def heard() -> Iterator[Heard]:
    """What Prefect logs during the test."""
    handler = Heard()
    loggers = [logging.getLogger(name) for name in ("prefect", "prefect.flow_runs", "prefect.task_runs")]
    for logger in loggers:
        logger.addHandler(handler)
    yield handler
    for logger in loggers:
        logger.removeHandler(handler)
