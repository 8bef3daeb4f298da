"""Finds a plan by its name."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext

from tasks.errors import BadSetting
from tasks.names import checked_plan_name
from tasks.plans.blocks import BackupPlan
from tasks.plans.plan import Plan, plan_from_settings
from tasks.plans.settings import load_settings
from tasks.prefect_client import documents


def plan_named(name: str) -> Plan:
    """The plan of the block `name`; without one, `default` is what `.env` describes.

    All steps of a run get the same one: a plan that is edited meanwhile counts from the next run on, and clients,
    which are dear to make, are made once. Raises BadSetting when there is no such plan, or it names something unusable.
    """
    context = FlowRunContext.get()
    return _read(name, str(context.flow_run.id) if context and context.flow_run else "")


def plan_names() -> list[str]:
    """The names of all plans, sorted: every block of the type Backup Plan; without any, `default` alone."""
    return sorted(plan_deployments())


def plan_deployments() -> dict[str, str]:
    """The deployment through which others start each plan's backup, by the name of the plan; see `plan_names`."""
    return {name: str(fields["deployment"]) for name, fields in plan_fields("deployment").items()}


def plan_fields(*wanted: str) -> dict[str, dict[str, object]]:
    """These fields of every plan, none of them a secret, by its name; see `plan_names`. One that lacks is as usual."""
    asked = {
        "block_types": {"slug": {"any_": [BackupPlan.get_block_type_slug()]}},
        "block_documents": {"is_anonymous": {"eq_": False}},
    }
    usual = {name: BackupPlan.model_fields[name].default for name in wanted}
    with get_client(sync_client=True) as client:
        # The client's own read_block_documents_by_type() passes over offset and limit.
        blocks = documents(client, "/block_documents/filter", **asked)
        found = {str(one["name"]): {name: one["data"].get(name, usual[name]) for name in wanted} for one in blocks}
    return found or {"default": usual}


@lru_cache(maxsize=4)
def _read(name: str, _run_id: str) -> Plan:
    checked_plan_name(name)
    try:
        block = BackupPlan.load(name)
    except ValueError as error:
        if "Unable to find block document" not in str(error):
            raise BadSetting(f"The block of plan {name} cannot be read: save it again in the Prefect UI.") from None
        if name != "default":
            raise BadSetting(
                f"There is no plan {name!r}: see the blocks in the Prefect UI, or run "
                f"python -m deployments.add_plan {name}."
            ) from None
        return plan_from_settings(name, load_settings(Path.cwd()))
    assert isinstance(block, BackupPlan)  # loaded from synchronous code, so not a coroutine
    return block.resolved(name)
