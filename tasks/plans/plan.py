"""A plan, resolved: which database goes where, how, and for how long. Made from a Prefect block or from `.env`."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import boto3

from tasks.catalogue.catalogue import Catalogue
from tasks.errors import BadSetting
from tasks.names import checked_plan_name, object_key, plan_prefix
from tasks.plans.retention_rules import Policy
from tasks.plans.settings import Settings
from tasks.postgres.dsn import Dsn, parse
from tasks.storage.encryption import checked_identities, checked_recipients
from tasks.storage.s3 import Storage, default_region, make_client

CATALOGUE_DATABASE = "backup_catalog"
SPOOL_LIMIT = 2 << 30  # bytes
MOST_PARTS = 10_000
KEPT_DAYS = 3


@dataclass(frozen=True)
class Replica:
    """Another bucket that gets a copy of every backup; below `folder`, as in the plan's own."""

    storage: Storage
    folder: str


@dataclass(frozen=True)
class Plan:
    """Everything that one backup needs to know; holds clients and secrets, so it never leaves the step that asked."""

    name: str
    database: Dsn
    catalogue: Catalogue
    storage: Storage
    folder: str
    policy: Policy
    codec: str = "none"
    recipients: tuple[str, ...] = ()
    identities: tuple[str, ...] = field(default=(), repr=False)
    """Secret age keys: what a restore of an encrypted backup needs."""
    replicas: tuple[Replica, ...] = ()
    tools_directory: str = ""
    spool_directory: Path = Path(tempfile.gettempdir())
    spool_limit: int = SPOOL_LIMIT
    most_parts: int = MOST_PARTS
    kept_days: int = KEPT_DAYS
    """How long a database that a restore replaced is kept."""
    retention_after_backup: bool = True
    """Whether each backup is followed by retention; else only the clean-up removes anything."""
    grace: timedelta = timedelta(hours=1)
    """A backup that is not there so long after it was due is overdue."""
    ping_url: str = field(default="", repr=False)
    """Address of a service that is called when a backup starts, succeeds and fails; whoever knows it can call it."""

    @property
    def prefix(self) -> str:
        """The key prefix of everything that this plan stores."""
        return plan_prefix(self.folder, self.name)

    def key(self, filename: str) -> str:
        """The object's key for a file name."""
        return object_key(self.folder, self.name, filename)


def default_catalogue(database: Dsn) -> Dsn:
    """Where the catalogue lies when nobody says so: a database of its own on the server that is backed up."""
    return database.with_dbname(CATALOGUE_DATABASE)


def default_spool() -> Path:
    """The spool's directory when nobody names one: the user's own, below the system's temporary directory."""
    return Path(tempfile.gettempdir()) / f"database-backups-{os.getuid()}"


def plan_from_settings(name: str, settings: Settings) -> Plan:
    """The plan that `.env` describes, for use without any block. Raises BadSetting when it names too little."""
    if settings.uses_embedded_database or settings.uses_embedded_storage:
        raise BadSetting(
            f"There is no plan {name!r}: run `make up`, or set DATABASE_URL, S3_ENDPOINT_URL and the keys in .env."
        )
    database = parse(settings.database_url)
    catalogue = parse(settings.catalog_url, "CATALOG_URL") if settings.catalog_url else default_catalogue(database)
    session = boto3.Session(
        aws_access_key_id=settings.access_key_id or None,
        aws_secret_access_key=settings.secret_access_key or None,
        region_name=settings.s3_region or default_region(settings.s3_endpoint_url),
    )
    return Plan(
        name=checked_plan_name(name),
        database=database,
        catalogue=Catalogue(catalogue),
        storage=Storage(make_client(session, settings.s3_endpoint_url), settings.s3_bucket),
        folder=settings.s3_folder,
        policy=Policy(days=settings.retention_days, other_days=settings.kept_database_days),
        codec=settings.compression,
        recipients=checked_recipients(settings.age_recipients),
        identities=checked_identities(settings.age_identity),
        kept_days=settings.kept_database_days,
        tools_directory=settings.pg_bin_directory,
        spool_directory=Path(settings.spool_directory) if settings.spool_directory else default_spool(),
        ping_url=settings.ping_url,
    )
