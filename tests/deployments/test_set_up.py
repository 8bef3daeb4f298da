"""The set-up is repeatable: it changes only what differs, says so, and leaves what somebody has set in Prefect."""

from __future__ import annotations

import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg2
import pytest
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import BlockDocumentCreate, DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.actions import DoNothing, SendNotification
from prefect.events.schemas.automations import Automation
from prefect.states import Scheduled

from deployments.add_plan import add_plan
from deployments.quick_start.prefect_services import PrefectServer
from deployments.set_plan import set_plan
from deployments.set_up_parts.blocks import edit_block
from tasks.alarms.automations import TYPES, block_name
from tasks.alarms.event_names import MARKS_CRASHED, TELLS_SINGLE, backup_name
from tasks.alarms.watch import arm
from tasks.errors import BadSetting
from tasks.plans.blocks import BackupPlan
from tasks.plans.settings import settings_from
from tasks.runs.reporting import without_link
from tests.deployments.conftest import SetUp, emit_failure
from tests.support import eventually
from tests.support.webhook import webhook
from tests.support.world import CHECKOUT, World

pytestmark = pytest.mark.slow


def daily(client: SyncPrefectClient) -> dict[str | None, DeploymentSchedule]:
    """The schedules of backup/daily by slug."""
    return {one.slug: one for one in client.read_deployment_by_name("backup/daily").schedules}


def copy_of_default(client: SyncPrefectClient, name: str, **fields: Any) -> None:
    """A plan as a form in the UI makes it, with the database, the storage and the catalogue of the plan `default`."""
    plan = client.read_block_document_by_name("default", "backup-plan")
    client.create_block_document(
        BlockDocumentCreate(
            name=name,
            data={"database": "default-database", **fields},
            block_schema_id=plan.block_schema_id,
            block_type_id=plan.block_type_id,
        )
    )


