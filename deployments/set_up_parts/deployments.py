"""The deployments of prefect.yaml on the server."""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import httpx
from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound
from prefect.utilities.callables import parameter_schema
from prefect.utilities.templating import apply_values

from deployments.set_up_parts.deployment_list import DEPLOYMENT_FILE
from deployments.set_up_parts.merging import merged
from deployments.set_up_parts.pool import types_of_pools
from deployments.set_up_parts.remembered import Memory
from tasks.errors import BadSetting
from tasks.runs.admin_page_link import without_link

CHECKOUT = DEPLOYMENT_FILE.parent
#: Where the image of deployments/image has the code; the workers of other pools than process ones start containers.
IMAGE_DIRECTORY = "/app"
_STEP = "prefect.deployments.steps.set_working_directory"
#: What a form in the UI changes; the other fields come from the code alone.
_EDITABLE = frozenset(
    {
        "description",
        "tags",
        "parameters",
        "work_pool_name",
        "work_queue_name",
        "job_variables",
        "concurrency_limit",
        "paused",
    }
)
#: What older set-ups wrote anew whenever prefect.yaml had changed.
_UNKNOWN = frozenset({"description", "tags", "parameters"})


@dataclass(frozen=True)
class Declared:
    """One deployment, as prefect.yaml and the code have it."""

    flow: str
    name: str
    fields: Mapping[str, Any]

    @property
    def full_name(self) -> str:
        return f"{self.flow}/{self.name}"


def declared_deployments(client: SyncPrefectClient, entries: Sequence[Mapping[str, Any]]) -> list[Declared]:
    """What the entries of prefect.yaml say. Raises BadSetting when a flow, or a work pool, is not there."""
    filled: list[Any] = [apply_values(dict(entry), dict(os.environ), remove_notset=False) for entry in entries]
    types = types_of_pools(client, (one["work_pool"]["name"] for one in filled))
    return [_declared(one, types[one["work_pool"]["name"]]) for one in filled]


def apply_deployments(
    client: SyncPrefectClient, declared: Sequence[Declared], memory: Memory, *, check: bool, overwrite: bool = False
) -> list[str]:
    """The deployments are as declared, apart from what was set in Prefect; returns a line for each that differed."""
    lines = []
    for one in declared:
        found = read_deployment(client, one.full_name)
        if found is None:
            if not check:
                _create(client, one)
                found = read_deployment(client, one.full_name)
                assert found is not None
                memory.note(f"deployment {one.full_name}", _EDITABLE & one.fields.keys(), one.fields, _fields(found))
            lines.append(f"Deployment {one.full_name} {'is missing' if check else 'was created'}.")
        else:
            lines += _apply(client, one, found, memory, check, overwrite)
    return lines


def read_deployment(client: SyncPrefectClient, name: str) -> DeploymentResponse | None:
    """The deployment `<flow>/<name>`, or None."""
    try:
        return client.read_deployment_by_name(name)
    except ObjectNotFound:
        return None


def _apply(
    client: SyncPrefectClient, one: Declared, found: DeploymentResponse, memory: Memory, check: bool, overwrite: bool
) -> list[str]:
    thing, there = f"deployment {one.full_name}", _fields(found)
    edited = {name: value for name, value in one.fields.items() if name in _EDITABLE}
    made = [name for name, value in one.fields.items() if name not in _EDITABLE and value != there[name]]
    result = merged(edited, there, memory.of(thing), unknown=_UNKNOWN, overwrite=overwrite)
    lines = [
        f"Deployment {one.full_name}: {name} was changed in Prefect, and stays {_short(there[name])}; "
        f"prefect.yaml says {_short(edited[name])}."
        for name in result.kept
    ]
    if write := [*made, *result.write]:
        lines.append(f"Deployment {one.full_name} {'differs' if check else 'was changed'}: {', '.join(write)}.")
        if not check:
            client.update_deployment(found.id, DeploymentUpdate(**{name: one.fields[name] for name in write}))
            found = client.read_deployment(found.id)
    if not check:
        memory.note(thing, [*result.write, *result.same], edited, _fields(found))
    return lines


def _create(client: SyncPrefectClient, one: Declared) -> None:
    flow_id = client.create_flow_from_name(one.flow)
    try:
        client.create_deployment(flow_id, one.name, **one.fields)
    except httpx.HTTPStatusError as error:
        raise BadSetting(f"Prefect refuses the deployment {one.full_name}: {error.response.text[:300]}") from None


def _declared(entry: Mapping[str, Any], pool_type: str) -> Declared:
    flow, pool = _flow(str(entry["entrypoint"])), entry["work_pool"]
    job_variables = pool.get("job_variables") or {}
    local = pool_type == "process" and "image" not in job_variables
    default = [{_STEP: {"directory": str(CHECKOUT) if local else IMAGE_DIRECTORY}}]
    limit = entry.get("concurrency_limit")
    fields = {
        "description": entry.get("description") or flow.description,
        "tags": list(entry.get("tags") or []),
        "parameters": dict(entry.get("parameters") or {}),
        "work_pool_name": pool["name"],
        "job_variables": dict(job_variables),
        "concurrency_limit": limit.get("limit") if isinstance(limit, Mapping) else limit,
        "paused": bool(entry.get("paused")),
        "entrypoint": entry["entrypoint"],
        "pull_steps": entry["pull"] if entry.get("pull") is not None else default,
        "enforce_parameter_schema": bool(entry.get("enforce_parameter_schema", True)),
        "parameter_openapi_schema": parameter_schema(flow).model_dump(exclude_unset=True),
    }
    optional = {"work_queue_name": pool.get("work_queue_name"), "version": entry.get("version")}
    fields |= {name: value for name, value in optional.items() if value}
    return Declared(flow.name, str(entry["name"]), json.loads(json.dumps(fields)))


def _flow(entrypoint: str) -> Flow[..., Any]:
    """The flow `flows/backup.py:backup`."""
    file, _, function = entrypoint.rpartition(":")
    try:
        found = getattr(importlib.import_module(file.removesuffix(".py").replace("/", ".")), function)
    except (ImportError, AttributeError, ValueError):
        found = None
    if not isinstance(found, Flow):
        raise BadSetting(f"prefect.yaml: there is no flow {entrypoint}: correct the entrypoint.")
    return found


def _fields(found: DeploymentResponse) -> dict[str, Any]:
    """What the server holds of a deployment, as JSON."""
    limit = found.global_concurrency_limit
    said: dict[str, Any] = found.model_dump(mode="json", exclude={"schedules"})
    description = without_link(said["description"]) if said["description"] else said["description"]
    return {**said, "concurrency_limit": limit.limit if limit else None, "description": description}


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
