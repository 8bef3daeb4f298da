"""The deployments of prefect.yaml on the server, and the work pool that they are on."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate
from prefect.client.schemas.objects import WorkPool
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import ObjectNotFound
from prefect.utilities.callables import parameter_schema

from deployments.set_up_parts.merging import SetUp, Thing, follow
from deployments.set_up_parts.prefect_yaml import DEPLOYMENT_FILE, ListedDeployment
from tasks.errors import BadSetting
from tasks.prefect_client import pages, refused
from tasks.runs.reporting import without_link

#: The work pool that the set-up makes; its worker starts every run in a process beside itself.
WORK_POOL = "backups"
_POOL_TYPE = "process"
CHECKOUT = DEPLOYMENT_FILE.parent
#: Where the image of deployments/image has the code; the workers of other pools than process ones start containers.
IMAGE_DIRECTORY = "/app"
_STEP = "prefect.deployments.steps.set_working_directory"
#: What comes from the code alone; everything else can be set in a form of the UI.
_FROM_CODE = ("entrypoint", "pull_steps", "enforce_parameter_schema", "parameter_openapi_schema", "version")


#: By `<flow>/<deployment>`.
Deployments = dict[str, DeploymentResponse]


@dataclass(frozen=True)
class Declared:
    """One deployment, as prefect.yaml and the code have it."""

    flow: str
    name: str
    fields: Mapping[str, Any]

    @property
    def full_name(self) -> str:
        return f"{self.flow}/{self.name}"


def apply_work_pool(client: SyncPrefectClient, *, check: bool) -> Iterator[str]:
    """The work pool is there, as whoever made it wants it; yields a line when it was not."""
    if _pool(client, WORK_POOL) is None:
        if not check:
            with refused(f"the work pool {WORK_POOL}"):
                client.create_work_pool(WorkPoolCreate(name=WORK_POOL, type=_POOL_TYPE))
        yield f"Work pool {WORK_POOL} {'is missing' if check else 'was created'}."


def declared_deployments(client: SyncPrefectClient, listed: Sequence[ListedDeployment]) -> list[Declared]:
    """What the entries of prefect.yaml say. Raises BadSetting when a flow, or a work pool, is not there."""
    types = {name: _type_of_pool(client, name) for name in sorted({entry.work_pool.name for entry in listed})}
    return [_declared(entry, types[entry.work_pool.name]) for entry in listed]


def deployments_there(client: SyncPrefectClient) -> Deployments:
    """Every deployment of the server."""
    flows = {flow.id: flow.name for flow in pages(client.read_flows)}
    return {f"{flows.get(found.flow_id)}/{found.name}": found for found in pages(client.read_deployments)}


def apply_deployments(
    client: SyncPrefectClient, there: Deployments, declared: Sequence[Declared], run: SetUp
) -> Iterator[str]:
    """The deployments are as declared, apart from what was set in Prefect; yields a line for each that differed.

    `there` then holds them as they are.
    """
    for one in declared:
        with refused(f"the deployment {one.full_name}"):
            yield from _apply(client, there, one, run)


def _apply(client: SyncPrefectClient, there: Deployments, one: Declared, run: SetUp) -> Iterator[str]:
    thing = Thing(f"deployment {one.full_name}", f"Deployment {one.full_name}", "prefect.yaml", _shown)
    always = [field for field in _FROM_CODE if field in one.fields]

    def stored(identity: UUID) -> Mapping[str, Any]:
        there[one.full_name] = client.read_deployment(identity)
        return _fields(there[one.full_name])

    if found := there.get(one.full_name):

        def write(fields: Sequence[str]) -> Mapping[str, Any]:
            client.update_deployment(found.id, DeploymentUpdate(**{field: one.fields[field] for field in fields}))
            return stored(found.id)

        yield from follow(thing, one.fields, _fields(found), write, run, always)
        return
    if not run.check:
        made = client.create_deployment(client.create_flow_from_name(one.flow), one.name, **one.fields)
        run.memory.note(thing.key, one.fields.keys() - set(always), one.fields, stored(made))
    yield f"{thing.title} {'is missing' if run.check else 'was created'}."


def _declared(entry: ListedDeployment, pool_type: str) -> Declared:
    flow, pool = _flow(entry.entrypoint), entry.work_pool
    local = pool_type == _POOL_TYPE and "image" not in pool.job_variables
    directory = str(CHECKOUT) if local else IMAGE_DIRECTORY
    limit = entry.concurrency_limit
    fields = {
        "description": entry.description or flow.description,
        "tags": entry.tags,
        "parameters": entry.parameters,
        "work_pool_name": pool.name,
        "job_variables": pool.job_variables,
        "concurrency_limit": limit.get("limit") if isinstance(limit, Mapping) else limit,
        "paused": entry.paused,
        "entrypoint": entry.entrypoint,
        "pull_steps": entry.pull if entry.pull is not None else [{_STEP: {"directory": directory}}],
        "enforce_parameter_schema": entry.enforce_parameter_schema,
        "parameter_openapi_schema": parameter_schema(flow).model_dump(exclude_unset=True),
    }
    optional = {"work_queue_name": pool.work_queue_name, "version": entry.version}
    fields |= {name: value for name, value in optional.items() if value}
    return Declared(flow.name, entry.name, json.loads(json.dumps(fields)))


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
    """What the server has of a deployment, as JSON; the link to the admin page is no part of the description."""
    limit = found.global_concurrency_limit
    fields: dict[str, Any] = found.model_dump(mode="json", exclude={"schedules"})
    description = without_link(fields["description"]) if fields["description"] else fields["description"]
    return {**fields, "concurrency_limit": limit.limit if limit else None, "description": description}


def _shown(_: str, value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _type_of_pool(client: SyncPrefectClient, name: str) -> str:
    """The type of a work pool. Raises BadSetting when there is none of this name."""
    found = _pool(client, name)
    if found is None and name != WORK_POOL:
        raise BadSetting(
            f"prefect.yaml names the work pool {name}, which does not exist: make it first, with "
            f"prefect work-pool create {name} --type …"
        )
    return found.type if found else _POOL_TYPE


def _pool(client: SyncPrefectClient, name: str) -> WorkPool | None:
    try:
        return client.read_work_pool(name)
    except ObjectNotFound:
        return None
