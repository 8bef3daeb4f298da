"""The catalogue, and the backups that it knows: whether a good one is new enough, and whether one was verified."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from psycopg2.extras import RealDictCursor

from tasks.backup import dead_runs as debris
from tasks.backup import preflight
from tasks.catalogue.catalogue import Catalogue
from tasks.catalogue.rows import COLUMNS, LIES_IN, Record
from tasks.errors import AccessRefused
from tasks.health.database import connector
from tasks.health.lines import Line, span, utc
from tasks.health.prefect_server import Next
from tasks.names import FULL, manifest_key
from tasks.plans.plan import Plan
from tasks.postgres.locks import is_held
from tasks.restore.last_restore import LastRestore, last_restores, time_to_restore
from tasks.runs.at_once import Answer
from tasks.runs.markdown import human_bytes
from tasks.storage.s3 import Storage

CATALOGUE = "Catalogue"
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
_LAST_BACKUP = "Last backup"
#: How old the last good backup may be where no schedule says so.
OLDEST_UNSCHEDULED = timedelta(hours=26)
#: A backup that began so shortly before a run was due is that of this run: clocks differ.
_EARLY = timedelta(minutes=1)
OLDEST_VERIFIED = timedelta(days=8)
_NOW = "Run backup/manual, and see why the runs before it failed (Runs in the Prefect UI)."


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
    last_restore: LastRestore | None = None


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
            last_restore=last_restores(cursor, [plan]).get(plan),
        )


def catalogue_lines(answer: Answer[Records]) -> list[Line]:
    """The catalogue itself, and the rows of dead runs. Pure."""
    if answer.value is None:
        advice = "Until it answers, no backup can be recorded; restores find backups in the bucket alone."
        return [Line(CATALOGUE, "failed", answer.problem, advice)]
    if answer.value.problems:
        return [Line(CATALOGUE, "failed", " ".join(answer.value.problems), "Until then every backup is refused.")]
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
    return [Line(CATALOGUE, "ok", f"{answer.value.place} can be read and written."), unfinished]


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


@dataclass(frozen=True)
class Sound:
    """The newest recorded backup that is whole in the bucket; `lost` has a sentence for each newer, damaged one."""

    backup: Record | None
    lost: tuple[str, ...]


def find_sound(storage: Storage, newest: Sequence[Record]) -> Sound:
    """Looks for the object and the manifest of each backup, the newest first. Raises what the storage raises."""
    lost: list[str] = []
    for backup in newest:
        size = storage.size(backup.s3_key)
        if size == backup.file_size and storage.size(manifest_key(backup.s3_key)):
            return Sound(backup, tuple(lost))
        if size is None:
            lost.append(f"{backup.filename} is gone from the bucket.")
        elif size != backup.file_size:
            lost.append(f"{backup.filename} has {size:,} bytes in the bucket, not {backup.file_size:,}.")
        else:
            lost.append(f"The manifest of {backup.filename} is gone from the bucket.")
    return Sound(None, tuple(lost))


def last_backup_line(
    answer: Answer[Records],
    in_bucket: Answer[Sound],
    due_after: Next,
    made_at: datetime | None,
    now: datetime,
    grace: timedelta,
) -> Line:
    """Whether the last good backup is in the bucket and new enough. Pure.

    `due_after` gives the time of the next scheduled backup, `made_at` is when the schedules were made. A backup that is
    missing `grace` after its time is overdue.
    """
    if answer.value is None:
        return Line(
            _LAST_BACKUP, "warning", "Its age is not known: the catalogue does not answer.", "Solve that first."
        )
    records, sound = answer.value, in_bucket.value
    if sound is None:  # the line of the bucket says why
        sound = Sound(next(iter(records.newest), None), ())
    if sound.lost:
        left = f" The newest whole backup: {sound.backup.filename}." if sound.backup else " There is no whole backup."
        return Line(
            _LAST_BACKUP,
            "failed",
            " ".join(sound.lost) + left,
            "Run backup/manual now; rebuild-catalogue/rebuild-catalogue makes the records agree with the bucket.",
        )
    if sound.backup is None:
        return _none_line(records, due_after, made_at, now, grace)
    return _age_line(sound.backup, records, due_after, now, grace)


def no_backup_line(answer: Answer[Records]) -> Line:
    """For a plan that is only restored into: that none is expected, and how long a restore took. Pure."""
    measured = f" {time_to_restore(answer.value.last_restore)}" if answer.value and answer.value.last_restore else ""
    return Line(_LAST_BACKUP, "ok", f"None is expected: the plan is only restored into.{measured}")


def verification_line(answer: Answer[Records], verifies: bool, now: datetime) -> Line:
    """Whether a backup was verified lately, where a schedule verifies backups; how long a restore takes. Pure."""
    if answer.value is None:
        return Line("Verification", "warning", "Not known: the catalogue does not answer.", "Solve that first.")
    verified, first = answer.value.verified_at, answer.value.first_at
    oldest, measured = verified or first, time_to_restore(answer.value.last_restore)
    if verifies and answer.value.newest and oldest is not None and now - oldest > OLDEST_VERIFIED:
        what = f"The last was {span(now - oldest)} ago." if verified else "No backup has been verified so far."
        advice = "Run verify-backup/verify-backup, and see why the weekly run did not."
        return Line("Verification", "warning", f"{what} {measured}", advice)
    if verified:
        what = f"A backup was restored and compared {span(now - verified)} ago."
        return Line("Verification", "ok", f"{what} {measured}")
    what = f"No backup has been verified so far. {measured}"
    return Line("Verification", "ok", what, "verify-backup/verify-backup verifies one.")


def dead_uploads(plan: Plan, now: datetime) -> list[str]:
    """Keys of the uploads that dead runs have left open. Raises what catalogue and storage raise."""
    recorded = debris.stale_uploads(plan, now)
    still_open = plan.storage.unfinished(plan.prefix) if recorded else []
    return [key for key, upload_id in recorded if (key, upload_id) in still_open]


def upload_line(answer: Answer[list[str]]) -> Line:
    """Whether dead runs have left uploads open. Pure."""
    if answer.value is None:
        return Line("Unfinished uploads", "warning", f"Not known: {answer.problem}", "Solve that first.")
    if not answer.value:
        return Line("Unfinished uploads", "ok", "None.")
    keys = ", ".join(answer.value[:3]) + (f" and {len(answer.value) - 3} more" if len(answer.value) > 3 else "")
    return Line(
        "Unfinished uploads",
        "warning",
        f"Left open by dead runs; stores charge for them: {keys}.",
        "The next backup aborts them; backup/manual or cleanup/clean-up-now does so now.",
    )


def _age_line(good: Record, records: Records, due_after: Next, now: datetime, grace: timedelta) -> Line:
    what = f"{good.filename} ({human_bytes(good.file_size or 0)}) is {span(now - good.created_at)} old."
    due = due_after(good.created_at + _EARLY)
    late = now > due + grace if due else now - good.created_at > OLDEST_UNSCHEDULED
    wanted = f"The next was due at {utc(due)}." if due else "No schedule makes the next backup."
    if late and records.under_way:
        return Line(_LAST_BACKUP, "warning", f"{what} {wanted} A backup is being made.", "See Runs in the Prefect UI.")
    if late:
        failure = _failure(records, good.created_at)
        return Line(_LAST_BACKUP, "failed", f"{what} {wanted}{failure}", _NOW, is_overdue=due is not None)
    if failure := _failure(records, good.created_at):
        return Line(_LAST_BACKUP, "warning", f"{what}{failure}", "Run backup/manual when this is solved.")
    if good.suspicious:
        return Line(
            _LAST_BACKUP,
            "warning",
            f"{what} It is suspicious: {good.suspicious}",
            "See whether data was lost in the database before older backups are gone.",
        )
    return Line(_LAST_BACKUP, "ok", what + (f" The next is due at {utc(due)}." if due else ""))


def _none_line(records: Records, due_after: Next, made_at: datetime | None, now: datetime, grace: timedelta) -> Line:
    if records.under_way:
        return Line(_LAST_BACKUP, "warning", "There is no backup yet; the first is being made.")
    if failure := _failure(records, None):
        return Line(_LAST_BACKUP, "failed", f"There is no backup.{failure}", _NOW)
    due = due_after(made_at) if made_at else None
    if due and now > due + grace:
        return Line(
            _LAST_BACKUP, "failed", f"There is no backup; the first was due at {utc(due)}.", _NOW, is_overdue=True
        )
    wanted = f" The schedule makes the first at {utc(due)}." if due else ""
    return Line(_LAST_BACKUP, "warning", f"There is no backup yet.{wanted}", "Run backup/manual to make a backup now.")


def _failure(records: Records, since: datetime | None) -> str:
    """` The attempt of … failed: …` when an attempt has failed since then; else empty."""
    failure = records.failure
    if failure is None or (since is not None and failure.created_at <= since):
        return ""
    return f" The attempt of {utc(failure.created_at)} failed: {failure.error or 'no reason was recorded.'}"
