"""A plan as a run uses it: which database is backed up, where to, how, and how long its backups are kept."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from tasks.catalogue.catalogue import Catalogue
from tasks.names import object_key, plan_prefix
from tasks.plans.retention_rules import Policy
from tasks.postgres.dsn import Dsn
from tasks.storage.s3 import Storage

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
    """Where the catalogue is when the plan names none: a database of its own on the server that is backed up."""
    return database.with_dbname(CATALOGUE_DATABASE)


def default_spool() -> Path:
    """Where the spool is when the plan names no directory: a directory of the user's below the temporary directory."""
    return Path(tempfile.gettempdir()) / f"database-backups-{os.getuid()}"
