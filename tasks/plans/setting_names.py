"""Finds misspelt names of settings: a setting that nobody reads would leave things as they are without a word."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from dotenv import dotenv_values

from tasks.errors import BadSetting
from tasks.plans.settings import DEFAULTS

#: What the names of our settings begin with; in the environment, `AWS_` and `DATABASE_` belong to others too.
PREFIXES = (
    "S3_",
    "CLOUDFLARE_",
    "CATALOG_",
    "RETENTION_",
    "COMPRESSION_",
    "AGE_",
    "KEPT_",
    "SPOOL_",
    "NOTIFY_",
    "PING_",
    "SCHEDULE_",
    "GRACE_",
    "PG_BIN_",
)
#: Names that other programs have given themselves.
_OF_OTHERS = re.compile(
    r"CLOUDFLARE_(API_\w+|ACCOUNT_ID|ZONE_\w+|EMAIL|TUNNEL_\w+|R2_\w+|INCLUDE_\w+|ENV)|S3_USE_\w+|"
    r"AWS_(SESSION_TOKEN|SECURITY_TOKEN|PROFILE|REGION|DEFAULT_\w+|CONFIG_FILE|SHARED_CREDENTIALS_FILE|ROLE_\w+|EC2_\w+)"
)
_CLOSE = 0.86


def refuse_unknown(directory: Path, environment: Mapping[str, str] = os.environ, filename: str = ".env") -> None:
    """Raises BadSetting, with a sentence for each name that is meant for us and that nobody reads."""
    try:
        written = dotenv_values(directory / filename, interpolate=False, encoding="utf-8")
    except UnicodeDecodeError:
        return  # reading the settings says so
    problems = [f"{filename} has {one}" for one in unknown(written, written)]
    problems += [f"The environment has {one}" for one in unknown(environment, {*written, *environment})]
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
