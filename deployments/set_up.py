"""`python -m deployments.set_up [--check] [--overwrite]`: everything that backups need on a Prefect server.

That is the catalogue, blocks, the work pool, deployments, their schedules, and automations.

Running it again changes only what differs. Imports Prefect: the environment must say which server to use, unless the
quick start's runs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

import httpx
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from deployments.quick_start.databases import (
    catalog_url_beside,
    ensure_catalog_database,
    running_stores,
    with_spool,
)
from deployments.quick_start.services import Services
from deployments.set_up_parts.blocks import set_up_plan
from deployments.set_up_parts.deployments import (
    apply_deployments,
    apply_work_pool,
    declared_deployments,
    deployments_there,
)
from deployments.set_up_parts.merging import SetUp
from deployments.set_up_parts.prefect_yaml import listed_deployments
from deployments.set_up_parts.remembered import Memory
from deployments.set_up_parts.schedules import apply_schedules, plan_rules, wanted_schedules
from deployments.set_up_parts.upgrade import name_blocks, remove_old_channel, rename_deployments
from tasks.admin_page.prefect_data import ensure_admin_page
from tasks.alarms.apply_automations import apply_automations
from tasks.errors import BackupSystemError, BadSetting
from tasks.plans.find_plan import lost_secrets_of_plans
from tasks.plans.from_settings import described
from tasks.plans.schedules import rule
from tasks.plans.settings import Settings, load_settings, refuse_unknown
from tasks.prefect_client import reason
from tasks.runs.arguments import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when all is as it should be, else 1 and one sentence on stderr; with --check, 1 when anything differs."""
    return run_command(make_agree, arguments)


def make_agree(*, check: bool = False, overwrite: bool = False) -> int:
    """Make the Prefect server agree with .env and prefect.yaml.

    Parameters
    ----------
    check
        only say what differs; the exit status is 1 when anything does
    overwrite
        also what somebody has set in Prefect
    """
    differs = False
    try:
        services = Services()
        with _server(services):
            for line in set_up(_settings(services, check), check=check, overwrite=overwrite):
                print(line, flush=True)
                differs = True
    except httpx.HTTPStatusError as error:
        print(f"The set-up stopped: Prefect answers {reason(error)}", file=sys.stderr)
        return 1
    except (BackupSystemError, httpx.HTTPError) as error:
        print(f"The set-up stopped: {error or type(error).__name__}", file=sys.stderr)
        return 1
    if check and not differs:
        print("Everything is as declared.")
    return 1 if check and differs else 0


def set_up(settings: Settings, *, check: bool = False, overwrite: bool = False) -> Iterator[str]:
    """Everything is in place for the plan `default`; yields a line for each thing that differed, as it is changed.

    The settings name database, catalogue and storage. What somebody has set in Prefect stays, and is reported, unless
    `overwrite` is given. With `check`, nothing is written. Raises BadSetting, before anything is written, when
    prefect.yaml or a schedule cannot be read; and when a plan has lost a secret that the settings do not hold.
    """
    listed = listed_deployments()
    first = {"default": rule(settings.schedule, settings.schedule_timezone, "SCHEDULE")}
    wanted_schedules(listed, first | plan_rules())
    this = SetUp(Memory.load(), check, overwrite)
    try:
        held = list(name_blocks(check=check))
        yield from held
        if held and check:
            return  # nothing more can be compared before these blocks are brought over
        yield from set_up_plan("default", described("default", settings), this)
        yield from _lost_secrets(check)
        with get_client(sync_client=True) as client:
            yield from apply_work_pool(client, check=check)
            there = deployments_there(client)
            yield from rename_deployments(client, there, this)
            yield from apply_deployments(client, there, declared_deployments(client, listed), this)
            yield from apply_schedules(client, there, wanted_schedules(listed, plan_rules()), this)
            yield from apply_automations(client, settings, check=check)
        yield from remove_old_channel(check=check)
        if not check:
            ensure_admin_page()
    finally:
        if not check:
            this.memory.save()


def _lost_secrets(check: bool) -> list[str]:
    """A line for each secret that was lost in a form. Raises BadSetting for them unless `check` is given."""
    lost = lost_secrets_of_plans()
    if lost and not check:
        raise BadSetting(" ".join(lost))
    return lost


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


def _settings(services: Services, check: bool) -> Settings:
    """The settings, with addresses of everything: the user's where they are named, else those of the quick start."""
    refuse_unknown(Path.cwd())
    settings = load_settings(Path.cwd())
    if settings.uses_embedded_database or settings.uses_embedded_storage:
        return running_stores(services, with_spool(services, settings))
    if services.prefect.is_running and services.prefect.api_url == PREFECT_API_URL.value():
        settings = with_spool(services, settings)
    beside = catalog_url_beside if check else ensure_catalog_database
    return replace(settings, catalog_url=settings.catalog_url or beside(settings.database_url))


if __name__ == "__main__":
    sys.exit(main())
