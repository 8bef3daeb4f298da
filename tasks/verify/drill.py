"""The drill: a stored backup is restored into a scratch database as a restore would do it, compared, and dropped again.

It goes on beside everything else. Backups and restores of the database never wait for it, and it never waits for
them: the live database is neither locked nor changed. Its own lock (`locks.verify_lock`) allows one drill of a database
at a time, and shows everybody who clears up that the scratch has an owner who lives.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from tasks.errors import BackupDamaged, BackupGone, BackupSystemError, RestoreRefused, RowsDiffer
from tasks.plans.plan import Plan
from tasks.postgres.server import maintenance
from tasks.restore.databases import drill_name, drop
from tasks.restore.preflight.survey import survey
from tasks.restore.values import RestoreRequest, RestoreRun
from tasks.storage.spool import clear_dead_spools
from tasks.stored_backups.find_backup import chosen_backup, recorded_row

NAME = "drill: clears up"
#: Whose fault it is that a backup is not verified.
Fault = Literal["backup", "environment"]
#: SQLSTATEs that speak of the server and the role, not of what psql was given: connections, resources, privileges,
#: locks, operators, the machine, the server itself; a role, a locale or a parameter that is not there; what this
#: server cannot do at all, such as an extension that is not installed.
_ENVIRONMENT = ("08", "0A", "25006", "28", "40", "42501", "42704", "53", "54001", "55", "57", "58", "XX")
_CODE = re.compile(r"(psql:<stdin>:\d+: [^:]{1,30}: )([0-9A-Z]{5}): ")
_LOCATION = re.compile(r" [^\s:]+: \w+, [\w./-]+\.[a-z]:\d+")
#: A script that met an error, as psql says it by its exit status.
_SCRIPT_FAILED = "psql ended with status 3 "
#: When it is looked whether a backup that is gone was removed on purpose: its row changes last.
_REMOVAL_DELAYS = (0.0, 1.0, 2.0, 4.0)  # seconds


@dataclass(frozen=True)
class Subject:
    """What a drill is about. It is the same backup to the end, though `latest` may soon be another one."""

    plan: str
    wanted: str
    """What was asked for."""
    run_id: str
    actor: str
    started_at: datetime
    backup_id: int | None = None
    """Its id in the catalogue; None when the catalogue does not know it, or cannot be asked."""
    filename: str = ""
    """Its file name; empty when only the bucket can tell."""
    key: str = ""
    bucket: str = ""
    """Where it was stored; empty when nobody knows."""
    verified_at: datetime | None = None
    """When an earlier drill proved it."""

    @property
    def name(self) -> str:
        """How a person calls it."""
        return self.filename or self.wanted[:80]


def identify(plan: Plan, wanted: str, run_id: str, actor: str, at: datetime) -> Subject:
    """The backup that `wanted` (latest, a file name or an id) names now. Raises BackupNotFound."""
    row = recorded_row(plan, wanted)
    if row is None:
        return Subject(plan.name, wanted, run_id, actor, at)
    return Subject(plan.name, wanted, run_id, actor, at, row.id, row.filename, row.s3_key, row.bucket, row.verified_at)


def examine(plan: Plan, subject: Subject, say: Callable[[str], None]) -> RestoreRun:
    """A drill that nothing known stands in the way of; nothing was changed.

    `say` is told what was cleared away. Raises BackupGone, BackupDamaged, PreflightFailed with every problem at once,
    or Unreachable when all that is wrong may pass.
    """
    for dead in clear_dead_spools(plan.spool_directory):
        say(f"The spool of the dead run {dead} was removed.")
    backup = chosen_backup(plan, subject.filename or subject.wanted)
    scratch = drill_name(plan.database.dbname, subject.started_at)
    ground = survey(plan, RestoreRequest(backup.filename, "new_database", scratch), backup, drill=True)
    return RestoreRun(
        run_id=subject.run_id,
        plan=plan.name,
        actor=subject.actor,
        started_at=subject.started_at,
        backup=backup,
        mode="new_database",
        database=plan.database.dbname,
        scratch=scratch,
        like=ground.like,
        live_exists=False,
        tables=(),
        chosen=(),
        psql=ground.psql.path,
        psql_version=ground.psql.version_text,
        server_version=ground.server_version,
        create_roles=(),
        analyze="before",
        drop_dependents=False,
        spool_directory=str(plan.spool_directory),
        spool_limit=plan.spool_limit,
        warnings=(*backup.warnings, *ground.warnings),
        drill=True,
    )


@contextmanager
def no_scratch_left(plan: Plan, run: RestoreRun, say: Callable[[str], None]) -> Iterator[None]:
    """However the `with` block ends, the scratch database goes; where it cannot, `say` is told who takes it away."""
    try:
        yield
    finally:
        problem = ""
        try:
            with maintenance(plan.database).session(NAME) as server:
                problem = drop(server, run.scratch, force=True)
        except BackupSystemError as error:
            problem = str(error)
        if problem:
            say(
                f"The scratch database {run.scratch} could not be dropped now; the next drill, restore or clean-up "
                f"does that. {problem}"
            )


def fault_of(error: BackupSystemError) -> Fault:
    """Whether an error tells against the backup, or only of what is around it. Pure."""
    if isinstance(error, (BackupDamaged, BackupGone, RowsDiffer)):
        return "backup"
    if not isinstance(error, RestoreRefused):
        return "environment"
    said = _CODE.search(str(error))
    if said:
        return "environment" if said[2].startswith(_ENVIRONMENT) else "backup"
    return "backup" if _SCRIPT_FAILED in str(error) else "environment"


def plain_words(error: BackupSystemError, name: str) -> str:
    """What an error says of backup `name`, for a sentence that begins with that name. Pure.

    Without the codes and the places in the server's source that a drill has psql tell.
    """
    text = str(error)
    if _CODE.search(text):
        text = _LOCATION.sub("", _CODE.sub(r"\1", text))
    return re.sub(rf"^{re.escape(name)}(?: cannot be tried out)?: ", "", text)


def excuse(plan: Plan, subject: Subject, error: BackupSystemError) -> str:
    """Why what looks like the fault of the backup is none of it; empty when it is."""
    if isinstance(error, BackupGone) and subject.bucket not in ("", plan.storage.bucket):
        names = f"plan {plan.name} names bucket {plan.storage.bucket}"
        return f"It lies in bucket {subject.bucket}, and {names}: name its bucket in the plan."
    return "It was removed while it was being tried out." if removed_meanwhile(plan, subject) else ""


def removed_meanwhile(plan: Plan, subject: Subject, delays: Sequence[float] = _REMOVAL_DELAYS) -> bool:
    """Whether somebody removed the backup while it was tried out, which is no fault of its own."""
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
