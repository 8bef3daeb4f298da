"""Alarms as people get them: a real server, two workers and a webhook. One message an incident, one when it is over.

The tests go on from one another on one server: each leaves things well again, and all that was told by then is counted.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import httpx
import psutil
import pytest

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.prefect_services import LOGIN, Worker
from deployments.quick_start.s3 import S3Server
from deployments.quick_start.service import Service
from tasks.alarms import event_names as alarms
from tasks.alarms.event_names import ALARMS
from tasks.postgres.dsn import parse
from tasks.postgres.locks import exclusive
from tests.conftest import DatabaseFactory
from tests.support import eventually
from tests.support.installation import Installation
from tests.support.many import ServerOnPostgres
from tests.support.webhook import Webhook, webhook
from tests.support.world import CHECKOUT, World

pytestmark = pytest.mark.slow
PATIENCE = 60.0
#: How long nothing may follow for a message to count as the only one.
SILENCE = 3.0
#: Where PING_URL points to. Whoever knows such an address may call it, so it is a secret.
PING = "/ping-m4rker"


@dataclass(frozen=True)
class Scene:
    """The installation with a webhook, and two workers that may be stopped and started."""

    installation: Installation
    told: Webhook
    workers: tuple[Worker, ...]

    @property
    def world(self) -> World:
        return self.installation.world

    def begin(self, deployment: str, **parameters: Any) -> str:
        """The id of a run that was asked for now."""
        asked = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        path = f"/deployments/{self.installation.deployment_id(deployment)}/create_flow_run"
        return str(self.installation.api(path, asked)["id"])

    def run(self, deployment: str, ends: str, **parameters: Any) -> str:
        """The id of a run, which has ended in this state."""
        run_id = self.begin(deployment, **parameters)
        state = self.installation.ended(run_id)["state"]
        assert state["type"] == ends, (state, self.installation.log(run_id))
        return run_id

    def process(self, run_id: str) -> psutil.Process:
        """The process of a flow run."""
        found: list[psutil.Process] = []

        def there() -> bool:
            for one in psutil.process_iter():
                try:
                    if one.environ().get("PREFECT__FLOW_RUN_ID", "").replace("-", "") == run_id.replace("-", ""):
                        found.append(one)
                except psutil.Error:
                    continue
            return bool(found)

        assert eventually(there, PATIENCE)
        return min(found, key=lambda one: one.create_time())

    def heard(self, *messages: tuple[str, ...]) -> list[tuple[str, str]]:
        """Waits for one message for each of `messages`, in their order, and no other; forgets them.

        Each of them is a text that its title has, and texts that its body has.
        """
        assert eventually(lambda: len(self.told.messages) >= len(messages), PATIENCE), self.told.messages
        time.sleep(SILENCE)
        found = list(self.told.messages)
        assert len(found) == len(messages), found
        for (title, body), (wanted, *texts) in zip(found, messages, strict=True):
            assert wanted in title, found
            assert all(text in body for text in texts), (texts, body)
            for secret in (PING, self.world.cluster.password, self.world.s3.secret_access_key):
                assert secret not in title + body
        self.told.calls.clear()
        return found

    def pinged(self) -> list[tuple[str, str]]:
        """What the service behind PING_URL was told since the last messages: the kind of call, and its body."""
        told = [(path.removeprefix(PING), body) for _, path, body in self.told.calls if path.startswith(PING)]
        return [(kind.removeprefix("/") or "success", body) for kind, body in told]

    @contextmanager
    def held(self) -> Iterator[None]:
        """Backups of the world do not come to an end meanwhile: a table is locked."""
        with self.world.transaction() as cursor:
            cursor.execute("LOCK TABLE items IN ACCESS EXCLUSIVE MODE")
            yield

    @contextmanager
    def without_database(self) -> Iterator[None]:
        """The plan's database cannot be connected to meanwhile."""
        name = self.world.database_url.rpartition("/")[2].partition("?")[0]
        self.world.sql(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false', url=self.world.catalogue_url)
        try:
            yield
        finally:
            self.world.sql(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true', url=self.world.catalogue_url)

    @contextmanager
    def without_newest_backup(self) -> Iterator[None]:
        """The file of the newest backup is gone from the bucket meanwhile."""
        key = self.installation.saved.s3_key
        content = self.world.download(key)
        self.world.s3.client.delete_object(Bucket=self.world.bucket, Key=key)
        try:
            yield
        finally:
            self.world.s3.client.put_object(Bucket=self.world.bucket, Key=key, Body=content)


@pytest.fixture(scope="module")
def scene(
    tmp_path_factory: pytest.TempPathFactory,
    any_postgres: PostgresCluster,
    s3_server: S3Server,
    fresh_database: DatabaseFactory,
) -> Iterator[Scene]:
    """Set up as a user does it, NOTIFY_URL and PING_URL among the settings. Two workers need PostgreSQL: with its own
    database on SQLite, the Prefect server loses events when both are at work (docs/many.md), and so alarms."""
    directory = tmp_path_factory.mktemp("alarms")
    url = fresh_database(any_postgres, "alarmed_prefect")
    server = ServerOnPostgres(directory / "prefect", url, late_seconds=25)
    server.start()
    s3_server.create_bucket("alarms")
    world = World(
        cluster=any_postgres,
        s3=s3_server,
        bucket="alarms",
        database_url=fresh_database(any_postgres, "alarmed"),
        catalogue_url=fresh_database(any_postgres, "alarmed_catalogue"),
        spool=directory / "spool",
        environment=server.environment(),
    )
    world.sql("CREATE TABLE items AS SELECT i, md5(i::text) AS t FROM generate_series(1, 20000) i")
    installation = Installation(world, server, directory, b"")
    workers = tuple(Worker(server, CHECKOUT, name=name, owned=True) for name in ("one", "two"))
    for worker in workers:
        worker.service = Service("prefect-worker", directory / worker.name, owned=True)
    with webhook() as told:
        addresses = {"NOTIFY_URL": told.notify_url, "PING_URL": told.url.replace("/alarms", PING)}
        hours_away = f"0 {(datetime.now(UTC).hour + 12) % 24} * * *"
        done = installation.run("-m", "deployments.set_up", **world.settings(), **addresses, SCHEDULE=hours_away)
        assert done.returncode == 0, done.stdout + done.stderr
        assert all(f"Automation {name!r} was created." in done.stdout for name in ALARMS), done.stdout
        for deployment in ("check-health/hourly-check", "verify-backup/verify-weekly"):
            without_schedules(installation, deployment)
        try:
            yield Scene(installation, told, workers)
        finally:
            for worker in workers:
                worker.stop()
            server.stop()


def without_schedules(installation: Installation, deployment: str) -> None:
    """No run of the deployment begins by itself, in the middle of a test."""
    path = f"{installation.server.api_url}/deployments/{installation.deployment_id(deployment)}/schedules"
    with httpx.Client(trust_env=False, timeout=90, auth=(LOGIN, installation.server.password)) as client:
        for one in client.get(path).raise_for_status().json():
            client.patch(f"{path}/{one['id']}", json={"active": False}).raise_for_status()


@pytest.fixture(autouse=True)
def afresh(scene: Scene) -> None:
    """Both workers work, and nothing is heard of an earlier test that failed."""
    for worker in scene.workers:
        worker.start()
    scene.told.calls.clear()


def test_a_failing_first_backup_is_told_once_and_its_end_once(scene: Scene) -> None:
    with scene.without_database():
        first = scene.run("backup/manual", "FAILED")
        [begun, (kind, reason)] = scene.pinged()
        assert begun == ("start", "") and kind == "fail" and "Plan default: " in reason
        assert "refused the connection" in reason and scene.world.cluster.password not in reason
        [(_, body)] = scene.heard(
            ("Plan default: the backup failed", "Plan: default", "What: ", "refused the connection", "Since: ")
        )
        assert first in body and "backup-default" in body and scene.installation.server.url in body
        assert re.search(r"Since: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", body)
        scene.run("backup/manual", "FAILED")
        scene.run("check-health/check-now", "FAILED")
        scene.heard()
    scene.run("backup/manual", "COMPLETED")
    assert scene.pinged() == [("start", ""), ("success", "")]
    scene.heard(("Plan default: the backup is all right again", "It is over"))


def test_a_healthy_day_is_silent(scene: Scene) -> None:
    for deployment in (
        "backup/daily",
        "verify-backup/verify-weekly",
        "check-health/hourly-check",
        "list-backups/refresh-admin-page",
    ):
        scene.run(deployment, "COMPLETED")
    scene.heard()


def test_a_run_that_never_begins_is_told_once_for_its_deployment_and_when_runs_begin_again(scene: Scene) -> None:
    for worker in scene.workers:
        worker.stop()
    late = scene.begin("backup/manual")
    scene.heard(("Plan default: a run of backup does not begin", "No worker has begun", "was due at"))
    another = scene.begin("backup/manual")
    assert eventually(lambda: scene.installation.api(f"/flow_runs/{another}")["state"]["name"] == "Late", PATIENCE)
    scene.heard()
    # Two that begin in one moment may be told twice (docs/alarms.md).
    scene.installation.api(f"/flow_runs/{another}/set_state", {"state": {"type": "CANCELLED"}, "force": True})
    for worker in scene.workers:
        worker.start()
    assert scene.installation.ended(late)["state"]["type"] == "COMPLETED"
    scene.heard(("Plan default: runs of backup begin again", "It is over"))


def test_a_run_that_finds_a_backup_under_way_is_no_failed_backup(scene: Scene) -> None:
    with exclusive(parse(scene.world.catalogue_url), "backup", "default", "run of somebody else"):
        refused = scene.installation.ended(scene.begin("backup/manual"))["state"]
    assert (refused["type"], refused["name"]) == ("FAILED", alarms.REFUSED)
    assert refused["message"].startswith("A backup of default is under way already by run of somebody else since 20")
    scene.run("check-health/check-now", "COMPLETED")
    scene.run("backup/manual", "COMPLETED")
    assert scene.pinged() == [("start", ""), ("start", ""), ("success", "")]
    scene.heard()


def test_a_killed_backup_is_told_once_and_its_end_once(scene: Scene) -> None:
    with scene.held():
        run_id = scene.begin("backup/manual")
        assert eventually(lambda: scene.world.statuses()[0] == "in_progress", PATIENCE)
        scene.process(run_id).send_signal(signal.SIGKILL)
        assert scene.installation.ended(run_id)["state"]["type"] == "CRASHED"
        scene.heard(("Plan default: the backup was killed", "What: Crashed:"))
    scene.run("backup/manual", "COMPLETED")
    scene.heard(("Plan default: the backup is all right again",))


def test_a_drill_a_restore_and_a_health_check_that_fail_are_told(scene: Scene) -> None:
    scene.run("backup/manual", "COMPLETED")
    scene.run("restore/restore-backup", "FAILED", backup="9999")
    scene.heard(("Plan default: restore-default-swap failed",))
    with scene.without_newest_backup():
        scene.run("verify-backup/verify-backup", "FAILED")
        scene.run("check-health/check-now", "FAILED")
        scene.heard(
            ("Plan default: the drill failed",),
            ("Plan default: something is wrong", "is gone from the bucket"),
        )
        asked = {"filter": {"event": {"name": [alarms.FAILED]}}, "limit": 50}
        again = [
            one["resource"]["prefect.resource.name"]
            for one in scene.installation.api("/events/filter", asked)["events"]
        ]
        assert "verify-default" in again, "an event of a drill that the server lost would never be told"
    scene.run("verify-backup/verify-backup", "COMPLETED")
    scene.run("check-health/check-now", "COMPLETED")
    scene.heard(("Plan default: the drill is all right again",), ("Plan default: the health is all right again",))


def test_a_backup_that_lost_its_rows_is_told_as_suspicious_and_when_they_are_back(scene: Scene) -> None:
    scene.world.sql("DELETE FROM items WHERE i > 100")
    scene.run("backup/manual", "COMPLETED")
    scene.heard(("Plan default: the backup is suspicious", "Nothing is removed until this is looked into"))
    scene.world.sql("INSERT INTO items SELECT i, md5(i::text) FROM generate_series(101, 20000) i")
    scene.run("backup/manual", "COMPLETED")
    scene.heard(("Plan default: the content of the backup is all right again",))


def test_a_backup_that_is_missing_is_told_once_and_when_there_is_one_again(scene: Scene) -> None:
    """The newest is made three days old, so that the daily schedule's time has passed without one."""
    scene.world.sql(
        "UPDATE database_backups SET created_at = created_at - interval '3 days'", url=scene.world.catalogue_url
    )
    scene.run("check-health/check-now", "FAILED")
    scene.heard(("Plan default: a backup is missing", "is 3 d", "The next was due at"))
    scene.run("check-health/check-now", "FAILED")
    scene.heard()
    scene.run("backup/manual", "COMPLETED")
    scene.heard(("Plan default: the backup is all right again",))


def test_backup_all_tells_what_it_could_not_start_and_each_plan_tells_of_itself(scene: Scene) -> None:
    scene.run("backup-all/backup-all-plans", "FAILED", plans=["default", "nobody"])
    scene.heard(("Plan every plan: backup-all failed", "1 of 2 plans were not started", "There is no plan 'nobody'"))
    with scene.without_database():
        scene.run("backup-all/backup-all-plans", "FAILED")
        scene.heard(("Plan default: the backup failed",), ("Plan every plan: backup-all is all right again",))
    scene.run("backup-all/backup-all-plans", "COMPLETED")
    scene.heard(("Plan default: the backup is all right again",))


def test_worker_and_flow_killed_together_are_told_within_two_minutes_and_the_next_backup_succeeds(scene: Scene) -> None:
    for worker in scene.workers[1:]:
        worker.stop()
    with scene.held():
        run_id = scene.begin("backup/manual")
        assert eventually(lambda: scene.world.statuses()[0] == "in_progress", PATIENCE)
        flow = scene.process(run_id)
        family = [one for one in (flow, *flow.parents()) if "worker" in one.cmdline()]
        for one in (*family, flow):
            one.send_signal(signal.SIGKILL)
        killed_at = datetime.now(UTC)
        state = scene.installation.ended(run_id, 150)["state"]
        assert state["type"] == "CRASHED" and "No heartbeat" in state["message"]
        assert (datetime.now(UTC) - killed_at).total_seconds() < 120
        scene.heard(("Plan default: the backup was killed", "No heartbeat for 90 seconds"))
    for worker in scene.workers:
        worker.service.stop((signal.SIGKILL,), patience=5)
        worker.start()
    scene.run("backup/manual", "COMPLETED")
    scene.heard(("Plan default: the backup is all right again",))
