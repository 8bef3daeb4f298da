"""`python -m deployments.set_up`: catalogue, blocks, work pool, deployments and automations, as they should be.

Running it again changes only what differs. Imports Prefect: the environment must say which server to use.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path
from typing import Any

from prefect.blocks.core import Block
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolCreate
from prefect.exceptions import ObjectNotFound
from prefect_aws import AwsCredentials
from prefect_aws.client_parameters import AwsClientParameters
from prefect_aws.s3 import S3Bucket
from pydantic import SecretStr

from deployments.automations import AUTOMATIONS
from deployments.databases import ensure_catalog_database
from deployments.deployment_list import DEPLOYMENT_FILE, listed_deployments
from deployments.embedded.postgres import wheel_bin_directory
from deployments.storage_access import StorageAccess, storage_of
from tasks.blocks import BackupPlan, PostgresDatabase
from tasks.core.catalogue import Catalogue
from tasks.core.errors import BackupSystemError, BadSetting
from tasks.core.names import checked_plan_name
from tasks.core.postgres import parse
from tasks.core.settings import Settings, load_settings
from tasks.core.storage import default_region

WORK_POOL = "backups"
CHECKOUT = DEPLOYMENT_FILE.parent


def main() -> int:
    """0 when everything is as it should be, else 1 and one sentence on stderr."""
    try:
        settings = load_settings(Path.cwd())
        if settings.uses_embedded_database or settings.uses_embedded_storage:
            raise BadSetting("Set DATABASE_URL and the storage in .env, or run `make up` for the embedded ones.")
        catalog_url = settings.catalog_url or ensure_catalog_database(settings.database_url)
        for line in set_up(settings, settings.database_url, catalog_url, storage_of(settings)):
            print(line)
    except BackupSystemError as error:
        print(f"The set-up stopped: {error}", file=sys.stderr)
        return 1
    return 0


def set_up(
    settings: Settings, database_url: str, catalog_url: str, storage: StorageAccess, tools_directory: str = ""
) -> list[str]:
    """Everything is in place for the plan `default`; returns a line for each thing that was changed.

    `tools_directory` is where pg_dump is looked for first when the settings name no directory.
    """
    changed = set_up_plan("default", settings, database_url, catalog_url, storage, tools_directory)
    with get_client(sync_client=True) as client:
        changed += _work_pool(client) + _deployments(client) + _automations(client)
    return changed


def set_up_plan(
    name: str,
    settings: Settings,
    database_url: str,
    catalog_url: str,
    storage: StorageAccess,
    tools_directory: str = "",
) -> list[str]:
    """The blocks of one plan, and its catalogue's tables; returns what was changed.

    Of a plan that exists, only addresses and keys follow the settings: the rest belongs to whoever edits the block.
    """
    checked_plan_name(name)
    changed = []
    if Catalogue(parse(catalog_url, "CATALOG_URL")).prepare():
        changed.append("The catalogue's tables were created.")
    database = PostgresDatabase(url=SecretStr(database_url))
    catalogue = PostgresDatabase(url=SecretStr(catalog_url))
    changed += _save(database, f"{name}-database") + _save(catalogue, f"{name}-catalogue")
    credentials = AwsCredentials(
        aws_access_key_id=storage.access_key_id or None,
        aws_secret_access_key=SecretStr(storage.secret_access_key) if storage.secret_access_key else None,
        region_name=storage.region or default_region(storage.endpoint_url),
        aws_client_parameters=AwsClientParameters(endpoint_url=storage.endpoint_url or None),
    )
    changed += _save(credentials, f"{name}-credentials")
    bucket = S3Bucket(bucket_name=storage.bucket, bucket_folder=storage.folder, credentials=credentials)
    changed += _save(bucket, f"{name}-storage")
    stored = _stored(BackupPlan, name)
    if stored is not None and stored.client_tools_directory == str(wheel_bin_directory()) != tools_directory:
        stored.client_tools_directory = settings.pg_bin_directory
        changed += _save(stored, name)
    if stored is None:
        plan = BackupPlan(
            database=database,
            catalogue=catalogue,
            storage=bucket,
            retention_days=settings.retention_days,
            compression=settings.compression,  # type: ignore[arg-type]
            age_recipients=list(settings.age_recipients),
            age_identity=SecretStr(settings.age_identity),
            kept_database_days=settings.kept_database_days,
            client_tools_directory=settings.pg_bin_directory or tools_directory,
            spool_directory=settings.spool_directory,
        )
        changed += _save(plan, name)
    return changed


def _save(block: Block, name: str) -> list[str]:
    """Saves a block unless the stored one says the same already."""
    stored = _stored(type(block), name)
    if stored is not None and _content(stored) == _content(block):
        block._block_document_id = stored._block_document_id
        block._block_document_name = stored._block_document_name
        return []
    block.save(name, overwrite=True)
    return [f"Block {block.get_block_type_slug()}/{name} was {'created' if stored is None else 'changed'}."]


def _stored(kind: type[Block], name: str) -> Any:
    try:
        return kind.load(name)
    except ValueError:
        return None


def _content(block: Block) -> Any:
    """What a block says, secrets revealed, without what Prefect adds when it stores one."""
    return _said(block.model_dump(mode="python", context={"include_secrets": True}))


def _said(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    return {name: _said(one) for name, one in value.items() if not name.startswith("_") and name != "block_type_slug"}


def _work_pool(client: SyncPrefectClient) -> list[str]:
    try:
        client.read_work_pool(WORK_POOL)
    except ObjectNotFound:
        client.create_work_pool(WorkPoolCreate(name=WORK_POOL, type="process"))
        return [f"Work pool {WORK_POOL} was created."]
    return []


def _deployments(client: SyncPrefectClient) -> list[str]:
    """Deploys what prefect.yaml lists, unless the server has just that: each deployment's version tells."""
    fingerprint = hashlib.sha256(DEPLOYMENT_FILE.read_bytes() + str(CHECKOUT).encode()).hexdigest()[:12]
    names = listed_deployments()
    if all(_version(client, name) == fingerprint for name in names):
        return []
    words = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    done = subprocess.run(words, cwd=CHECKOUT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise BadSetting(f"prefect deploy failed: {' '.join((done.stdout + done.stderr).split())[-500:]}")
    for name in names:
        client.update_deployment(client.read_deployment_by_name(name).id, DeploymentUpdate(version=fingerprint))
    return [f"Deployment {name} was written." for name in names]


def _version(client: SyncPrefectClient, name: str) -> str | None:
    try:
        return client.read_deployment_by_name(name).version
    except ObjectNotFound:
        return None


def _automations(client: SyncPrefectClient) -> list[str]:
    missing = [one for one in AUTOMATIONS if not client.read_automations_by_name(one.name)]
    for automation in missing:
        client.create_automation(automation)
    return [f"Automation {one.name!r} was created." for one in missing]


if __name__ == "__main__":
    sys.exit(main())
