"""All that a person does with backups begins at the admin page, and is done with two clicks."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from tests.admin_page.rows import insert, row
from tests.browser.conftest import Browser
from tests.support.installation import Installation
from tests.support.world import plain_dump

pytestmark = pytest.mark.slow


def follow(browser: Browser, backup: str, action: str, **typed: str) -> dict[str, Any]:
    """Follows the link `action` in the row of a backup, fills in what is asked for, submits; the run when it ended."""
    browser.open_admin_page()
    row = browser.page.get_by_role("row").filter(has_text=backup)
    browser.follow(row.get_by_role("link", name=action))
    browser.text(backup)
    for label, text in typed.items():
        browser.page.get_by_label(label, exact=True).fill(text)
    browser.screenshot(f"{action.lower()}-form")
    run = browser.submit()
    browser.open_run(run)
    browser.screenshot(f"{action.lower()}-run")
    return run


def test_the_link_that_a_deployment_begins_with_opens_the_admin_page(
    installation: Installation, browser: Browser
) -> None:
    """From the home page: Deployments, any deployment, Description, All backups."""
    browser.page.goto(f"{installation.server.url}/v2/deployments")
    browser.page.get_by_role("link", name="manual", exact=True).first.click()
    browser.page.get_by_role("tab", name="Description").click()
    link = browser.page.get_by_role("link", name="All backups")
    link.wait_for()
    browser.screenshot("deployment")
    browser.follow(link)
    browser.page.get_by_role("link", name="Back up now").first.wait_for()
    browser.text(installation.saved.filename)
    assert f"/v2/artifacts/artifact/{installation.artifact('backups')['id']}" in browser.page.url


def test_every_deployment_and_every_result_has_the_link(installation: Installation) -> None:
    link = f"[All backups](/v2/artifacts/artifact/{installation.artifact('backups')['id']})"
    deployments = installation.api("/deployments/filter", {})
    assert len(deployments) >= 12
    assert [one["name"] for one in deployments if not (one["description"] or "").startswith(link)] == []
    results = [  # a link for download stands alone, for programs; what was done follows in another artifact
        one
        for one in installation.api("/artifacts/filter", {})
        if one["type"] == "markdown" and one["key"] not in ("backups", "download-default")
    ]
    assert results and [one["key"] for one in results if not one["data"].endswith(f"\n\n{link}\n")] == []


def test_on_a_phone_every_action_of_the_newest_backup_is_on_the_screen(
    installation: Installation, browser: Browser
) -> None:
    """No table has to be moved sideways for them."""
    browser.page.set_viewport_size({"width": 400, "height": 850})
    browser.open_admin_page()
    row = browser.page.get_by_role("row").filter(has_text=installation.saved.filename)
    browser.screenshot("phone", whole=False)
    for action in ("Restore", "Download", "Verify", "Delete"):
        link = row.get_by_role("link", name=action)
        link.scroll_into_view_if_needed()
        box = link.bounding_box()
        assert box is not None and box["x"] >= 0 and box["x"] + box["width"] <= 400, (action, box)
    browser.screenshot("phone-actions", whole=False)


def test_restore_of_a_row_brings_the_old_data_back(installation: Installation, browser: Browser) -> None:
    world = installation.world
    world.sql("DELETE FROM shop.order_items")
    assert plain_dump(world.cluster, world.database_url) != installation.original
    run = follow(browser, installation.saved.filename, "Restore")
    assert run["state"]["type"] == "COMPLETED", run["state"]
    browser.text("Completed")
    assert plain_dump(world.cluster, world.database_url) == installation.original


def test_download_of_a_row_gives_a_link_to_the_very_file(installation: Installation, browser: Browser) -> None:
    saved = installation.saved
    run = follow(browser, saved.filename, "Download")
    assert run["state"]["type"] == "COMPLETED", run["state"]
    link = installation.artifact("download-default")["data"]
    browser.open_artifact("download-default")
    browser.screenshot("download-artifact")
    address = browser.page.locator(f"a[href*='{saved.filename}']").first.get_attribute("href")
    assert address and address in link.replace("&amp;", "&")
    answer = httpx.get(address, trust_env=False, timeout=60)
    manifest = json.loads(installation.world.download(saved.s3_key + ".manifest.json"))
    assert hashlib.sha256(answer.content).hexdigest() == manifest["object"]["sha256"]
    assert f'filename="{saved.filename}"' in answer.headers["content-disposition"]
    assert re.search(r"X-Amz-Signature=(\w+)", address)[1] not in installation.log(run["id"])  # type: ignore[index]


def test_verify_of_a_row_proves_it_and_the_page_says_when(installation: Installation, browser: Browser) -> None:
    databases = installation.databases()
    run = follow(browser, installation.saved.filename, "Verify")
    assert run["state"]["type"] == "COMPLETED", run["state"]
    assert installation.databases() == databases
    verified = installation.saved.verified_at
    assert verified is not None
    browser.open_admin_page()
    row = browser.page.get_by_role("row").filter(has_text=installation.saved.filename)
    row.get_by_text("verified").first.wait_for()
    browser.screenshot("admin-page-verified")


def test_delete_of_a_row_takes_the_file_away_and_keeps_the_record(installation: Installation, browser: Browser) -> None:
    doomed = installation.saved
    made = installation.ended(installation.begin("backup/manual"))
    assert made["state"]["type"] == "COMPLETED", made["state"]
    refused = follow(browser, installation.saved.filename, "Delete")
    assert refused["state"]["type"] == "FAILED"
    browser.text("is the newest completed backup")
    run = follow(browser, doomed.filename, "Delete")
    assert run["state"]["type"] == "COMPLETED", run["state"]
    assert doomed.s3_key not in installation.world.objects()
    [row] = [one for one in installation.world.rows() if one.id == doomed.id]
    assert row.status == "deleted"


def test_clean_up_of_the_page_says_what_stays_and_why(installation: Installation, browser: Browser) -> None:
    before = installation.world.objects()
    browser.open_admin_page()
    browser.follow(browser.page.get_by_role("link", name="Clean up").first)
    browser.screenshot("clean-up-form")
    run = browser.submit()
    browser.open_run(run)
    assert run["state"]["type"] == "COMPLETED", run["state"]
    browser.open_artifact("retention-default")
    browser.text(installation.saved.filename)
    browser.screenshot("clean-up-artifact")
    assert installation.world.objects() == before


@pytest.mark.parametrize("name", ["Refresh", "Check health"])
def test_the_links_at_the_top_open_a_form_that_can_be_submitted(
    installation: Installation, browser: Browser, name: str
) -> None:
    browser.open_admin_page()
    browser.follow(browser.page.get_by_role("link", name=name, exact=True).first)
    run = browser.submit()
    browser.open_run(run)
    browser.screenshot(name.lower().replace(" ", "-"))
    assert run["state"]["type"] == "COMPLETED", run["state"]


@contextmanager
def weeks_of_backups(installation: Installation) -> Iterator[None]:
    """Records of five weeks of nightly backups that grow: the older ones expired, one failed, one ordered by hand."""
    last = datetime.now(UTC).replace(hour=2, minute=0, second=0, microsecond=0) - timedelta(days=1)
    newest, rows = installation.saved, []
    for night in range(35):
        size = int(newest.file_size * 0.988 ** (night + 1))
        given: dict[str, Any] = {
            "created_by": "system (nightly)",
            "file_size": size,
            "plain_size": size,
            "row_count": size // 180,
            "table_count": 28,
            "seconds": 1 + size / 2e6,
        }
        if night == 3:
            given |= {"status": "failed", "error": "Nobody answers at db.example.com:5432/shop."}
        elif night > 6:
            given |= {"status": "expired"}
        rows.append(row("default", last - timedelta(days=night), **given))
    insert(installation.world.catalogue, rows)
    try:
        yield
    finally:
        installation.world.sql(
            "DELETE FROM database_backups WHERE run_id LIKE 'run of %'", url=installation.world.catalogue_url
        )


def test_weeks_of_backups_are_shown_with_a_picture_of_their_growth(
    installation: Installation, browser: Browser
) -> None:
    with weeks_of_backups(installation):
        made = installation.ended(installation.begin("list-backups/refresh-admin-page"))
    assert made["state"]["type"] == "COMPLETED", made["state"]
    browser.open_admin_page()
    picture = browser.page.locator("img[src^='data:image/svg']").first
    picture.wait_for()
    assert picture.evaluate("image => image.decode().then(() => image.naturalWidth)") > 300
    browser.screenshot("weeks-of-backups", whole=False)
