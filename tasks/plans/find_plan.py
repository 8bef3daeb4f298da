"""Finds plans on the Prefect server: one by its name, with the blocks that it names, or something about all of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.blocks.core import Block
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect_aws import AwsCredentials

from tasks.errors import BadSetting
from tasks.names import checked_plan_name
from tasks.plans.blocks import BackupPlan, BackupStorage, PostgresDatabase
from tasks.plans.from_settings import plan_from_settings
from tasks.plans.masked_secrets import lost_secret, lost_secrets, masked_fields, revealed
from tasks.plans.plan import Plan
from tasks.plans.settings import load_settings
from tasks.prefect_client import documents

#: The types of the blocks of a plan.
KINDS: tuple[type[Block], ...] = (BackupPlan, PostgresDatabase, BackupStorage, AwsCredentials, Secret)
_BLOCK_NAME = re.compile(r"[a-z0-9-]{1,100}")


def plan_named(name: str) -> Plan:
    """The plan of the block `name`; without such a block, `default` is what `.env` describes.

    All steps of a run get the same plan: what is changed meanwhile counts from the next run on, and clients, which are
    expensive to create, are cached. Raises BadSetting when there is no such plan, or it names something unusable.
    """
    context = FlowRunContext.get()
    return _read_once(name, context.flow_run.id) if context and context.flow_run else _read(name)


def plan_names() -> list[str]:
    """The names of all plans, sorted: every block of the type Backup Plan; without any, `default` alone."""
    return sorted(plan_deployments())


def plan_deployments() -> dict[str, str]:
    """The deployment through which others start each plan's backup, by the name of the plan; see `plan_names`."""
    return {name: str(fields["deployment"]) for name, fields in fields_of_plans("deployment").items()}


def fields_of_plans(*wanted: str) -> dict[str, dict[str, object]]:
    """These fields of every plan by its name; see `plan_names`. A field that a block lacks has its default."""
    usual = {name: BackupPlan.model_fields[name].default for name in wanted}
    found = {
        str(document["name"]): {name: document["data"].get(name, usual[name]) for name in wanted}
        for document in block_documents([BackupPlan])
    }
    return found or {"default": usual}


def block_documents(kinds: Iterable[type[Block]], *, secrets: bool = False) -> list[dict[str, Any]]:
    """Every named block of these types as the server has it. Raises httpx.HTTPError."""
    asked = {
        "block_types": {"slug": {"any_": [kind.get_block_type_slug() for kind in kinds]}},
        "block_documents": {"is_anonymous": {"eq_": False}},
        "include_secrets": secrets,
    }
    with get_client(sync_client=True) as client:
        # The client's own read_block_documents_by_type() ignores offset and limit.
        return list(documents(client, "/block_documents/filter", **asked))


def lost_secrets_of_plans() -> list[str]:
    """A sentence for each secret that plans, or the blocks that they name, have lost. Raises httpx.HTTPError."""
    return lost_secrets(block_documents(KINDS, secrets=True))


def stored_block(kind: type[Block], name: str) -> Any:
    """The block of this type and name on the server, or None. Raises BadSetting when it cannot be read."""
    try:
        return kind.load(name)
    except ValueError as error:
        if "Unable to find block document" in str(error):
            return None
        block = f"{kind.get_block_type_slug()}/{name}"
        raise BadSetting(f"Block {block} cannot be read: see it under Blocks in the Prefect UI.") from None


def named_block(plan: str, kind: type[Block], name: str) -> Any:
    """The block that `plan` names. Raises BadSetting when there is none, or it has lost a secret."""
    title = kind.get_block_type_name()
    if not _BLOCK_NAME.fullmatch(name):  # which may be a secret that was entered in the wrong place
        raise BadSetting(
            f"Plan {plan} needs the name of a {title} block, and has another text there: correct the plan."
        )
    block = stored_block(kind, name)
    if block is None:
        raise BadSetting(f"There is no {title} block {name!r}, which plan {plan} names: make it, or correct the plan.")
    _refuse_masks(block, name)
    return block


@lru_cache(maxsize=4)
def _read_once(name: str, _run_id: UUID) -> Plan:
    return _read(name)


def _read(name: str) -> Plan:
    checked_plan_name(name)
    block = stored_block(BackupPlan, name)
    if block is not None:
        _refuse_masks(block, name)
        return BackupPlan.resolved(block, name, partial(named_block, name))
    if name != "default":
        raise BadSetting(
            f"There is no plan {name!r}: see the blocks in the Prefect UI, or run "
            f"python -m deployments.add_plan {name}."
        )
    return plan_from_settings(name, load_settings(Path.cwd()))


def _refuse_masks(block: Block, name: str) -> None:
    for field in masked_fields(revealed(block)):
        raise BadSetting(lost_secret(f"{block.get_block_type_slug()}/{name}", field))
