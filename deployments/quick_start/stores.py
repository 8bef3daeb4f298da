"""Where databases and storage are: the user's where `.env` names them, else the quick start's."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from deployments.quick_start.databases import catalog_url_beside
from deployments.quick_start.services import Services
from deployments.set_up_parts.storage_access import StorageAccess, storage_of, storage_on
from tasks.errors import BadSetting
from tasks.plans.settings import Settings

SAMPLE_DATABASE = "shop"


@dataclass(frozen=True)
class Stores:
    """Where things are: both databases' addresses with their passwords, and the storage."""

    database_url: str = field(repr=False)
    catalog_url: str = field(repr=False)
    storage: StorageAccess
    tools_directory: str = ""
    """Where pg_dump for the embedded server is; empty when the database is the user's."""


def with_spool(services: Services, settings: Settings) -> Settings:
    """The settings as `make up` takes them: parts wait in the state folder unless a directory is named."""
    return replace(settings, spool_directory=settings.spool_directory or str(services.state / "spool"))


def running_stores(services: Services, settings: Settings) -> tuple[Settings, Stores]:
    """The settings and the stores of a quick start that runs; nothing is started.

    Raises BadSetting when something of it does not run.
    """
    database_url, storage, tools = settings.database_url, None, ""
    if settings.uses_embedded_database:
        if not services.postgres.is_running:
            raise _nothing_runs("DATABASE_URL", "PostgreSQL")
        database_url = services.postgres.url(SAMPLE_DATABASE)
        tools = str(services.postgres.bin_directory)
    if settings.uses_embedded_storage:
        if not services.s3.is_running:
            raise _nothing_runs("the storage", "S3 server")
        storage = storage_on(services.s3, settings)
    catalog_url = settings.catalog_url or catalog_url_beside(database_url)
    stores = Stores(database_url, catalog_url, storage or storage_of(settings), tools)
    return with_spool(services, settings), stores


def _nothing_runs(variable: str, service: str) -> BadSetting:
    return BadSetting(
        f"Set DATABASE_URL and the storage in .env, or run `make up` for the embedded ones: {variable} is not set, and "
        f"the {service} of the quick start does not run."
    )
