"""Prefect's API as the admin page needs it: plans, deployments, next runs, where the UI is, and the artifact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectNotFound
from prefect.settings import get_current_settings

from tasks.admin_page.view import Links, ui_base
from tasks.plans.addresses import BLOCKS_ASKED, PlanAddress, plan_addresses
from tasks.plans.schedules import is_for
from tasks.prefect_client import brief_client, documents
from tasks.runs.reporting import ADMIN_PAGE, UI_BASE, address_of, with_link

_FLOWS = (
    "backup",
    "backup-all",
    "restore",
    "undo-restore",
    "list-backups",
    "download-backup",
    "delete-backup",
    "keep-backup",
    "adopt-backup",
    "cleanup",
    "verify-backup",
    "check-health",
    "list-events",
    "rebuild-catalogue",
)
_BACKING_UP = ("backup", "backup-all")
_DESCRIPTION = "All backups: restore, download, verify and delete them from here."
_EMPTY = "# Backups\n\nThis page is written by the next run, for example by list-backups/refresh-admin-page.\n"
_TRIES = 5


@dataclass(frozen=True)
class Deployment:
    """A deployment of a flow of ours."""

    identity: str
    flow: str
    name: str
    parameters: Mapping[str, Any]
    scheduled: bool
    description: str = ""


class AdminPageApi:
    """Prefect's API, as far as the admin page needs it. Every method raises httpx.HTTPError when it does not answer."""

    def __init__(self, client: SyncPrefectClient) -> None:
        self._client = client

    def plans(self) -> list[PlanAddress]:
        """The blocks of the type Backup Plan by name; if none is called default, also the plan in `.env`."""
        return plan_addresses(documents(self._client, "/block_documents/filter", **BLOCKS_ASKED), Path.cwd())

    def deployments(self) -> list[Deployment]:
        """The deployments of our flows."""
        asked = {"flows": {"name": {"any_": list(_FLOWS)}}}
        flows = {flow["id"]: flow["name"] for flow in documents(self._client, "/flows/filter", **asked)}
        return [
            Deployment(
                it["id"],
                flows[it["flow_id"]],
                it["name"],
                it["parameters"] or {},
                _is_scheduled(it),
                it["description"] or "",
            )
            for it in documents(self._client, "/deployments/filter", **asked)
            if it["flow_id"] in flows
        ]

    def next_runs(self, deployments: list[Deployment], plans: list[str], now: datetime) -> dict[str, datetime]:
        """When the server has scheduled the next backup of each plan; without the plans that have none."""
        flows = {it.identity: it.flow for it in deployments if it.flow in _BACKING_UP and it.scheduled}
        asked = {
            "deployments": {"id": {"any_": list(flows)}},
            "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}, "expected_start_time": {"after_": str(now)}},
            "sort": "ID_DESC",  # sorted by time, runs with equal times could move between the pages of the answer
        }
        first: dict[str, datetime] = {}
        for run in documents(self._client, "/flow_runs/filter", **asked) if flows else ():
            at = datetime.fromisoformat(run["expected_start_time"])
            flow, parameters = flows[run["deployment_id"]], run["parameters"] or {}
            for name in [plan for plan in plans if is_for(flow, parameters, plan)]:
                first[name] = min(at, first.get(name, at))
        return first

    def links(self, deployments: list[Deployment]) -> Links:
        """Links into the UI: at the address that is configured for it, else on the host that shows the page."""
        settings = get_current_settings()
        configured = (settings.ui_url or "") if "ui_url" in settings.model_fields_set else ""
        cloud = (settings.api.url or "").startswith(settings.cloud.api_url)
        if cloud:
            base = ui_base(settings.ui_url or "", "", cloud=True)
        else:
            base = ui_base(configured, "" if configured else self._serve_base())
        return Links(base, {f"{it.flow}/{it.name}": it.identity for it in deployments})

    def page(self) -> dict[str, Any]:
        """The artifact that is the admin page: the oldest of its key. Made when there is none; all others are deleted.

        So one artifact stays, however many runs make one at the same time.
        """
        pages = self._pages()
        if not pages:
            new = {"key": ADMIN_PAGE, "type": "markdown", "description": _DESCRIPTION, "data": _EMPTY}
            made = self._post("/artifacts/", {**new, "metadata_": {UI_BASE: self.links([]).base}})
            pages = self._pages() or [made]
        for other in pages[1:]:
            self._change("DELETE", "/artifacts/{id}", other["id"])
        return pages[0]

    def publish(self, markdown: str, links: Links, noted: Mapping[str, str]) -> dict[str, Any]:
        """The admin page says this, at the address that it has; returns its artifact, which keeps `noted` too."""
        content = {"data": markdown, "description": _DESCRIPTION, "metadata_": {**noted, UI_BASE: links.base}}
        for _ in range(_TRIES):
            page = self.page()
            if self._change("PATCH", "/artifacts/{id}", page["id"], content):
                break
        return page

    def describe(self, deployments: Sequence[Deployment], address: str) -> None:
        """The description of every deployment begins with the link to the admin page."""
        for deployment in deployments:
            text = with_link(deployment.description, address)
            if deployment.description != text:
                self._change("PATCH", "/deployments/{id}", deployment.identity, {"description": text})

    def _serve_base(self) -> str:
        """The path below which the server serves its UI."""
        answer = self._client.request("GET", "/admin/settings")
        return str(answer.json().get("server", {}).get("ui", {}).get("serve_base") or "")

    def _pages(self) -> list[dict[str, Any]]:
        asked = {"artifacts": {"key": {"any_": [ADMIN_PAGE]}}, "sort": "ID_DESC"}
        return sorted(
            documents(self._client, "/artifacts/filter", **asked), key=lambda one: (one["created"], one["id"])
        )

    def _change(self, method: Any, path: Any, identity: str, body: Mapping[str, Any] | None = None) -> bool:
        """Whether there was such a thing; another run may have deleted it."""
        try:
            self._client.request(method, path, path_params={"id": identity}, json=body)
        except httpx.HTTPStatusError as error:
            if error.response.status_code != httpx.codes.NOT_FOUND:
                raise
            return False
        except ObjectNotFound:
            return False
        return True

    def _post(self, path: Any, body: dict[str, Any]) -> Any:
        return self._client.request("POST", path, json=body).json()


@contextmanager
def admin_page_api() -> Iterator[AdminPageApi]:
    """The API with short time-outs: the page is the last step of every run and must not hold it up."""
    with brief_client() as client:
        yield AdminPageApi(client)


def ensure_admin_page() -> str:
    """There is an admin page, and every deployment's description begins with the link to it; returns its address.

    Raises httpx.HTTPError when the server does not answer.
    """
    with admin_page_api() as api:
        address = address_of(api.page())
        api.describe(api.deployments(), address)
    return address


def _is_scheduled(deployment: Mapping[str, Any]) -> bool:
    schedules = deployment.get("schedules") or []
    return not deployment.get("paused") and any(schedule.get("active") for schedule in schedules)
