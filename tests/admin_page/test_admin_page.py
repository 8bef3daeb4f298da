"""The artifact `backups` follows every run, whatever is down; `list-backups` refreshes it and says what is wrong."""

from __future__ import annotations

import html
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from prefect import flow
from prefect.settings import PREFECT_API_URL, PREFECT_UI_URL, temporary_settings

from deployments.quick_start.prefect_services import PrefectServer
from flows.cleanup import cleanup
from flows.list_backups import list_backups
from tasks.admin_page import prefect_data, steps
from tasks.admin_page.steps import admin_page_follows
from tasks.errors import BadSetting, CatalogueUnavailable
from tasks.plans.addresses import plans_of_settings
from tasks.postgres.dsn import parse
from tasks.runs.reporting import publish, with_link, without_link
from tests.admin_page.rows import insert, row
from tests.support.flow_fixtures import WorldFactory
from tests.support.prefect_client import prefect_client
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
def world(make_world: WorldFactory, api: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> World:
    made = make_world(mebibytes=0)
    delete_pages(api)
    # Other tests leave blocks behind whose servers are gone: here there is the plan of `.env` alone.
    monkeypatch.setattr(prefect_data.AdminPageApi, "plans", lambda _: plans_of_settings(Path.cwd()))
    return made


@pytest.fixture
def api(prefect_api: PrefectServer) -> Iterator[httpx.Client]:
    with prefect_client(prefect_api.api_url, prefect_api.password) as client:
        yield client
        for one in MADE:
            client.delete(f"deployments/{one}")
        MADE.clear()


def asked(api: httpx.Client, path: str, body: dict[str, Any]) -> Any:
    """What the server answers."""
    return api.post(path, json=body).raise_for_status().json()


def pages(api: httpx.Client) -> list[dict[str, Any]]:
    """Every artifact that is the admin page."""
    return list(asked(api, "artifacts/filter", {"artifacts": {"key": {"any_": ["backups"]}}, "sort": "CREATED_DESC"}))


def delete_pages(api: httpx.Client) -> None:
    for page in pages(api):
        api.delete(f"artifacts/{page['id']}")


def admin_page(api: httpx.Client) -> dict[str, Any]:
    """The admin page; there is one."""
    [page] = pages(api)
    return page


def deployed(api: httpx.Client, flow_name: str, name: str, **more: Any) -> str:
    """A deployment of this name; its id."""
    flow_id = asked(api, "flows/", {"name": flow_name})["id"]
    MADE.append(str(asked(api, "deployments/", {"name": name, "flow_id": flow_id, **more})["id"]))
    return MADE[-1]


def test_a_run_leaves_the_page_as_things_are_however_it_ended(world: World, api: httpx.Client) -> None:
    made = row("default", NOW - timedelta(hours=1))
    insert(world.catalogue, [made])
    assert something() == "done"
    assert made["filename"] in admin_page(api)["data"]
    failed = row("default", NOW, status="failed", error="It broke.")
    insert(world.catalogue, [failed])
    with pytest.raises(BadSetting, match="Something is wrong"):
        something(fails=True)
    assert failed["filename"] in admin_page(api)["data"]


def test_a_cleanup_shows_what_it_did(world: World, api: httpx.Client) -> None:
    cleanup()
    assert "No backup has been made yet" in admin_page(api)["data"]


def test_a_catalogue_that_is_down_fails_no_run(
    world: World, api: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CATALOG_URL", NOBODY)
    assert something() == "done"
    text = admin_page(api)["data"]
    assert "does not answer" in text
    assert "a-secret" not in text


def test_a_prefect_server_that_is_down_fails_no_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    warned: list[str] = []
    monkeypatch.setattr(steps, "warn", warned.append)
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}):
        steps.publish_backups.fn()
    assert len(warned) == 1
    assert "Prefect server gave no answer" in warned[0]


@pytest.mark.slow
def test_every_plan_that_has_a_block_is_on_the_page(make_world: WorldFactory, api: httpx.Client) -> None:
    world = make_world(mebibytes=0)
    insert(world.catalogue, [row("odd-block", NOW)])
    world.save_plan("odd-block")
    with prefect_data.admin_page_api() as ours:
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
    assert f"](/v2/deployments/deployment/{identity}/run?parameters=" in admin_page(api)["data"]
    with (
        temporary_settings({PREFECT_UI_URL: "https://backups.example.org/prefect"}),
        prefect_data.admin_page_api() as ours,
    ):
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
    with prefect_data.admin_page_api() as ours:
        deployments = [one for one in ours.deployments() if one.name.startswith("odd-")]
        next_runs = ours.next_runs(deployments, ["odd-plan", "other"], NOW)
    assert next_runs.keys() == {"odd-plan"}
    assert NOW < next_runs["odd-plan"] <= at


