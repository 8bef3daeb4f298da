"""A plan as a run uses it: which database is backed up, where to, how, and how long its backups are kept (`Policy`)."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

from tasks.catalogue.catalogue import Catalogue
from tasks.errors import BadSetting
from tasks.names import checked_prefix, database_plan, object_key, plan_prefix, shown
from tasks.plans.database_patterns import DatabasePatterns
from tasks.postgres.dsn import Dsn
from tasks.postgres.dump_patterns import DumpPattern
from tasks.storage.s3 import Storage
from tasks.storage.signatures import Keys

#: Values of `drill_on` that are no name of a block; empty: the worker where that can be, else the plan's own server.
DRILL_PLACES = ("", "worker", "server")
SPOOL_LIMIT = 2 << 30  # bytes
MOST_PARTS = 10_000
KEPT_DAYS = 3


@dataclass(frozen=True)
class Policy:
    """How long the backups of a plan are kept. A backup is kept if any rule keeps it.

    `days` are periods of 24 hours. `keep_last` is a number of backups. `daily`, `weekly`, `monthly` and `yearly` are
    numbers of days, ISO weeks, months and years (UTC) that have a backup: the newest backup of each is kept. Nothing
    is removed while the newest backup is smaller than the one before it by more than `collapse_percent`, in size or in
    tables; 0 does not compare. `other_days` alone counts for a backup of another type than `full`, such as the safety
    backup of a restore. Raises BadSetting.
    """

    days: int = 7
    keep_last: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    collapse_percent: int = 50
    other_days: int = 3

    def __post_init__(self) -> None:
        if self.days <= 0:
            raise BadSetting(f"Retention: days is {self.days}; set it to 1 or more.")
        if self.days > 36_500:
            raise BadSetting(f"Retention: days is {self.days}; set it to 36500 or fewer.")
        for name in vars(self):
            if getattr(self, name) < 0:
                raise BadSetting(f"Retention: {name} is {getattr(self, name)}; set it to 0 or more.")
        if self.collapse_percent >= 100:
            raise BadSetting(f"Retention: collapse_percent is {self.collapse_percent}; set it to 0 to 99.")


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
    keys: Keys = field(default_factory=Keys)
    """What signs the manifests, and whose signatures count."""
    replicas: tuple[Replica, ...] = ()
    tools_directory: str = ""
    spool_directory: Path = Path(tempfile.gettempdir())
    spool_limit: int = SPOOL_LIMIT
    most_parts: int = MOST_PARTS
    jobs: int = 0
    """Sessions that read the rows of large tables, and make indexes at a restore; 0: decided for each backup."""
    restore_only: bool = False
    """Whether backups of other plans are restored into it, and none are made of it; see `check_backs_up`."""
    databases: DatabasePatterns = field(default_factory=DatabasePatterns)
    """The databases of the server that are backed up, each as a plan of its own; without any, `database` alone."""
    exclude_tables: tuple[DumpPattern, ...] = ()
    """Tables that no backup of the plan holds."""
    exclude_rows: tuple[DumpPattern, ...] = ()
    """Tables of which its backups hold the definition alone."""
    only_schemas: tuple[DumpPattern, ...] = ()
    """Schemas that its backups hold; empty for all."""
    kept_days: int = KEPT_DAYS
    """How long a database that a restore replaced is kept."""
    metrics_directory: str = ""
    """Where the health check writes the plan's metrics for Prometheus; empty: nowhere."""
    retention_after_backup: bool = True
    """Whether each backup is followed by retention; else only the clean-up removes anything."""
    after_restore: tuple[str, ...] = ()
    """SQL that runs in what is restored from another plan, before it is put into place; see `statements`."""
    checks: tuple[str, ...] = ()
    """SQL that must be true of what verify-backup restores; see `checked_checks`."""
    drill_on: str = ""
    """Where verify-backup restores: `worker`, `server`, or the name of a block; empty for what fits."""
    drill_database: Dsn | None = None
    """The address that the block has; None where none is named, or it cannot be used."""
    drill_problem: str = ""
    """Why it cannot be used, which stops no backup."""
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


def check_backs_up(plan: Plan) -> None:
    """Raises BadSetting for a plan of which no backups are made. Pure."""
    if plan.restore_only:
        raise BadSetting(
            f"Plan {plan.name} is only restored into, so no backup of it is made: switch Restore only off in the plan "
            "if there are to be backups."
        )


def database_of(server: Plan, database: str) -> Plan:
    """The plan of one of the databases that the plan of a server backs up. Pure.

    The address to ping hears of all of them together. Raises BadSetting for a plan that backs up one database, and for
    a name that leaves keys no room.
    """
    name = database_plan(server.name, database)
    if not server.databases:
        raise BadSetting(
            f"There is no plan {name!r}: plan {server.name} backs up one database now, so write {server.name}. Backups "
            f"that {name} has from before are reached again when databases in plan {server.name} has a pattern."
        )
    if shown(database) != database:
        raise BadSetting(
            f"The name of the database {shown(database)} is no UTF-8, in which clients write names, so it cannot be "
            f"backed up: rename it, or leave it out with a pattern such as !{re.sub('[^ -~]', '?', database)} in "
            f"databases of plan {server.name}."
        )
    for folder in (server.folder, *(replica.folder for replica in server.replicas)):
        checked_prefix(folder, name)
    own = server.database.with_dbname(database)
    return replace(server, name=name, database=own, databases=DatabasePatterns(), ping_url="")


def pinned(plan: Plan) -> Plan:
    """The plan with the database that answers to its address now, the same to the end of a run (`Dsn.pinned`)."""
    return replace(plan, database=plan.database.pinned())


def statements(texts: Iterable[str]) -> tuple[str, ...]:
    """The statements of `after_restore`; empty ones are left out."""
    return tuple(stripped for text in texts if (stripped := text.strip()))


def checked_checks(texts: Iterable[str]) -> tuple[str, ...]:
    """The checks, each without a semicolon at its end; empty ones are left out.

    Raises BadSetting for one that is more than one statement.
    """
    checks = tuple(check for text in texts if (check := text.strip().rstrip(";").rstrip()))
    for number, check in enumerate(checks, 1):
        if ";" in check:
            raise BadSetting(
                f"Check {number} has a semicolon within it: a check is one statement. Make two checks of it, or write "
                "chr(59) for a semicolon in a text."
            )
    return checks


def default_spool() -> Path:
    """Where the spool is when the plan names no directory: below TMPDIR, else in the user's own cache.

    Below /tmp, which all users share, only where the user has no home.
    """
    if not os.environ.get("TMPDIR"):
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
        if cache.is_absolute() and os.access(cache if cache.is_dir() else cache.parent, os.W_OK):
            return cache / "database-backups"
    return Path(tempfile.gettempdir()) / f"database-backups-{os.getuid()}"
