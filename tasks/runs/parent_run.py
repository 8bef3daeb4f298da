"""Whether a run of backup-all has started this run: the idempotency key of a run says so."""

from __future__ import annotations

from uuid import UUID

import httpx
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectException

from tasks.runs.reporting import current_run_id

_BACKUP_ALL = "backup-all"


def key_of(parent: str, tries: int, plan: str) -> str:
    """The key of a backup that the run `parent` of backup-all starts; asked twice, the server starts one run. Pure."""
    return f"{_BACKUP_ALL}/{parent}/{tries}/{plan}"


def key_for_child(plan: str) -> str:
    """The key of a backup that this run starts: the same for the same plan in the same try of the run."""
    context = FlowRunContext.get()
    tries = context.flow_run.run_count if context and context.flow_run else 0
    return key_of(current_run_id(), tries, plan)


def is_part_of_backup_all() -> bool:
    """Whether this flow run was started by a run of backup-all that still goes on."""
    context = FlowRunContext.get()
    key = (context.flow_run.idempotency_key or "") if context and context.flow_run else ""
    if not key.startswith(f"{_BACKUP_ALL}/"):
        return False
    try:
        with get_client(sync_client=True) as client:
            parent = client.read_flow_run(UUID(key.split("/")[1]))
    except (httpx.HTTPError, PrefectException, ValueError):
        return False
    return parent.state is not None and parent.state.is_running()
