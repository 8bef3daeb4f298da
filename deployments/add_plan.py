"""`python -m deployments.add_plan NAME`: one more plan, from `.env` of a directory or from what is typed in.

Secrets are never arguments: they come from the file, the environment or a prompt that does not show them.
"""

from __future__ import annotations

import argparse
import getpass
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect.client.orchestration import get_client
from prefect_aws import AwsCredentials
from prefect_aws.s3 import S3Bucket

from deployments.quick_start.databases import ensure_catalog_database
from deployments.set_up_parts.blocks import set_up_plan
from deployments.set_up_parts.deployment_list import checked_entries
from deployments.set_up_parts.remembered import Memory
from deployments.set_up_parts.schedules import apply_schedules, plan_rules, wanted_schedules
from deployments.set_up_parts.storage_access import StorageAccess, storage_of
from tasks.errors import BackupSystemError, BadSetting
from tasks.names import checked_plan_name
from tasks.plans.blocks import BackupPlan
from tasks.plans.schedules import rule
from tasks.plans.setting_names import refuse_unknown
from tasks.plans.settings import Settings, load_settings, settings_from


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
    rule(settings.schedule, settings.schedule_timezone, "The schedule")
    entries = checked_entries()
    catalog_url = catalog_url or ensure_catalog_database(settings.database_url)
    changed = set_up_plan(name, settings, settings.database_url, catalog_url, storage)
    return changed + _schedules(entries)


def _schedules(entries: list[dict[str, Any]]) -> list[str]:
    """The schedules are as the plans want them; returns a line for each that differed."""
    memory = Memory.load()
    with get_client(sync_client=True) as client:
        changed = apply_schedules(client, wanted_schedules(entries, plan_rules()), memory, check=False)
    memory.save()
    return changed


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m deployments.add_plan", description=__doc__)
    parser.add_argument("name", help="lower-case letters, digits and dashes")
    parser.add_argument("--env-file", type=Path, help="a file like .env.example that describes the plan")
    parser.add_argument("--retention-days", type=int, help="a backup stays for so many times 24 hours")
    parser.add_argument("--compression", choices=("none", "zstd", "gzip"))
    parser.add_argument("--schedule", help="a cron line, every 6 hours, an RRULE, or never (default: 0 2 * * *)")
    parser.add_argument("--schedule-timezone", help="in which the schedule is meant (default: UTC)")
    return parser.parse_args()


def _settings(given: argparse.Namespace) -> Settings:
    """From the file when one is named; else the address is asked for and the rest is the default."""
    if given.env_file is not None:
        if not given.env_file.is_file():
            raise BadSetting(f"There is no file {given.env_file}.")
        refuse_unknown(given.env_file.parent, {}, given.env_file.name)
        settings = load_settings(given.env_file.parent, {}, given.env_file.name)
    else:
        settings = settings_from({"DATABASE_URL": getpass.getpass("Address of the database (postgresql://…): ")})
    if given.retention_days is not None:
        settings = replace(settings, retention_days=given.retention_days)
    settings = replace(settings, compression=given.compression or settings.compression)
    zone = given.schedule_timezone or settings.schedule_timezone
    return replace(settings, schedule=given.schedule or settings.schedule, schedule_timezone=zone)


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
