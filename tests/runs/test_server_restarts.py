"""The Prefect server goes away while a backup or a restore lives: the run ends truthfully, and nothing is done twice."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.prefect_services import PrefectServer
from deployments.quick_start.private import private_directory
from deployments.quick_start.processes import free_port
from flows.backup import backup
from tests.support import eventually
from tests.support.faulty_store import FaultyStore, Request
from tests.support.flow_fixtures import WorldFactory
from tests.support.prefect_client import prefect_client
from tests.support.prefect_start import started_server
from tests.support.world import MIB, World, go

pytestmark = pytest.mark.slow
PATIENCE = 240.0  # seconds for a whole run on a loaded machine
#: So long the server is away in the middle of a backup. With more than 90, the run is taken for dead meanwhile.
OUTAGE_SECONDS = float(os.environ.get("OUTAGE_SECONDS", "0"))


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory, any_postgres: PostgresCluster) -> Iterator[PrefectServer]:
    """A Prefect server that these tests may kill."""
    directory = private_directory(tmp_path_factory.mktemp("restarts") / "prefect")
    # Below the ports that the system lends to clients: nobody takes it while the server is dead.
    port = next(port for port in range(20_000 + os.getpid() % 8_000, 32_000) if free_port(port) == port)
    (directory / "port").write_text(str(port))
    server = started_server(directory, any_postgres.bin_directory)
    yield server
    server.stop()


class Scene:
    """A backup that was made, a server of this test's own, and a store that holds a run in its middle."""

    def __init__(self, world: World, server: PrefectServer, store: FaultyStore) -> None:
        self.world, self.server, self.store = world, server, store
        self.reached, self.released = threading.Event(), threading.Event()

    def hold(self, when: Callable[[Request], bool]) -> None:
        """The run stops at the first request of this kind until `released`."""

        def rule(request: Request) -> None:
            if when(request) and not self.reached.is_set():
                self.reached.set()
                assert self.released.wait(PATIENCE)

        self.store.rule = rule

    def begin(self, process: subprocess.Popen[str]) -> None:
        """The run is in its middle, and the server knows that it runs."""
        go(process)
        assert eventually(lambda: self.reached.is_set() or process.poll() is not None, PATIENCE)
        assert self.reached.is_set(), self.said(process)
        assert eventually(lambda: self.run()["state"]["type"] == "RUNNING", 30)

    def kill_server(self) -> None:
        process = self.server.service.process
        assert process is not None
        process.kill()
        port = int((self.server.directory / "port").read_text())
        assert eventually(lambda: not self.server.is_running and free_port(port) == port)
        self.server.service.stop()  # what it has left behind

    def api(self, path: str, body: Any) -> Any:
        with prefect_client(self.server.api_url, self.server.password) as client:
            return client.post(path, json=body).raise_for_status().json()

    def run(self) -> dict[str, Any]:
        """The newest flow run of the server."""
        found: dict[str, Any] = self.api("/flow_runs/filter", {"sort": "START_TIME_DESC", "limit": 1})[0]
        return found

    def said(self, process: subprocess.Popen[str]) -> str:
        """What the process has said by its end."""
        said, _ = process.communicate(timeout=PATIENCE)
        return said

    def start_backup(self) -> subprocess.Popen[str]:
        return self.world.start_backup(self._through_the_store())

    def start_restore(self, **parameters: Any) -> subprocess.Popen[str]:
        return self.world.start_restore(self._through_the_store(), **parameters)

    def _through_the_store(self) -> str:
        return f"import os; os.environ['S3_ENDPOINT_URL'] = {self.store.endpoint_url!r}"


@pytest.fixture
def scene(make_world: WorldFactory, own_server: PrefectServer, faulty_store: FaultyStore) -> Scene:
    world = make_world(mebibytes=4, settings={"S3_ENDPOINT_URL": faulty_store.endpoint_url})
    environment = {**own_server.environment(), "PREFECT_API_URL": own_server.api_url}
    environment["PREFECT_API_AUTH_STRING"] = own_server.auth_string
    return Scene(replace(world, environment=environment), own_server, faulty_store)


def in_the_upload(request: Request) -> bool:
    return request.part == 2


def check_one_backup(scene: Scene, said: str) -> None:
    """The run says that it is completed, here and on the server, and there is one backup, a whole one."""
    assert "ended COMPLETED" in said, said
    assert scene.run()["state"]["type"] == "COMPLETED", said
    assert scene.world.statuses() == ["completed"]
    scene.world.check_completed_are_intact()
    scene.world.check_no_debris()


def test_a_server_that_restarts_in_the_middle_of_a_backup_costs_nothing(scene: Scene) -> None:
    scene.hold(in_the_upload)
    process = scene.start_backup()
    scene.begin(process)
    scene.kill_server()
    time.sleep(OUTAGE_SECONDS)
    scene.server.start()
    time.sleep(OUTAGE_SECONDS)
    scene.released.set()
    check_one_backup(scene, scene.said(process))


def test_a_server_that_is_down_when_a_backup_is_recorded_is_told_once_it_is_back(scene: Scene) -> None:
    scene.hold(in_the_upload)
    process = scene.start_backup()
    scene.begin(process)
    scene.kill_server()
    scene.released.set()
    recorded = eventually(lambda: scene.world.statuses() == ["completed"] or process.poll() is not None, PATIENCE)
    scene.server.start()
    said = scene.said(process)
    assert recorded, said
    check_one_backup(scene, said)


def test_a_living_backup_that_was_taken_for_crashed_is_completed_in_the_end(scene: Scene) -> None:
    """What the detection of crashes does when the server was down for longer than it waits for a sign of life."""
    scene.hold(in_the_upload)
    process = scene.start_backup()
    scene.begin(process)
    taken_for = {"type": "CRASHED", "message": "No sign of life."}
    scene.api(f"/flow_runs/{scene.run()['id']}/set_state", {"state": taken_for, "force": True})
    scene.released.set()
    check_one_backup(scene, scene.said(process))


def test_a_server_that_restarts_in_the_middle_of_a_restore_costs_nothing(scene: Scene) -> None:
    backup()
    scene.world.sql("DELETE FROM big")
    scene.hold(lambda request: request.method == "GET" and request.start >= MIB)
    process = scene.start_restore()
    scene.begin(process)
    scene.kill_server()
    scene.server.start()
    scene.released.set()
    said = scene.said(process)
    assert "ended COMPLETED" in said, said
    assert scene.run()["state"]["type"] == "COMPLETED"
    assert scene.world.sql("SELECT count(*) FROM big") == [(4 * 1024,)]
    assert scene.world.databases("%__restoring_") == []
    assert scene.world.events()[-1] == ("restore", "completed")
