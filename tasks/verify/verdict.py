"""What a verify run has learned about a backup, and how the catalogue keeps it: in the row, and in the audit.

A row says when its backup was last verified (`verified_at`), and in `metadata.verification` the result of the last
verify run that proved the backup, or a fault of it. A run that could do neither changes nothing in the row: after an
error, `fault_of` says whether the backup is at fault, or something around it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from psycopg2 import errorcodes
from psycopg2.extras import Json

from tasks.catalogue.catalogue import Catalogue
from tasks.catalogue.rows import Event, append_event
from tasks.errors import (
    BackupDamaged,
    BackupGone,
    BackupSystemError,
    CheckFailed,
    ContentDiffers,
    EntriesFailed,
    RestoreRefused,
    RowsDiffer,
)
from tasks.plans.plan import Plan
from tasks.restore.values import LARGE_OBJECTS, OWN_SERVER, Comparison, Loaded, Place, RestoreRun, TableCount
from tasks.verify.subject import Subject

#: The backup's bytes; the design of the database that was backed up, of which PostgreSQL cannot restore all; a check of
#: the plan, which its content does not pass; or the server and the role, which says nothing about the backup.
Fault = Literal["backup", "database", "check", "environment"]
#: SQLSTATEs that speak of the server and the role, not of what psql was given: connections, resources, privileges,
#: locks, operators, the machine, the server itself; a role, a locale or a parameter that is not there; what this
#: server cannot do at all, such as an extension that is not installed.
_ENVIRONMENT = ("08", "0A", "25006", "28", "40", "42501", "42704", "53", "54001", "55", "57", "58", "XX")
#: Something is not there: behind another entry that failed, this says that the entry depends on that one.
_FOLLOWS = frozenset(("3F000", "42703", "42704", "42883", "42P01"))
#: Entries that name types and functions, and nothing of the server: what is not there, the search path hides.
_BEHIND_ROWS = ("TABLE DATA ", "INDEX ", "CONSTRAINT ", "CHECK CONSTRAINT ", "FK CONSTRAINT ", "MATERIALIZED VIEW ")
#: When the row of a backup that is gone is looked at: it changes last when a backup is removed on purpose.
_REMOVAL_DELAYS = (0.0, 1.0, 2.0, 4.0)  # seconds
ACTION = "verify-backup"
_LISTED = 200  # tables of a backup that the audit lists with their rows, the largest ones
_RECORD = """
    UPDATE database_backups SET verified_at = %(verified_at)s,
           status = CASE WHEN %(verified_at)s::timestamptz IS NULL THEN status ELSE 'completed' END,
           metadata = CASE WHEN jsonb_typeof(metadata) = 'object' THEN metadata ELSE '{}' END || %(verification)s::jsonb
     WHERE id = %(id)s AND filename = %(filename)s AND plan = %(plan)s
       AND (status = 'completed' OR (status = 'unproved' AND metadata ? 'adopted'))
