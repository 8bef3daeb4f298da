"""What `.env` and the environment say: the seed of the plan `default` and of the set-up.

`.env.example` lists every variable read here; a test holds the two together.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dotenv import dotenv_values

from tasks.errors import BadSetting
from tasks.names import checked_folder

#: Every variable that is read, with what stands in for it when it is not set.
DEFAULTS: dict[str, str] = {
    "DATABASE_URL": "",
    "CATALOG_URL": "",
    "S3_ENDPOINT_URL": "",
    "S3_BUCKET": "main-bucket",
    "S3_FOLDER": "database-backups",
    "S3_REGION": "",
    "CLOUDFLARE_ACCESS_KEY_ID": "",
    "CLOUDFLARE_SECRET_ACCESS_KEY": "",
    "AWS_ACCESS_KEY_ID": "",
    "AWS_SECRET_ACCESS_KEY": "",
    "RETENTION_DAYS": "7",
    "COMPRESSION": "none",
    "AGE_RECIPIENTS": "",
    "AGE_IDENTITY": "",
    "KEPT_DATABASE_DAYS": "3",
    "PG_BIN_DIRECTORY": "",
    "SPOOL_DIRECTORY": "",
    "SCHEDULE": "0 2 * * *",
    "SCHEDULE_TIMEZONE": "UTC",
    "GRACE_MINUTES": "60",
    "NOTIFY_URL": "",
    "PING_URL": "",
}

CODECS = ("none", "zstd", "gzip")


@dataclass(frozen=True)
class Settings:
    """Values as given; an empty string means that the variable is not set. Secrets stay out of `repr`."""

    database_url: str = field(repr=False)
    catalog_url: str = field(repr=False)
    s3_endpoint_url: str
    s3_bucket: str
    s3_folder: str
    s3_region: str
    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)
    retention_days: int
    compression: str
    age_recipients: tuple[str, ...]
    age_identity: str = field(repr=False)
    kept_database_days: int
    pg_bin_directory: str
    spool_directory: str
    schedule: str
    schedule_timezone: str
    grace_minutes: int
    notify_url: str = field(repr=False)
    ping_url: str = field(repr=False)

    @property
    def uses_embedded_database(self) -> bool:
        """True when no database is named: the sample database of the quick start is meant."""
        return not self.database_url

    @property
    def uses_embedded_storage(self) -> bool:
        """True when neither an endpoint nor credentials are named: the S3 server of the quick start is meant."""
        return not (self.s3_endpoint_url or self.access_key_id)


def load_settings(directory: Path, environment: Mapping[str, str] = os.environ, filename: str = ".env") -> Settings:
    """Settings from the file in `directory`, each overridden by the environment variable of the same name.

    Raises BadSetting when a number is none, a codec unknown, or half a pair of keys is missing.
    """
    try:
        written = dotenv_values(directory / filename, interpolate=False, encoding="utf-8")
    except UnicodeDecodeError:
        raise BadSetting(f"{directory / filename} is not text in UTF-8: save it in that encoding.") from None
    given = {**DEFAULTS, **{name: value or "" for name, value in written.items()}}
    given.update({name: environment[name] for name in DEFAULTS if environment.get(name)})
    return settings_from(given)


def settings_from(given: Mapping[str, str]) -> Settings:
    """Settings from a mapping of variable names; what is missing or empty takes its default."""
    value = {name: given.get(name, "").strip() or default for name, default in DEFAULTS.items()}
    key_id, secret, name = _key_pair(value)
    if bool(key_id) != bool(secret):
        raise BadSetting(f"Only one half of the storage key is set: give both {name}_ACCESS_KEY_ID and its secret.")
    if value["COMPRESSION"] not in CODECS:
        raise BadSetting(f"COMPRESSION is {value['COMPRESSION']!r}: use one of {', '.join(CODECS)}.")
    return Settings(
        database_url=value["DATABASE_URL"],
        catalog_url=value["CATALOG_URL"],
        s3_endpoint_url=value["S3_ENDPOINT_URL"],
        s3_bucket=value["S3_BUCKET"],
        s3_folder=checked_folder(value["S3_FOLDER"]),
        s3_region=value["S3_REGION"],
        access_key_id=key_id,
        secret_access_key=secret,
        retention_days=_whole_number("RETENTION_DAYS", value["RETENTION_DAYS"]),
        compression=value["COMPRESSION"],
        age_recipients=tuple(one.strip() for one in value["AGE_RECIPIENTS"].split(",") if one.strip()),
        age_identity=value["AGE_IDENTITY"],
        kept_database_days=_whole_number("KEPT_DATABASE_DAYS", value["KEPT_DATABASE_DAYS"]),
        pg_bin_directory=value["PG_BIN_DIRECTORY"],
        spool_directory=value["SPOOL_DIRECTORY"],
        schedule=value["SCHEDULE"],
        schedule_timezone=value["SCHEDULE_TIMEZONE"],
        grace_minutes=_whole_number("GRACE_MINUTES", value["GRACE_MINUTES"], "minutes"),
        notify_url=value["NOTIFY_URL"],
        ping_url=value["PING_URL"],
    )


def _key_pair(value: Mapping[str, str]) -> tuple[str, str, str]:
    """The Cloudflare pair when any half of it is there, else the AWS pair."""
    for name in ("CLOUDFLARE", "AWS"):
        pair = value[f"{name}_ACCESS_KEY_ID"], value[f"{name}_SECRET_ACCESS_KEY"]
        if any(pair):
            return *pair, name
    return "", "", "AWS"


def _whole_number(name: str, text: str, unit: str = "days") -> int:
    if not text.isdecimal() or len(text) > 5 or int(text) < 1:
        raise BadSetting(f"{name} is {text[:20]!r}: give a whole number of {unit}, 1 or more.")
    return int(text)
