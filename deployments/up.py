"""`python -m deployments.up`: from a fresh checkout to a first backup; called again, it restarts what died.

With nothing in `.env`, a PostgreSQL server with a sample database and an S3 server are started here too.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING
from urllib.parse import urljoin

import httpx
import psycopg2
from botocore.exceptions import BotoCoreError, ClientError

from deployments.quick_start.databases import (
    SAMPLE_DATABASE,
    ensure_catalog_database,
    ensure_sample_database,
    on_sample_database,
    on_storage,
    with_spool,
)
from deployments.quick_start.private import require_free_disk
from deployments.quick_start.services import Services
from tasks.errors import BackupSystemError
from tasks.plans.settings import Settings, load_settings, refuse_unknown
from tasks.runs.arguments import run_command

if TYPE_CHECKING:
    from tasks.catalogue.rows import Record

SAMPLE_MEGABYTES = 50

Say = Callable[[str], None]


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when everything runs and there is a backup, else 1 and one sentence on stderr."""
    return run_command(start, arguments)


def start() -> int:
    """Start everything, make the first backup, and say where it lies."""
    services = Services()
    try:
        with services.alone():
            refuse_unknown(services.root)
            print(up(services, load_settings(services.root), progress()), flush=True)
    except KeyboardInterrupt:
        print("Interrupted: `make up` goes on from here, `make down` stops what runs.", file=sys.stderr)
        return 130
    except httpx.HTTPStatusError as error:
        from tasks.prefect_client import reason

        print(f"make up stopped: Prefect answers {reason(error)}", file=sys.stderr)
        return 1
    except (BackupSystemError, OSError, psycopg2.Error, BotoCoreError, ClientError, httpx.HTTPError) as error:
        print(f"make up stopped: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


def progress() -> Say:
    """Prints lines, each with the seconds since this call."""
    began = time.monotonic()
    return lambda line: print(f"[{time.monotonic() - began:3.0f} s] {line}", flush=True)


def up(services: Services, settings: Settings, say: Say) -> str:
    """All that the settings ask for runs and has made a backup; returns what to tell the user."""
    require_free_disk(services.root)
    complete = start_stores(services, with_spool(services, settings), say)
    start_prefect(services, say)
    backup, admin_page = set_up_and_back_up(services, complete, say)
    return farewell(services, settings, admin_page, backup)


def start_stores(services: Services, settings: Settings, say: Say) -> Settings:
    """Database, catalogue and storage: the user's where they are named, else our own, running.

    Returns the settings with the addresses of all of them.
    """
    if settings.uses_embedded_storage:
        settings = start_storage(services, settings, say)
    if settings.uses_embedded_database:
        settings = start_sample_database(services, settings, say)
    return replace(settings, catalog_url=settings.catalog_url or ensure_catalog_database(settings.database_url))


def start_sample_database(services: Services, settings: Settings, say: Say) -> Settings:
    """The settings with the sample database on the embedded server, which runs."""
    postgres = services.postgres
    if not postgres.is_running:
        say(f"Starting PostgreSQL {postgres.major} …")
        postgres.start()
    ensure_sample_database(postgres.url(), SAMPLE_DATABASE, SAMPLE_MEGABYTES, say)
    return on_sample_database(services, settings)


def start_storage(services: Services, settings: Settings, say: Say) -> Settings:
    """The settings with the embedded S3 server, which runs and has the bucket."""
    if not services.s3.is_running:
        say("Starting the S3 server …")
        services.s3.start()
    services.s3.create_bucket(settings.s3_bucket)
    return on_storage(services.s3, settings)


def start_prefect(services: Services, say: Say) -> None:
    """The Prefect server answers, and this process, which has not imported Prefect yet, will use it."""
    if not services.prefect.is_running:
        say("Starting the Prefect server (half a minute the first time) …")
        services.start_prefect()
    environment = services.prefect.environment()
    for name in set(os.environ) - set(environment):
        del os.environ[name]
    os.environ.update(environment)
    os.chdir(services.root)


def set_up_and_back_up(services: Services, settings: Settings, say: Say) -> tuple[Record, str]:
    """Catalogue, blocks, deployments and automations are in place, the worker runs, and there is a backup.

    Returns that backup, and the address of the admin page.
    """
    # Prefect decides on import which server it talks to: these modules import it.
    from deployments.quick_start.first_backup import first_backup
    from deployments.set_up import set_up
    from tasks.admin_page.prefect_data import ensure_admin_page

    say("Setting up the catalogue, blocks and deployments …")
    for line in set_up(settings):
        say(line)
    if not services.worker.is_running:
        say("Starting the worker …")
        services.worker.start()
    backup = first_backup(settings.catalog_url, services.prefect.url, say)
    say("Everything runs.")
    return backup, urljoin(services.prefect.url, ensure_admin_page())


def farewell(services: Services, settings: Settings, admin_page: str, backup: Record) -> str:
    """UI addresses, login, where the newest backup lies, and what to try next."""
    bucket, key = settings.s3_bucket, backup.s3_key
    place = f"s3://{bucket}/{key} ({(backup.file_size or 0) / 1e6:.1f} MB)"
    if settings.uses_embedded_storage:
        place += f"\n               {services.s3.data_directory / bucket / key}"
    return f"""
  Prefect UI   {services.prefect.url}
  All backups  {admin_page}
  Login        {services.prefect.auth_string}
  Backup       {place}

Next, another backup by one command:

  source .venv/bin/activate
  prefect deployment run backup/manual

`make down` stops everything and keeps the data."""


if __name__ == "__main__":
    sys.exit(main())
