"""Many small databases, each with a plan, and a Prefect server with the deployments and as many workers as are wanted."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg2
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings
from psycopg2 import sql

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.prefect_services import PrefectServer, Worker
from deployments.quick_start.s3 import S3Server
from deployments.quick_start.service import Service
from tests.support.installation import Installation
from tests.support.quiet import quiet
from tests.support.senders import sent
from tests.support.world import CHECKOUT, World


class ServerOnPostgres(PrefectServer):
    """A Prefect server whose own database is on PostgreSQL, as several workers and many runs at once need it.

    `changed` are settings that differ from those of the quick start.
    """

    def __init__(self, directory: Path, url: str, changed: Mapping[str, str]) -> None:
        super().__init__(directory, owned=True)
        self._url, self._changed = url, changed

    def start_database(self) -> str:
        return self._url.replace("postgresql://", "postgresql+asyncpg://", 1)

    def settings(self) -> dict[str, str]:
        return {**super().settings(), **self._changed}


@contextmanager
def set_up_on_postgres(
    directory: Path,
    cluster: PostgresCluster,
    s3: S3Server,
    fresh: Callable[[PostgresCluster, str], str],
    name: str,
    **changed: str,
) -> Iterator[Installation]:
    """A Prefect server that is set up for the plan `default`, without workers. `name` is that of database and bucket.

    `changed` are settings of Prefect (`PREFECT_…`) and of `.env`.
    """
    of_prefect = {setting: value for setting, value in changed.items() if setting.startswith("PREFECT_")}
    server = ServerOnPostgres(directory / "prefect", fresh(cluster, f"{name}_prefect"), of_prefect)
    server.start()
    try:
        s3.create_bucket(name)
        world = World(
            cluster=cluster,
            s3=s3,
            bucket=name,
            database_url=fresh(cluster, name),
            catalogue_url=fresh(cluster, f"{name}_catalogue"),
            spool=directory / "spool",
            environment=server.environment(),
        )
        installation = Installation(world, server, directory, b"")
        of_env = {setting: value for setting, value in changed.items() if setting not in of_prefect}
        done = installation.run("-m", "deployments.set_up", **world.settings(), **of_env)
        assert done.returncode == 0, done.stdout + done.stderr
        quiet(installation)
        yield installation
    finally:
        sent()
        server.stop()


def worker_of(installation: Installation, name: str) -> Worker:
    """One more worker of the pool `backups`, with files of its own; it is not started."""
    worker = Worker(installation.server, CHECKOUT, name=name, owned=True)
    worker.service = Service("prefect-worker", installation.directory / f"worker-{name}", owned=True)
    return worker


@dataclass
class Many:
    """The servers, and a plan for each database. `installation` asks them; its world is that of the first plan."""

    installation: Installation
    plans: list[str] = field(default_factory=list)
    workers: list[Worker] = field(default_factory=list)

    def add(self, plan: str, database: str = "", **fields: Any) -> None:
        """One more plan, for a copy of the first database, or for `database`; `fields` are those of its block.

        It shares storage and catalogue with the plan `default`, as somebody does who makes the block in the UI.
        """
        if not database:
            self.copy(plan.replace("-", "_"))
        first = self.installation.api("/block_types/slug/backup-plan/block_documents/name/default?include_secrets=true")
        kind = "/block_types/slug/postgres-database/block_documents/name"
        like = self.installation.api(f"{kind}/{first['data']['database']}")
        url = self.installation.world.cluster.url(database or plan.replace("-", "_"))
        self._save(f"{plan}-database", like, {"url": url})
        self._save(plan, first, {**first["data"], "database": f"{plan}-database", **fields})
        self.plans.append(plan)

    def _save(self, name: str, like: dict[str, Any], data: dict[str, Any]) -> None:
        """A new block of the same type as another."""
        kind = {part: like[part] for part in ("block_schema_id", "block_type_id")}
        self.installation.api("/block_documents/", {"name": name, "data": data, **kind})

    def start_worker(self, name: str) -> None:
        """One more worker of the pool `backups`."""
        worker = worker_of(self.installation, name)
        self.workers.append(worker)
        worker.start()

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Flows and clients in this process use the server."""
        server = self.installation.server
        with temporary_settings({PREFECT_API_URL: server.api_url, PREFECT_API_AUTH_STRING: server.auth_string}):
            yield

    def limit_pool(self, most: int | None) -> None:
        """So many runs at once in the work pool `backups`."""
        with self.in_use(), get_client(sync_client=True) as client:
            client.request("PATCH", "/work_pools/backups", json={"concurrency_limit": most})

    def children(self, run_id: str, plans: Sequence[str] = ()) -> list[dict[str, Any]]:
        """The runs that a run of backup-all has started, in the order of their start."""
        keys = [f"backup-all/{run_id}/1/{plan}" for plan in plans or self.plans]
        asked = {"flow_runs": {"idempotency_key": {"any_": keys}}, "sort": "EXPECTED_START_TIME_ASC"}
        found: list[dict[str, Any]] = self.installation.api("/flow_runs/filter", asked)
        return found

    def copy(self, database: str) -> None:
        """One more copy of the first database."""
        connection = psycopg2.connect(self.installation.world.cluster.url())
        connection.autocommit = True
        with connection.cursor() as cursor:
            cursor.execute(sql.SQL("CREATE DATABASE {} TEMPLATE small").format(sql.Identifier(database)))
        connection.close()


@contextmanager
def many(directory: Path, cluster: PostgresCluster, s3: S3Server, fresh: Callable[..., str]) -> Iterator[Many]:
    """Everything runs during the `with` block, but for workers and plans: those are for `add` and `start_worker`."""
    with set_up_on_postgres(directory, cluster, s3, fresh, "small") as installation:
        installation.world.sql("CREATE TABLE orders AS SELECT i, md5(i::text) AS text FROM generate_series(1, 1000) i")
        scene = Many(installation, ["default"])
        try:
            yield scene
        finally:
            for worker in scene.workers:
                worker.stop()