def program(world: World, *options: str) -> subprocess.CompletedProcess[str]:
    """The command, as somebody runs it."""
    return subprocess.run(
        [sys.executable, "-m", "deployments.set_up", *options],
        cwd=CHECKOUT,
        env={**world.environment, **world.settings()},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_a_check_of_a_new_server_names_all_that_is_missing_and_makes_nothing(
    client: SyncPrefectClient, run: SetUp
) -> None:
    lines = run(check=True)
    assert "Work pool backups is missing." in lines and "Block backup-plan/default is missing." in lines
    assert "Deployment backup/daily is missing." in lines and "Schedule nightly of backup/daily is missing." in lines
    assert client.read_deployments() == [] and client.read_work_pools() == []
    with pytest.raises(ValueError, match="Unable to find"):
        BackupPlan.load("default")


def test_the_set_up_run_twice_changes_nothing_and_a_check_finds_no_drift(
    client: SyncPrefectClient, run: SetUp, world: World
) -> None:
    assert "Deployment backup/daily was created." in run()
    [nightly] = daily(client).values()
    assert (nightly.slug, nightly.active, nightly.parameters) == ("nightly", True, {"plan": "default"})
    assert isinstance(nightly.schedule, CronSchedule)
    assert (nightly.schedule.cron, nightly.schedule.timezone) == ("0 2 * * *", "UTC")
    assert run() == []
    checked = program(world, "--check")
    assert (checked.returncode, checked.stdout.strip()) == (0, "Everything is as declared."), checked.stderr


def test_a_check_says_what_differs_exits_with_1_and_writes_nothing(
    client: SyncPrefectClient, run: SetUp, world: World
) -> None:
    deployment = client.read_deployment_by_name("cleanup/clean-up-now")
    client.update_deployment(deployment.id, DeploymentUpdate(entrypoint="flows/nothing.py:nothing"))
    checked = program(world, "--check")
    assert checked.returncode == 1 and "Deployment cleanup/clean-up-now is to be changed: entrypoint." in checked.stdout
    assert world.cluster.password not in checked.stdout + checked.stderr
    assert client.read_deployment_by_name("cleanup/clean-up-now").entrypoint == "flows/nothing.py:nothing"
    assert run() == ["Deployment cleanup/clean-up-now was changed: entrypoint."]
    assert run(check=True) == []


def test_the_automations_follow_notify_url_and_one_that_is_switched_off_stays_so(
    client: SyncPrefectClient, run: SetUp
) -> None:
    run()
    tellers = [one for one in automations(client).values() if one.name != MARKS_CRASHED]
    ids = {one.name: one.id for one in tellers}
    client.pause_automation(ids[TELLS_SINGLE])
    off = f"Automation {TELLS_SINGLE!r} is switched off, and stays so: switch it on in the Prefect UI."
    with webhook() as first, webhook() as second:
        lines = run(NOTIFY_URL=first.notify_url)
        changed = [f"Automation {name!r} was changed." for name in ids]
        blocks = [f"Block slack-webhook/{block_name(kind)} was created." for kind in TYPES]
        assert sorted(lines) == sorted([*blocks, off, *changed])
        there = automations(client)
        assert {one.name: one.id for one in there.values() if one.name in ids} == ids
        assert [name for name, one in there.items() if not one.enabled] == [TELLS_SINGLE]
        assert all(isinstance(there[name].actions[0], SendNotification) for name in ids)
        emit_failure(client)
        assert eventually(lambda: len(first.messages) == 1, 90)
        assert first.types == ["failure"]
        # The new address takes effect in the block alone: an automation that is changed forgets what it has seen.
        assert run(NOTIFY_URL=second.notify_url) == [*(line.replace("created", "changed") for line in blocks), off]
        arm(client, [backup_name("default")])
        emit_failure(client)
        assert eventually(lambda: len(second.messages) == 1, 90)
        assert len(first.messages) == 1
    assert run(NOTIFY_URL=second.notify_url, check=True) == [off]
    client.resume_automation(ids[TELLS_SINGLE])
    assert sorted(run()) == sorted(changed)
    assert all(isinstance(automations(client)[name].actions[0], DoNothing) for name in ids)
    assert run(check=True) == []


def automations(client: SyncPrefectClient) -> dict[str, Automation]:
    """Every automation of the server by its name."""
    return {one.name: one for one in client.read_automations()}


def test_what_is_changed_switched_off_or_deleted_in_prefect_stays_so_and_is_said(
    client: SyncPrefectClient, run: SetUp
) -> None:
    deployment = client.read_deployment_by_name("backup/daily").id
    nightly = daily(client)["nightly"]
    client.update_deployment_schedule(deployment, nightly.id, active=False)
    [line] = run()
    said = "Schedule nightly of backup/daily: {} was changed in Prefect, and stays {}; its declaration says {}."
    assert line == said.format("active", "off", "on")
    five = CronSchedule(cron="0 5 * * *", timezone="UTC")
    client.update_deployment_schedule(deployment, nightly.id, active=True, schedule=five)
    [line] = run()
    assert line == said.format("schedule", "cron 0 5 * * * (UTC)", "cron 0 2 * * * (UTC)")
    assert run(check=True) == [line]
    kept = daily(client)["nightly"].schedule
    assert isinstance(kept, CronSchedule) and kept.cron == "0 5 * * *"
    client.delete_deployment_schedule(deployment, nightly.id)
    [line] = run()
    assert line.startswith("Schedule nightly of backup/daily was deleted in Prefect, and stays so.")
    assert daily(client) == {}
    assert run(overwrite=True) == ["Schedule nightly of backup/daily was created: cron 0 2 * * * (UTC)."]
    assert run(check=True) == []


def test_a_deployment_that_was_changed_in_prefect_stays_so_and_a_change_of_it_keeps_its_schedules(
    client: SyncPrefectClient, run: SetUp
) -> None:
    before = client.read_deployment_by_name("backup/daily")
    client.update_deployment(before.id, DeploymentUpdate(description="Ours.", entrypoint="elsewhere.py:flow"))
    first, second = run()
    assert first.startswith('Deployment backup/daily: description was changed in Prefect, and stays "Ours."')
    assert second == "Deployment backup/daily was changed: entrypoint."
    after = client.read_deployment_by_name("backup/daily")
    assert (without_link(str(after.description)), after.entrypoint) == ("Ours.", before.entrypoint)
    assert [one.id for one in after.schedules] == [one.id for one in before.schedules]
    assert run(overwrite=True) == ["Deployment backup/daily was changed: description."]


def test_the_plan_follows_what_changes_in_env_unless_its_block_was_edited(
    client: SyncPrefectClient, run: SetUp
) -> None:
    lines = run(SCHEDULE="RRULE:FREQ=DAILY;BYHOUR=3", SCHEDULE_TIMEZONE="Europe/Berlin", RETENTION_DAYS="9")
    assert "Plan default was changed: retention_days follows RETENTION_DAYS in .env." in lines
    [changed] = [line for line in lines if line.startswith("Schedule")]
    assert "RRULE:FREQ=DAILY;BYHOUR=3 (Europe/Berlin) instead of cron 0 2 * * * (UTC)" in changed
    plan = BackupPlan.load("default")
    assert (plan.retention_days, plan.schedule_timezone) == (9, "Europe/Berlin")  # type: ignore[union-attr]
    edit_block(plan, {"retention_days": 30})  # type: ignore[arg-type]
    same = {"SCHEDULE": "RRULE:FREQ=DAILY;BYHOUR=3", "SCHEDULE_TIMEZONE": "Europe/Berlin"}
    assert run(RETENTION_DAYS="9", **same) == []
    [line] = run(RETENTION_DAYS="10", **same)
    assert line.startswith("RETENTION_DAYS was changed in .env, and retention_days was changed in the block")
    run(RETENTION_DAYS="30")
    assert run(RETENTION_DAYS="30", check=True) == []


def client_tools(plan: str) -> str:
    """The *Client tools directory* of a plan."""
    return str(BackupPlan.load(plan).client_tools_directory)  # type: ignore[union-attr]


def test_every_plan_gets_a_schedule_of_its_own_and_loses_it_with_its_block(
    client: SyncPrefectClient, run: SetUp, world: World
) -> None:
    copy_of_default(client, "made-in-the-ui", schedule="every 6 hours")
    same = {"RETENTION_DAYS": "30"}
    assert run(**same) == ["Schedule plan-made-in-the-ui of backup/daily was created: every 6 hours."]
    given = settings_from({"DATABASE_URL": world.database_url, "SCHEDULE": "30 3 * * 1-5"})
    lines = list(add_plan("added", given))
    assert lines[-1] == "Schedule plan-added of backup/daily was created: cron 30 3 * * 1-5 (UTC)."
    assert daily(client)["plan-added"].parameters == {"plan": "added"}
    assert client_tools("added") == client_tools("default") != ""
    elsewhere = settings_from({"DATABASE_URL": "postgresql://u:p@elsewhere.invalid/x", "SCHEDULE": "never"})
    assert list(add_plan("elsewhere", elsewhere)) and client_tools("elsewhere") == ""
    assert run(check=True, **same) == []
    BackupPlan.delete("made-in-the-ui")
    assert run(**same) == ["Schedule plan-made-in-the-ui of backup/daily was removed: no plan wants it."]
    assert set(daily(client)) == {"nightly", "plan-added"}


def test_a_plan_with_a_schedule_of_somebodys_own_gets_no_second_one(client: SyncPrefectClient, run: SetUp) -> None:
    copy_of_default(client, "by-hand")
    own = DeploymentScheduleCreate(schedule=CronSchedule(cron="0 1 * * *"), parameters={"plan": "by-hand"})
    [made] = client.create_deployment_schedules(client.read_deployment_by_name("backup/daily").id, [own])
    [line] = run(RETENTION_DAYS="30")
    assert line.startswith("Plan by-hand has a schedule of its own in Prefect (cron 0 1 * * * (UTC))")
    assert "plan-by-hand" not in daily(client)
    client.delete_deployment_schedule(client.read_deployment_by_name("backup/daily").id, made.id)
    BackupPlan.delete("by-hand")


def test_a_schedule_that_cannot_be_read_is_refused_before_anything_is_written(
    client: SyncPrefectClient, run: SetUp
) -> None:
    plan: Any = BackupPlan.load("added")
    edit_block(plan, {"schedule": "61 * * * *"})
    with pytest.raises(BadSetting, match="The schedule of plan added is '61"):
        run(RETENTION_DAYS="31")
    assert BackupPlan.load("default").retention_days == 30  # type: ignore[union-attr]
    edit_block(plan, {"schedule": "never"})
    assert run(RETENTION_DAYS="30") == ["Schedule plan-added of backup/daily was removed: no plan wants it."]
    edit_block(plan, {"schedule": "0 3 * * *"})
    assert run(RETENTION_DAYS="30") == ["Schedule plan-added of backup/daily was created: cron 0 3 * * * (UTC)."]
    removed = "Schedule plan-added of backup/daily was removed: no plan wants it."
    assert list(set_plan("added", ["restore_only=true"]))[1:] == [removed]
    edit_block(plan, {"schedule": "never", "restore_only": False})
    with pytest.raises(BadSetting, match="SCHEDULE names the time zone 'Mars"):
        run(SCHEDULE_TIMEZONE="Mars/Olympus")


def test_of_runs_that_were_missed_the_newest_works_and_the_others_end_as_skipped(
    client: SyncPrefectClient, run: SetUp, world: World, server: PrefectServer
) -> None:
    run(RETENTION_DAYS="30")
    missed = three_missed_runs(client, server)
    words = [sys.executable, "-m", "prefect", "flow-run", "execute"]
    for run_id in missed:
        subprocess.run(
            [*words, run_id],
            cwd=CHECKOUT,
            env=world.environment,
            check=False,
            timeout=300,
            capture_output=True,
            stdin=subprocess.DEVNULL,
        )
    states = [client.read_flow_run(run_id).state for run_id in missed]  # type: ignore[arg-type]
    assert [(one.type.value, one.name) for one in states if one] == [
        ("COMPLETED", "Skipped"),
        ("COMPLETED", "Skipped"),
        ("COMPLETED", "Completed"),
    ], states
    assert states[0] and str(states[0].message).startswith("Skipped: this run was due at")
    assert world.statuses() == ["completed"]


def three_missed_runs(client: SyncPrefectClient, server: PrefectServer) -> list[str]:
    """Three planned runs of the plan default whose time has passed by while the server was down; the oldest first."""
    nightly = daily(client)["nightly"]
    deployment = client.read_deployment_by_name("backup/daily")
    give_up = datetime.now(UTC) + timedelta(minutes=4)
    while True:
        asked = {"deployments": {"id": {"any_": [str(deployment.id)]}}, "sort": "EXPECTED_START_TIME_ASC"}
        runs = client.request("POST", "/flow_runs/filter", json=asked).json()
        runs = [one for one in runs if one["created_by"]["id"] == str(nightly.id)][:3]
        if len(runs) == 3:
            break
        assert datetime.now(UTC) < give_up, "the server has planned no runs"
    assert server.database
    with closing(psycopg2.connect(server.database.url("prefect"))) as database, database.cursor() as cursor:
        for days, one in zip((3, 2, 1), runs, strict=True):
            past = datetime.now(UTC) - timedelta(days=days)
            client.set_flow_run_state(one["id"], Scheduled(scheduled_time=past), force=True)
            # The time at which a run was due is not for clients to change.
            cursor.execute("UPDATE flow_run SET expected_start_time = %s WHERE id = %s", [past, one["id"]])
            database.commit()
    return [one["id"] for one in runs]


def test_an_address_that_proves_no_server_is_told_when_it_is_written_and_not_again(run: SetUp) -> None:
    weak = "postgresql://reader:marker-of-the-address@db.example.org/shop"
    proved = f"{weak}?sslmode=verify-full&sslrootcert=/etc/ssl/db-ca.pem"
    [told] = [line for line in run(DATABASE_URL=weak) if "sslmode" in line]
    assert told.startswith("The address db.example.org:5432/shop of block default-database: sslmode is prefer")
    assert "marker" not in told
    assert run(DATABASE_URL=weak) == run(check=True, DATABASE_URL=weak) == []
    assert not [line for line in run(DATABASE_URL=proved) if "sslmode is" in line]
