"""The catalogue: whether it can be read and written, and what it has of a plan's backups."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg2.extras import RealDictCursor

from tasks.backup import preflight
from tasks.catalogue.catalogue import Catalogue
from tasks.catalogue.rows import COLUMNS, LIES_IN, Record
from tasks.errors import AccessRefused
from tasks.health.checks.database import connector
from tasks.health.lines import Line
from tasks.names import FULL
from tasks.postgres.locks import is_held
from tasks.runs.at_once import Answer

CHECK = "Catalogue"
#: Statements that need every privilege of ours and change nothing.
_WRITES = (
    "INSERT INTO database_backups (filename, s3_key, plan, run_id) SELECT '', '', '', '' WHERE false",
    "UPDATE database_backups SET status = status WHERE false",
    "INSERT INTO backup_events (action, outcome, plan, actor, run_id) SELECT '', '', '', '', '' WHERE false",
)
_SEQUENCES = """
    SELECT t AS table FROM unnest(ARRAY['database_backups', 'backup_events']) t
     WHERE NOT has_sequence_privilege(pg_get_serial_sequence(t, 'id'), 'USAGE')
"""
_NEWEST = f"""
    SELECT {COLUMNS} FROM database_backups
     WHERE plan = %(plan)s AND status = 'completed' AND backup_type = %(full)s AND {LIES_IN}
     ORDER BY created_at DESC, id DESC LIMIT 3
"""
_UNFINISHED = "SELECT filename FROM database_backups WHERE plan = %(plan)s AND status = 'in_progress' ORDER BY id"
_FAILED = f"""
    SELECT {COLUMNS} FROM database_backups WHERE plan = %(plan)s AND status = 'failed'
     ORDER BY created_at DESC, id DESC LIMIT 1
"""
_VERIFIED = "SELECT max(verified_at) AS at, min(created_at) AS first FROM database_backups WHERE plan = %(plan)s"


@dataclass(frozen=True)
class Records:
    """What the catalogue has of a plan."""

    place: str
    newest: tuple[Record, ...]
    """The newest completed full backups in the plan's bucket, at most three, newest first."""
    failure: Record | None
    """The newest failed attempt."""
    stale: tuple[str, ...]
    """File names of rows `in_progress` whose runs have died."""
    under_way: bool
    """Whether a backup of the plan is being made."""
    verified_at: datetime | None
    """When a backup of the plan was last verified."""
    first_at: datetime | None
    """When the oldest row was made."""
    problems: tuple[str, ...]


def ask_catalogue(catalogue: Catalogue, plan: str, bucket: str) -> Records:
    """Reads what the checks need; changes nothing. Raises AccessRefused, BadSetting or CatalogueUnavailable."""
    catalogue.check()
    pooled = preflight.pooler_problems(connector(catalogue.dsn), catalogue.dsn.host, catalogue.dsn.port)
    with catalogue.cursor() as cursor:
        _check_writable(cursor, catalogue)
        asked = {"plan": plan, "bucket": bucket, "full": FULL}
        # In this order: when a run ends meanwhile, the second list has its row no more.
        before = _names(cursor, asked)
        under_way = is_held(cursor.connection, "backup", plan)
        after = _names(cursor, asked)
        failed = next(iter(_rows(cursor, _FAILED, asked)), None)
        [verified] = _rows(cursor, _VERIFIED, asked)
        return Records(
            place=catalogue.dsn.place,
            newest=tuple(Record.of(row) for row in _rows(cursor, _NEWEST, asked)),
            failure=Record.of(failed) if failed else None,
            stale=() if under_way else tuple(name for name in before if name in after),
            under_way=under_way,
            verified_at=verified["at"],
            first_at=verified["first"],
            problems=tuple(pooled),
        )


def catalogue_lines(answer: Answer[Records]) -> list[Line]:
    """The catalogue itself, and the rows of dead runs. Pure."""
    if answer.value is None:
        advice = "Until it answers, no backup can be recorded; restores find backups in the bucket alone."
        return [Line(CHECK, "failed", answer.problem, advice)]
    if answer.value.problems:
        return [Line(CHECK, "failed", " ".join(answer.value.problems), "Until then every backup is refused.")]
    stale = answer.value.stale
    unfinished = Line("Unfinished backups", "ok", "None.")
    if answer.value.under_way:
        unfinished = Line("Unfinished backups", "ok", "A backup is under way.")
    if stale:
        names = ", ".join(stale[:3]) + (f" and {len(stale) - 3} more" if len(stale) > 3 else "")
        unfinished = Line(
            "Unfinished backups",
            "warning",
            f"The run of {names} has died.",
            "The next backup clears this away; backup/manual does so now.",
        )
    return [Line(CHECK, "ok", f"{answer.value.place} can be read and written."), unfinished]


def _check_writable(cursor: RealDictCursor, catalogue: Catalogue) -> None:
    for statement in _WRITES:
        cursor.execute(statement)
    if closed := [row["table"] for row in _rows(cursor, _SEQUENCES, {})]:
        raise AccessRefused(
            f"Role {catalogue.dsn.user} may not number rows of {', '.join(closed)} in "
            f"{catalogue.dsn.place}: run GRANT USAGE ON ALL SEQUENCES IN SCHEMA … TO it."
        )


def _rows(cursor: RealDictCursor, query: str, asked: dict[str, str]) -> list[dict[str, Any]]:
    cursor.execute(query, asked)
    return list(cursor.fetchall())


def _names(cursor: RealDictCursor, asked: dict[str, str]) -> list[str]:
    return [row["filename"] for row in _rows(cursor, _UNFINISHED, asked)]
