"""What `.env` and the environment say: the seed of the plan `default` and of the set-up.

`.env.example` lists every variable read here; a test holds the two together. A misspelt name is refused: a setting that
nobody reads would leave things as they are without a word.
"""

from __future__ import annotations

import difflib
import json
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from dotenv import dotenv_values

from tasks.errors import BadSetting
from tasks.names import checked_folder

CODECS = ("none", "zstd", "gzip")
#: Names that other programs have given themselves.
_OF_OTHERS = re.compile(
    r"CLOUDFLARE_(API_\w+|ACCOUNT_ID|ZONE_\w+|EMAIL|TUNNEL_\w+|R2_\w+|INCLUDE_\w+|ENV)|S3_USE_\w+|"
    r"AWS_(SESSION_TOKEN|SECURITY_TOKEN|PROFILE|REGION|DEFAULT_\w+|CONFIG_FILE|SHARED_CREDENTIALS_FILE|ROLE_\w+|EC2_\w+)"
)
_CLOSE = 0.86
#: What separates the items of a list in a text.
_SEPARATORS = {"after_restore": ";", "checks": ";"}


def _secret() -> str:
    value: str = field(default="", repr=False)
    return value


@dataclass(frozen=True)
class Settings:
    """What the variables say; but for the storage key, each field has the name of its variable, in small letters.

    A variable that is not set has the default. Secrets stay out of `repr`.
    """

    database_url: str = _secret()
    catalog_url: str = _secret()
    s3_endpoint_url: str = ""
    s3_bucket: str = "main-bucket"
    s3_folder: str = "database-backups"
    s3_region: str = ""
    access_key_id: str = _secret()
    secret_access_key: str = _secret()
    retention_days: int = 7
    compression: str = "none"
    age_recipients: tuple[str, ...] = ()
    age_identity: str = _secret()
    signing_key: str = _secret()
    trusted_keys: tuple[str, ...] = ()
    kept_database_days: int = 3
    after_restore: tuple[str, ...] = ()
    checks: tuple[str, ...] = ()
    drill_on: str = ""
    pg_bin_directory: str = ""
    spool_directory: str = ""
    schedule: str = "0 2 * * *"
    schedule_timezone: str = "UTC"
    grace_minutes: int = 60
    metrics_directory: str = ""
    notify_url: str = _secret()
    ping_url: str = _secret()

    @property
    def uses_embedded_database(self) -> bool:
        """True when no database is named: the sample database of the quick start is meant."""
        return not self.database_url

    @property
    def uses_embedded_storage(self) -> bool:
        """True when neither an endpoint nor credentials are named: the S3 server of the quick start is meant."""
        return not (self.s3_endpoint_url or self.access_key_id)


#: The two halves of the storage key, each of which has two names: `AWS_ACCESS_KEY_ID`.
_KEY = ("access_key_id", "secret_access_key")
_OWNERS = ("CLOUDFLARE", "AWS")
_FIELDS = {one.name.upper(): one.default for one in fields(Settings) if one.name not in _KEY}
#: Every variable that is read, with what stands in for it when it is not set.
DEFAULTS = {name: str(default or "") for name, default in _FIELDS.items()}
DEFAULTS |= {f"{owner}_{half.upper()}": "" for owner in _OWNERS for half in _KEY}
#: What the names of our settings begin with; in the environment, `AWS_` and `DATABASE_` belong to others too.
PREFIXES = ("PG_BIN_", *({f"{name.split('_')[0]}_" for name in DEFAULTS} - {"AWS_", "DATABASE_", "PG_"}))


def load_settings(directory: Path, environment: Mapping[str, str] = os.environ, filename: str = ".env") -> Settings:
    """Settings from the file in `directory`, each overridden by the environment variable of the same name.

    Raises BadSetting when a number is none, a codec unknown, or half a pair of keys is missing.
    """
    given = {**DEFAULTS, **_written(directory / filename)}
    given.update({name: environment[name] for name in DEFAULTS if environment.get(name)})
    return settings_from(given)


