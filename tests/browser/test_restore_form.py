"""A restore and its undoing by one click each, in the forms of the Prefect UI."""

from __future__ import annotations

from typing import Any

import pytest

from tests.browser.conftest import Browser
from tests.support.installation import DATABASE, ODD_TABLE, Installation
from tests.support.world import plain_dump

pytestmark = pytest.mark.slow


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
