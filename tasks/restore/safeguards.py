"""What surrounds the steps of a restore: the lock, the spool, the safety backup, and what is done about a failure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from threading import Event as Flag
from typing import Any

from tasks.backup.steps import make_backup, sole_backup
from tasks.catalogue.rows import Event
from tasks.errors import BackupSystemError, PreflightFailed
from tasks.plans.find_plan import plan_named
from tasks.plans.plan import pinned
from tasks.postgres.locks import alive, restore_lock
from tasks.restore.into import plan_of, receiver_of, restoring
from tasks.restore.load import nothing_left
from tasks.restore.put_into_place import has_taken_its_place
from tasks.restore.values import Restored, RestoreRun
from tasks.runs.audit import audit, failure_recorded
from tasks.runs.reporting import current_run_id, now, say, warn
from tasks.runs.retries import patiently, reason_of
from tasks.storage.spool import Spool, open_spool

#: The type of the backup that is made of a database before it is restored in place.
PRE_RESTORE = "pre_restore"


class Milestones:
    """How far a restore has come. Its steps set them; what is recorded of an interrupted restore depends on them."""

    def __init__(self) -> None:
        self.committed = Flag()  # psql has committed; in place, the live database is the restored one from then on
        self.recorded = Flag()  # the audit has the outcome


@contextmanager
def sole_restore(plan: str, target: str, requested_by: str, action: str = "restore", into: str = "") -> Iterator[None]:
    """Other restores and backups of the target are refused during the `with` block.

    Nothing removes the backups of `plan` that a restore `into` another server reads.
    Raises AlreadyRunning when one of them is under way.
    """
    asked: dict[str, Any] = {"target": target or plan_named(plan).database.dbname}
    if into:
        asked = {"target": target, "into": into}
    with ExitStack() as held:
        with failure_recorded(action, receiver_of(into) or plan, requested_by, **asked):
            patiently(lambda: held.enter_context(_lock(plan, target, into)))
            if into:
                held.enter_context(alive(plan_named(plan).catalogue.dsn, f"run {current_run_id()}"))
        yield


def _lock(plan: str, target: str, into: str) -> AbstractContextManager[None]:
    own = pinned(restoring(plan, into)).database
    return restore_lock(own.with_dbname(target or own.dbname), f"run {current_run_id()}")


@contextmanager
def all_or_nothing(run: RestoreRun) -> Iterator[Milestones]:
    """An error in the `with` block, a cancellation too, takes away what was begun, and is written to the audit.

    So is the beginning: it is all that stays of a run that is killed. A run that is interrupted after the restored
    data went live is recorded as completed, with the reason of the interruption.
    """
    plan, milestones = pinned(plan_of(run)), Milestones()
    note_outcome(run, "started")
    try:
        with nothing_left(plan, run, warn):
            yield milestones
    except BaseException as error:
        if not milestones.recorded.is_set():
            _record_failure(run, milestones, reason_of(error))
        raise


def _record_failure(run: RestoreRun, milestones: Milestones, reason: str) -> None:
    outcome = "failed"
    if _is_live(run, milestones):
        outcome, reason = "completed", f"Interrupted after the restored data had gone live: {reason}"
        warn(f"{run.database} is the restored database; only what follows the restore was interrupted.")
    seconds = (now() - run.started_at).total_seconds()
    note_outcome(run, outcome, seconds, reason)


def _is_live(run: RestoreRun, milestones: Milestones) -> bool:
    if run.mode == "in_place":
        return milestones.committed.is_set()
    try:
        return has_taken_its_place(pinned(plan_of(run)), run)
    except BackupSystemError:
        return False


def outcome_event(
    run: RestoreRun,
    outcome: str,
    seconds: float | None = None,
    error: str | None = None,
    done: Restored | None = None,
) -> Event:
    """The line of the audit for a restore, with the result where it is done. Pure."""
    return Event(
        "restore",
        outcome,
        run.plan,
        run.actor,
        run.run_id,
        run.backup.backup_id,
        run.backup.filename,
        seconds,
        run.backup.size if done else None,
        error=error,
        details={**run.details(), **(done.details() if done else {})},
    )


def note_outcome(
    run: RestoreRun,
    outcome: str,
    seconds: float | None = None,
    error: str | None = None,
    done: Restored | None = None,
) -> None:
    """Writes the line to the audit; of a restore into another server, that of the backup's plan and that of `into`."""
    event, own = outcome_event(run, outcome, seconds, error, done), plan_named(run.plan).catalogue
    audit(own, event)
    if run.into_plan:
        other = plan_named(run.into_plan).catalogue
        knows = event.backup_id if other.dsn == own.dsn else None  # ids are those of one catalogue
        audit(other, replace(event, plan=run.into_plan, backup_id=knows))


@contextmanager
def restore_spool(run: RestoreRun) -> Iterator[Spool]:
    """The restore's spool for the length of a `with` block; leaving the block stops the steps that still use it."""
    plan, largest = plan_of(run), max(part.size for part in run.backup.parts)
    with open_spool(plan.spool_directory, run.run_id, largest, plan.spool_limit) as parts:
        yield parts


def secure(run: RestoreRun) -> None:
    """Before a restore in place: a backup of what the database holds now, kept as long as replaced databases are.

    Raises PreflightFailed when it cannot be made, such as without a catalogue; nothing was changed then.
    """
    if run.mode != "in_place":
        return
    try:
        with sole_backup(run.receiver):
            safety = make_backup(run.receiver, run.actor, PRE_RESTORE)
    except BackupSystemError as error:
        subject = f"Nothing is restored in place, since no safety backup of {run.database} could be made first"
        raise PreflightFailed(subject, [str(error)]) from None
    say(f"{safety.filename} holds {run.database} as it is now: restore it to take this restore back.")
