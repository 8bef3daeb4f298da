"""A browser that has logged in to the Prefect UI. Screenshots go to the directory in SCREENSHOTS, if it is set."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin

import httpx
import pytest
from playwright.sync_api import Locator, Page, sync_playwright

from tests.support import ci_skip
from tests.support.installation import Installation

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE = 120_000  # milliseconds


@dataclass(frozen=True)
class Browser:
    """One page of the UI at a time."""

    installation: Installation
    page: Page

    def log_in(self) -> None:
        """The UI lets us in with what `make up` prints."""
        self.page.goto(self.installation.server.url)
        self.page.fill("input[type=password]", self.installation.server.auth_string)
        self.page.keyboard.press("Enter")
        self.page.get_by_role("link", name="Deployments").wait_for()

    def open_form(self, deployment: str, **parameters: Any) -> None:
        """The run form of a deployment with these parameters filled in, as a link from anywhere has it."""
        path = f"/v2/deployments/deployment/{self.installation.deployment_id(deployment)}/run"
        self.page.goto(f"{self.installation.server.url}{path}?parameters={quote(json.dumps(parameters), safe='')}")
        self.page.get_by_role("button", name="Submit").wait_for()

    def submit(self) -> dict[str, Any]:
        """One click; the flow run, when the worker is done with it. A server too busy to answer is asked again."""
        for _ in range(5):
            with self.page.expect_response(lambda answer: answer.url.endswith("/create_flow_run")) as answered:
                self.page.get_by_role("button", name="Submit").click()
            if answered.value.status != httpx.codes.SERVICE_UNAVAILABLE:
                break
        return self.installation.ended(answered.value.json()["id"])

    def open_run(self, run: dict[str, Any]) -> None:
        """The page of a flow run."""
        self.page.goto(f"{self.installation.server.url}/v2/runs/flow-run/{run['id']}?tab=Details")

    def open_artifact(self, key: str) -> None:
        """The page of the newest artifact of this key."""
        self.page.goto(f"{self.installation.server.url}/v2/artifacts/artifact/{self.installation.artifact(key)['id']}")

    def open_admin_page(self) -> None:
        """The page that lists all backups, as it is now."""
        self.open_artifact("backups")
        self.page.get_by_role("link", name="Back up now").first.wait_for()

    def follow(self, link: Locator) -> None:
        """Clicks on a link of an artifact; where it opens in a tab of its own, that is what counts from now on."""
        if link.get_attribute("target") == "_blank":
            self.page.goto(urljoin(self.page.url, str(link.get_attribute("href"))))
        else:
            link.click()
        self.page.wait_for_load_state()

    def text(self, said: str) -> Locator:
        """Where the page says this, once it does so."""
        found = self.page.get_by_text(said).first
        found.wait_for()
        return found

    def screenshot(self, name: str, whole: bool = True) -> None:
        """Keeps what the page looks like, if anybody wants to see it: the whole of it, or what fits the window."""
        if directory := os.environ.get("SCREENSHOTS"):
            Path(directory).mkdir(parents=True, exist_ok=True)
            self.page.wait_for_timeout(1000)
            self.page.screenshot(path=Path(directory) / f"{name}.png", full_page=whole)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Debian's Chromium, without a window. While it is there, an event loop runs in this thread, in which Prefect's
    calls would give coroutines: so no longer than the module's own tests.
    """
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        ci_skip("no Chromium is installed")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture
def browser(installation: Installation, chromium: Any) -> Iterator[Browser]:
    """A browser with cookies of its own, logged in."""
    context = chromium.new_context(viewport={"width": 1400, "height": 1300})
    context.set_default_timeout(PATIENCE)
    one = Browser(installation, context.new_page())
    one.log_in()
    yield one
    context.close()
