"""A plan on real servers, and what the health check says of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.s3 import S3Server
from tasks.health.examine import examine
from tasks.health.lines import Line
from tasks.health.prefect_server import Pool, PrefectFacts, Scheduled, Worker
from tasks.plans.plan import Plan
from tests.conftest import DatabaseFactory
from tests.support.scene import Scene, make_scene


def now() -> datetime:
    return datetime.now(UTC)


def nightly(moment: datetime) -> datetime:
    """The first 02:00 UTC from `moment` on."""
    two = moment.replace(hour=2, minute=0, second=0, microsecond=0)
    return two if two >= moment else two + timedelta(days=1)


def well(**changes: Any) -> PrefectFacts:
    """What a Prefect server tells when nothing is wrong with it, but for the `changes`."""
    daily = Scheduled("backup/daily", False, 1, nightly(now()), now() - timedelta(days=30), nightly)
    pool = Pool("backups", workers=(Worker("quick-start", now(), timedelta(seconds=30)),))
    return PrefectFacts(
        **{
            "scheduled": (daily,),
            "pools": (pool,),
            "verifies": False,
            "missing_alarms": (),
            "silenced_alarms": (),
            **changes,
        }
    )


@dataclass(frozen=True)
class Patient:
    """One plan, and how it does."""

    scene: Scene

    def lines(
        self,
        facts: Callable[[], PrefectFacts] = well,
        clock: Callable[[], datetime] = now,
        seconds: float = 60,
        **plan: Any,
    ) -> dict[str, Line]:
        """Every line by its check; `plan` are changes to the plan."""
        found = examine(self.scene.with_plan(**plan).plan, facts, clock, seconds).lines
        assert len({line.check for line in found}) == len(found)
        return {line.check: line for line in found}

    @property
    def plan(self) -> Plan:
        return self.scene.plan

    def record(self, statement: str, *values: Any) -> None:
        """Changes the catalogue."""
        with closing(psycopg2.connect(**self.plan.catalogue.dsn.parameters)) as connection:
            connection.autocommit = True
            connection.cursor().execute(statement, values)

    def keys(self) -> list[str]:
        """All that lies in the bucket."""
        return [one.key for one in self.plan.storage.objects("")]


def wrong(lines: dict[str, Line]) -> dict[str, str]:
    """Status by check of all that is not ok."""
    return {line.check: line.status for line in lines.values() if line.status != "ok"}


@pytest.fixture
def make_patient(
    fresh_database: DatabaseFactory, s3_server: S3Server, s3_bucket: Callable[[], str], tmp_path: Path
) -> Callable[..., Patient]:
    """`make_patient(cluster, **plan)`: a plan for a small database without any backup."""

    def make(cluster: PostgresCluster, **plan: Any) -> Patient:
        url, catalogue = fresh_database(cluster), fresh_database(cluster)
        patient = Patient(make_scene(cluster, url, catalogue, s3_server, s3_bucket(), tmp_path / "spool", **plan))
        patient.scene.sql("CREATE TABLE things AS SELECT i FROM generate_series(1, 100) i")
        return patient

    return make


@pytest.fixture
def patient(make_patient: Callable[..., Patient], any_postgres: PostgresCluster) -> Patient:
    """A plan without any backup."""
    return make_patient(any_postgres)
