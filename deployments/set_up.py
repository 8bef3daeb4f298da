"""`python -m deployments.set_up [--check] [--overwrite]`: everything that backups need on a Prefect server.

That is the catalogue, blocks, the work pool, deployments, their schedules, and automations.

Running it again changes only what differs. Imports Prefect: the environment must say which server to use, unless the
quick start's runs.
"""

from __future__ import annotations

import argparse
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import httpx
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from deployments.quick_start.databases import catalog_url_beside, ensure_catalog_database
from deployments.quick_start.services import Services
from deployments.quick_start.stores import Stores, running_stores
from deployments.set_up_parts.blocks import follow_settings, set_up_plan
from deployments.set_up_parts.deployment_list import checked_entries
from deployments.set_up_parts.deployments import apply_deployments, declared_deployments
from deployments.set_up_parts.pool import WORK_POOL, apply_work_pool
from deployments.set_up_parts.remembered import Memory
from deployments.set_up_parts.schedules import apply_schedules, plan_rules, wanted_schedules
from deployments.set_up_parts.storage_access import StorageAccess, storage_of
from tasks.admin_page.prefect_data import ensure_admin_page
from tasks.alarms.apply_automations import apply_automations
from tasks.errors import BackupSystemError, BadSetting
from tasks.plans.schedules import rule
from tasks.plans.setting_names import refuse_unknown
from tasks.plans.settings import Settings, load_settings

__all__ = ["WORK_POOL", "main", "set_up", "set_up_plan"]


def main() -> int:
    """0 when all is as it should be, else 1 and one sentence on stderr; with --check, 1 when anything differs."""
    given = _arguments()
    try:
        services = Services()
        with _server(services):
            lines = _set_up(services, given.check, given.overwrite)
    except httpx.HTTPStatusError as error:
        # Its own text repeats what was sent, which may hold a secret.
        asked, answer = error.request, error.response.status_code
        print(f"The set-up stopped: Prefect answered {asked.method} {asked.url.path} with {answer}.", file=sys.stderr)
        return 1
    except (BackupSystemError, httpx.HTTPError) as error:
        print(f"The set-up stopped: {error or type(error).__name__}", file=sys.stderr)
        return 1
    for line in lines:
        print(line)
    if given.check and not lines:
        print("Everything is as declared.")
    return 1 if given.check and lines else 0


def set_up(
    settings: Settings,
    database_url: str,
    catalog_url: str,
    storage: StorageAccess,
    tools_directory: str = "",
    *,
    check: bool = False,
    overwrite: bool = False,
) -> list[str]:
    """Everything is in place for the plan `default`; returns a line for each thing that differed.

    What somebody has set in Prefect stays, and is told, unless `overwrite` is given. With `check`, nothing is written.
    `tools_directory` is where pg_dump is looked for first when the settings name no directory. Raises BadSetting,
    before anything is written, when prefect.yaml or a schedule cannot be read.
    """
    entries = checked_entries()
    first = {"default": rule(settings.schedule, settings.schedule_timezone, "SCHEDULE")}
    wanted_schedules(entries, first | plan_rules())
    lines = set_up_plan("default", settings, database_url, catalog_url, storage, tools_directory, check=check)
    memory = Memory.load()
    lines += follow_settings(settings, memory, check=check)
    with get_client(sync_client=True) as client:
        lines += apply_work_pool(client, check=check)
        declared = declared_deployments(client, entries)
        try:
            lines += apply_deployments(client, declared, memory, check=check, overwrite=overwrite)
            wanted = wanted_schedules(entries, plan_rules())
            lines += apply_schedules(client, wanted, memory, check=check, overwrite=overwrite)
        finally:
            if not check:
                memory.save()
        lines += apply_automations(client, settings, check=check)
    if not check:
        ensure_admin_page()
    return lines


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m deployments.set_up", description="Make the Prefect server agree with .env and prefect.yaml."
    )
    parser.add_argument("--check", action="store_true", help="only say what differs; exit status 1 when anything does")
    parser.add_argument("--overwrite", action="store_true", help="also what somebody has set in Prefect")
    return parser.parse_args()


def _server(services: Services) -> AbstractContextManager[object]:
    """The server that the environment names, else the quick start's. Raises BadSetting when there is neither."""
    if PREFECT_API_URL.value():
        return nullcontext()
    if not services.prefect.is_running:
        raise BadSetting(
            "No Prefect server is named, and the quick start's does not run: set PREFECT_API_URL, or run make up."
        )
    server = services.prefect
    return temporary_settings({PREFECT_API_URL: server.api_url, PREFECT_API_AUTH_STRING: server.auth_string})


def _set_up(services: Services, check: bool, overwrite: bool) -> list[str]:
    refuse_unknown(Path.cwd())
    settings = load_settings(Path.cwd())
    if settings.uses_embedded_database or settings.uses_embedded_storage:
        settings, stores = running_stores(services, settings)
    else:
        beside = catalog_url_beside if check else ensure_catalog_database
        stores = Stores(
            settings.database_url, settings.catalog_url or beside(settings.database_url), storage_of(settings)
        )
    return set_up(
        settings,
        stores.database_url,
        stores.catalog_url,
        stores.storage,
        stores.tools_directory,
        check=check,
        overwrite=overwrite,
    )


if __name__ == "__main__":
    sys.exit(main())
