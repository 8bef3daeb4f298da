"""Where databases and storage are: the user's where `.env` names them, else the quick start's, made when missing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import psycopg2
from psycopg2.extensions import make_dsn

from deployments.quick_start.s3 import REGION, S3Server
from deployments.quick_start.services import Services
from deployments.sample import fill
from tasks.errors import AccessRefused, BadSetting
from tasks.plans.settings import Settings
from tasks.postgres.dsn import parse
from tasks.postgres.server import ensure_database, on, source_session

CATALOG_DATABASE = "backup_catalog"
SAMPLE_DATABASE = "shop"
_PROGRAM = "database-backup-system set-up"


def catalog_url_beside(database_url: str) -> str:
    """The address of the database `backup_catalog` on the server, and for the role, of `database_url`."""
    return str(make_dsn(**parse(database_url).with_dbname(CATALOG_DATABASE).parameters))


def ensure_catalog_database(database_url: str) -> str:
    """`backup_catalog` exists on the server of `database_url`, seen from a connection to it; its address.

    Raises AccessRefused when the role may not create databases and there is none.
    """
    source = parse(database_url)
    with source_session(source, _PROGRAM) as connection:
        try:
            ensure_database(connection, CATALOG_DATABASE)
        except psycopg2.errors.InsufficientPrivilege:
            raise AccessRefused(
                f"Role {source.user} may not create the catalogue's database {CATALOG_DATABASE} "
                f"at {source.host}: create it yourself, or name one in CATALOG_URL."
            ) from None
    return catalog_url_beside(database_url)


def ensure_sample_database(server_url: str, name: str, megabytes: int, say: Callable[[str], None]) -> None:
    """Database `name` exists on the server; it is made, and filled with the sample shop, when it was missing.

    It is filled aside and renamed when whole; one that exists is left as it is.
    """
    aside = f"{name}_being_made"
    server = parse(server_url)
    with server.session(_PROGRAM) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT FROM pg_database WHERE datname = %s", (name,))
        if cursor.fetchone() is not None:
            return
        say(f"Making the sample database {name} of {megabytes} MB …")
        cursor.execute(on("DROP DATABASE IF EXISTS {d} WITH (FORCE)", aside))
        ensure_database(connection, aside)
        fill(str(make_dsn(**server.with_dbname(aside).parameters)), megabytes=megabytes)
        cursor.execute(on("ALTER DATABASE {d} RENAME TO {name}", aside, name=name))


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
