"""`backups list`, `backups events` and `backups plans`: what the catalogues hold, read without Prefect.

The addresses of the catalogues are those of the plans' blocks, which Prefect's API gives; where no Prefect server is
set or answers, that of `.env`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from datetime import UTC
from pathlib import Path
from typing import TypeVar

import psycopg2

from deployments.command_line.output import AuditLine, Backup, Backups, Events, PlanPlace, Plans
from deployments.command_line.prefect_api import PrefectApi, find_server
from tasks.catalogue.catalogue import Catalogue
from tasks.catalogue.rows import Record
from tasks.errors import BackupSystemError, BadSetting, Unreachable
from tasks.list_events.event_log import Asked, EventLine, last_events, newest
from tasks.names import base_of
from tasks.plans.addresses import BLOCKS_ASKED, PlanAddress, of_databases, plan_addresses, plans_of_settings
from tasks.postgres.dsn import Dsn
from tasks.runs.markdown import NONE, columns, duration, human_bytes, moment

#: More lines than this are asked for in several commands.
MOST = 10_000
_CONNECT_SECONDS = "4"
_HEADERS = ("plan", "backup", "status", "size", "rows", "tables", "created by", "when (UTC)", "took", "verified (UTC)")
T = TypeVar("T")


def known_plans() -> list[PlanAddress]:
    """Every plan. Raises BadSetting when there is none, and what the API raises."""
    server = find_server(Path.cwd())
    try:
        blocks = list(PrefectApi(server).every("block_documents/filter", BLOCKS_ASKED)) if server else []
        plans = plan_addresses(blocks, Path.cwd())
    except Unreachable as error:
        plans = plans_of_settings(Path.cwd())
        if not plans:
            raise Unreachable(f"{error} Start it (make up), or describe the database in .env.") from None
        sys.stderr.write(f"{error} The plan of .env is shown.\n")
    if not plans:
        raise BadSetting("There is no plan: run `make up`, or set DATABASE_URL, S3_ENDPOINT_URL and the keys in .env.")
    return plans


def list_backups(plan: str, last: int) -> Backups:
    """The newest backups of a plan, or of every plan when that is empty."""
    if not 1 <= last <= MOST:
        raise BadSetting(f"The last {last} backups cannot be listed: set last to 1 to {MOST}.")
    rows, problems = _of_catalogues(plan, lambda catalogue: catalogue.newest(plan, last))
    rows.sort(key=lambda row: row.created_at, reverse=True)
    return Backups(backups=[_backup(row) for row in rows[:last]], problems=problems)


def list_events(asked: Asked) -> tuple[Events, list[EventLine]]:
    """The last lines of the audit that fit."""
    lines, problems = _of_catalogues(asked.plan.strip(), lambda catalogue: last_events(catalogue, asked))
    shown = newest([lines], asked.last)
    return Events(events=[_audit_line(line) for line in shown], problems=problems), list(shown)


def list_plans() -> Plans:
    """Every plan, with where its database and its records are."""
    return Plans(
        plans=[
            PlanPlace(
                name=plan.name,
                database=plan.database.place if plan.database else "",
                catalogue=plan.catalogue.place if plan.catalogue else "",
                problem=plan.problem,
            )
            for server in known_plans()
            for plan in _with_databases(server)
        ]
    )


def _with_databases(plan: PlanAddress) -> list[PlanAddress]:
    """The plan, and that of each database of a server that has records; a catalogue that does not answer names none."""
    if not plan.databases or plan.catalogue is None:
        return [plan]
    catalogue = Catalogue(Dsn({**plan.catalogue.parameters, "connect_timeout": _CONNECT_SECONDS}))
    try:
        return [plan, *of_databases(plan, catalogue.plans_of_server(plan.name))]
    except (BackupSystemError, psycopg2.Error) as error:
        sys.stderr.write(f"{catalogue.dsn.clean(' '.join(str(error).split()))}\n")
        return [plan]


def _of_catalogues(plan: str, read: Callable[[Catalogue], Iterable[T]]) -> tuple[list[T], list[str]]:
    """What the catalogue of a plan has, or those of all plans, each asked once; and why some could not be asked."""
    plans = known_plans()
    asked = [it for it in plans if plan in ("", it.name) or (it.databases and base_of(plan) == it.name)]
    if not asked:
        raise BadSetting(f"There is no plan {plan!r}: there is {', '.join(it.name for it in plans)}.")
    found: list[T] = []
    problems = [f"Plan {it.name}: {it.problem}" for it in asked if it.problem]
    for dsn in {it.catalogue.place: it.catalogue for it in asked if it.catalogue}.values():
        catalogue = Catalogue(Dsn({**dsn.parameters, "connect_timeout": _CONNECT_SECONDS}))
        try:
            catalogue.check()
            found += read(catalogue)
        except (BackupSystemError, psycopg2.Error) as error:
            problems.append(dsn.clean(" ".join(str(error).split())))
    return found, problems


def _backup(row: Record) -> Backup:
    return Backup(
        plan=row.plan,
        id=row.id,
        filename=row.filename,
        status=row.status,
        type=row.backup_type,
        size=row.file_size,
        plain_size=row.plain_size,
        tables=row.table_count,
        rows=row.row_count,
        created_by=row.created_by,
        created_at=row.created_at.astimezone(UTC),
        completed_at=row.completed_at.astimezone(UTC) if row.completed_at else None,
        seconds=(row.completed_at - row.created_at).total_seconds() if row.completed_at else None,
        verified_at=row.verified_at.astimezone(UTC) if row.verified_at else None,
        kept=row.kept,
        suspicious=row.suspicious,
        left_out=row.left_out,
        error=row.error or "",
    )


def _audit_line(line: EventLine) -> AuditLine:
    return AuditLine(
        at=line.at,
        action=line.action,
        outcome=line.outcome,
        plan=line.plan,
        backup_id=line.backup_id,
        filename=line.filename,
        actor=line.actor,
        run_id=line.run_id,
        seconds=line.duration_seconds,
        bytes=line.bytes,
        error=line.error,
        details=dict(line.details),
    )


def backups_text(listed: Backups) -> str:
    """The backups as columns for a terminal. Pure."""
    if not listed.backups:
        return "No backup has been made yet.\n" if not listed.problems else ""
    return columns([_HEADERS, *map(_cells, listed.backups)])


def plans_text(listed: Plans) -> str:
    """The plans as columns for a terminal. Pure."""
    cells = [(plan.name, plan.database or plan.problem, plan.catalogue) for plan in listed.plans]
    return columns([("plan", "database", "catalogue"), *cells])


def _status(backup: Backup) -> str:
    status = "suspicious" if backup.status == "completed" and backup.suspicious else backup.status
    return ", ".join([status, *(["kept"] if backup.kept else []), *(["a part"] if backup.left_out else [])])


def _cells(backup: Backup) -> tuple[str, ...]:
    return (
        backup.plan,
        backup.filename,
        _status(backup),
        human_bytes(backup.size),
        NONE if backup.rows is None else f"{backup.rows:,}",
        NONE if backup.tables is None else f"{backup.tables:,}",
        backup.created_by,
        moment(backup.created_at, seconds=True),
        duration(backup.seconds),
        moment(backup.verified_at),
    )
