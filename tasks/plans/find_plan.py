"""Finds plans on the Prefect server: one by its name, with the blocks that it names, or something about all of them.

Secrets in them may be lost: Prefect shows `********` in their place, and a form can save that as the value.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.blocks.core import Block
from prefect.blocks.system import Secret
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect_aws import AwsCredentials
from pydantic import BaseModel

from tasks.errors import BadSetting
from tasks.names import base_of, parted
from tasks.plans.blocks import SECRETS, BackupPlan, BackupStorage, PostgresDatabase
from tasks.plans.from_settings import plan_from_settings
from tasks.plans.plan import Plan, database_of
from tasks.plans.settings import load_settings
from tasks.postgres.dsn import Dsn, parse
from tasks.prefect_client import NO_ANSWER, documents

#: The types of the blocks of a plan.
KINDS: tuple[type[Block], ...] = (BackupPlan, PostgresDatabase, BackupStorage, AwsCredentials, Secret)
_BLOCK_NAME = re.compile(r"[a-z0-9-]{1,100}")
#: What Prefect shows in place of a secret.
MASK = "********"
#: The fields of a plan that name blocks, by the type of these.
_NAMES = {
    "postgres-database": ("database", "catalogue", "drill_on"),
    "backup-storage": ("storage", "replicas"),
    "secret": SECRETS,
}


def plan_named(name: str) -> Plan:
    """The plan of the block `name`; without such a block, `default` is what `.env` describes.

    `server.shop` is the plan of one of the databases that the block `server` backs up. All steps of a run get the same
    plan: what is changed meanwhile counts from the next run on, and clients, which are expensive to create, are cached.
    Raises BadSetting when there is no such plan, it names something unusable, or it backs up the databases of a server:
    each of these has a plan of its own.
    """
    plan = any_plan_named(name)
    if plan.databases:
        raise BadSetting(
            f"Plan {name} backs up each database of its server as a plan of its own: name one of these as "
            f"{name}.<database>. backups plans lists them."
        )
    return plan


def any_plan_named(name: str) -> Plan:
    """As `plan_named`, and the plan of a server too: see `Plan.databases`."""
    context = FlowRunContext.get()
    return _read_once(name, context.flow_run.id) if context and context.flow_run else _read(name)


def backs_up_server(name: str) -> bool:
    """Whether the plan of this name backs up the databases of a server. A plan that cannot be read does not."""
    with suppress(BadSetting, *NO_ANSWER):
        block = stored_block(BackupPlan, name) if _BLOCK_NAME.fullmatch(name) else None
        return bool(block is not None and block.databases)
    return False


def has_plan(name: str) -> bool:
    """Whether there is a plan of this name. Raises BadSetting when its block cannot be read."""
    if not _BLOCK_NAME.fullmatch(base_of(name)):
        return False
    return stored_block(BackupPlan, base_of(name)) is not None or name == "default"


def database_named(plan: str, name: str) -> Dsn:
    """The address in a PostgreSQL Database block, the same to the end of a run. Raises BadSetting.

    `plan` is whose backup is restored there.
    """
    context = FlowRunContext.get()
    run_id = context.flow_run.id if context and context.flow_run else None
    return _database_once(plan, name, run_id) if run_id else _database(plan, name)


def plan_names() -> list[str]:
    """The names of all plans, sorted: every block of the type Backup Plan; without any, `default` alone."""
    return sorted(plan_deployments())


def plans_to_back_up() -> list[str]:
    """The names of all plans of which backups are made, sorted. Raises BadSetting when there is none."""
    found = sorted(name for name, fields in fields_of_plans("restore_only").items() if not fields["restore_only"])
    if not found:
        raise BadSetting("Every plan is only restored into: there is nothing to back up.")
    return found


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
def _database_once(plan: str, name: str, _run_id: UUID) -> Dsn:
    return _database(plan, name)


def _database(plan: str, name: str) -> Dsn:
    if not _BLOCK_NAME.fullmatch(name) or stored_block(PostgresDatabase, name) is None:
        shown = repr(name) if _BLOCK_NAME.fullmatch(name) else "of that text"
        raise BadSetting(
            f"There is no plan {shown}, and no PostgreSQL Database block either: write the name of one of them in into."
        )
    url = named_block(plan, PostgresDatabase, name).url.get_secret_value()
    return parse(url, f"The PostgreSQL Database block {name}")


@lru_cache(maxsize=4)
def _read_once(name: str, run_id: UUID) -> Plan:
    base, database = parted(name)
    return database_of(_read_once(base, run_id), database) if database else _read_block(base)


def _read(name: str) -> Plan:
    base, database = parted(name)
    return database_of(_read_block(base), database) if database else _read_block(base)


def _read_block(name: str) -> Plan:
    block = stored_block(BackupPlan, name)
    if block is not None:
        _refuse_masks(block, name)
        return BackupPlan.resolved(block, name, partial(named_block, name))
    if name != "default":
        raise BadSetting(
            f"There is no plan {name!r}: see the blocks in the Prefect UI, or run backups plan add {name}."
        )
    return plan_from_settings(name, load_settings(Path.cwd()), partial(named_block, name))


def _refuse_masks(block: Block, name: str) -> None:
    for field in masked_fields(revealed(block)):
        raise BadSetting(lost_secret(f"{block.get_block_type_slug()}/{name}", field))


def lost_secret(block: str, field: str) -> str:
    """The sentence for a field of a block, such as `postgres-database/default-database`."""
    return (
        f"Block {block}: the field {field} holds {MASK}, so its secret is lost: enter it again under Blocks in the "
        "Prefect UI."
    )


def lost_secrets(documents: Sequence[Mapping[str, Any]]) -> list[str]:
    """A sentence for each secret that plans, or the blocks that they name, have lost. Pure.

    `documents` are block documents as Prefect's API gives them, with secrets.
    """
    data = {(str(one["block_type"]["slug"]), str(one["name"])): one["data"] for one in documents}
    plans = {place: fields for place, fields in data.items() if place[0] == "backup-plan"}
    used = {*plans, *(place for fields in plans.values() for place in _named(fields))}
    used |= {("aws-credentials", str(data[place].get("credentials"))) for place in used & data.keys()}
    return [
        lost_secret(f"{slug}/{name}", field)
        for slug, name in sorted(used & data.keys())
        for field in masked_fields(data[slug, name])
    ]


def _named(plan: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Type and name of the blocks that a plan names."""
    for slug, fields in _NAMES.items():
        for field in fields:
            value = plan.get(field)
            yield from ((slug, str(name)) for name in (value if isinstance(value, list) else [value]))


def masked_fields(data: Any, path: str = "") -> Iterator[str]:
    """The paths (`database.url`) of all texts in the data of a block that are a mask. Pure."""
    if data == MASK:
        yield path
    pairs: Sequence[tuple[Any, Any]] = ()
    if isinstance(data, Mapping):
        pairs = list(data.items())
    elif isinstance(data, list | tuple):
        pairs = list(enumerate(data, 1))
    for name, value in pairs:
        yield from masked_fields(value, f"{path}.{name}" if path else str(name))


def revealed(value: Any) -> Any:
    """What a block holds, as plain data with its secrets, without what Prefect adds when it stores a block.

    Field by field, since model_dump() of a block takes seconds.
    """
    if hasattr(value, "get_secret_value"):
        return value.get_secret_value()
    if isinstance(value, BaseModel):
        names = [name for name in type(value).model_fields if not name.startswith("_") and name != "block_type_slug"]
        return {name: revealed(getattr(value, name)) for name in names}
    if isinstance(value, Mapping):
        return {name: revealed(inner) for name, inner in value.items()}
    return [revealed(inner) for inner in value] if isinstance(value, list | tuple) else value
