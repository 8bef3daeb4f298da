"""Prefect's API as the admin page needs it: plans, deployments, next runs, where the UI is, and the artifact."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, get_current_settings, temporary_settings

from tasks.admin_page.links import Links, ui_base
from tasks.admin_page.view import PlanAddress
from tasks.errors import BackupSystemError
from tasks.plans.blocks import BackupPlan, PostgresDatabase
from tasks.plans.plan import default_catalogue
from tasks.plans.settings import load_settings
from tasks.postgres.dsn import parse
from tasks.prefect_client import documents
from tasks.runs.admin_page_link import KEY, UI_BASE, address_of, with_link

SECONDS = 10.0  # for one answer of the server
_FLOWS = (
    "backup",
    "backup-all",
    "restore",
    "undo-restore",
    "list-backups",
    "download-backup",
    "delete-backup",
    "cleanup",
    "verify-backup",
    "check-health",
)
_BACKING_UP = ("backup", "backup-all")
_DESCRIPTION = "All backups: restore, download, verify and delete them from here."
_EMPTY = "# Backups\n\nThis page is written by the next run, for example by list-backups/refresh-admin-page.\n"
_TRIES = 5


@dataclass(frozen=True)
class Deployment:
    """One deployment of a flow of ours."""

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
        """Every block of the type Backup Plan by name; without one that is called default, what `.env` describes."""
        slugs = [kind.get_block_type_slug() for kind in (BackupPlan, PostgresDatabase)]
        asked = {
            "block_types": {"slug": {"any_": slugs}},
            "block_documents": {"is_anonymous": {"eq_": False}},
            "include_secrets": True,
            "sort": "NAME_ASC",
        }
        blocks = list(documents(self._client, "/block_documents/filter", **asked))
        urls = {one["name"]: str(one["data"].get("url", "")) for one in blocks if one["block_type"]["slug"] == slugs[1]}
        plans = [one for one in blocks if one["block_type"]["slug"] == slugs[0]]
        found = [_address(one["name"], one["data"], urls) for one in plans]
        given = [] if any(one.name == "default" for one in found) else _from_environment()
        return found + [one for one in given if not found or not one.problem]

    def deployments(self) -> list[Deployment]:
        """Those of our flows that the server has."""
        asked = {"flows": {"name": {"any_": list(_FLOWS)}}}
        flows = {one["id"]: one["name"] for one in documents(self._client, "/flows/filter", **asked)}
        return [
            Deployment(
                one["id"],
                flows[one["flow_id"]],
                one["name"],
                one["parameters"] or {},
                _runs_by_itself(one),
                one["description"] or "",
            )
            for one in documents(self._client, "/deployments/filter", **asked)
            if one["flow_id"] in flows
        ]

    def next_runs(self, deployments: list[Deployment], plans: list[str], now: datetime) -> dict[str, datetime]:
        """When each plan is backed up next, as the server has scheduled it; nothing for a plan that is not."""
        flows = {one.identity: one.flow for one in deployments if one.flow in _BACKING_UP and one.scheduled}
        asked = {
            "deployments": {"id": {"any_": list(flows)}},
            "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}, "expected_start_time": {"after_": str(now)}},
            "sort": "ID_DESC",  # by time, those of one moment could change places from page to page
        }
        found: dict[str, datetime] = {}
        for run in documents(self._client, "/flow_runs/filter", **asked) if flows else ():
            at = datetime.fromisoformat(run["expected_start_time"])
            for name in plans_of(flows[run["deployment_id"]], run["parameters"] or {}, plans):
                found[name] = min(at, found.get(name, at))
        return found

    def links(self, deployments: list[Deployment]) -> Links:
        """Links into the UI: at the address that is configured for it, else on the host that shows the page."""
        settings = get_current_settings()
        configured = (settings.ui_url or "") if "ui_url" in settings.model_fields_set else ""
        cloud = (settings.api.url or "").startswith(settings.cloud.api_url)
        if cloud:
            base = ui_base(settings.ui_url or "", "", cloud=True)
        else:
            base = ui_base(configured, "" if configured else self._serve_base())
        return Links(base, {f"{one.flow}/{one.name}": one.identity for one in deployments})

    def page(self) -> dict[str, Any]:
        """The artifact that is the admin page: the oldest of its key. Made when there is none; all others are deleted.

        So one artifact stays, however many runs make one at the same time.
        """
        pages = self._pages()
        if not pages:
            new = {"key": KEY, "type": "markdown", "description": _DESCRIPTION, "data": _EMPTY}
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
        for one in deployments:
            text = with_link(one.description, address)
            if one.description != text:
                self._change("PATCH", "/deployments/{id}", one.identity, {"description": text})

    def _serve_base(self) -> str:
        """The path below which the server serves its UI."""
        answer = self._client.request("GET", "/admin/settings")
        return str(answer.json().get("server", {}).get("ui", {}).get("serve_base") or "")

    def _pages(self) -> list[dict[str, Any]]:
        asked = {"artifacts": {"key": {"any_": [KEY]}}, "sort": "ID_DESC"}
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
    """The API with a patience of its own: the page is the last step of every run, so nobody waits long for it."""
    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 2}),
        get_client(httpx_settings={"timeout": SECONDS}, sync_client=True) as client,
    ):
        yield AdminPageApi(client)


def ensure_admin_page() -> str:
    """There is an admin page, and every deployment's description begins with the link to it; returns its address.

    Raises httpx.HTTPError when the server does not answer.
    """
    with admin_page_api() as api:
        address = address_of(api.page())
        api.describe(api.deployments(), address)
    return address


def plans_of(flow: str, parameters: Mapping[str, Any], plans: Collection[str]) -> list[str]:
    """The plans among `plans` that a run of this flow backs up: `backup` has one, `backup-all` some, or all. Pure."""
    if flow == "backup":
        named: Any = [parameters.get("plan", "default")]
    else:
        named = parameters.get("plans") or list(plans)
    return [name for name in plans if isinstance(named, list) and name in named]


def _runs_by_itself(deployment: Mapping[str, Any]) -> bool:
    schedules = deployment.get("schedules") or []
    return not deployment.get("paused") and any(one.get("active") for one in schedules)


def _address(name: str, data: Mapping[str, Any], urls: Mapping[str, str]) -> PlanAddress:
    """The addresses that the data of a plan's block name; what cannot be read is said in a sentence."""
    try:
        database = parse(urls.get(str(data.get("database")), ""), f"The database of plan {name}")
        catalogue = default_catalogue(database)
        if data.get("catalogue"):
            catalogue = parse(urls.get(str(data["catalogue"]), ""), f"The catalogue of plan {name}")
    except BackupSystemError as error:
        return PlanAddress(name, problem=str(error))
    days = data.get("kept_database_days", 3)
    return PlanAddress(name, database, catalogue, days if isinstance(days, int) else 3)


def _from_environment() -> list[PlanAddress]:
    """The plan `default` of `.env`, if it describes one."""
    try:
        settings = load_settings(Path.cwd())
        if settings.uses_embedded_database or settings.uses_embedded_storage:
            return []
        database = parse(settings.database_url)
        catalogue = parse(settings.catalog_url, "CATALOG_URL") if settings.catalog_url else default_catalogue(database)
    except BackupSystemError as error:
        return [PlanAddress("default", problem=str(error))]
    return [PlanAddress("default", database, catalogue, settings.kept_database_days)]