def settings_from(given: Mapping[str, str]) -> Settings:
    """Settings from a mapping of variable names; what is missing or empty takes its default."""
    text = {name: given.get(name, "").strip() or default for name, default in DEFAULTS.items()}
    if text["COMPRESSION"] not in CODECS:
        raise BadSetting(f"COMPRESSION is {text['COMPRESSION']!r}: use one of {', '.join(CODECS)}.")
    key = dict(zip(_KEY, _key_pair(text), strict=True))
    values = {name.lower(): _value(name, text[name], default) for name, default in _FIELDS.items()}
    return Settings(**{**values, **key, "s3_folder": checked_folder(text["S3_FOLDER"])})


def _written(file: Path) -> dict[str, str]:
    try:
        return {name: value or "" for name, value in dotenv_values(file, interpolate=False, encoding="utf-8").items()}
    except UnicodeDecodeError:
        raise BadSetting(f"{file} is not text in UTF-8: save it in that encoding.") from None


def _key_pair(text: Mapping[str, str]) -> tuple[str, str]:
    """The Cloudflare pair when any half of it is there, else the AWS pair."""
    for owner in _OWNERS:
        key_id, secret = (text[f"{owner}_{half.upper()}"] for half in _KEY)
        if key_id and secret:
            return key_id, secret
        if key_id or secret:
            raise BadSetting(
                f"Only one half of the storage key is set: give both {owner}_ACCESS_KEY_ID and its secret."
            )
    return "", ""


def _value(name: str, text: str, default: object) -> Any:
    """The text of a variable, as the type of its default."""
    if isinstance(default, tuple):
        return tuple(listed(name, text))
    if not isinstance(default, int):
        return text
    if not text.isdecimal() or len(text) > 5 or int(text) < 1:
        unit = name.rpartition("_")[2].lower()
        raise BadSetting(f"{name} is {text[:20]!r}: give a whole number of {unit}, 1 or more.")
    return int(text)


def listed(name: str, text: str) -> list[str]:
    """The items of a list that is written as one text. A semicolon is between two of SQL, else a comma.

    A list as JSON writes it is taken too: parameters of runs are written so.
    """
    with suppress(ValueError):
        given = json.loads(text)
        if isinstance(given, list) and all(isinstance(item, str) for item in given):
            return [item.strip() for item in given if item.strip()]
    return [item.strip() for item in text.split(_SEPARATORS.get(name.lower(), ",")) if item.strip()]


def list_text(name: str, items: Iterable[str]) -> str:
    """A list as one text, which `listed` reads."""
    return _SEPARATORS.get(name.lower(), ",").join(items)


def refuse_unknown(directory: Path, environment: Mapping[str, str] = os.environ, filename: str = ".env") -> None:
    """Raises BadSetting, with a sentence for each name that is meant for us and that nobody reads."""
    written = _written(directory / filename)
    problems = [f"{filename} has {problem}" for problem in unknown(written, written)]
    problems += [f"The environment has {problem}" for problem in unknown(environment, {*written, *environment})]
    if problems:
        raise BadSetting(" ".join(problems))


def unknown(names: Iterable[str], given: Iterable[str]) -> list[str]:
    """`S3_BUCKETT, which is no setting: …` for each of `names` that is like a setting and is none. Pure.

    A name that is only like a setting which is `given` as well belongs to somebody else.
    """
    there = set(given)
    problems = []
    for name in names:
        if name in DEFAULTS or _OF_OTHERS.fullmatch(name):
            continue
        close = difflib.get_close_matches(name.upper(), DEFAULTS, 1, _CLOSE)
        if name.startswith(PREFIXES) or (close and close[0] not in there):
            meant = difflib.get_close_matches(name.upper(), DEFAULTS, 1, 0.6)
            advice = (
                f"did you mean {meant[0]}?" if meant else "see .env.example; remove it if it is not for the backups."
            )
            problems.append(f"{name}, which is no setting: {advice}")
    return problems
