"""The artifact `backups` follows every run, whatever is down; `list-backups` refreshes it and says what is wrong."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from prefect import flow
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL, temporary_settings

from deployments.quick_start.prefect_services import LOGIN, PrefectServer
from flows.cleanup import cleanup
from flows.list_backups import list_backups
from tasks.admin_page import prefect_data as panel_api
from tasks.admin_page import steps as admin_page
from tasks.admin_page.steps import admin_page_follows
from tasks.errors import BadSetting, CatalogueUnavailable
from tasks.postgres.dsn import parse
from tests.admin_page.rows import insert, row
from tests.support.flow_fixtures import WorldFactory
from tests.support.world import CHECKOUT, World

NOW = datetime.now(UTC).replace(microsecond=0)
#: Ids of the deployments of the test that runs.
MADE: list[str] = []
NOBODY = "postgresql://somebody:a-secret@127.0.0.1:1/nothing"


@flow(name="something", persist_result=False)
def something(fails: bool = False) -> str:
    with admin_page_follows():
        if fails:
            raise BadSetting("Something is wrong.")
        return "done"


@pytest.fixture
def world(make_world: WorldFactory, monkeypatch: pytest.MonkeyPatch) -> World:
    made = make_world(mebibytes=0)
    # Other tests leave blocks behind whose servers are gone: here there is the plan of `.env` alone.
    monkeypatch.setattr(panel_api.PanelApi, "plans", lambda _: panel_api._from_environment())
    return made


@pytest.fixture
def api(prefect_api: PrefectServer) -> Iterator[httpx.Client]:
    with httpx.Client(
        base_url=f"{prefect_api.api_url}/", trust_env=False, auth=(LOGIN, prefect_api.password), timeout=30
    ) as client:
        yield client
        for one in MADE:
            client.delete(f"deployments/{one}")
        MADE.clear()


def asked(api: httpx.Client, path: str, body: dict[str, Any]) -> Any:
    """What the server answers; one that is busy is asked again."""
    for _ in range(20):
        answer = api.post(path, json=body)
        if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
            break
        time.sleep(0.5)
    answer.raise_for_status()
    return answer.json()


def pages(api: httpx.Client) -> list[dict[str, Any]]:
    """Every version of the page, newest first."""
    return list(asked(api, "artifacts/filter", {"artifacts": {"key": {"any_": ["backups"]}}, "sort": "CREATED_DESC"}))


def deployed(api: httpx.Client, flow_name: str, name: str, **more: Any) -> str:
    """A deployment of this name; its id."""
    flow_id = asked(api, "flows/", {"name": flow_name})["id"]
    MADE.append(str(asked(api, "deployments/", {"name": name, "flow_id": flow_id, **more})["id"]))
    return MADE[-1]


def test_a_run_leaves_the_page_as_things_are_however_it_ended(world: World, api: httpx.Client) -> None:
    made = row("default", NOW - timedelta(hours=1))
    insert(world.catalogue, [made])
    assert something() == "done"
    assert made["filename"] in pages(api)[0]["data"]
    failed = row("default", NOW, status="failed", error="It broke.")
    insert(world.catalogue, [failed])
    with pytest.raises(BadSetting, match="Something is wrong"):
        something(fails=True)
    [newest, *_] = pages(api)
    assert failed["filename"] in newest["data"]
    assert newest["flow_run_id"]


def test_a_cleanup_shows_what_it_did(world: World, api: httpx.Client) -> None:
    cleanup()
    assert "No backup has been made yet" in pages(api)[0]["data"]


def test_a_catalogue_that_is_down_fails_no_run(
    world: World, api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATALOG_URL", NOBODY)
    assert something() == "done"
    text = pages(api)[0]["data"]
    assert "does not answer" in text
    assert "a-secret" not in text


def test_a_prefect_server_that_is_down_fails_no_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    warned: list[str] = []
    monkeypatch.setattr(admin_page, "warn", warned.append)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}):
        admin_page.publish_backups.fn()
    assert len(warned) == 1
    assert "Prefect server gave no answer" in warned[0]


@pytest.mark.slow
def test_every_plan_that_has_a_block_is_on_the_page(make_world: WorldFactory, api: httpx.Client) -> None:
    world = make_world(mebibytes=0)
    insert(world.catalogue, [row("odd-block", NOW)])
    world.save_plan("odd-block")
    with panel_api.panel_api() as ours:
        [address] = [one for one in ours.plans() if one.name == "odd-block"]
        links = ours.links([])
    assert address.database is not None
    assert address.database.dbname == parse(world.database_url).dbname
    assert address.catalogue == parse(world.catalogue_url)
    assert parse(world.database_url).parameters["password"] not in repr(address)
    assert links.base == "/v2"
    [view] = list_backups("odd-block")
    assert view.reading is not None
    assert len(view.reading.lines) == 1


def test_links_lead_to_the_deployments_that_there_are(world: World, api: httpx.Client) -> None:
    identity = deployed(api, "restore", "restore-backup")
    insert(world.catalogue, [row("default", NOW)])
    [view] = list_backups()
    assert view.reading is not None
    assert f"](/v2/deployments/deployment/{identity}/run?parameters=" in pages(api)[0]["data"]
    with temporary_settings({PREFECT_UI_URL: "https://backups.example.org/prefect"}), panel_api.panel_api() as ours:
        base = ours.links(ours.deployments()).base
    assert base == "https://backups.example.org/prefect/v2"


def test_the_next_run_is_the_one_that_the_server_has_scheduled(world: World, api: httpx.Client) -> None:
    deployed(api, "backup", "odd-nightly", parameters={"plan": "odd-plan"})
    found = deployed(
        api,
        "backup",
        "odd-hourly",
        parameters={"plan": "odd-plan"},
        schedules=[{"schedule": {"cron": "0 * * * *", "timezone": "UTC"}, "active": True}],
    )
    at = NOW + timedelta(hours=3)
    state = {"type": "SCHEDULED", "state_details": {"scheduled_time": at.isoformat()}}
    asked(api, f"deployments/{found}/create_flow_run", {"state": state, "parameters": {"plan": "odd-plan"}})
    with panel_api.panel_api() as ours:
        deployments = [one for one in ours.deployments() if one.name.startswith("odd-")]
        next_runs = ours.next_runs(deployments, ["odd-plan", "other"], NOW)
    assert next_runs.keys() == {"odd-plan"}
    assert NOW < next_runs["odd-plan"] <= at


def test_runs_that_write_at_once_leave_the_page_right(world: World, api: httpx.Client) -> None:
    """The one that wrote last has read what all the others did."""

    def act(number: int) -> None:
        insert(world.catalogue, [row("default", NOW - timedelta(minutes=number), created_by=f"writer-{number}")])
        with panel_api.panel_api() as ours:
            admin_page._publish(ours)

    threads = [threading.Thread(target=act, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    text = pages(api)[0]["data"]
    assert [number for number in range(4) if f"writer&#45;{number}" not in text] == []


def test_old_versions_of_the_page_do_not_pile_up(
    world: World, api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(panel_api, "_VERSIONS", 3)
    for _ in range(2):
        list_backups()
    for _ in range(10):  # what earlier tests left goes in several steps
        with panel_api.panel_api() as ours:
            ours.publish("backups", "", "# Backups")
    assert len(pages(api)) == 3


def test_a_list_of_what_cannot_be_asked_says_so(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CATALOG_URL", NOBODY)
    with pytest.raises(CatalogueUnavailable, match=r"The backups of default cannot be listed.*127\.0\.0\.1:1") as told:
        list_backups()
    assert "a-secret" not in str(told.value)


def test_a_list_of_no_plan_says_so(world: World) -> None:
    with pytest.raises(BadSetting, match="There is no plan 'shop'"):
        list_backups("shop")


@pytest.mark.slow
def test_a_command_prints_the_list(world: World) -> None:
    made = row("default", NOW, created_by="Ada")
    insert(world.catalogue, [made])
    words = [sys.executable, "-m", "flows.list_backups", "--plan", "default"]
    environment = {**world.environment, **world.settings()}
    done = subprocess.run(
        words, cwd=CHECKOUT, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    assert any(line.split()[:3] == ["default", made["filename"], "completed"] for line in done.stdout.splitlines())
