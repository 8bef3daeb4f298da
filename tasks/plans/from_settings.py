"""What the settings say about a plan: the blocks that it is made of, and the plan itself, without any stored block."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from prefect.blocks.core import Block
from prefect.blocks.system import Secret
from prefect_aws import AwsCredentials
from prefect_aws.client_parameters import AwsClientParameters
from pydantic import SecretStr

from tasks.errors import BadSetting
from tasks.plans.blocks import SECRETS, BackupPlan, BackupStorage, Find, PostgresDatabase
from tasks.plans.plan import DRILL_PLACES, Plan
from tasks.plans.settings import Settings
from tasks.storage.s3_client import default_region

#: The fields of a plan that `.env` describes, each with the variable that does so.
VARIABLES = {
    "database": "DATABASE_URL",
    "storage": "S3_BUCKET",
    "catalogue": "CATALOG_URL",
    "retention_days": "RETENTION_DAYS",
    "compression": "COMPRESSION",
    "age_recipients": "AGE_RECIPIENTS",
    "age_identity": "AGE_IDENTITY",
    "signing_key": "SIGNING_KEY",
    "trusted_keys": "TRUSTED_KEYS",
    "kept_database_days": "KEPT_DATABASE_DAYS",
    "after_restore": "AFTER_RESTORE",
    "checks": "CHECKS",
    "drill_on": "DRILL_ON",
    "schedule": "SCHEDULE",
    "schedule_timezone": "SCHEDULE_TIMEZONE",
    "grace_minutes": "GRACE_MINUTES",
    "metrics_directory": "METRICS_DIRECTORY",
    "ping_url": "PING_URL",
    "client_tools_directory": "PG_BIN_DIRECTORY",
    "spool_directory": "SPOOL_DIRECTORY",
}


@dataclass(frozen=True)
class Described:
    """What the settings say about a plan: the fields of its block, and the blocks that it names."""

    fields: Mapping[str, Any]
    blocks: Mapping[tuple[type[Block], str], Block]

    def find(self, kind: type[Block], name: str) -> Block:
        """One of the blocks."""
        return self.blocks[kind, name]


def described(name: str, settings: Settings) -> Described:
    """The plan `name` as the settings describe it. Pure."""
    database, catalogue, storage, credentials = (
        f"{name}-{part}" for part in ("database", "catalogue", "storage", "credentials")
    )
    secrets = {field: getattr(settings, VARIABLES[field].lower()) for field in SECRETS}
    fields = {field: _field(getattr(settings, variable.lower())) for field, variable in VARIABLES.items()} | {
        "database": database,
        "storage": storage,
        "catalogue": catalogue if settings.catalog_url else "",
        **{field: secret_block(name, field) if secret else "" for field, secret in secrets.items()},
    }
    blocks: dict[tuple[type[Block], str], Block] = {
        (PostgresDatabase, database): PostgresDatabase(url=SecretStr(settings.database_url)),
        (AwsCredentials, credentials): _credentials(settings),
        (BackupStorage, storage): BackupStorage(
            bucket=settings.s3_bucket, folder=settings.s3_folder, credentials=credentials
        ),
    }
    if settings.catalog_url:
        blocks[PostgresDatabase, catalogue] = PostgresDatabase(url=SecretStr(settings.catalog_url))
    for field, secret in secrets.items():
        if secret:
            blocks[Secret, secret_block(name, field)] = Secret(value=SecretStr(secret))
    return Described(fields, blocks)


def secret_block(plan: str, field: str) -> str:
    """The name of the block that holds a secret of a plan: `default-age-identity`. Pure."""
    return f"{plan}-{field.replace('_', '-')}"


def _field(value: object) -> object:
    return list(value) if isinstance(value, tuple) else value


def plan_from_settings(name: str, settings: Settings, stored: Find | None = None) -> Plan:
    """The plan that `.env` describes, without stored blocks but one that DRILL_ON names: `stored` finds that.

    Raises BadSetting when it names too little.
    """
    if settings.uses_embedded_database or settings.uses_embedded_storage:
        raise BadSetting(
            f"There is no plan {name!r}: run `make up`, or set DATABASE_URL, S3_ENDPOINT_URL and the keys in .env."
        )
    said = described(name, settings)
    find = stored if stored and settings.drill_on not in DRILL_PLACES else said.find
    return BackupPlan(**said.fields).resolved(name, lambda *place: said.blocks.get(place) or find(*place))


def _credentials(settings: Settings) -> AwsCredentials:
    """Without keys, the worker takes those of its machine."""
    secret = settings.secret_access_key
    return AwsCredentials(
        aws_access_key_id=settings.access_key_id or None,
        aws_secret_access_key=SecretStr(secret) if secret else None,
        region_name=settings.s3_region or default_region(settings.s3_endpoint_url),
        aws_client_parameters=AwsClientParameters(endpoint_url=settings.s3_endpoint_url or None),
    )
