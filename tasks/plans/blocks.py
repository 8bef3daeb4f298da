"""The Prefect blocks that people fill in: a database's address and a plan. Storage is prefect-aws's `S3Bucket`."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Literal

from botocore.config import Config
from prefect.blocks.core import Block
from prefect_aws import AwsCredentials, MinIOCredentials
from prefect_aws.s3 import S3Bucket
from pydantic import Field, SecretStr

from tasks.catalogue.catalogue import Catalogue
from tasks.errors import BadSetting
from tasks.names import checked_folder, checked_plan_name
from tasks.plans.plan import Plan, Replica, default_catalogue, default_spool
from tasks.plans.retention_rules import Policy
from tasks.postgres.dsn import parse
from tasks.storage.encryption import checked_identities, checked_recipients
from tasks.storage.s3 import Encryption, Storage, default_region, make_client


class PostgresDatabase(Block):
    """The address of a PostgreSQL database."""

    _block_type_name = "PostgreSQL Database"
    _block_type_slug = "postgres-database"
    _description = "The address of a PostgreSQL database, with the role and the password to use."

    url: SecretStr = Field(
        description="postgresql://user:password@host:port/database. Use the direct address, not a transaction pooler's."
    )


class BackupPlan(Block):
    """Which database is backed up, where to, and for how long its backups stay."""

    _block_type_name = "Backup Plan"
    _block_type_slug = "backup-plan"
    _description = "Which database is backed up, where to, and for how long its backups stay."

    database: PostgresDatabase = Field(title="Database", description="The database to back up.")
    storage: S3Bucket = Field(
        title="Storage", description="Bucket, folder and credentials. For R2, the endpoint is in the credentials."
    )
    catalogue: PostgresDatabase | None = Field(
        default=None,
        title="Catalogue",
        description="Where the records are kept; empty: the database backup_catalog on the same server.",
    )
    retention_days: int = Field(default=7, ge=1, description="A backup stays for so many times 24 hours.")
    keep_last: int = Field(default=0, ge=0, description="And so many of the newest stay, however old.")
    keep_daily: int = Field(default=0, ge=0, description="And the newest of each of the last so many days (UTC).")
    keep_weekly: int = Field(default=0, ge=0, description="And the newest of each of the last so many ISO weeks.")
    keep_monthly: int = Field(default=0, ge=0, description="And the newest of each of the last so many months.")
    keep_yearly: int = Field(default=0, ge=0, description="And the newest of each of the last so many years.")
    collapse_percent: int = Field(
        default=50,
        ge=0,
        le=99,
        description="A backup that lost more than this share of its size or tables stops all removal; 0: never.",
    )
    retention_after_backup: bool = Field(
        default=True,
        description="Each backup is followed by retention. Off: only cleanup removes, for keys that may not delete.",
    )
    compression: Literal["none", "zstd", "gzip"] = Field(
        default="none", description="none keeps plain SQL; zstd is a quarter of its size at almost the same speed."
    )
    age_recipients: list[str] = Field(
        default_factory=list,
        description="Public keys (age1… or ssh-…) to encrypt every backup for, before it leaves; none: no encryption.",
    )
    age_identity: SecretStr = Field(
        default=SecretStr(""),
        description="The secret key (AGE-SECRET-KEY-1…) that restores encrypted backups; may stay empty until then.",
    )
    kept_database_days: int = Field(
        default=3, ge=1, description="A database that a restore replaced is kept for so many days, for undo-restore."
    )
    server_side_encryption: Literal["", "AES256", "aws:kms"] = Field(
        default="", description="Encryption that the store is asked for; R2 encrypts everything without being asked."
    )
    kms_key_id: str = Field(default="", description="The key for aws:kms; empty: the account's default key.")
    # Names, because Prefect 3.8 cannot read a schema again that refers to S3Bucket twice.
    replicas: list[str] = Field(
        default_factory=list,
        description="Names of S3 Bucket blocks: buckets that get a copy of every backup, such as in another region.",
    )
    schedule: str = Field(
        default="0 2 * * *",
        description="When it is backed up: a cron line, an RRULE (RRULE:FREQ=…) or every 6 hours; empty: never.",
    )
    schedule_timezone: str = Field(
        default="UTC", description="The time zone in which the schedule is meant, such as Europe/Berlin."
    )
    grace_minutes: int = Field(
        default=60, ge=1, description="A backup that is not there so long after it was due raises the alarm."
    )
    ping_url: SecretStr = Field(
        default=SecretStr(""),
        description="Address of a service that is called when a backup starts, succeeds (plain) and fails (/fail).",
    )
    deployment: str = Field(
        default="backup/manual",
        description="The deployment that backup-all starts for this plan: one that is on the right work pool.",
    )
    client_tools_directory: str = Field(
        default="", description="Where pg_dump and psql are looked for first; empty: PATH and the usual places."
    )
    spool_directory: str = Field(default="", description="Where parts wait for their upload; empty: below /tmp.")
    spool_limit_mib: int = Field(default=2048, ge=16, description="So many MiB may wait there before the dump waits.")
    most_parts: int = Field(
        default=10_000, ge=1, le=10_000, description="Parts that the store takes for one object; some stop at 1000."
    )

    def resolved(self, name: str) -> Plan:
        """The plan with its addresses read and its clients made. Raises BadSetting."""
        database = parse(self.database.url.get_secret_value(), f"The database of plan {name}")
        if self.catalogue is None:
            catalogue = default_catalogue(database)
        else:
            catalogue = parse(self.catalogue.url.get_secret_value(), f"The catalogue of plan {name}")
        encryption = Encryption(self.server_side_encryption, self.kms_key_id)
        return Plan(
            name=checked_plan_name(name),
            database=database,
            catalogue=Catalogue(catalogue),
            storage=Storage(s3_client(self.storage.credentials), self.storage.bucket_name, encryption),
            folder=checked_folder(self.storage.bucket_folder),
            policy=Policy(
                days=self.retention_days,
                keep_last=self.keep_last,
                daily=self.keep_daily,
                weekly=self.keep_weekly,
                monthly=self.keep_monthly,
                yearly=self.keep_yearly,
                collapse_percent=self.collapse_percent,
                other_days=self.kept_database_days,
            ),
            codec=self.compression,
            recipients=checked_recipients(self.age_recipients),
            identities=checked_identities(self.age_identity.get_secret_value()),
            kept_days=self.kept_database_days,
            retention_after_backup=self.retention_after_backup,
            grace=timedelta(minutes=self.grace_minutes),
            ping_url=self.ping_url.get_secret_value(),
            replicas=tuple(
                Replica(
                    Storage(s3_client(one.credentials), one.bucket_name, Encryption(self.server_side_encryption)),
                    checked_folder(one.bucket_folder),
                )
                for one in map(_bucket, self.replicas)
            ),
            tools_directory=self.client_tools_directory,
            spool_directory=Path(self.spool_directory) if self.spool_directory else default_spool(),
            spool_limit=self.spool_limit_mib << 20,
            most_parts=self.most_parts,
        )


def _bucket(name: str) -> S3Bucket:
    """The S3 Bucket block of a replica."""
    try:
        block = S3Bucket.load(name)
    except ValueError:
        raise BadSetting(
            f"There is no S3 Bucket block {name!r}, which the plan names as a replica: make one."
        ) from None
    assert isinstance(block, S3Bucket)  # loaded from synchronous code, so not a coroutine
    return block


def s3_client(credentials: AwsCredentials | MinIOCredentials) -> object:
    """An S3 client from a credentials block, which honours its endpoint, region, certificates and configuration."""
    parameters = dict(credentials.aws_client_parameters.get_params_override())
    config: Config | None = parameters.pop("config", None)
    endpoint = parameters.pop("endpoint_url", None) or ""
    session = credentials.get_boto3_session()
    if not session.region_name:
        parameters["region_name"] = default_region(endpoint)
    return make_client(session, endpoint, config, **parameters)
