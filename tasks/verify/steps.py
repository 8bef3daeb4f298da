"""The steps of a drill, and what is told of one that proved nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from prefect import task
from prefect.events import emit_event

from tasks.catalogue.events import Event
from tasks.errors import (
    AlreadyRunning,
    BackupGone,
    BackupNotFound,
    BackupSystemError,
    BackupUnverifiable,
    PreflightFailed,
    VerifyImpossible,
)
from tasks.plans.find_plan import plan_named
from tasks.postgres.locks import verify_lock
from tasks.restore.values import RestoreRun
from tasks.runs.audit import audit, error_recorded
from tasks.runs.markdown import cell, human_bytes
from tasks.runs.reporting import created_by, current_run_id, now, publish, run_started_at, say, warn
from tasks.runs.retries import RETRIED, patiently
from tasks.verify import drill
from tasks.verify.drill import Fault, Subject
from tasks.verify.verdict import ACTION, not_verified, record_unverifiable, writable

#: What stands for a refusal in the audit: nothing was begun.
_REFUSALS = (AlreadyRunning, PreflightFailed, BackupNotFound)


@task(name="identify", **RETRIED)
def identify(plan: str, backup: str, requested_by: str) -> Subject:
    """Which backup is meant: the same one until the end of the drill. Raises BackupNotFound."""
    found, actor, at = plan_named(plan), created_by(requested_by), run_started_at()
    try:
        return drill.identify(found, backup, current_run_id(), actor, at)
    except BackupNotFound as error:
        tell_unproved(Subject(plan, backup, current_run_id(), actor, at), "environment", "refused", str(error))
        raise


@task(name="validate", **RETRIED)
def examine(subject: Subject) -> RestoreRun:
    """Proves the manifest of the backup, and looks for everything that could stand in the way of restoring it."""
    run = drill.examine(plan_named(subject.plan), subject, warn)
    for warning in run.warnings:
        warn(warning)
    backup = run.backup
    say(
        f"{backup.filename} of {backup.created_at:%Y-%m-%d %H:%M:%S} UTC ({human_bytes(backup.size)}, "
        f"{backup.rows:,} rows) will be restored into the scratch database {run.scratch} with psql "
        f"{run.psql_version}; the live database is not touched."
    )
    return run


@contextmanager
def no_scratch_left(run: RestoreRun) -> Iterator[None]:
    """However the `with` block ends, the scratch database goes."""
    with drill.no_scratch_left(plan_named(run.plan), run, warn):
        yield


@contextmanager
def sole_drill(subject: Subject) -> Iterator[None]:
    """Nobody else tries a backup of the plan's database out during the `with` block, and all can see that this is done.

    Backups, restores and clean-ups go on meanwhile. A drill that proves nothing is told to the row, the audit,
    Prefect's events and the run's artifacts. Raises BackupUnverifiable when the backup is at fault, VerifyImpossible
    when anything else is, AlreadyRunning at once when another drill is under way.
    """
    plan = plan_named(subject.plan)
    audit(
        plan.catalogue,
        Event(
            ACTION,
            "started",
            subject.plan,
            subject.actor,
            subject.run_id,
            subject.backup_id,
            subject.filename or None,
            details={"backup": subject.wanted[:200]},
        ),
    )
    nothing_proved = error_recorded(
        lambda: not_verified(subject, "failed", "", now(), {}), AlreadyRunning, (BackupUnverifiable, VerifyImpossible)
    )
    with ExitStack() as held, nothing_proved:
        try:
            patiently(lambda: held.enter_context(verify_lock(plan.database, f"run {subject.run_id}")))
            yield
        except AlreadyRunning:
            raise
        except BackupSystemError as error:
            raise _unproved(subject, error) from None


def _unproved(subject: Subject, error: BackupSystemError) -> BackupSystemError:
    """The error that ends the run, once it is told."""
    fault, reason = drill.fault_of(error), writable(drill.plain_words(error, subject.name))
    if fault == "backup" and (excuse := drill.excuse(plan_named(subject.plan), subject, error)):
        fault, reason = "environment", excuse
    if fault == "backup":
        said = f"{subject.name} did not pass the drill: {reason}"
        tell_unproved(subject, fault, "failed", said)
        return BackupUnverifiable(said)
    said = f"{subject.name} could not be tried out, which says nothing about the backup: {reason}"
    refused = isinstance(error, _REFUSALS) and not isinstance(error, BackupGone)
    tell_unproved(subject, fault, "refused" if refused else "failed", said)
    return VerifyImpossible(said)


def tell_unproved(subject: Subject, fault: Fault, outcome: str, reason: str) -> None:
    """Writes row and audit, emits `backup.unverifiable`, and publishes the result."""
    catalogue, at = plan_named(subject.plan).catalogue, now()
    if fault == "environment":
        audit(catalogue, not_verified(subject, outcome, reason, at, {"fault": fault}))
    else:
        try:
            patiently(lambda: record_unverifiable(catalogue, subject, reason, at))
        except BackupSystemError as problem:
            warn(f"The catalogue could not be told that {subject.name} is not verified: {problem}")
    emit_event(
        event="backup.unverifiable",
        resource={"prefect.resource.id": f"backup-plan.{subject.plan}", "prefect.resource.name": subject.plan},
        payload={
            "filename": subject.filename,
            "backup": subject.wanted[:200],
            "fault": fault,
            "reason": reason,
            "seconds": (at - subject.started_at).total_seconds(),
        },
    )
    publish(f"verification-{subject.plan}", f"Drill of {cell(subject.name)}", unproved(subject, fault, reason))


def unproved(subject: Subject, fault: Fault, reason: str) -> str:
    """A drill that proved nothing, as markdown. Pure."""
    earlier = f"{subject.verified_at:%Y-%m-%d %H:%M:%S} UTC" if subject.verified_at else ""
    if fault == "backup":
        title, advice = "Not verified", "Do not rely on this backup: make a new one, and verify that."
        advice += f" That it was verified at {earlier} no longer holds." if earlier else ""
    else:
        title, advice = "Could not be tried out", "Put right what is named above, then run the drill again."
        advice += f" It was last verified at {earlier}." if earlier else ""
    return f"# {title}: {cell(subject.name)}\n\n{cell(reason)}\n\n{advice}\n"
