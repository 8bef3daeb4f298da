"""The health check as people run it: by its deployment, and as `python -m flows.check_health`."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from deployments.quick_start.processes import free_port
from tasks.health.prefect_facts import next_due, prefect_facts
from tasks.health.prefect_server import worker_line
from tests.support import eventually
from tests.support.flow_fixtures import WorldFactory
from tests.support.installation import Installation
from tests.support.world import Heard

MARKER = "m4rker-p4ssword"


def status(done: subprocess.CompletedProcess[str], check: str) -> str:
    """The status of one check by what was printed."""
    found = re.search(rf"^(ok|warning|failed) +{re.escape(check)}: ", done.stdout, re.MULTILINE)
    assert found, done.stdout + done.stderr
    return found[1]


@contextmanager
def switched(installation: Installation, off: str, on: str) -> Iterator[None]:
    """Something is switched off for the length of a `with` block: two paths of the API."""
    installation.api(off, {})
    try:
        yield
    finally:
        installation.api(on, {})


@contextmanager
def installation_client(installation: Installation) -> Iterator[SyncPrefectClient]:
    """A client of the installation's server, which everything in this process asks meanwhile."""
    asked = {PREFECT_API_URL: installation.server.api_url, PREFECT_API_AUTH_STRING: installation.server.auth_string}
    with temporary_settings(asked), get_client(sync_client=True) as client:
        yield client


def is_planned(installation: Installation, deployment: str) -> bool:
    """Whether the server has planned runs of it, which it does within a minute or two after a change of a schedule."""
    asked = {
        "deployments": {"id": {"any_": [installation.deployment_id(deployment)]}},
        "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}},
        "limit": 1,
    }
    return bool(installation.api("/flow_runs/filter", asked))


# --- by its deployment


@pytest.mark.slow
def test_a_healthy_plan_ends_well_and_every_line_stands_in_the_artifact(installation: Installation) -> None:
    assert eventually(lambda: is_planned(installation, "backup/daily"), 180)
    run = installation.ended(installation.begin("check-health/check-now", requested_by="Ada | <b>"))
    assert run["state"]["type"] == "COMPLETED", installation.log(run["id"])
    assert run["name"] == "check-health-default"
    artifact = installation.artifact("health-default")
    assert " 0 failed" in artifact["description"]
    for check in ("Database", "Catalogue", "Bucket", "Last backup", "Schedule", "Worker", "Spool", "Clocks"):
        assert f"| ✅ ok | {check} |" in artifact["data"], artifact["data"]
    assert "| ⚠️ warning | Alarms |" in artifact["data"] and "They notify nobody" in artifact["data"]
    assert "backup&#45;daily" in artifact["data"] or "backup/daily" in artifact["data"]
    [(actor, details)] = installation.world.sql(
        "SELECT actor, details FROM backup_events WHERE run_id = %s", [run["id"]], installation.world.catalogue_url
    )
    assert actor == "Ada | <b>" and details["failed"] == []
    asked = {
        "filter": {
            "event": {"name": ["health.ok"]},
            "resource": {"id": ["backup-plan.default"]},
            "occurred": {"since": run["start_time"]},
        }
    }
    assert eventually(lambda: installation.api("/events/filter", asked)["total"] >= 1, 90)


@pytest.mark.slow
def test_an_unknown_plan_is_named_in_the_state_of_the_run_and_once_in_its_log(installation: Installation) -> None:
    said = "There is no plan 'nobody'"
    first, second = (installation.ended(installation.begin("check-health/check-now", plan="nobody")) for _ in range(2))
    assert first["state"]["type"] == "FAILED" and said in first["state"]["message"]
    assert eventually(lambda: said in installation.log(second["id"]), 90)  # the process of the first is gone by now
    assert installation.log(first["id"]).count(said) == 1


def test_the_next_run_of_every_kind_of_schedule_is_a_time_to_reckon_with() -> None:
    moment = datetime(2026, 3, 10, 12, 0, tzinfo=UTC)
    nightly = CronSchedule(cron="0 2 * * *", timezone="Europe/Berlin")
    hourly = IntervalSchedule(interval=timedelta(hours=1), anchor_date=moment, timezone="UTC")
    weekly = RRuleSchedule(rrule="DTSTART:20260301T040000\nFREQ=WEEKLY", timezone="UTC")
    ended = RRuleSchedule(rrule="DTSTART:20260301T040000\nFREQ=DAILY;COUNT=2", timezone="UTC")
    for schedules, hours in (([nightly], 13), ([hourly], 0), ([weekly], 5 * 24 - 8), ([nightly, weekly], 13)):
        due = next_due(schedules)(moment)
        assert due is not None and due + timedelta(hours=2) - moment == timedelta(hours=hours + 2), schedules
    assert next_due([ended])(moment) is None
    assert next_due([])(moment) is None


# --- as a command


@pytest.mark.slow
def test_the_command_prints_a_line_for_each_check_and_finds_what_was_paused(installation: Installation) -> None:
    daily = installation.deployment_id("backup/daily")
    with switched(installation, f"/deployments/{daily}/pause_deployment", f"/deployments/{daily}/resume_deployment"):
        done = installation.run("-m", "flows.check_health", "--plan", "default")
    assert done.returncode == 1
    assert status(done, "Schedule") == "failed"
    assert status(done, "Database") == status(done, "Worker") == "ok"
    assert done.stdout.splitlines()[0].startswith("Plan default: ")
    assert "Plan default is not healthy, 1 of" in done.stderr
    assert "Schedule: backup/daily is paused." in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.slow
