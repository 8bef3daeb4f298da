"""Where databases and storage are: the user's where `.env` names them, else the quick start's."""

from __future__ import annotations

from dataclasses import replace

from deployments.quick_start.databases import catalog_url_beside
from deployments.quick_start.s3 import REGION, S3Server
from deployments.quick_start.services import Services
from tasks.errors import BadSetting
from tasks.plans.settings import Settings

SAMPLE_DATABASE = "shop"


def with_spool(services: Services, settings: Settings) -> Settings:
    """The settings as `make up` takes them: parts wait in the state folder unless a directory is named."""
    return replace(settings, spool_directory=settings.spool_directory or str(services.state / "spool"))


def on_sample_database(services: Services, settings: Settings) -> Settings:
    """The settings with the sample database of the quick start, and the client programs of its server."""
    postgres = services.postgres
    tools = settings.pg_bin_directory or str(postgres.bin_directory)
    return replace(settings, database_url=postgres.url(SAMPLE_DATABASE), pg_bin_directory=tools)


def on_storage(server: S3Server, settings: Settings) -> Settings:
    """The settings with their bucket and folder on the S3 server of the quick start."""
    return replace(
        settings,
        s3_endpoint_url=server.endpoint_url,
        s3_region=settings.s3_region or REGION,
        access_key_id=server.access_key_id,
        secret_access_key=server.secret_access_key,
    )


def running_stores(services: Services, settings: Settings) -> Settings:
    """The settings with what a running quick start provides in place of what they leave out; nothing is started.

    Raises BadSetting when something of it does not run.
    """
    if settings.uses_embedded_storage:
        if not services.s3.is_running:
            raise _nothing_runs("the storage", "S3 server")
        settings = on_storage(services.s3, settings)
    if settings.uses_embedded_database:
        if not services.postgres.is_running:
            raise _nothing_runs("DATABASE_URL", "PostgreSQL")
        settings = on_sample_database(services, settings)
    return replace(settings, catalog_url=settings.catalog_url or catalog_url_beside(settings.database_url))


def _nothing_runs(variable: str, service: str) -> BadSetting:
    return BadSetting(
        f"Set DATABASE_URL and the storage in .env, or run `make up` for the embedded ones: {variable} is not set, and "
        f"the {service} of the quick start does not run."
    )
