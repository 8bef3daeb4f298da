"""Plans in the forms of the Prefect UI (V2): one is changed, another is made, and both back up."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from tests.browser.conftest import Browser
from tests.support.installation import Installation
from tests.support.world import plain_dump

pytestmark = pytest.mark.slow


def open_block(installation: Installation, browser: Browser, kind: str, name: str) -> None:
    """The form that edits a block, as the pencil on the page of the block opens it."""
    found = installation.api(f"/block_types/slug/{kind}/block_documents/name/{name}")
    browser.page.goto(f"{installation.server.url}/v2/blocks/block/{found['id']}/edit")
    browser.page.get_by_role("button", name="Save").wait_for()


def open_new_block(installation: Installation, browser: Browser, kind: str) -> None:
    """The form that makes a block of a type."""
    browser.page.goto(f"{installation.server.url}/v2/blocks/catalog/{kind}/create")
    browser.page.get_by_role("button", name="Save").wait_for()


def fill(browser: Browser, **fields: str) -> None:
    """Each field by its label, which may be followed by `(Optional)`."""
    for label, value in fields.items():
        browser.page.get_by_label(label.replace("_", " ")).first.fill(value)


def save(browser: Browser) -> None:
    """The form is sent and taken. A server too busy to answer is asked again."""
    for _ in range(5):
        with browser.page.expect_response(
            lambda answer: (
                answer.request.method in ("POST", "PATCH")
                and "/block_documents/" in answer.url
                and _is_saved(answer.url)
            )
        ) as answered:
            browser.page.get_by_role("button", name="Save").click()
        if answered.value.status != httpx.codes.SERVICE_UNAVAILABLE:
            break
    assert answered.value.ok, answered.value.status


def _is_saved(url: str) -> bool:
    """Whether this is the address of a block, and not of a search for blocks."""
    return not url.endswith(("/filter", "/count", "/paginate"))


@pytest.fixture
def days_as_before(installation: Installation, browser: Browser) -> Iterator[None]:
    yield
    open_block(installation, browser, "backup-plan", "default")
    fill(browser, Retention_days="7")
    save(browser)


def test_a_plan_whose_retention_was_changed_in_its_form_backs_up_and_restores(
    installation: Installation, browser: Browser, days_as_before: None
) -> None:
    world = installation.world
    before = installation.api("/block_types/slug/backup-plan/block_documents/name/default")["data"]
    open_block(installation, browser, "backup-plan", "default")
    browser.screenshot("plan-form")
    fill(browser, Retention_days="21")
    save(browser)
    browser.screenshot("plan-saved")
    after = installation.api("/block_types/slug/backup-plan/block_documents/name/default")["data"]
    assert after == {**before, "retention_days": 21}

    made = installation.ended(installation.begin("backup/manual"))
    assert made["state"]["type"] == "COMPLETED", made["state"]
    original = plain_dump(world.cluster, world.database_url)
    world.sql("DELETE FROM shop.order_items")
    restored = installation.ended(installation.begin("restore/restore-backup", backup=installation.saved.filename))
    assert restored["state"]["type"] == "COMPLETED", restored["state"]
    assert plain_dump(world.cluster, world.database_url) == original
    checked = installation.run("-m", "deployments.set_up", "--check", **world.settings())
    differs = checked.stdout.splitlines()
    assert differs and all(line.startswith("Schedule ") for line in differs), checked  # those are far off in tests


def test_a_second_plan_is_made_and_backed_up_in_the_ui_alone(installation: Installation, browser: Browser) -> None:
    open_new_block(installation, browser, "postgres-database")
    fill(browser, Name="crm-database", URL=installation.world.cluster.url("postgres"))
    save(browser)
    open_new_block(installation, browser, "backup-plan")
    # The programs of the tests' server are in none of the usual places.
    tools = str(installation.world.cluster.bin_directory)
    fill(browser, Name="crm", Database="crm-database", Client_tools_directory=tools)
    browser.screenshot("new-plan-form")
    save(browser)
    browser.screenshot("new-plan-saved")

    browser.open_form("backup/manual", plan="crm", requested_by="Ada")
    run = browser.submit()
    browser.open_run(run)
    browser.screenshot("new-plan-backed-up")
    assert run["state"]["type"] == "COMPLETED", run["state"]
    [(count,)] = installation.world.sql(
        "SELECT count(*) FROM database_backups WHERE plan = 'crm' AND status = 'completed'",
        url=installation.world.catalogue_url,
    )
    assert count == 1