def test_a_plan_whose_pool_has_no_worker_is_found(installation: Installation) -> None:
    flow_id = installation.api(f"/deployments/{installation.deployment_id('backup/daily')}")["flow_id"]
    installation.api("/work_pools/", {"name": "lonely", "type": "process"})
    made = installation.api(
        "/deployments/",
        {
            "name": "lonely",
            "flow_id": flow_id,
            "work_pool_name": "lonely",
            "parameters": {"plan": "lonely"},
            "schedules": [{"schedule": {"interval": 3600}, "active": True}],
        },
    )
    with installation_client(installation) as client:
        try:
            facts = prefect_facts("lonely", datetime.now(UTC))
        finally:
            client.delete_deployment(UUID(made["id"]))
            client.delete_work_pool("lonely")
    line = worker_line(facts, datetime.now(UTC))
    assert line.status == "failed" and "No worker serves work pool lonely." in line.what
    scheduled = next(one for one in facts.scheduled if one.name == "backup/lonely")
    assert scheduled.is_active
    due = scheduled.next_due(datetime.now(UTC))
    assert due is not None and timedelta() <= due - datetime.now(UTC) <= timedelta(hours=1)


@pytest.mark.slow
def test_prefect_is_asked_for_schedule_worker_drill_and_alarms(installation: Installation) -> None:
    now = datetime.now(UTC)
    with installation_client(installation):
        assert eventually(lambda: prefect_facts("default", now).scheduled[0].next_run is not None, 120)
        facts = prefect_facts("default", now)
    scheduled, of_all = facts.scheduled
    assert (scheduled.name, scheduled.is_active) == ("backup/daily", True)
    assert (of_all.name, of_all.is_active) == ("backup-all/backup-all-plans", False)
    assert scheduled.next_run is not None and scheduled.next_run == scheduled.next_due(now)
    [nightly] = installation.api("/deployments/name/backup/daily")["schedules"]
    there = scheduled.next_run.astimezone(ZoneInfo(nightly["schedule"]["timezone"]))
    assert (there.hour, there.minute) == (2, 0)
    assert facts.due_after(now) == scheduled.next_run
    assert facts.verifies and facts.missing_alarms == facts.silenced_alarms == ()
    [pool] = facts.pools
    assert (pool.name, pool.problem) == ("backups", "") and [worker.name for worker in pool.workers] == ["installation"]
    assert worker_line(facts, now).status == "ok"
    later = worker_line(facts, now + timedelta(minutes=10))
    assert (
        later.status == "failed" and "The last heartbeat of worker installation of work pool backups was" in later.what
    )


@pytest.mark.slow
def test_an_automation_that_was_switched_off_or_deleted_is_found(installation: Installation) -> None:
    automation = installation.api("/automations/filter", {})[0]
    place = {"path_params": {"id": automation["id"]}}
    with installation_client(installation) as client:
        client.request("PATCH", "/automations/{id}", **place, json={"enabled": False})
        try:
            facts = prefect_facts("default", datetime.now(UTC))
        finally:
            client.request("PATCH", "/automations/{id}", **place, json={"enabled": True})
        assert facts.silenced_alarms == (automation["name"],)
        assert prefect_facts("default", datetime.now(UTC)).silenced_alarms == ()


@pytest.mark.slow
def test_without_a_prefect_server_the_rest_is_checked_and_a_warning_says_so(installation: Installation) -> None:
    """The plan is what `.env`, here the environment, describes."""
    home = str(installation.directory / "no-server")
    done = installation.run(
        "-m", "flows.check_health", **{"PREFECT_HOME": home, "PREFECT_API_URL": "", **installation.world.settings()}
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert status(done, "Prefect") == "warning"
    assert status(done, "Database") == status(done, "Bucket") == status(done, "Last backup") == "ok"


# --- in this process


def test_what_is_wrong_is_told_by_the_state_alone_and_no_secret_is_told_at_all(
    make_world: WorldFactory, heard: Heard
) -> None:
    from flows.check_health import check_health

    world = make_world(mebibytes=0)
    address = re.sub(r"//([^@]*)@", f"//postgres:{MARKER}@", world.database_url)
    if MARKER not in address:
        address = world.database_url.replace("//", f"//postgres:{MARKER}@")
    gone = re.sub(r":\d+/", f":{free_port()}/", address)
    world = make_world(mebibytes=0, settings={"DATABASE_URL": gone, "CLOUDFLARE_SECRET_ACCESS_KEY": MARKER})
    state: Any = check_health(return_state=True)
    assert state.is_failed()
    assert "Plan default is not healthy" in state.message
    assert "Database: Nobody answers at" in state.message and "Bucket: " in state.message
    assert "\n" not in state.message and "Traceback" not in heard.text
    assert MARKER not in heard.text + state.message
    assert ("check-health", "failed") in world.events()
    EventsWorker.drain_all(timeout=10, at_exit=False)


def test_a_catalogue_that_does_not_answer_is_not_waited_for_twice(make_world: WorldFactory, heard: Heard) -> None:
    from flows.check_health import check_health

    world = make_world(mebibytes=0)
    gone = re.sub(r":\d+/", f":{free_port()}/", world.catalogue_url)
    make_world(mebibytes=0, settings={"CATALOG_URL": gone})
    state: Any = check_health(return_state=True)
    assert state.is_failed() and "Catalogue: The catalogue does not answer." in state.message
    assert "The audit could not be written" not in heard.text
