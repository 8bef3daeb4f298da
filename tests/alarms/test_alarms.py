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

import psutil
import pytest

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.prefect_services import Worker
from deployments.quick_start.s3 import S3Server
from tasks.alarms.event_names import ALARMS, FAILED, REFUSED, TELLS_SINGLE, TIME
from tasks.postgres.dsn import parse
from tasks.postgres.locks import exclusive
from tests.conftest import DatabaseFactory
from tests.support import eventually
from tests.support.installation import Installation
from tests.support.many import set_up_on_postgres, worker_of
from tests.support.webhook import Webhook, webhook
from tests.support.world import World

pytestmark = pytest.mark.slow
PATIENCE = 60.0
#: How long nothing may follow for a message to count as the only one.
SILENCE = 2.0
#: A run is late after so many seconds; a worker that is not stopped takes one sooner.
LATE_SECONDS = "25"
#: Where PING_URL points to. Whoever knows such an address may call it, so it is a secret.
PING = "/ping-m4rker"


BEGAN = datetime.now(UTC)


def period(body: str) -> tuple[datetime, datetime]:
    """Since when something was wrong, and when it ended, by the message about its end."""
    times = [re.search(rf"^{word}: (.*)$", body, re.MULTILINE) for word in ("Since", "Until")]
    since, until = (datetime.strptime(found[1], TIME).replace(tzinfo=UTC) for found in times if found)
    return since, until


@dataclass(frozen=True)
class Scene:
    """The installation with a webhook, and two workers that may be stopped and started."""

    installation: Installation
    received: Webhook
    workers: tuple[Worker, ...]

    @property
    def world(self) -> World:
        return self.installation.world

    def run(self, deployment: str, ends: str, **parameters: Any) -> str:
        """The id of a run, which has ended in this state."""
        run_id = self.installation.begin(deployment, **parameters)
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

    def heard(self, *messages: tuple[str, ...]) -> list[str]:
        """Waits for one message for each of `messages`, in their order, and no other; forgets them. Returns the bodies.

        Each is a text that the title has, and texts that the body has. A title of a recovery ends with `again`: such a
        message has the type `success`, and says since when it was wrong and when that ended.
        """
        assert eventually(lambda: len(self.received.messages) >= len(messages), PATIENCE), self.received.messages
        time.sleep(SILENCE)
        found, types = list(self.received.messages), self.received.types
        assert len(found) == len(messages), found
        for (title, body), kind, (wanted, *texts) in zip(found, types, messages, strict=True):
            assert wanted in title, found
            assert all(text in body for text in texts), (texts, body)
            assert kind == ("success" if title.endswith("again") else "warning" if "suspicious" in title else "failure")
            if kind == "success":
                since, until = period(body)
                assert BEGAN <= since < until
            for secret in (PING, self.world.cluster.password, self.world.s3.secret_access_key):
                assert secret not in title + body
        self.received.calls.clear()
        return [body for _, body in found]

    def pinged(self) -> list[tuple[str, str]]:
        """What the service behind PING_URL was told since the last messages: the kind of call, and its body."""
        told = [(path.removeprefix(PING), body) for _, path, body in self.received.calls if path.startswith(PING)]
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
    with (
        webhook() as received,
        set_up_on_postgres(
            tmp_path_factory.mktemp("alarms"),
            any_postgres,
            s3_server,
            fresh_database,
            "alarms",
            NOTIFY_URL=received.notify_url,
            PING_URL=received.url.replace("/alarms", PING),
            PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS=LATE_SECONDS,
        ) as installation,
    ):
        installation.world.sql("CREATE TABLE items AS SELECT i, md5(i::text) AS t FROM generate_series(1, 20000) i")
        automations = installation.api("/automations/filter", {"limit": 50})
        assert {automation["name"] for automation in automations} == set(ALARMS)
        workers = (worker_of(installation, "one"), worker_of(installation, "two"))
        try:
            yield Scene(installation, received, workers)
        finally:
            for worker in workers:
                worker.stop()


@pytest.fixture(autouse=True)
def afresh(scene: Scene) -> None:
    """Both workers work, and nothing is heard of an earlier test that failed."""
    for worker in scene.workers:
        worker.start()
    scene.received.calls.clear()


