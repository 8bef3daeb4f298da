"""The flow `verify-backup`: what people, automations and records learn from it."""

from __future__ import annotations

import html
import signal
from typing import Any

import pytest
from prefect.client.orchestration import get_client

from deployments.quick_start.postgres import PostgresCluster
from flows.backup import backup
from flows.verify_backup import verify_backup
from tasks.errors import AlreadyRunning, BackupNotFound, BackupUnverifiable, VerifyImpossible
from tasks.postgres.dsn import parse
from tasks.postgres.locks import verify_lock
from tasks.restore.last_restore import last_restores
from tests.restore.test_restore_catalogue_lost import dropped
from tests.support import eventually
from tests.support.flow_fixtures import WorldFactory
from tests.support.world import Heard, World, go, plain_dump

#: A table whose name would be a heading, a cell, code and a tag if anybody took it for markup.
ODD_TABLE = "Bücher | <b>`alt`</b> *neu*"
#: For a verify run in a process of its own: psql gets what it is to run very slowly.
SLOW_PSQL = (
    "import time, tasks.restore.stages as stages",
    "add = stages.Stages._add",
    "stages.Stages._add = lambda self, entry, text: (time.sleep(3), add(self, entry, text))[1]",
)


@pytest.fixture
def world(make_world: WorldFactory, any_postgres: PostgresCluster) -> World:
    made = make_world(any_postgres, mebibytes=1, settings={"DRILL_ON": "server"})
    made.sql(f'CREATE TABLE public."{ODD_TABLE}" AS SELECT i FROM generate_series(1, 1234) i')
    return made


def artifact(plan: str = "default") -> str:
    """The newest result of a verify run, as a person reads it."""
    with get_client(sync_client=True) as client:
        answer = client._client.get(f"/artifacts/verification-{plan}/latest")
    return html.unescape(str(answer.raise_for_status().json()["data"]))


def emitted(name: str, filename: str) -> list[dict[str, Any]]:
    """Prefect's events of this name about a file, once there are any; with their resources."""
    asked = {"filter": {"event": {"name": [name]}, "order": "DESC"}, "limit": 50}

    def found() -> list[dict[str, Any]]:
        with get_client(sync_client=True) as client:
            told = client._client.post("/events/filter", json=asked).raise_for_status().json()["events"]
        return [one for one in told if one["payload"]["filename"] == filename]

    assert eventually(lambda: bool(found()), 90), name
    return found()


def details(world: World) -> dict[str, Any]:
    """Of the newest line of the audit."""
    [(told,)] = world.sql("SELECT details FROM backup_events ORDER BY id DESC LIMIT 1", url=world.catalogue_url)
    return dict(told)


