"""The Prefect blocks that people fill in: a database, a storage and a plan, which names the others.

From `.env` to a plan there is one way: the settings become these blocks (tasks.plans.from_settings), and these the
plan, with or without a server.

No block holds another block, and no field of a plan is secret: a form of the Prefect UI that is saved then changes
what was changed in it and nothing else. The credentials are prefect-aws's `AwsCredentials`, the secrets of a plan are
Prefect's `Secret`.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from botocore.config import Config
from botocore.exceptions import ProfileNotFound
from prefect.blocks.core import Block
from prefect.blocks.system import Secret
from prefect_aws import AwsCredentials
from pydantic import ConfigDict, Field, SecretStr

from tasks.catalogue.catalogue import Catalogue
from tasks.errors import BadSetting
from tasks.names import checked_folder, checked_plan_name
from tasks.plans.addresses import default_catalogue
from tasks.plans.database_patterns import checked_databases
from tasks.plans.plan import DRILL_PLACES, Plan, Policy, Replica, checked_checks, default_spool, statements
from tasks.postgres.dsn import Dsn, parse
from tasks.postgres.dump_patterns import checked_patterns, checked_schemas
from tasks.storage.encoders import checked_identities, checked_recipients
from tasks.storage.s3 import Storage
from tasks.storage.s3_client import Encryption, ObjectLock, checked_lock, default_region, make_client
from tasks.storage.signatures import checked_keys

#: The labels of the fields in a form: `Kept database days`.
_LABELS = ConfigDict(field_title_generator=lambda name, _: name.replace("_", " ").capitalize())
#: Gives the block of a type and a name. Raises BadSetting when there is none, or it cannot be used.
Find = Callable[[type[Block], str], Any]
#: The fields of a plan that name a Secret block.
SECRETS = ("age_identity", "signing_key", "ping_url")


class PostgresDatabase(Block):
    """The address of a PostgreSQL database."""

    model_config = _LABELS
    _block_type_name = "PostgreSQL Database"
    _block_type_slug = "postgres-database"
    _description = "The address of a PostgreSQL database, with the role and the password to use."

    url: SecretStr = Field(
        title="URL",
        description="postgresql://user:password@host:port/database. The direct address, not a transaction pooler's.",
    )


class BackupStorage(Block):
    """A bucket and a folder in it, for backups."""

    model_config = _LABELS
    _block_type_name = "Backup Storage"
    _block_type_slug = "backup-storage"
    _description = "A bucket and a folder in it, for backups."

    bucket: str = Field(description="The name of the bucket. The bucket must exist.")
    folder: str = Field(default="database-backups", description="Backups are stored below <folder>/<plan>/.")
    credentials: str = Field(
        description="The name of an AWS Credentials block: keys, region, and the endpoint URL of services such as R2.",
    )


class BackupPlan(Block):
    """Which database is backed up, where to, and how long its backups are kept."""

    model_config = _LABELS
    _block_type_name = "Backup Plan"
    _block_type_slug = "backup-plan"
    _description = "Which database is backed up, where to, and how long its backups are kept."

    database: str = Field(description="The database to back up: the name of a PostgreSQL Database block.")
    databases: list[str] = Field(
        default_factory=list,
        description="Patterns of databases to back up in place of the one in the address: *, shop_*, !test_*.",
    )
    storage: str = Field(
        default="default-storage",
        description="Where the backups are stored: the name of a Backup Storage block.",
    )
    catalogue: str = Field(
        default="default-catalogue",
        description="Where the records of the backups are kept: the name of a PostgreSQL Database block. "
        "Empty: the database backup_catalog on the server that is backed up.",
    )
    retention_days: int = Field(default=7, ge=1, description="Keep each backup for this many days.")
    keep_last: int = Field(default=0, ge=0, description="Also keep this many of the newest backups, however old.")
    keep_daily: int = Field(
        default=0, ge=0, description="Also keep the newest backup of each day (UTC), for this many days with a backup."
    )
    keep_weekly: int = Field(default=0, ge=0, description="The same for ISO weeks.")
    keep_monthly: int = Field(default=0, ge=0, description="The same for months.")
    keep_yearly: int = Field(default=0, ge=0, description="The same for years.")
    collapse_percent: int = Field(
        default=50,
        ge=0,
        le=99,
        description="Remove no backup while the newest one is smaller than the one before it, in size or in tables, by "
        "more than this percentage. 0: do not compare.",
    )
    retention_after_backup: bool = Field(
        default=True,
        description="Remove old backups after each backup. Off: only the flow cleanup removes backups.",
    )
    compression: Literal["none", "zstd", "gzip"] = Field(
        default="none", description="none stores plain SQL. zstd needs about a quarter of the space, at the same speed."
    )
    age_recipients: list[str] = Field(
        default_factory=list,
        description="Public keys (age1… or ssh-…). Every backup is encrypted for them before the upload. "
        "None: no encryption.",
    )
    age_identity: str = Field(
        default="",
        description="The key that decrypts encrypted backups: the name of a Secret block that holds AGE-SECRET-KEY-1… "
        "Only a restore needs it; it may stay empty until then.",
    )
    signing_key: str = Field(
        default="",
        description="The private key that signs the manifests of backups: the name of a Secret block that holds an "
        "Ed25519 key as openssl genpkey writes it. Empty: no signature.",
    )
    trusted_keys: list[str] = Field(
        default_factory=list,
        description="Public keys (MCow…) whose signatures count beside that of the signing key: those of earlier "
        "signing keys, and on a machine that only restores, that of the machine that backs up.",
    )
    kept_database_days: int = Field(
        default=3,
        ge=1,
        description="Keep a database that a restore replaced for this many days. undo-restore needs it.",
    )
    after_restore: list[str] = Field(
        default_factory=list,
        description="SQL that runs when a backup of another plan is restored into this plan's server, before it is "
        "put into place: masks personal data, switches jobs off. Each item runs by itself; all are one transaction.",
    )
    checks: list[str] = Field(
        default_factory=list,
        description="SQL that must be true of every database that verify-backup restores, such as "
        "SELECT count(*) > 1000 FROM orders. Each gives one row with one boolean.",
    )
    drill_on: str = Field(
        default="",
        description="Where verify-backup restores. worker: into a PostgreSQL of its own, then thrown away. server: on "
        "the server that is backed up. Else the name of a PostgreSQL Database block. Empty: worker where it can.",
    )
    server_side_encryption: Literal["", "AES256", "aws:kms"] = Field(
        default="", description="Ask the storage service for this encryption. R2 encrypts everything without it."
    )
    kms_key_id: str = Field(
        default="", title="KMS key", description="The key for aws:kms. Empty: the default key of the account."
    )
    storage_class: Literal["", "STANDARD", "STANDARD_IA", "ONEZONE_IA", "INTELLIGENT_TIERING", "GLACIER_IR"] = Field(
        default="",
        description="Store the backups in this class of S3, from which they can be read at once. Some are paid for at "
        "least 30 or 90 days. Empty: as the storage service decides.",
    )
    price_per_gib: float = Field(
        default=0,
        ge=0,
        title="Price per GiB",
        description="What one GiB costs in a month, in all storages of the plan together. The admin page then shows "
        "what the backups cost. 0: nothing is shown.",
    )
    object_lock_mode: Literal["", "governance", "compliance"] = Field(
        default="",
        description="Ask a bucket with Object Lock to keep each backup. governance: special rights can end that early. "
        "compliance: nobody can. Empty: as the bucket's own rule says.",
    )
    object_lock_days: int = Field(default=0, ge=0, le=36500, description="For this many days.")
    replicas: list[str] = Field(
        default_factory=list,
        description="Storages that get a copy of every backup: names of Backup Storage blocks.",
    )
    schedule: str = Field(
        default="0 2 * * *",
        description="When backups are made: a cron line, an RRULE (RRULE:FREQ=…), every 6 hours, or never.",
    )
    schedule_timezone: str = Field(default="UTC", description="The time zone of the schedule, such as Europe/Berlin.")
    restore_only: bool = Field(
        default=False, description="Backups of other plans are restored into this one, and none are made of it."
    )
    grace_minutes: int = Field(
        default=60, ge=1, description="Raise the alarm when a backup is missing this many minutes after it was due."
    )
    metrics_directory: str = Field(
        default="",
        description="The directory of the node exporter's textfile collector, into which the health check writes the "
        "plan's metrics for Prometheus. Empty: no metrics.",
    )
    ping_url: str = Field(
        default="",
        title="Ping URL",
        description="A service that is called when a backup starts (/start), succeeds and fails (/fail): the name of a "
        "Secret block that holds its URL. Empty: no call.",
    )
    deployment: str = Field(
        default="backup/manual",
        description="The deployment that backup-all runs for this plan. It decides on which work pool the plan runs.",
    )
    client_tools_directory: str = Field(
        default="", description="The directory of pg_dump and psql. Empty: PATH and the usual directories."
    )
    spool_directory: str = Field(
        default="",
        description="The directory for parts that wait for their upload. Empty: in the cache of the user.",
    )
    spool_limit_mib: int = Field(
        default=2048,
        ge=16,
        title="Spool limit (MiB)",
        description="At most this many MiB wait for their upload. Then the dump waits.",
    )
    most_parts: int = Field(
        default=10_000,
        ge=1,
        le=10_000,
        description="The number of parts that the storage service allows for one object. Some allow only 1000.",
    )
    jobs: int = Field(
        default=0,
        ge=0,
        le=16,
        description="Sessions that read the rows of large tables at once, and make indexes and keys in a restore. 0: "
        "as many as this machine has cores, 4 at most, for databases of 100 MiB and more.",
    )
    only_schemas: list[str] = Field(
        default_factory=list,
        description="Back up these schemas alone, such as shop or tenant_*. Extensions and large objects are always in "
        "the backup. None: all schemas.",
    )
    exclude_tables: list[str] = Field(
        default_factory=list,
        description="Leave these tables out of the backups, such as shop.cache_*. Partitions go with their table. "
        "Patterns as pg_dump takes them.",
    )
    exclude_rows: list[str] = Field(
        default_factory=list,
        description="Leave the rows of these tables out of the backups, such as shop.log: a restore has them empty.",
    )

    def resolved(self, name: str, find: Find) -> Plan:
        """The plan `name`: its blocks found, its addresses read, its clients made. Raises BadSetting."""
        database = _address(find, self.database, f"The database of plan {name}")
        catalogue = default_catalogue(database)
        if self.catalogue:
            catalogue = _address(find, self.catalogue, f"The catalogue of plan {name}")
        lock = checked_lock(self.object_lock_mode, self.object_lock_days)
        encryption = Encryption(self.server_side_encryption, self.kms_key_id)
        own = _replica(find, self.storage, encryption, self.storage_class, lock)
        return Plan(
            name=checked_plan_name(name),
            database=database,
            catalogue=Catalogue(catalogue),
            storage=own.storage,
            folder=own.folder,
            policy=self.policy,
            codec=self.compression,
            recipients=checked_recipients(self.age_recipients),
            identities=checked_identities(_secret(find, self.age_identity)),
            keys=checked_keys(_secret(find, self.signing_key), self.trusted_keys),
            kept_days=self.kept_database_days,
            retention_after_backup=self.retention_after_backup,
            after_restore=statements(self.after_restore),
            checks=checked_checks(self.checks),
            drill_on=self.drill_on.strip(),
            **_drill_database(find, self.drill_on.strip(), name),
            grace=timedelta(minutes=self.grace_minutes),
            metrics_directory=self.metrics_directory.strip(),
            ping_url=_secret(find, self.ping_url),
            replicas=tuple(
                _replica(find, replica, Encryption(self.server_side_encryption), self.storage_class)
                for replica in self.replicas
            ),
            tools_directory=self.client_tools_directory,
            spool_directory=Path(self.spool_directory) if self.spool_directory else default_spool(),
            spool_limit=self.spool_limit_mib << 20,
            most_parts=self.most_parts,
            jobs=self.jobs,
            restore_only=self.restore_only,
            databases=checked_databases(self.databases),
            only_schemas=checked_schemas("only_schemas", self.only_schemas),
            exclude_tables=checked_patterns("exclude_tables", self.exclude_tables),
            exclude_rows=checked_patterns("exclude_rows", self.exclude_rows),
        )

    @property
    def policy(self) -> Policy:
        """How long the backups are kept."""
        return Policy(
            days=self.retention_days,
            keep_last=self.keep_last,
            daily=self.keep_daily,
            weekly=self.keep_weekly,
            monthly=self.keep_monthly,
            yearly=self.keep_yearly,
            collapse_percent=self.collapse_percent,
            other_days=self.kept_database_days,
        )


def _address(find: Find, block: str, whose: str) -> Dsn:
    return parse(find(PostgresDatabase, block).url.get_secret_value(), whose)


def _drill_database(find: Find, place: str, plan: str) -> dict[str, Any]:
    if place in DRILL_PLACES:
        return {}
    try:
        return {"drill_database": _address(find, place, f"The database for drills of plan {plan}")}
    except BadSetting as error:
        return {"drill_problem": str(error)}


def _secret(find: Find, block: str) -> str:
    return str(find(Secret, block).get()) if block else ""


def _replica(
    find: Find, block: str, encryption: Encryption, storage_class: str, lock: ObjectLock | None = None
) -> Replica:
    storage = find(BackupStorage, block)
    client = s3_client(find(AwsCredentials, storage.credentials))
    return Replica(Storage(client, storage.bucket, encryption, lock, storage_class), checked_folder(storage.folder))


def s3_client(credentials: AwsCredentials) -> object:
    """An S3 client from a credentials block, which honours its endpoint, region, certificates and configuration."""
    parameters = dict(credentials.aws_client_parameters.get_params_override())
    config: Config | None = parameters.pop("config", None)
    endpoint = parameters.pop("endpoint_url", None) or ""
    try:
        session = credentials.get_boto3_session()
    except ProfileNotFound as error:
        raise BadSetting(f"{error}: correct AWS_PROFILE, or remove it where the block has keys of its own.") from None
    if not session.region_name:
        parameters["region_name"] = default_region(endpoint)
    return make_client(session, endpoint, config, **parameters)
