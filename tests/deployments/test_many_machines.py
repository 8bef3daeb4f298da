"""A Prefect server on PostgreSQL and two workers in one pool, started as deployments/compose.yaml starts them."""

from __future__ import annotations

import re
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import pytest
from psycopg2 import sql

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.processes import remembered_port
from deployments.quick_start.s3 import S3Server
from deployments.quick_start.service import Service
from tests.conftest import DatabaseFactory
from tests.support import eventually
from tests.support.compose_file import ComposeFile
from tests.support.installation import ENDED
from tests.support.prefect_client import prefect_client
from tests.support.world import CHECKOUT, World

#: What an address, a shell or a template would take for something of its own.
ODD = "p@:/%25 '\"$x#?"
ROLE = "composed_prefect"


class Stack:
    """The services of the compose file as processes, each with a home of its own."""

    def __init__(self, directory: Path, cluster: PostgresCluster) -> None:
        self.directory = directory
        self.password = secrets.token_hex(24)
        port = str(remembered_port(directory / "port", renew=True))
        self.api_url = f"http://127.0.0.1:{port}/api"
        self.composed = ComposeFile(
            {"PREFECT_PASSWORD": self.password, "POSTGRES_PASSWORD": ODD},
            {
                "database": "127.0.0.1",
                "5432": str(cluster.port),
                "prefect": ROLE,
                "4200": port,
                "0.0.0.0": "127.0.0.1",  # noqa: S104
                "server:4200": f"127.0.0.1:{port}",
                "127.0.0.1:4200": f"127.0.0.1:{port}",
            },
        )

    def start(self, service: str, number: int = 1, **more: str) -> Service:
        """The service runs, and what Compose asks it says that it is well."""
        name = f"{service}-{number}"
        started = Service(name, self.directory / name, owned=True)
        environment = {**self.composed.environment(service, self.directory / name), **more}
        # Compose gives each container a network of its own; here each needs a port of its own.
        port = more.get("PREFECT_WORKER_WEBSERVER_PORT", "")
        check = [word.replace(":8080/", f":{port}/") for word in self.composed.health_check(service)]
        [url] = re.findall(r"http://[^']+", check[-1])
        started.start(
            self.composed.command(service),
            environment=environment,
            directory=CHECKOUT,
            answers=lambda: is_well(url),
            seconds=180,
        )
        asked = subprocess.run(check, env=environment, capture_output=True, text=True, check=False)
        assert asked.returncode == 0, asked.stderr
        return started

    def start_worker(self, number: int) -> Service:
        """One of the workers, which answers on a port of its own."""
        port = remembered_port(self.directory / f"worker-port-{number}", renew=True)
        return self.start("worker", number, PREFECT_WORKER_WEBSERVER_PORT=str(port))

    def add_plan(self, name: str, world: World) -> subprocess.CompletedProcess[str]:
        """One more plan, for the same database."""
        file = self.directory / f"{name}.env"
        file.write_text(f"DATABASE_URL={world.database_url}\nPG_BIN_DIRECTORY={world.cluster.bin_directory}\n")
        return self.run("set-up", [sys.executable, "-m", "deployments.add_plan", name, "--env-file", str(file)])

    def run(self, service: str, words: list[str], **more: str) -> subprocess.CompletedProcess[str]:
        """A command with what the service is told, to its end."""
        environment = {**self.composed.environment(service, self.directory / "once"), **more}
        return subprocess.run(
            words,
            cwd=CHECKOUT,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def api(self, path: str, body: Any = None) -> Any:
        """What the server answers: a GET, or with a body a POST."""
        with prefect_client(self.api_url, self.password) as client:
            answer = client.get(path) if body is None else client.post(path, json=body)
        return answer.raise_for_status().json()

    def begin(self, deployment: str, **parameters: Any) -> str:
        """The id of a run that begins soon."""
        path = f"/deployments/{self.api(f'/deployments/name/{deployment}')['id']}/create_flow_run"
        return str(self.api(path, {"parameters": parameters, "state": {"type": "SCHEDULED"}})["id"])


def is_well(url: str) -> bool:
    try:
        with httpx.Client(trust_env=False, timeout=5) as client:
            return client.get(url).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False


@pytest.fixture(scope="module")
def world(
    tmp_path_factory: pytest.TempPathFactory,
    any_postgres: PostgresCluster,
    s3_server: S3Server,
    s3_bucket: Callable[[], str],
    fresh_database: DatabaseFactory,
) -> World:
    spool = tmp_path_factory.mktemp("composed-world")
    world = World(
        any_postgres, s3_server, s3_bucket(), fresh_database(any_postgres), fresh_database(any_postgres), spool
    )
    world.sql("CREATE TABLE orders AS SELECT i, md5(i::text) AS text FROM generate_series(1, 5000) i")
    return world


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, world: World, fresh_database: DatabaseFactory) -> Iterator[Stack]:
    """Everything that the compose file starts, with two workers and the plans `default` and `crm`."""
    fresh_database(world.cluster, ROLE)
    world.sql(sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(sql.Identifier(ROLE), sql.Literal(ODD)))  # type: ignore[arg-type]
    world.sql(f"ALTER DATABASE {ROLE} OWNER TO {ROLE}")
    made = Stack(tmp_path_factory.mktemp("composed"), world.cluster)
    settings = {name: value for name, value in world.settings().items() if name != "SPOOL_DIRECTORY"}
    with ExitStack() as running:
        running.callback(made.start("server").stop)
        done = made.run("set-up", made.composed.command("set-up"), **settings)
        assert done.returncode == 0, done.stdout + done.stderr
        # A program that a test starts dies with the thread that started it: these threads stay until the end.
        at_once = running.enter_context(ThreadPoolExecutor(3))
        workers = [at_once.submit(made.start_worker, number) for number in (1, 2)]
        added = at_once.submit(made.add_plan, "crm", world)
        for worker in workers:
            running.callback(worker.result().stop)
        done = added.result()
        assert done.returncode == 0, done.stdout + done.stderr
        yield made
    world.sql(f"DROP DATABASE {ROLE} WITH (FORCE)")
    world.sql(f"DROP ROLE {ROLE}")


@pytest.mark.slow
def test_the_server_keeps_what_it_knows_in_postgresql(stack: Stack, world: World) -> None:
    found = world.sql("SELECT name FROM work_pool", url=world.cluster.url(ROLE))
    assert ("backups",) in found


@pytest.mark.slow
def test_two_workers_in_one_pool_make_each_backup_once(stack: Stack, world: World) -> None:
    workers = stack.api("/work_pools/backups/workers/filter", {})
    assert [one["status"] for one in workers] == ["ONLINE", "ONLINE"]
    runs = {stack.begin("backup/manual", plan=plan): plan for plan in ("default", "crm", "default", "crm")}

    def states() -> dict[str, dict[str, Any]]:
        return {run: stack.api(f"/flow_runs/{run}")["state"] for run in runs}

    assert eventually(lambda: all(state["type"] in ENDED for state in states().values()), 400), states()
    ended = states()
    rows = world.sql("SELECT run_id, plan, status FROM database_backups", url=world.catalogue_url)
    assert {plan for _, plan, _ in rows} == {"default", "crm"} and {status for *_, status in rows} == {"completed"}
    assert sorted(run for run, *_ in rows) == sorted(run for run in runs if ended[run]["type"] == "COMPLETED")
    for run, state in ended.items():  # two runs of a plan at once: one does it, the other says so
        assert state["type"] == "COMPLETED" or "is under way already" in state["message"], (run, state)
        assert stack.api(f"/flow_runs/{run}")["run_count"] == 1
