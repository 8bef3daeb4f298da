"""Prefect's API as the admin page needs it: plans, deployments, next runs, where the UI is, and the artifact."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, get_current_settings, temporary_settings
from prefect.utilities.context import get_task_and_flow_run_ids

from tasks.admin_page.links import Links, ui_base
from tasks.admin_page.planned_runs import plans_of
from tasks.admin_page.view import PlanAddress
from tasks.errors import BackupSystemError
from tasks.plans.blocks import BackupPlan
from tasks.plans.plan import default_catalogue
from tasks.plans.settings import load_settings
from tasks.postgres.dsn import parse

SECONDS = 10.0  # for one answer of the server
_PAGE = 200  # what the server gives at once
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
#: Versions of the page that the server keeps: each run would leave one for ever.
_VERSIONS = 30


@dataclass(frozen=True)
class Deployment:
    """One deployment of a flow of ours."""

    identity: str
    flow: str
    name: str
    parameters: Mapping[str, Any]
    scheduled: bool


class PanelApi:
    """Prefect's API, as far as the admin page needs it. Every method raises httpx.HTTPError when it does not answer."""

    def __init__(self, client: SyncPrefectClient) -> None:
        self._client = client

    def plans(self) -> list[PlanAddress]:
        """Every block of the type Backup Plan by name; without one that is called default, what `.env` describes."""
        slug = BackupPlan.get_block_type_slug()
        asked = {
            "block_types": {"slug": {"any_": [slug]}},
            "block_documents": {"is_anonymous": {"eq_": False}},
            "include_secrets": True,
            "sort": "NAME_ASC",
        }
        found = [_address(one["name"], one["data"]) for one in self._all("/block_documents/filter", asked)]
        given = [] if any(one.name == "default" for one in found) else _from_environment()
        return found + [one for one in given if not found or not one.problem]

    def deployments(self) -> list[Deployment]:
        """Those of our flows that the server has."""
        asked = {"flows": {"name": {"any_": list(_FLOWS)}}}
        flows = {one["id"]: one["name"] for one in self._all("/flows/filter", asked)}
        return [
            Deployment(one["id"], flows[one["flow_id"]], one["name"], one["parameters"] or {}, _runs_by_itself(one))
            for one in self._all("/deployments/filter", asked)
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
        for run in self._all("/flow_runs/filter", asked) if flows else ():
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

    def publish(self, key: str, description: str, markdown: str) -> None:
        """A new version of the markdown artifact `key`, and none of its oldest any more."""
        task_run, flow_run = get_task_and_flow_run_ids()
        self._post(
            "/artifacts/",
            {
                "key": key,
                "type": "markdown",
                "description": description,
                "data": markdown,
                "task_run_id": task_run and str(task_run),
                "flow_run_id": flow_run and str(flow_run),
            },
        )
        old = {"artifacts": {"key": {"any_": [key]}}, "sort": "CREATED_DESC", "offset": _VERSIONS, "limit": 20}
        for one in self._post("/artifacts/filter", old):
            self._forget(one["id"])

    def _serve_base(self) -> str:
        """The path below which the server serves its UI."""
        answer = self._client.request("GET", "/admin/settings")
        return str(answer.json().get("server", {}).get("ui", {}).get("serve_base") or "")

    def _forget(self, artifact: str) -> None:
        try:
            self._client.request("DELETE", "/artifacts/{id}", path_params={"id": artifact})
        except httpx.HTTPStatusError as error:
            if error.response.status_code != httpx.codes.NOT_FOUND:  # another run was faster
                raise

    def _post(self, path: Any, body: dict[str, Any]) -> Any:
        return self._client.request("POST", path, json=body).json()

    def _all(self, path: str, asked: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Everything that fits, page by page."""
        offset = 0
        while found := self._post(path, {**asked, "offset": offset, "limit": _PAGE}):
            yield from found
            if len(found) < _PAGE:
                return
            offset += len(found)


@contextmanager
def panel_api() -> Iterator[PanelApi]:
    """The API with a patience of its own: the page is the last step of every run, so nobody waits long for it."""
    with (
        temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 2}),
        get_client(httpx_settings={"timeout": SECONDS}, sync_client=True) as client,
    ):
        yield PanelApi(client)


def _runs_by_itself(deployment: Mapping[str, Any]) -> bool:
    schedules = deployment.get("schedules") or []
    return not deployment.get("paused") and any(one.get("active") for one in schedules)


def _address(name: str, data: Mapping[str, Any]) -> PlanAddress:
    """The addresses in the data of a block; what cannot be read is said in a sentence."""
    try:
        database = parse(_url(data.get("database")), f"The database of plan {name}")
        catalogue = default_catalogue(database)
        if data.get("catalogue"):
            catalogue = parse(_url(data["catalogue"]), f"The catalogue of plan {name}")
    except BackupSystemError as error:
        return PlanAddress(name, problem=str(error))
    days = data.get("kept_database_days", 3)
    return PlanAddress(name, database, catalogue, days if isinstance(days, int) else 3)


def _url(block: object) -> str:
    return str(block.get("url") or "") if isinstance(block, dict) else ""


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
