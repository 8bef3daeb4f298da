"""The work pool that the deployments of prefect.yaml are on."""

from __future__ import annotations

from collections.abc import Iterable

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.client.schemas.objects import WorkPool
from prefect.exceptions import ObjectNotFound

from tasks.errors import BadSetting

#: The work pool that the set-up makes; its worker starts every run in a process beside itself.
WORK_POOL = "backups"
_TYPE = "process"


def apply_work_pool(client: SyncPrefectClient, *, check: bool) -> list[str]:
    """The work pool is there, as whoever made it wants it; returns a line when it was not."""
    if _read(client, WORK_POOL) is not None:
        return []
    if check:
        return [f"Work pool {WORK_POOL} is missing."]
    client.create_work_pool(WorkPoolCreate(name=WORK_POOL, type=_TYPE))
    return [f"Work pool {WORK_POOL} was created."]


def types_of_pools(client: SyncPrefectClient, names: Iterable[str]) -> dict[str, str]:
    """The type of each of these work pools. Raises BadSetting when there is none of such a name."""
    types = {}
    for name in sorted(set(names)):
        found = _read(client, name)
        if found is None and name != WORK_POOL:
            raise BadSetting(
                f"prefect.yaml names the work pool {name}, which does not exist: make it first, with "
                f"prefect work-pool create {name} --type …"
            )
        types[name] = found.type if found else _TYPE
    return types


def _read(client: SyncPrefectClient, name: str) -> WorkPool | None:
    try:
        return client.read_work_pool(name)
    except ObjectNotFound:
        return None
