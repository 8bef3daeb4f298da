"""Everything as a user has it: a Prefect server with the deployments of prefect.yaml, a worker, a database to restore."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.prefect_services import PrefectServer, Worker
from deployments.quick_start.s3 import S3Server
from deployments.sample import fill
from tasks.catalogue.rows import Record
from tests.conftest import DatabaseFactory
from tests.support.prefect_client import prefect_client
from tests.support.prefect_start import started_server
from tests.support.quiet import quiet
from tests.support.world import CHECKOUT, World, plain_dump

#: What a name may hold, and what markdown, HTML, SQL and a shell would take for something of their own.
DATABASE = "odd <i>`ü`|\"1' %s"
CATALOGUE = "installation_catalogue"
#: A table whose name would be a heading, a cell, code and a tag if anybody took it for markup.
ODD_TABLE = "Bücher | <b>`alt`</b> *neu*"
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@dataclass(frozen=True)
class Installation:
    """The Prefect server, its worker, and the world of the plan `default`."""

    world: World
    server: PrefectServer
    directory: Path
    original: bytes
    """What pg_dump said of the database when it was backed up."""

    def api(self, path: str, body: Any = None) -> Any:
        """What the server answers: a GET, or with a body a POST."""
        with prefect_client(self.server.api_url, self.server.password) as client:
            answer = client.get(path) if body is None else client.post(path, json=body)
        return answer.raise_for_status().json()

    def run(self, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A Python program in the checkout, as somebody runs it who has just started everything."""
        return subprocess.run(
            [sys.executable, *words],
            cwd=CHECKOUT,
            env={**self.server.environment(), **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def deployment_run(self, deployment: str, **parameters: Any) -> dict[str, Any]:
        """`prefect deployment run … -p name=value …`, and the flow run when the worker is done with it."""
        given = [word for name, value in parameters.items() for word in ("-p", f"{name}={_said(value)}")]
        began = self.run("-m", "prefect", "deployment", "run", deployment, *given)
        assert began.returncode == 0, began.stdout + began.stderr
        found = re.search(r"UUID: ([0-9a-f-]{36})", began.stdout)
        assert found, began.stdout
        return self.ended(found[1])

    def begin(self, deployment: str, **parameters: Any) -> str:
        """The id of a run of the deployment `<flow>/<name>`, which begins as soon as a worker takes it."""
        path = f"/deployments/{self.deployment_id(deployment)}/create_flow_run"
        return str(self.api(path, {"parameters": parameters, "state": {"type": "SCHEDULED"}})["id"])

    def ended(self, run_id: str, seconds: float = 400) -> dict[str, Any]:
        """The flow run `run_id`, once it has ended. Patient: other tests share the machine."""
        give_up = time.monotonic() + seconds
        while True:
            run: dict[str, Any] = self.api(f"/flow_runs/{run_id}")
            if run["state"]["type"] in ENDED:
                return run
            assert time.monotonic() < give_up, run["state"]
            time.sleep(0.5)

    def deployment_id(self, name: str) -> str:
        """The id of the deployment `<flow>/<name>`."""
        return str(self.api(f"/deployments/name/{name}")["id"])

    def artifact(self, key: str, run_id: str = "") -> dict[str, Any]:
        """The newest artifact of this key; with `run_id` that of the flow run."""
        of_run = {"flow_run_id": {"any_": [run_id]}} if run_id else {}
        newest = {"artifacts": {"key": {"any_": [key]}, **of_run}, "sort": "CREATED_DESC", "limit": 1}
        artifact: dict[str, Any] = self.api("/artifacts/filter", newest)[0]
        return artifact

    def log(self, run_id: str) -> str:
        """What a flow run and its tasks have logged."""
        asked = {"logs": {"flow_run_id": {"any_": [run_id]}}, "sort": "TIMESTAMP_ASC", "limit": 200}
        return "\n".join(line["message"] for line in self.api("/logs/filter", asked))

    def databases(self) -> list[str]:
        """The names of all databases of the server."""
        return [name for (name,) in self.world.sql("SELECT datname FROM pg_database ORDER BY datname")]

    @property
    def saved(self) -> Record:
        """The row of the newest completed backup that was asked for, not made by a restore."""
        rows = self.world.rows()
        return next(row for row in rows if (row.status, row.backup_type) == ("completed", "full"))


@contextmanager
def started_installation(
    directory: Path, cluster: PostgresCluster, s3: S3Server, fresh_database: DatabaseFactory
) -> Iterator[Installation]:
    """Everything runs during the `with` block; there is a backup of the sample shop and of a table with an odd name."""
    server = started_server(directory / "prefect", cluster.bin_directory)
    s3.create_bucket("installation")
    world = World(
        cluster=cluster,
        s3=s3,
        bucket="installation",
        database_url=fresh_database(cluster, DATABASE),
        catalogue_url=fresh_database(cluster, CATALOGUE),
        spool=directory / "spool",
        environment=server.environment(),
    )
    fill(world.database_url, 1)
    world.sql(f'CREATE TABLE public."{ODD_TABLE}" AS SELECT i FROM generate_series(1, 1234) i')
    installation = Installation(world, server, directory, plain_dump(cluster, world.database_url))
    done = installation.run("-m", "deployments.set_up", **world.settings())
    assert done.returncode == 0, done.stdout + done.stderr
    quiet(installation)
    worker = Worker(server, CHECKOUT, name="installation", owned=True)
    try:
        worker.start()
        made = installation.ended(installation.begin("backup/manual"))
        assert made["state"]["type"] == "COMPLETED", made["state"]
        yield installation
    finally:
        worker.stop()
        server.stop()


def _said(value: Any) -> str:
    """A parameter as people write it: JSON, for a text only where it would be taken for something else without quotes."""
    return value if isinstance(value, str) and re.fullmatch(r"[A-Za-z_][\w. -]*", value) else json.dumps(value)
