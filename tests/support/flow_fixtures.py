"""Fixtures for whole flows: worlds to back up, and a store that fails on demand."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from botocore.retries.standard import ExponentialBackoff

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.prefect_services import PrefectServer
from deployments.quick_start.s3 import S3Server
from tasks.plans.from_settings import plan_from_settings
from tests.conftest import DatabaseFactory
from tests.support.faulty_store import FaultyStore
from tests.support.senders import one_for_each_server, sent
from tests.support.world import MIB, Heard, World

#: A new world; see the fixture `make_world`.
WorldFactory = Callable[..., World]

_numbers = itertools.count(1)
one_for_each_server()


@pytest.fixture(scope="session")
def nothing_waits_for_a_server_that_is_gone(prefect_server: PrefectServer) -> Iterator[None]:
    """What Prefect still wants to tell the server is told before it stops: else this process hangs at its end."""
    yield
    sent()


@pytest.fixture
def make_world(
    request: pytest.FixtureRequest,
    prefect_api: PrefectServer,
    nothing_waits_for_a_server_that_is_gone: None,
    s3_server: S3Server,
    fresh_database: DatabaseFactory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[WorldFactory]:
    """`make_world(cluster=None, mebibytes=2, part_size=MIB, settings=None, s3=s3_server, **more)`: a new world.

    Its plan is described by environment variables, which `settings` (of `.env`) and `more` (fields of `Plan`)
    override. Runs in this process take parts of `part_size` bytes.
    """
    worlds: list[World] = []

    def make(
        cluster: PostgresCluster | None = None,
        mebibytes: int = 2,
        part_size: int = MIB,
        settings: dict[str, str] | None = None,
        s3: S3Server = s3_server,
        **more: Any,
    ) -> World:
        cluster = cluster or request.getfixturevalue("any_postgres")
        number = next(_numbers)
        bucket = f"world-{number}"
        s3.create_bucket(bucket)
        world = World(
            cluster=cluster,
            s3=s3,
            bucket=bucket,
            database_url=fresh_database(cluster, f"world_{number}"),
            catalogue_url=fresh_database(cluster, f"world_{number}_catalogue"),
            spool=tmp_path / "spool",
            part_size=part_size,
            environment=prefect_api.environment(),
        )
        worlds.append(world)
        world.catalogue.prepare()
        if mebibytes:
            world.fill(mebibytes)
        monkeypatch.setattr("tasks.backup.upload.SMALLEST_PART", part_size)
        for name, value in {**world.settings(), **(settings or {})}.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(
            "tasks.plans.find_plan.plan_from_settings", lambda *told: replace(plan_from_settings(*told), **more)
        )
        return world

    yield make
    for world in worlds:
        world.forget_plans()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of flows in this process, and lines of the audit, are tried again after moments, as often as ever."""
    lose_patience(monkeypatch)


def lose_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of flows in this process, and lines of the audit, are tried again after moments, as often as ever."""
    import flows.cleanup
    import flows.delete_backup
    import flows.download_backup
    import flows.keep_backup
    import flows.rebuild_catalogue
    import flows.restore
    import flows.verify_backup
    import tasks.adopt.steps
    import tasks.backup.steps
    import tasks.runs.retries

    steps: list[tuple[Any, str]] = [
        (flows.cleanup, "clean"),
        (flows.delete_backup, "delete"),
        (flows.keep_backup, "keep"),
    ]
    steps += [(flows.download_backup, "offer_download"), (flows.rebuild_catalogue, "rebuild")]
    steps += [(flows.verify_backup, name) for name in ("identify", "examine", "psql", "download", "compare")]
    steps += [(tasks.backup.steps, name) for name in ("open_backup", "dump", "upload", "record")]
    steps += [(tasks.adopt.steps, name) for name in ("open_adoption", "adopt", "upload", "record")]
    steps += [
        (flows.restore, name) for name in ("validate", "download", "psql", "compare_with_backup", "record_restore")
    ]
    for module, name in steps:
        step = getattr(module, name)
        monkeypatch.setattr(module, name, step.with_options(retry_delay_seconds=[0.1, 0.2, 0.3]))
    monkeypatch.setattr("tasks.runs.audit.AUDIT_DELAYS", (0.1, 0.2, 0.3))
    monkeypatch.setattr("tasks.storage.s3_client.ASKED_AGAIN", (0.0, 0.1))
    monkeypatch.setitem(tasks.runs.retries.RETRIED, "retry_delay_seconds", [0.1, 0.2, 0.3])


@pytest.fixture
def faulty_store(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyStore]:
    """A proxy before `s3_server` that counts requests and fails those that it is told to fail.

    The S3 client tries again as often as ever, but after moments.
    """
    client_loses_patience(monkeypatch)
    with FaultyStore(s3_server.endpoint_url) as store:
        yield store


def client_loses_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The S3 client tries again as often as ever, but after moments."""
    monkeypatch.setattr(ExponentialBackoff, "delay_amount", lambda self, context: 0.05 * context.attempt_number)


@pytest.fixture
def heard() -> Iterator[Heard]:
    """What Prefect logs during the test."""
    handler = Heard()
    logging.getLogger("prefect").addHandler(handler)
    yield handler
    logging.getLogger("prefect").removeHandler(handler)
