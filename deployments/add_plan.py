"""`python -m deployments.add_plan NAME`: one more plan, from `.env` of a directory or from what is typed in.

Secrets are never arguments: they come from the file, from standard input, or from a prompt that does not show them.
"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from prefect_aws import AwsCredentials

from deployments.command_line.runs import connected
from deployments.quick_start.databases import ensure_catalog_database
from deployments.set_up_parts.blocks import set_up_plan
from deployments.set_up_parts.merging import SetUp
from deployments.set_up_parts.remembered import Memory
from deployments.set_up_parts.schedules import update_schedules
from tasks.errors import BackupSystemError, BadSetting
from tasks.names import checked_plan_name
from tasks.plans.blocks import BackupPlan, BackupStorage, PostgresDatabase
from tasks.plans.find_plan import named_block, stored_block
from tasks.plans.from_settings import Described, described
from tasks.plans.schedules import rule
from tasks.plans.settings import Settings, load_settings, refuse_unknown, settings_from
from tasks.postgres.dsn import Dsn, parse
from tasks.runs.arguments import run_command, whole_number


def main(arguments: Sequence[str] | None = None) -> int:
    """0 when the plan's blocks are there, else 1 and one sentence on stderr."""
    return run_command(add, arguments)


def add(
    name: str,
    /,
    *,
    env_file: Path | None = None,
    retention_days: Annotated[int | None, Parameter(converter=whole_number)] = None,
    compression: Literal["none", "zstd", "gzip"] | None = None,
    schedule: str | None = None,
    schedule_timezone: str | None = None,
    after_restore: list[str] | None = None,
    checks: list[str] | None = None,
    drill_on: str | None = None,
    restore_only: Annotated[bool, Parameter(negative="")] = False,
) -> int:
    """Add one more plan, from a file like .env.example or from an address that is typed in.

    Parameters
    ----------
    name
        lower-case letters, digits and dashes
    env_file
        a file like .env.example that describes the plan
    retention_days
        keep each backup for this many days
    schedule
        a cron line, every 6 hours, an RRULE, or never (default: 0 2 * * *)
    schedule_timezone
        in which the schedule is meant (default: UTC)
    after_restore
        SQL that runs in what is restored into this plan from another one; give the option once for each statement
    checks
        SQL that must be true after verify-backup; give the option once for each check
    drill_on
        where verify-backup restores: worker, server, or the name of a PostgreSQL Database block
    restore_only
        backups of other plans are restored into this one, and none are made of it
    """
    given: dict[str, Any] = {
        "retention_days": retention_days,
        "compression": compression,
        "schedule": schedule,
        "schedule_timezone": schedule_timezone,
        "after_restore": tuple(after_restore or ()),
        "checks": tuple(checks or ()),
        "drill_on": drill_on,
    }
    try:
        connected()
        changes = {setting: value for setting, value in given.items() if value not in (None, "", ())}
        settings = replace(_settings(env_file), **changes)
        for line in add_plan(name, settings, restore_only=restore_only):
            print(line)
        if restore_only:
            print(f"Restore into it: prefect deployment run restore/restore-backup --param into={name} --watch")
        else:
            print(f"Back it up now: prefect deployment run backup/manual --param plan={name}")
    except BackupSystemError as error:
        print(f"No plan was added: {error}", file=sys.stderr)
        return 1
    return 0


def add_plan(name: str, settings: Settings, *, restore_only: bool = False) -> Iterator[str]:
    """The blocks of a new plan; yields a line for each thing that is made.

    Where the settings name no storage, or no catalogue, the plan names those of the plan `default`. Raises BadSetting
    when there is such a plan already, or nothing to name.
    """
    checked_plan_name(name)
    if stored_block(BackupPlan, name) is not None:
        raise BadSetting(f"There is a plan {name} already: change it with backups plan set {name}.")
    if not settings.database_url:
        raise BadSetting("There is no DATABASE_URL: name the database of the new plan.")
    rule(settings.schedule, settings.schedule_timezone, "The schedule")
    memory = Memory.load()
    said = _described(name, settings)
    said = replace(said, fields={**said.fields, "restore_only": restore_only})
    yield from set_up_plan(name, said, SetUp(memory))
    yield from update_schedules(memory)


def _described(name: str, settings: Settings) -> Described:
    """The new plan; it shares with the plan `default` what the settings leave out."""
    default = stored_block(BackupPlan, "default")
    settings = _with_client_tools(default, settings)
    shared: dict[str, str] = {}
    if not settings.catalog_url and default is not None and default.catalogue:
        shared["catalogue"] = default.catalogue
    elif not settings.catalog_url:
        settings = replace(settings, catalog_url=ensure_catalog_database(settings.database_url))
    if settings.uses_embedded_storage:
        if default is None:
            raise BadSetting("There is no storage: set S3_ENDPOINT_URL, S3_BUCKET and the access key in the file.")
        shared["storage"] = default.storage
    said = described(name, settings)
    without = (BackupStorage, AwsCredentials) if "storage" in shared else ()
    blocks = {place: block for place, block in said.blocks.items() if place[0] not in without}
    return Described({**said.fields, **shared}, blocks)


def _with_client_tools(default: BackupPlan | None, settings: Settings) -> Settings:
    """The settings; for a database on the server of the plan `default`, with the client tools of that plan."""
    if default is None or settings.pg_bin_directory:
        return settings
    known = parse(named_block("default", PostgresDatabase, default.database).url.get_secret_value())
    same = _server(known) == _server(parse(settings.database_url))
    return replace(settings, pg_bin_directory=default.client_tools_directory) if same else settings


def _server(database: Dsn) -> tuple[str, int]:
    return "127.0.0.1" if database.host == "localhost" else database.host, database.port


def _settings(env_file: Path | None) -> Settings:
    """From the file when one is named; else the address is asked for and the rest is the default."""
    if env_file is None:
        return settings_from({"DATABASE_URL": _typed_address()})
    if not env_file.is_file():
        raise BadSetting(f"There is no file {env_file}.")
    refuse_unknown(env_file.parent, {}, env_file.name)
    return load_settings(env_file.parent, {}, env_file.name)


def _typed_address() -> str:
    """From a terminal without showing it, else the first line of standard input."""
    if sys.stdin.isatty():
        return getpass.getpass("Address of the database (postgresql://…): ")
    return sys.stdin.readline().strip()


if __name__ == "__main__":
    sys.exit(main())
