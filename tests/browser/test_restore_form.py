"""A restore and its undoing by one click each, in the forms of the Prefect UI."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Request, Route

from tests.browser.conftest import PATIENCE, Browser
from tests.support.installation import DATABASE, ODD_TABLE, Installation
from tests.support.world import CHECKOUT, plain_dump

pytestmark = pytest.mark.slow

SECURITY = (CHECKOUT / "docs" / "security.md").read_text(encoding="utf-8")
PAGES_OF_THE_UI = ("/v2/dashboard", "/v2/deployments", "/v2/blocks")
#: As docs/security.md names it.
OTHER_HOSTS = {"sr-client-cfg.amplitude.com", "cdn.sanity.io"}
POLICY = "connect-src 'self'; img-src 'self' data: blob:"


def test_a_restore_and_its_undoing_by_one_click_each(installation: Installation, browser: Browser) -> None:
    world = installation.world
    world.sql("DELETE FROM shop.order_items")
    damaged, databases = plain_dump(world.cluster, world.database_url), installation.databases()

    browser.open_form("restore/restore-backup", backup=installation.saved.filename, requested_by="Ada")
    browser.text(installation.saved.filename)
    browser.screenshot("restore-form")
    run = browser.submit()
    browser.open_run(run)
    browser.screenshot("restore-run")
    assert run["state"]["type"] == "COMPLETED", run["state"]
    browser.text("Completed")
    assert plain_dump(world.cluster, world.database_url) == installation.original
    [kept] = set(installation.databases()) - set(databases)
    assert plain_dump(world.cluster, world.cluster.url(kept)) == damaged
    browser.open_artifact("restore-default")
    browser.text(ODD_TABLE)
    browser.screenshot("restore-artifact")

    browser.open_form("undo-restore/undo-last-restore", requested_by="Ada")
    browser.screenshot("undo-form")
    run = browser.submit()
    browser.open_run(run)
    browser.screenshot("undo-run")
    assert run["state"]["type"] == "COMPLETED", run["state"]
    assert plain_dump(world.cluster, world.database_url) == damaged
    browser.open_artifact("restore-default")
    browser.text(f"Undone restore of {DATABASE}")
    browser.text(f"{DATABASE} is what it was before the restore.")
    browser.screenshot("undo-artifact")


@pytest.mark.parametrize("deployment", ["restore/restore-backup", "undo-restore/undo-last-restore"])
def test_the_form_labels_and_explains_every_parameter(
    installation: Installation, browser: Browser, deployment: str
) -> None:
    browser.open_form(deployment)
    schema = installation.api(f"/deployments/name/{deployment}")["parameter_openapi_schema"]["properties"]
    assert schema
    for field in schema.values():
        browser.text(field["title"])
        browser.text(field["description"])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            {"backup": "backup_2001-01-01_00-00-00_00000000.sql"},
            "has no backup 'backup_2001-01-01_00-00-00_00000000.sql'",
        ),
        ({"mode": "in_place", "confirm": "typo"}, "to confirm, write its name"),
        ({"mode": "in_place", "confirm": DATABASE, "tables": ["shop.order"]}, "shop.order"),
    ],
)
def test_a_wrong_parameter_ends_in_one_sentence_on_the_page_of_the_run(
    installation: Installation, browser: Browser, given: dict[str, Any], said: str
) -> None:
    before = plain_dump(installation.world.cluster, installation.world.database_url)
    browser.open_form("restore/restore-backup", **given)
    run = browser.submit()
    browser.open_run(run)
    browser.screenshot(f"refused-{'-'.join(given)}")
    assert run["state"]["type"] == "FAILED"
    assert said in run["state"]["message"] and "\n" not in run["state"]["message"]
    browser.text(said)
    assert "Traceback" not in installation.log(run["id"])
    assert plain_dump(installation.world.cluster, installation.world.database_url) == before


# --- other hosts


def asked_hosts(installation: Installation, chromium: Any, policy: str = "") -> set[str]:
    """The hosts that left this machine's loopback, while somebody looks at some pages."""
    context = chromium.new_context()
    context.set_default_timeout(PATIENCE)
    asked: list[Request] = []

    def with_policy(route: Route) -> None:
        if route.request.resource_type != "document":
            route.continue_()
            return
        answer = route.fetch()
        route.fulfill(response=answer, headers={**answer.headers, "content-security-policy": policy})

    if policy:
        context.route("**/*", with_policy)
    context.on("request", lambda request: asked.append(request))
    page = context.new_page()
    Browser(installation, page).log_in()
    for path in PAGES_OF_THE_UI:
        page.goto(installation.server.url + path)
        page.wait_for_timeout(4000)
    hosts = {urlsplit(request.url).hostname for request in asked if "csp" not in (request.failure or "").lower()}
    context.close()
    return {host for host in hosts if host and host != "127.0.0.1"}


def test_the_ui_asks_no_other_host_than_the_page_says(installation: Installation, chromium: Any) -> None:
    assert asked_hosts(installation, chromium) <= OTHER_HOSTS
    assert all(f"`{host}`" in SECURITY for host in OTHER_HOSTS)


def test_the_policy_that_the_page_names_keeps_the_ui_to_its_server(installation: Installation, chromium: Any) -> None:
    assert POLICY in SECURITY
    assert asked_hosts(installation, chromium, POLICY) == set()
