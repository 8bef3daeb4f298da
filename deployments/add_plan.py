"""`python -m deployments.add_plan NAME`: one more plan, from `.env` of a directory or from what is typed in.

Secrets are never arguments: they come from the file, the environment or a prompt that does not show them.
"""

from __future__ import annotations

import argparse
import getpass
import sys
from dataclasses import replace
from pathlib import Path

from prefect_aws import AwsCredentials
from prefect_aws.s3 import S3Bucket

from deployments.databases import ensure_catalog_database
from deployments.set_up import set_up_plan
from deployments.storage_access import StorageAccess, storage_of
from tasks.blocks import BackupPlan
from tasks.core.errors import BackupSystemError, BadSetting
from tasks.core.names import checked_plan_name
from tasks.core.settings import Settings, load_settings, settings_from


def main() -> int:
    """0 when the plan's blocks are there, else 1 and one sentence on stderr."""
    given = _arguments()
    try:
        for line in add_plan(given.name, _settings(given)):
            print(line)
        print(f"Back it up now: prefect deployment run backup/manual --param plan={given.name}")
    except BackupSystemError as error:
        print(f"No plan was added: {error}", file=sys.stderr)
        return 1
    return 0


def add_plan(name: str, settings: Settings) -> list[str]:
    """The blocks of a new plan; what the settings leave out (storage, catalogue) is taken from the plan `default`.

    Raises BadSetting when there is such a plan already, or nothing to take from.
    """
    checked_plan_name(name)
    if _plan(name) is not None:
        raise BadSetting(f"There is a plan {name} already: change its blocks in the Prefect UI.")
    if not settings.database_url:
        raise BadSetting("There is no DATABASE_URL: name the database of the new plan.")
    default = _plan("default")
    catalog_url = settings.catalog_url
    if not catalog_url and default is not None and default.catalogue is not None:
        catalog_url = default.catalogue.url.get_secret_value()
    storage = storage_of(settings)
    if settings.uses_embedded_storage:
        storage = _storage_of_plan(default)
    return set_up_plan(
        name, settings, settings.database_url, catalog_url or ensure_catalog_database(settings.database_url), storage
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deployments.add_plan", description=__doc__)
    parser.add_argument("name", help="lower-case letters, digits and dashes")
    parser.add_argument("--env-file", type=Path, help="a file like .env.example that describes the plan")
    parser.add_argument("--retention-days", type=int, help="a backup stays for so many times 24 hours")
    parser.add_argument("--compression", choices=("none", "zstd", "gzip"))
    return parser.parse_args()


def _settings(given: argparse.Namespace) -> Settings:
    """From the file when one is named; else the address is asked for and the rest is the default."""
    if given.env_file is not None:
        if not given.env_file.is_file():
            raise BadSetting(f"There is no file {given.env_file}.")
        settings = load_settings(given.env_file.parent, {}, given.env_file.name)
    else:
        settings = settings_from({"DATABASE_URL": getpass.getpass("Address of the database (postgresql://…): ")})
    if given.retention_days is not None:
        settings = replace(settings, retention_days=given.retention_days)
    return replace(settings, compression=given.compression or settings.compression)


def _plan(name: str) -> BackupPlan | None:
    try:
        plan = BackupPlan.load(name)
    except ValueError:
        return None
    assert isinstance(plan, BackupPlan)
    return plan


def _storage_of_plan(plan: BackupPlan | None) -> StorageAccess:
    if (
        plan is None
        or not isinstance(plan.storage, S3Bucket)
        or not isinstance(plan.storage.credentials, AwsCredentials)
    ):
        raise BadSetting("There is no storage to use: set S3_ENDPOINT_URL, S3_BUCKET and the access key in the file.")
    credentials = plan.storage.credentials
    secret = credentials.aws_secret_access_key
    return StorageAccess(
        endpoint_url=credentials.aws_client_parameters.endpoint_url or "",
        bucket=plan.storage.bucket_name,
        folder=plan.storage.bucket_folder,
        region=credentials.region_name or "",
        access_key_id=credentials.aws_access_key_id or "",
        secret_access_key=secret.get_secret_value() if secret else "",
    )


if __name__ == "__main__":
    sys.exit(main())
