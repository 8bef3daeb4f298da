"""What a verify run is about: one backup, and a scratch database of its own.

Backups and restores of the database never wait for a verify run, and it never waits for them: the live database is
neither locked nor changed. Its own lock allows one verify run of a database at a time, and shows whatever clears away
scratch databases that this one is in use.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime

from tasks.errors import BackupSystemError, PreflightFailed
from tasks.plans.plan import Plan
from tasks.postgres.server import maintenance
from tasks.restore.databases import drop
from tasks.restore.labels import verify_scratch_name
from tasks.restore.validate import validate
from tasks.restore.values import OWN_SERVER, Place, RestoreRequest, RestoreRun
from tasks.restore.where import at
from tasks.stored_backups.find_backup import recorded_row

NAME = "verify: clears up"


@dataclass(frozen=True)
class Subject:
    """What is verified. It is the same backup to the end, though `latest` may soon be another one."""

    plan: str
    wanted: str
    """What was asked for."""
    run_id: str
    actor: str
    started_at: datetime
    backup_id: int | None = None
    """Its id in the catalogue; None when the catalogue does not know it, or cannot be asked."""
    filename: str = ""
    """Its file name; empty when only the bucket knows it."""
    key: str = ""
    bucket: str = ""
    """Where it was stored; empty when nobody knows."""
    verified_at: datetime | None = None
    """When it was verified before."""
    major: int = 0
    """The major version of PostgreSQL to restore into, for a rehearsal; 0 for the plan's way."""

    @property
    def name(self) -> str:
        """The file name, or what was asked for."""
        return self.filename or self.wanted[:80]


def identify(plan: Plan, wanted: str, run_id: str, actor: str, at: datetime, major: int = 0) -> Subject:
    """The backup that `wanted` (latest, a file name or an id) names now. Raises BackupNotFound."""
    subject, row = Subject(plan.name, wanted, run_id, actor, at, major=major), recorded_row(plan, wanted, drill=True)
    if row is None:
        return subject
    return replace(
        subject,
        backup_id=row.id,
        filename=row.filename,
        key=row.s3_key,
        bucket=row.bucket,
        verified_at=row.verified_at,
    )


def examine(plan: Plan, subject: Subject, say: Callable[[str], None], place: Place = OWN_SERVER) -> RestoreRun:
    """The restore into the scratch database, which no known problem stands in the way of. Raises as `validate`."""
    plan = at(plan, place)
    scratch = verify_scratch_name(place.database or plan.database.dbname, subject.started_at)
    request = RestoreRequest(subject.filename or subject.wanted, "new_database", scratch, compare="content")
    try:
        return validate(plan, request, subject.run_id, subject.actor, subject.started_at, say, verify=True, place=place)
    except PreflightFailed as error:
        if place.kind != "worker":
            raise
        own = f"{subject.name} cannot be verified on a server of the worker's own"
        raise PreflightFailed(own, error.problems) from None


@contextmanager
def no_scratch_left(plan: Plan, run: RestoreRun, say: Callable[[str], None]) -> Iterator[None]:
    """However the `with` block ends, the scratch database is dropped; `say` gets a sentence where that fails."""
    try:
        yield
    finally:
        problem = ""
        try:
            with maintenance(at(plan, run.place).database).session(NAME) as server:
                problem = drop(server, run.scratch, force=True)
        except BackupSystemError as error:
            problem = str(error)
        if problem:
            say(
                f"The scratch database {run.scratch} could not be dropped now; the next verify-backup, restore or "
                f"cleanup does that. {problem}"
            )
