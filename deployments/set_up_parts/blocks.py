"""The blocks of a plan: its database, catalogue, credentials, storage, and the plan itself."""

from __future__ import annotations

from typing import Any

from prefect.blocks.core import Block
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import BlockDocumentUpdate
from prefect_aws import AwsCredentials
from prefect_aws.client_parameters import AwsClientParameters
from prefect_aws.s3 import S3Bucket
from pydantic import BaseModel, SecretStr

from deployments.quick_start.postgres import wheel_bin_directory
from deployments.set_up_parts.merging import fingerprint, merged
from deployments.set_up_parts.remembered import Memory
from deployments.set_up_parts.storage_access import StorageAccess
from tasks.catalogue.catalogue import Catalogue
from tasks.errors import BackupSystemError, BadSetting
from tasks.names import checked_plan_name
from tasks.plans.blocks import BackupPlan, PostgresDatabase
from tasks.plans.settings import Settings
from tasks.postgres.dsn import parse
from tasks.storage.s3 import default_region

#: Fields of a plan that `.env` describes, each by the variable that does so.
VARIABLES = {
    "retention_days": "RETENTION_DAYS",
    "compression": "COMPRESSION",
    "age_recipients": "AGE_RECIPIENTS",
    "age_identity": "AGE_IDENTITY",
    "kept_database_days": "KEPT_DATABASE_DAYS",
    "schedule": "SCHEDULE",
    "schedule_timezone": "SCHEDULE_TIMEZONE",
    "grace_minutes": "GRACE_MINUTES",
    "ping_url": "PING_URL",
}
_SECRET = ("age_identity", "ping_url")


def set_up_plan(
    name: str,
    settings: Settings,
    database_url: str,
    catalog_url: str,
    storage: StorageAccess,
    tools_directory: str = "",
    *,
    check: bool = False,
) -> list[str]:
    """The blocks of one plan, and its catalogue's tables, are there; returns a line for each thing that differed.

    Of a plan that exists, only addresses and keys follow the settings: the rest belongs to whoever edits the block.
    """
    checked_plan_name(name)
    changed = _catalogue(catalog_url, check)
    database = PostgresDatabase(url=SecretStr(database_url))
    catalogue = PostgresDatabase(url=SecretStr(catalog_url))
    changed += _save(database, f"{name}-database", check) + _save(catalogue, f"{name}-catalogue", check)
    credentials = AwsCredentials(
        aws_access_key_id=storage.access_key_id or None,
        aws_secret_access_key=SecretStr(storage.secret_access_key) if storage.secret_access_key else None,
        region_name=storage.region or default_region(storage.endpoint_url),
        aws_client_parameters=AwsClientParameters(endpoint_url=storage.endpoint_url or None),
    )
    changed += _save(credentials, f"{name}-credentials", check)
    bucket = S3Bucket(bucket_name=storage.bucket, bucket_folder=storage.folder, credentials=credentials)
    changed += _save(bucket, f"{name}-storage", check)
    stored = _stored(BackupPlan, name)
    if stored is not None and stored.client_tools_directory == str(wheel_bin_directory()) != tools_directory:
        stored.client_tools_directory = settings.pg_bin_directory
        changed += _save(stored, name, check)
    if stored is None:
        plan = BackupPlan(
            database=database,
            catalogue=catalogue,
            storage=bucket,
            **_described(settings),
            client_tools_directory=settings.pg_bin_directory or tools_directory,
            spool_directory=settings.spool_directory,
        )
        changed += _save(plan, name, check)
    return changed


def follow_settings(settings: Settings, memory: Memory, *, check: bool) -> list[str]:
    """What was changed in `.env` since the last set-up is changed in the block `default`; returns a line for each.

    What somebody has changed in the block stays: that is said once `.env` wants something else than it did.
    """
    stored = _stored(BackupPlan, "default")
    if stored is None:
        return []
    declared, found = _plain(_described(settings)), _plain({name: getattr(stored, name) for name in VARIABLES})
    last, thing = memory.of("plan default"), "plan default"
    result = merged(declared, found, last)
    asked = [name for name in result.kept if name in last and fingerprint(declared[name]) != last[name].declared]
    lines = [
        f"{VARIABLES[name]} was changed in .env, and so was {name} in the block of plan default, which stays "
        "as it is: correct the one or the other."
        for name in asked
    ]
    if result.write:
        if not check:
            edit_block(stored, {name: declared[name] for name in result.write})
        lines += [
            f"Plan default {'differs' if check else 'was changed'}: {name} follows {VARIABLES[name]} in .env."
            for name in result.write
        ]
    memory.note(thing, result.write, declared, declared)
    memory.note(thing, result.same, declared, found)
    memory.note(thing, [name for name in result.kept if name not in last], declared, {})  # edited before anybody looked
    return lines


def edit_block(stored: Block, fields: dict[str, Any]) -> None:
    """These fields of a stored block, and no other, have these values."""
    assert stored._block_document_id is not None  # it was loaded
    # The server forgets which other blocks a block refers to, unless it is told again.
    every = {name: getattr(stored, name) for name in type(stored).model_fields}
    refers = {
        name: {"$ref": {"block_document_id": str(one._block_document_id)}}
        for name, one in every.items()
        if isinstance(one, Block)
    }
    new = BlockDocumentUpdate(data={**refers, **fields}, merge_existing_data=True)
    with get_client(sync_client=True) as client:
        client.update_block_document(stored._block_document_id, new)


def _described(settings: Settings) -> dict[str, Any]:
    """The fields of a plan that the settings describe."""
    given = {name: getattr(settings, name) for name in VARIABLES}
    secrets = {name: SecretStr(given[name]) for name in _SECRET}
    return {**given, **secrets, "age_recipients": list(settings.age_recipients)}


def _plain(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: one.get_secret_value() if isinstance(one, SecretStr) else one for name, one in fields.items()}


def _catalogue(url: str, check: bool) -> list[str]:
    catalogue = Catalogue(parse(url, "CATALOG_URL"))
    if not check:
        return ["The catalogue's tables were created."] if catalogue.prepare() else []
    try:
        catalogue.check()
    except BadSetting as missing:
        return [str(missing)]
    except BackupSystemError as silent:
        return [f"The catalogue cannot be looked at: {silent}"]
    return []


def _save(block: Block, name: str, check: bool) -> list[str]:
    """Saves a block unless the stored one says the same already."""
    stored = _stored(type(block), name)
    if stored is not None and _content(stored) == _content(block):
        block._block_document_id = stored._block_document_id
        block._block_document_name = stored._block_document_name
        return []
    what = f"Block {block.get_block_type_slug()}/{name}"
    if check:
        return [f"{what} {'is missing' if stored is None else 'differs'}."]
    block.save(name, overwrite=True)
    return [f"{what} was {'created' if stored is None else 'changed'}."]


def _stored(kind: type[Block], name: str) -> Any:
    try:
        return kind.load(name)
    except ValueError:
        return None


def _content(value: Any) -> Any:
    """What a block says, secrets revealed, without what Prefect adds when it stores one.

    Field by field: model_dump() of a block takes seconds.
    """
    if isinstance(value, SecretStr):
        return value.get_secret_value()
    if isinstance(value, BaseModel):
        names = [name for name in type(value).model_fields if not name.startswith("_") and name != "block_type_slug"]
        return {name: _content(getattr(value, name)) for name in names}
    if isinstance(value, dict):
        return {name: _content(one) for name, one in value.items()}
    return [_content(one) for one in value] if isinstance(value, list | tuple) else value