def flip(world: World, key: str) -> None:
    content = bytearray(world.download(key))
    content[len(content) // 2] ^= 1
    world.s3.client.put_object(Bucket=world.bucket, Key=key, Body=bytes(content))


def test_a_verify_run_that_passes_is_recorded_told_and_shown_and_then_one_that_does_not(world: World) -> None:
    saved = backup()
    world.sql("DELETE FROM big")
    before = plain_dump(world.cluster, world.database_url)
    done = verify_backup(requested_by="Ada")
    row = world.rows()[0]
    assert row.verified_at == done.at and done.rows == 1024 + 1234
    assert row.metadata["verification"]["compared"]["rows"] == done.rows
    assert world.events()[-2:] == [("verify-backup", "started"), ("verify-backup", "completed")]
    assert details(world)["verification"]["restore_seconds"] == round(done.restore_seconds, 3)
    with world.catalogue.cursor() as cursor:
        last = last_restores(cursor, ["default"])["default"]
    assert (last.action, last.seconds, last.size) == ("verify-backup", done.seconds, saved.file_size)
    shown = artifact()
    assert "# Verified" in shown and f'| public."{ODD_TABLE}" | 1,234 | 1,234 |' in shown
    assert "What was proved" in shown and "| Duration |" in shown
    [event] = emitted("backup.verified", saved.filename)
    assert event["resource"]["prefect.resource.id"] == "backup-plan.default" and event["payload"]["recorded"]

    flip(world, saved.key)
    with pytest.raises(BackupUnverifiable, match=r"is not verified: part 1 of 1 in bucket ") as failure:
        verify_backup(saved.filename, requested_by="Ada")
    assert "\n" not in str(failure.value)
    row = world.rows()[0]
    assert row.verified_at is None and row.status == "completed"
    assert row.metadata["verification"]["reason"] == str(failure.value)
    assert world.events()[-2:] == [("verify-backup", "started"), ("verify-backup", "failed")]
    assert details(world)["verification"]["verified_before"] == done.at.isoformat()
    [event] = emitted("backup.unverifiable", saved.filename)
    assert event["payload"]["fault"] == "backup" and event["payload"]["reason"] == str(failure.value)
    assert "# Not verified" in artifact() and "no longer holds" in artifact()
    assert plain_dump(world.cluster, world.database_url) == before
    check_nothing_left(world)


def scratches(world: World) -> list[Any]:
    return world.sql("SELECT datname FROM pg_database WHERE datname LIKE '%__verifying_%'")


def check_nothing_left(world: World) -> None:
    assert scratches(world) == []
    assert world.spools() == []
    assert eventually(lambda: world.restore_sessions() == []), world.restore_sessions()


def test_what_is_around_a_backup_takes_nothing_from_it(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = backup()
    at = verify_backup().at
    world.sql("DO $$ BEGIN CREATE ROLE verify_poor LOGIN PASSWORD 'pw'; EXCEPTION WHEN duplicate_object THEN END $$")
    poor = world.cluster.url(parse(world.database_url).dbname, "verify_poor", "pw")
    with monkeypatch.context() as changed:
        changed.setenv("DATABASE_URL", poor)
        with pytest.raises(
            VerifyImpossible, match=r"says nothing about the backup: .* CREATEDB as a superuser"
        ) as failure:
            verify_backup()
    assert "Could not be verified" in artifact() and "It was last verified at" in artifact()
    [event] = emitted("backup.unverifiable", saved.filename)
    assert event["payload"]["fault"] == "environment" and event["payload"]["reason"] == str(failure.value)
    assert world.events()[-1] == ("verify-backup", "refused") and details(world)["fault"] == "environment"
    with pytest.raises(BackupNotFound, match="yesterday"):
        verify_backup("yesterday's")
    assert world.events()[-1] == ("verify-backup", "refused")
    with (
        verify_lock(parse(world.database_url), "run of another"),
        pytest.raises(AlreadyRunning, match="run of another"),
    ):
        verify_backup()
    assert world.events()[-1] == ("verify-backup", "refused")
    assert world.rows()[0].verified_at == at
    check_nothing_left(world)


def test_without_the_catalogue_a_verify_run_passes_and_says_that_it_could_not_be_recorded(
    world: World, monkeypatch: pytest.MonkeyPatch, heard: Heard
) -> None:
    saved = backup()
    dropped(world, monkeypatch)
    assert verify_backup().backup_id is None
    assert "is verified, but that could not be recorded" in heard.text
    assert "which could not be recorded" in artifact() and "Traceback" not in heard.text
    assert not emitted("backup.verified", saved.filename)[0]["payload"]["recorded"]
    check_nothing_left(world)


def test_a_backup_whose_content_a_check_of_the_plan_does_not_pass_is_not_verified(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = backup()
    monkeypatch.setenv("CHECKS", "SELECT count(*) = 1024 FROM big")
    verify_backup()
    assert "Every check of the plan is true of it: 1." in artifact() and world.rows()[0].verified_at
    monkeypatch.setenv("CHECKS", "SELECT count(*) = 1024 FROM big; SELECT count(*) > 5000 FROM big")
    with pytest.raises(BackupUnverifiable) as failure:
        verify_backup()
    assert str(failure.value) == (
        f"{saved.filename} is not verified: its content is what was backed up, but check 2 of 2 is false: "
        "SELECT count(*) > 5000 FROM big."
    )
    assert world.rows()[0].verified_at is None and world.rows()[0].status == "completed"
    assert details(world)["fault"] == "check"
    assert "or correct the check in the plan" in artifact() and "pg_dump wrote" not in artifact()
    check_nothing_left(world)


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGKILL], ids=["interrupted", "killed"])
def test_a_run_that_is_ended_while_psql_runs_leaves_no_scratch_for_longer_than_the_next_one(
    world: World, sign: signal.Signals
) -> None:
    backup()
    for _ in range(3):
        process = world.start_drill(*SLOW_PSQL)
        go(process)
        assert eventually(lambda: len(scratches(world)) == 1 and world.restorers() != [], 60)
        process.send_signal(sign)
        # Python loses an interrupt that comes while it destroys an object: once more, as a person would.
        while not eventually(lambda: process.poll() is not None or world.restorers() == [], 2):
            process.send_signal(sign)
        said, _ = process.communicate(timeout=120)
        if process.returncode != 0:
            break
    assert process.returncode != 0, said
    assert eventually(lambda: world.restorers() == []), world.restorers()
    if sign == signal.SIGINT:
        check_nothing_left(world)
        assert world.events()[-1] == ("verify-backup", "failed")
    else:
        assert len(scratches(world)) == 1
        assert eventually(lambda: verify_backup(return_state=True).is_completed(), 60)
        check_nothing_left(world)