def test_a_failing_first_backup_is_told_once_and_its_end_once(scene: Scene) -> None:
    with scene.without_database():
        first = scene.run("backup/manual", "FAILED")
        [begun, (kind, reason)] = scene.pinged()
        assert begun == ("start", "") and kind == "fail" and "Plan default: " in reason
        assert "refused the connection" in reason and scene.world.cluster.password not in reason
        [body] = scene.heard(
            ("Plan default: the backup failed", "Plan: default", "What: ", "refused the connection", "Since: ")
        )
        assert first in body and "backup-default" in body and scene.installation.server.url in body
        since = re.search(r"Since: \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", body)
        assert since
        scene.run("backup/manual", "FAILED")
        scene.run("check-health/check-now", "FAILED")
        scene.heard()
    scene.run("backup/manual", "COMPLETED")
    assert scene.pinged() == [("start", ""), ("success", "")]
    [over] = scene.heard(("Plan default: the backup is all right again", "It is over"))
    assert since[0] in over, "a recovery says since when it was wrong, not since the newest failure"


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
    late = scene.installation.begin("backup/manual")
    scene.heard(("Plan default: a run of backup does not begin", "No worker has begun", "was due at"))
    another = scene.installation.begin("backup/manual")
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
        refused = scene.installation.ended(scene.installation.begin("backup/manual"))["state"]
    assert (refused["type"], refused["name"]) == ("FAILED", REFUSED)
    assert refused["message"].startswith("A backup of default is under way already by run of somebody else since 20")
    scene.run("check-health/check-now", "COMPLETED")
    scene.run("backup/manual", "COMPLETED")
    assert scene.pinged() == [("start", ""), ("start", ""), ("success", "")]
    scene.heard()


def test_a_killed_backup_is_told_once_and_its_end_once(scene: Scene) -> None:
    with scene.held():
        run_id = scene.installation.begin("backup/manual")
        assert eventually(lambda: scene.world.statuses()[:1] == ["in_progress"], PATIENCE)
        scene.process(run_id).send_signal(signal.SIGKILL)
        assert scene.installation.ended(run_id)["state"]["type"] == "CRASHED"
        scene.heard(("Plan default: the backup was killed", "What: Crashed:"))
    scene.run("backup/manual", "COMPLETED")
    scene.heard(("Plan default: the backup is all right again",))


def test_a_verification_a_restore_and_a_health_check_that_fail_are_told(scene: Scene) -> None:
    scene.run("backup/manual", "COMPLETED")
    scene.run("restore/restore-backup", "FAILED", backup="9999")
    scene.heard(("Plan default: restore-default-swap failed",))
    with scene.without_newest_backup():
        scene.run("verify-backup/verify-backup", "FAILED")
        scene.run("check-health/check-now", "FAILED")
        scene.heard(
            ("Plan default: the verification failed",),
            ("Plan default: something is wrong", "is gone from the bucket"),
        )
        asked = {"filter": {"event": {"name": [FAILED]}}, "limit": 50}
        again = [
            one["resource"]["prefect.resource.name"]
            for one in scene.installation.api("/events/filter", asked)["events"]
        ]
        assert "verify-default" in again, "an event of a verification that the server lost would never be reported"
    scene.run("verify-backup/verify-backup", "COMPLETED")
    scene.run("check-health/check-now", "COMPLETED")
    scene.heard(
        ("Plan default: the verification is all right again",), ("Plan default: the health is all right again",)
    )


def test_a_message_that_was_not_accepted_fails_the_health_check_and_the_next_message_ends_that(scene: Scene) -> None:
    scene.run("backup/manual", "COMPLETED")
    scene.received.answer = 500
    try:
        scene.run("restore/restore-backup", "FAILED", backup="9999")
        scene.heard(("Plan default: restore-default-swap failed",))
        failed = {"filter": {"event": {"name": ["prefect.automation.action.failed"]}}}
        assert eventually(lambda: scene.installation.api("/events/filter", failed)["events"], PATIENCE)
    finally:
        scene.received.answer = 200
    scene.run("check-health/check-now", "FAILED")
    scene.heard(("Plan default: something is wrong", f"The last message of '{TELLS_SINGLE}' could not be sent"))
    scene.run("restore/restore-backup", "FAILED", backup="9999")
    scene.heard(("Plan default: restore-default-swap failed",))
    scene.run("check-health/check-now", "COMPLETED")
    scene.heard(("Plan default: the health is all right again",))


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


@pytest.mark.thorough
def test_worker_and_flow_killed_together_are_told_within_two_minutes_and_the_next_backup_succeeds(scene: Scene) -> None:
    for worker in scene.workers[1:]:
        worker.stop()
    with scene.held():
        run_id = scene.installation.begin("backup/manual")
        assert eventually(lambda: scene.world.statuses()[:1] == ["in_progress"], PATIENCE)
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
