"""What surrounds the steps of a restore: the lock, the safety backup, the spool, and what is done about a failure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tasks.backup.steps import make_backup, sole_backup
from tasks.catalogue.events import Event
from tasks.errors import BackupSystemError, PreflightFailed
from tasks.plans.find_plan import plan_named
from tasks.postgres.locks import restore_lock
from tasks.restore.load import nothing_left
from tasks.restore.put_into_place import has_taken_its_place
from tasks.restore.values import RestoreRun
from tasks.runs.audit import audit, failure_recorded
from tasks.runs.reporting import current_run_id, now, say, warn
from tasks.runs.retries import patiently, reason_of
from tasks.storage.spool import Spool, open_spool

#: The type of the backup that is made of a database before it is restored in place.
PRE_RESTORE = "pre_restore"


@contextmanager
def sole_restore(plan: str, target: str, requested_by: str, action: str = "restore") -> Iterator[None]:
    """Nobody else restores or backs up the target during the `with` block. Raises AlreadyRunning when somebody does."""
    found = plan_named(plan)
    database = found.database.with_dbname(target or found.database.dbname)
    with ExitStack() as held:
        with failure_recorded(action, plan, requested_by, target=database.dbname):
            patiently(lambda: held.enter_context(restore_lock(database, f"run {current_run_id()}")))
        yield


@contextmanager
def all_or_nothing(run: RestoreRun) -> Iterator[None]:
    """An error in the `with` block, a cancellation too, takes away what was begun, and is told to the audit.

    So is the beginning: of a run that is killed, that line is what stays. A run that is interrupted after the restored
    data went live is told as completed, and says so.
    """
    plan = plan_named(run.plan)
    _tell(run, "started")
    try:
        with nothing_left(plan, run, warn):
            yield
    except BaseException as error:
        if run.run_id in _recorded:
            raise
        if not _is_live(run):
            _tell(run, "failed", reason_of(error))
            raise
        _tell(run, "completed", f"Interrupted after the restored data had gone live: {reason_of(error)}")
        warn(f"{run.database} is the restored database all the same: what was interrupted is what comes after.")
        raise
    finally:
        _live.discard(run.run_id)
        _recorded.discard(run.run_id)


#: Runs in place that have committed, and runs whose outcome is in the audit; of this process, while they last.
_live: set[str] = set()
_recorded: set[str] = set()


def went_live(run: RestoreRun) -> None:
    """The restored data is committed to the live database."""
    _live.add(run.run_id)


def recorded(run: RestoreRun) -> None:
    """The audit has this run's outcome."""
    _recorded.add(run.run_id)


def _is_live(run: RestoreRun) -> bool:
    if run.mode == "in_place":
        return run.run_id in _live
    try:
        return has_taken_its_place(plan_named(run.plan), run)
    except BackupSystemError:
        return False


def _tell(run: RestoreRun, outcome: str, error: str | None = None) -> None:
    seconds = None if outcome == "started" else (now() - run.started_at).total_seconds()
    audit(
        plan_named(run.plan).catalogue,
        Event(
            "restore",
            outcome,
            run.plan,
            run.actor,
            run.run_id,
            run.backup.backup_id,
            run.backup.filename,
            seconds,
            error=error,
            details=run.details(),
        ),
    )


@contextmanager
def restore_spool(run: RestoreRun) -> Iterator[Spool]:
    """The restore's spool for the length of a `with` block; leaving the block stops the steps that still use it."""
    largest = max(part.size for part in run.backup.parts)
    with open_spool(Path(run.spool_directory), run.run_id, largest, run.spool_limit) as parts:
        yield parts


def secure(run: RestoreRun) -> None:
    """Before a restore in place: a backup of what the database holds now, kept as long as replaced databases are.

    Raises PreflightFailed when it cannot be made, such as without a catalogue; nothing was changed then.
    """
    if run.mode != "in_place":
        return
    try:
        with sole_backup(run.plan):
            safety = make_backup(run.plan, run.actor, PRE_RESTORE)
    except BackupSystemError as error:
        subject = f"Nothing is restored in place, since no safety backup of {run.database} could be made first"
        raise PreflightFailed(subject, [str(error)]) from None
    say(f"{safety.filename} holds {run.database} as it is now: restore it to take this restore back.")