def test_runs_that_write_at_once_leave_the_page_right(world: World, api: httpx.Client) -> None:
    """The one that wrote last has read what all the others did."""

    def act(number: int) -> None:
        insert(world.catalogue, [row("default", NOW - timedelta(minutes=number), created_by=f"writer-{number}")])
        with prefect_data.admin_page_api() as ours:
            steps._publish(ours)

    threads = [threading.Thread(target=act, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    text = admin_page(api)["data"]
    assert [number for number in range(4) if f"writer&#45;{number}" not in text] == []


def test_the_page_keeps_its_address_and_a_run_that_finds_it_deleted_makes_one_again(
    world: World, api: httpx.Client
) -> None:
    list_backups()
    first = admin_page(api)
    list_backups()
    assert admin_page(api)["id"] == first["id"]
    assert admin_page(api)["updated"] > first["updated"]
    assert api.delete(f"artifacts/{first['id']}").status_code == httpx.codes.NO_CONTENT
    list_backups()
    assert admin_page(api)["id"] != first["id"]
    newest = asked(api, "artifacts/latest/filter", {"artifacts": {"key": {"any_": ["backups"]}}})
    assert [one["latest_id"] for one in newest] == [admin_page(api)["id"]]


def test_of_several_pages_the_oldest_stays_with_the_newest_content(world: World, api: httpx.Client) -> None:
    """As a version before this one left them, or two runs that made the page at the same moment."""
    list_backups()
    first = admin_page(api)
    for _ in range(3):
        asked(api, "artifacts/", {"key": "backups", "type": "markdown", "data": "# Old"})
    list_backups()
    assert admin_page(api)["id"] == first["id"]
    newest = asked(api, "artifacts/latest/filter", {"artifacts": {"key": {"any_": ["backups"]}}})
    assert [(one["latest_id"], one["data"]) for one in newest] == [(first["id"], admin_page(api)["data"])]
    assert "# Old" not in admin_page(api)["data"]


def test_runs_that_make_the_page_at_once_leave_one(world: World, api: httpx.Client) -> None:
    delete_pages(api)

    def act() -> None:
        with prefect_data.admin_page_api() as ours:
            steps._publish(ours)

    threads = [threading.Thread(target=act) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert admin_page(api)["data"].startswith("# Backups")


def test_every_deployment_of_ours_begins_its_description_with_the_link_to_the_page(
    world: World, api: httpx.Client
) -> None:
    deployed(api, "restore", "restore-backup", description="Puts a backup back.")
    deployed(api, "cleanup", "no-description")
    deployed(api, "somebody-elses", "other", description="Not ours.")
    for _ in range(2):
        list_backups()
        link = f"[All backups](/v2/artifacts/artifact/{admin_page(api)['id']})"
        described = [api.get(f"deployments/{one}").json()["description"] for one in MADE]
        assert described == [f"{link}\n\nPuts a backup back.", link, "Not ours."]
        api.delete(f"artifacts/{admin_page(api)['id']}")


def test_the_link_is_told_from_the_text_behind_it() -> None:
    text = "Puts a [backup](https://example.org) back."
    assert without_link(with_link(with_link(text, "/v2/old"), "/v2/new")) == without_link(text) == text
    assert with_link(with_link(text, "/v2/old"), "/v2/new") == with_link(text, "/v2/new")


@flow(name="something-to-see", persist_result=False)
def something_to_see() -> None:
    publish("something-to-see", "What was done", "# Done")


def test_a_result_ends_with_the_link_to_the_page(world: World, api: httpx.Client) -> None:
    list_backups()
    something_to_see()
    [result] = asked(api, "artifacts/filter", {"artifacts": {"key": {"any_": ["something-to-see"]}}})
    assert result["data"] == f"# Done\n\n[All backups](/v2/artifacts/artifact/{admin_page(api)['id']})\n"


def test_a_plan_that_backs_up_something_else_now_says_so(
    world: World, api: httpx.Client, make_world: WorldFactory
) -> None:
    insert(world.catalogue, [row("default", NOW)])
    list_backups()
    other = make_world(mebibytes=0)
    list_backups()
    text = html.unescape(admin_page(api)["data"])
    assert f"It backs up {parse(other.database_url).place} with the catalogue" in text
    assert f"Before, it backed up {parse(world.database_url).place} with the catalogue" in text


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