"""


def fault_of(error: BackupSystemError, place: Place = OWN_SERVER) -> Fault:
    """Whose fault an error shows. Pure.

    Entries that failed decide by the SQLSTATEs of their errors; a warning of the server decides nothing. On a server of
    another major version, only the bytes of the backup can show a fault of its own.
    """
    if isinstance(error, (BackupDamaged, BackupGone)):
        return "backup"
    if place.is_other_version:
        return "environment"
    if isinstance(error, RowsDiffer):
        return "backup"
    if isinstance(error, ContentDiffers):
        return "database"
    if isinstance(error, CheckFailed):
        return "check"
    if isinstance(error, EntriesFailed):
        return _fault_by([_meant(name, sqlstate) for name, sqlstate, _ in error.entries])
    return _fault_by([error.sqlstate] if isinstance(error, RestoreRefused) and error.sqlstate else [])


def _meant(name: str, sqlstate: str) -> str:
    """The SQLSTATE; of an entry that needs no role and no parameter, that something of the database is not found."""
    is_of_database = sqlstate == errorcodes.UNDEFINED_OBJECT and name.startswith(_BEHIND_ROWS)
    return str(errorcodes.UNDEFINED_TABLE) if is_of_database else sqlstate


def _fault_by(sqlstates: Sequence[str]) -> Fault:
    causes = [*sqlstates[:1], *(sqlstate for sqlstate in sqlstates[1:] if sqlstate not in _FOLLOWS)]
    return "database" if any(not sqlstate.startswith(_ENVIRONMENT) for sqlstate in causes) else "environment"


def plain_words(error: BackupSystemError, name: str) -> str:
    """What an error says of backup `name`, for a sentence that begins with that name. Pure."""
    text = error.which if isinstance(error, EntriesFailed) else str(error)
    return re.sub(rf"^{re.escape(name)}(?: cannot be verified)?: ", "", text)


def excuse(plan: Plan, subject: Subject, error: BackupSystemError) -> str:
    """Why what looks like a fault of the backup is none; empty when it is one."""
    if isinstance(error, BackupGone) and subject.bucket not in ("", plan.storage.bucket):
        names = f"plan {plan.name} names bucket {plan.storage.bucket}"
        return f"It lies in bucket {subject.bucket}, and {names}: name its bucket in the plan."
    return "It was removed while it was being verified." if removed_meanwhile(plan, subject) else ""


def removed_meanwhile(plan: Plan, subject: Subject, delays: Sequence[float] = _REMOVAL_DELAYS) -> bool:
    """Whether somebody removed the backup while it was being verified, which is no fault of its own."""
    if subject.backup_id is None:
        return False
    for delay in delays:
        time.sleep(delay)
        try:
            if plan.storage.size(subject.key) is not None:
                return False
            rows = plan.catalogue.rows(subject.plan)
        except BackupSystemError:
            return False
        if not any(row.id == subject.backup_id and row.is_completed for row in rows):
            return True
    return False


@dataclass(frozen=True)
class Verified:
    """A backup that was restored and compared: all that its manifest says of it is so."""

    plan: str
    filename: str
    backup_id: int | None
    created_at: datetime
    """When the backup was made."""
    at: datetime
    """When it was proved."""
    seconds: float
    """From the beginning of the run to the end of the comparison."""
    restore_seconds: float
    """What psql alone took, from its first statement to its COMMIT."""
    size: int
    """Bytes of the stored file."""
    plain_size: int
    """Bytes of SQL that psql was given."""
    counts: tuple[TableCount, ...]
    bucket: str
    server_version: int
    psql_version: str
    decoded: str
    """How the stored file became SQL: `zstd, age`; empty when it is SQL."""
    warnings: tuple[str, ...]
    checks: int = 0
    """Checks of the plan, all of them true."""
    by_content: bool = False
    """Every entry and every row was compared with the backup."""
    left_out: tuple[str, ...] = ()
    """Names of the entries that no database but the live one could hold, or that this role cannot set."""
    rows_by_content: bool = False
    """Every row and every sequence was compared with the backup."""
    where: str = "the plan's own server"
    """The server that it was restored to, for people."""
    why: str = ""
    """Why there."""
    place: str = "server"
    """The same for programs: `worker`, `server` or `block`."""
    made_on: int = 0
    """The version of the server that was backed up, as a number: 150018 is 15.18."""

    @property
    def tables(self) -> tuple[TableCount, ...]:
        """Tables and their rows, the largest first."""
        own = (count for count in self.counts if count.name != LARGE_OBJECTS)
        return tuple(sorted(own, key=lambda count: (-count.expected, count.name)))

    @property
    def rows(self) -> int:
        """Rows in all tables together."""
        return sum(count.found for count in self.tables)

    @property
    def large_objects(self) -> int:
        """How many there are."""
        return next(count.found for count in self.counts if count.name == LARGE_OBJECTS)

    def payload(self) -> dict[str, object]:
        """What the event `backup.verified` says of it."""
        return {
            "filename": self.filename,
            "rows": self.rows,
            "tables": len(self.tables),
            "seconds": self.seconds,
            "restore_seconds": self.restore_seconds,
        }

    def facts(self, run_id: str) -> dict[str, Any]:
        """What the row keeps of it."""
        return {
            "outcome": "verified",
            "at": self.at.isoformat(),
            "run_id": run_id,
            "seconds": round(self.seconds, 3),
            "restore_seconds": round(self.restore_seconds, 3),
            "by_content": self.by_content,
            "checks": self.checks,
            "compared": {"tables": len(self.tables), "rows": self.rows, "large_objects": self.large_objects},
            "plain_size": self.plain_size,
            "bucket": self.bucket,
            "server_version": self.server_version,
            "made_on": self.made_on,
            "drilled_on": self.place,
            "where": self.where,
            "why": self.why,
            "rows_by_content": self.rows_by_content,
            "psql": self.psql_version,
            "warnings": list(self.warnings),
        }


def verified(run: RestoreRun, loaded: Loaded, compared: Comparison, checked: int, at: datetime) -> Verified:
    """What a verify run that has passed has proved. Pure."""
    backup = run.backup
    left_out = [f"{name} was left out." for name in loaded.left_out]
    steps = (backup.codec if backup.codec != "none" else "", "age" if backup.encrypted else "")
    return Verified(
        plan=run.plan,
        filename=backup.filename,
        backup_id=backup.backup_id,
        created_at=backup.created_at,
        at=at,
        seconds=(at - run.started_at).total_seconds(),
        restore_seconds=loaded.seconds,
        size=backup.size,
        plain_size=loaded.plain_size,
        counts=compared.counts,
        bucket=backup.bucket,
        server_version=run.ground.server_version,
        psql_version=run.psql_version,
        decoded=", ".join(step for step in steps if step),
        warnings=(*run.warnings, *loaded.warnings, *left_out, *compared.warnings),
        checks=checked,
        by_content=compared.by_content,
        left_out=loaded.left_out,
        rows_by_content=compared.rows_by_content,
        where=where(run),
        why=run.place.why,
        place=run.place.kind,
        made_on=backup.database.server_version_number,
    )


def where(run: RestoreRun) -> str:
    """The server that a backup is restored to, for people; versions too where the backup comes from another. Pure."""
    major, made_on = run.ground.server_version // 10_000, run.backup.database.server_version_number // 10_000
    kind = run.place.kind
    name = {"worker": "a server of the worker's own", "block": "the server of the plan's block"}
    words = name.get(kind, "the plan's own server")
    return f"{words} (restored on PostgreSQL {major}, made on {made_on})" if major != made_on else words


def record_verified(catalogue: Catalogue, subject: Subject, done: Verified) -> bool:
    """`verified_at`, what was compared, and the line of the audit, all or none; says whether there was such a row."""
    facts = done.facts(subject.run_id)
    listed = {without_surrogates(count.name): count.found for count in done.tables[:_LISTED]}
    details = {"verification": facts, "tables": listed}
    event = Event(
        ACTION,
        "completed",
        subject.plan,
        subject.actor,
        subject.run_id,
        done.backup_id,
        done.filename,
        done.seconds,
        done.size,
        details=details,
    )
    return _record(catalogue, subject, done.backup_id, done.filename, done.at, facts, event)


def record_unverifiable(catalogue: Catalogue, subject: Subject, fault: Fault, reason: str, at: datetime) -> bool:
    """The row is no longer verified, and says why; so does the audit, with when it was verified before."""
    earlier = subject.verified_at.isoformat() if subject.verified_at else None
    facts = {
        "outcome": "unverifiable",
        "at": at.isoformat(),
        "run_id": subject.run_id,
        "seconds": round((at - subject.started_at).total_seconds(), 3),
        "reason": reason,
        "verified_before": earlier,
    }
    event = not_verified(subject, "failed", at, reason, fault=fault, verification=facts)
    return _record(catalogue, subject, subject.backup_id, subject.filename, None, facts, event)


def without_surrogates(text: str) -> str:
    """`text` with a mark for each byte that is no UTF-8, such as the names in a database without an encoding have."""
    return text.encode("utf-8", "replace").decode()


def not_verified(
    subject: Subject, outcome: str, at: datetime | None = None, reason: str | None = None, **details: object
) -> Event:
    """The line of the audit for a run that has just begun, or ended at `at` without proving its backup. Pure."""
    return Event(
        ACTION,
        outcome,
        subject.plan,
        subject.actor,
        subject.run_id,
        subject.backup_id,
        subject.filename or None,
        (at - subject.started_at).total_seconds() if at else None,
        error=reason,
        details={"backup": subject.wanted[:200], **details},
    )


def _record(
    catalogue: Catalogue,
    subject: Subject,
    backup_id: int | None,
    filename: str,
    verified_at: datetime | None,
    facts: Mapping[str, Any],
    event: Event,
) -> bool:
    with catalogue.cursor() as cursor:
        cursor.execute(
            _RECORD,
            {
                "verified_at": verified_at,
                "verification": Json({"verification": facts}),
                "id": backup_id,
                "filename": filename,
                "plan": subject.plan,
            },
        )
        changed = bool(cursor.rowcount)
        append_event(cursor, event)
        return changed
