"""The steps of a verify run, and what is recorded when it does not prove its backup."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from prefect import task

from tasks.alarms.run_reports import report_event
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
from tasks.restore.restore_report import count_table, notes
from tasks.restore.values import OWN_SERVER, Comparison, Loaded, Place, RestoreRun
from tasks.restore.where import at
from tasks.runs.audit import audit, error_recorded
from tasks.runs.markdown import cell, facts, human_bytes
from tasks.runs.reporting import created_by, current_run_id, now, publish, run_started_at, say, warn
from tasks.runs.retries import RETRIED, STEP, patiently
from tasks.verify import subject as subjects
from tasks.verify.checks import run_checks
from tasks.verify.place import drill_place
from tasks.verify.subject import Subject
from tasks.verify.verdict import (
    Fault,
    Verified,
    excuse,
    fault_of,
    not_verified,
    plain_words,
    record_unverifiable,
    record_verified,
    verified,
    where,
    without_surrogates,
)

#: What goes before the entries that PostgreSQL cannot restore.
BY_DESIGN = "its bytes are those that pg_dump wrote, but they do not make the same database again. "
_ADVICE: dict[Fault, str] = {
    "backup": "Do not rely on this backup: make a new one, and verify that.",
    "database": "Change these entries in the database, and make a new backup. Until then, restore with their names in "
    "`without`: all others come back.",
    "check": "See why in the database, and make a new backup when it is as it should be; or correct the check in the "
    "plan.",
    "environment": "Correct what is named above, then run verify-backup again.",
}
#: Errors that the audit records as a refusal: nothing was begun.
_REFUSALS = (AlreadyRunning, PreflightFailed, BackupNotFound)


@task(name="identify", **RETRIED)
def identify(plan: str, backup: str, requested_by: str, major: int = 0) -> Subject:
    """Which backup is meant: the same one until the end of the run. Raises BackupNotFound."""
    settings, actor, at = plan_named(plan), created_by(requested_by), run_started_at()
    try:
        return subjects.identify(settings, backup, current_run_id(), actor, at, major)
    except BackupNotFound as error:
        report_unproved(Subject(plan, backup, current_run_id(), actor, at), "environment", "refused", str(error))
        raise


@task(name="validate", **RETRIED)
def examine(subject: Subject, place: Place) -> RestoreRun:
    """Proves the manifest of the backup, and looks for everything that could stand in the way of restoring it."""
    run = subjects.examine(plan_named(subject.plan), subject, warn, place)
    for warning in run.warnings:
        warn(warning)
    backup = run.backup
    say(
        f"{backup.filename} of {backup.created_at:%Y-%m-%d %H:%M:%S} UTC ({human_bytes(backup.size)}, "
        f"{backup.rows:,} rows) will be restored into the scratch database {run.scratch} on {where(run)} ({place.why}) "
        f"with psql {run.psql_version}; the live database is not touched."
    )
    return run


@task(name="checks", **RETRIED)
def checks(run: RestoreRun) -> int:
    """Asks the checks of the plan in the scratch database. Raises CheckFailed; says how many were true."""
    passed = run_checks(at(plan_named(run.plan), run.place), run)
    if passed:
        say(f"Every check of the plan is true of the restored database: {passed}.")
    return passed


@task(name="record", **STEP)
def record_verification(
    subject: Subject, run: RestoreRun, loaded: Loaded, compared: Comparison, checked: int
) -> Verified:
    """Writes `verified_at` and the audit, emits the event, and publishes what was proved.

    A catalogue that does not know the backup, or does not answer, costs a warning: the backup has passed all the same.
    """
    done = verified(run, loaded, compared, checked, now())
    recorded = _record(subject, done)
    report_event("backup.verified", done.plan, done.plan, **done.payload(), recorded=recorded)
    publish(f"verification-{done.plan}", f"Verification of {done.filename}", verified_report(done, recorded))
    say(
        f"{done.filename} is verified: {done.rows:,} rows in {len(done.tables):,} tables are as backed up; psql "
        f"restored them in {done.restore_seconds:.1f} s."
    )
    return done


def _record(subject: Subject, done: Verified) -> bool:
    """Whether the catalogue now says that the backup is verified."""
    answers: list[bool] = []
    problem = "the catalogue has no completed row of it."
    try:
        patiently(lambda: answers.append(record_verified(plan_named(done.plan).catalogue, subject, done)))
    except BackupSystemError as error:
        problem = str(error)
    if answers != [True]:
        warn(f"{done.filename} is verified, but that could not be recorded: {problem}")
    return answers == [True]


@contextmanager
def no_scratch_left(run: RestoreRun) -> Iterator[None]:
    """However the `with` block ends, the scratch database is dropped; a server of the worker's own goes with it."""
    if run.place.kind == "worker":
        yield
        return
    with subjects.no_scratch_left(plan_named(run.plan), run, warn):
        yield


@contextmanager
def sole_verify(subject: Subject) -> Iterator[Place]:
    """The server to restore to, on which other verify runs of the plan's database are refused during the `with` block.

    Backups and restores go on. A server of the worker's own is gone afterwards.

    When the backup is not proved, its row, the audit, Prefect's events and the run's artifact say so. Raises
    BackupUnverifiable when the backup or the database's design is at fault, VerifyImpossible when anything else is,
    AlreadyRunning at once when another verify run is under way.
    """
    plan, places = plan_named(subject.plan), [OWN_SERVER]
    audit(plan.catalogue, not_verified(subject, "started"))
    unexplained = error_recorded(
        lambda: not_verified(subject, "failed", now()), AlreadyRunning, (BackupUnverifiable, VerifyImpossible)
    )
    with ExitStack() as held, unexplained:
        try:
            patiently(lambda: places.append(held.enter_context(drill_place(plan, subject))))
            yield places[-1]
        except AlreadyRunning:
            raise
        except BackupSystemError as error:
            raise _unproved(subject, error, places[-1]) from None


def _unproved(subject: Subject, error: BackupSystemError, place: Place) -> BackupSystemError:
    """The error that ends the run, after it has been recorded."""
    fault, reason = fault_of(error, place), without_surrogates(plain_words(error, subject.name))
    if place.is_other_version:
        reason = f"(restored on PostgreSQL {place.major}, made on {place.made_on}) {reason}"
    if fault == "backup" and (why_not := excuse(plan_named(subject.plan), subject, error)):
        fault, reason = "environment", why_not
    if fault != "environment":
        message = f"{subject.name} is not verified: {BY_DESIGN if fault == 'database' else ''}{reason}"
        report_unproved(subject, fault, "failed", message)
        return BackupUnverifiable(message)
    message = f"{subject.name} could not be verified, which says nothing about the backup: {reason}"
    refused = isinstance(error, _REFUSALS) and not isinstance(error, BackupGone)
    report_unproved(subject, fault, "refused" if refused else "failed", message)
    return VerifyImpossible(message)


def report_unproved(subject: Subject, fault: Fault, outcome: str, reason: str) -> None:
    """Writes row and audit, emits `backup.unverifiable`, and publishes the result."""
    catalogue, at = plan_named(subject.plan).catalogue, now()
    if fault == "environment":
        audit(catalogue, not_verified(subject, outcome, at, reason, fault=fault))
    else:
        try:
            patiently(lambda: record_unverifiable(catalogue, subject, fault, reason, at))
        except BackupSystemError as problem:
            warn(f"The catalogue could not record that {subject.name} is not verified: {problem}")
    report_event(
        "backup.unverifiable",
        subject.plan,
        subject.plan,
        filename=subject.filename,
        backup=subject.wanted[:200],
        fault=fault,
        reason=reason,
        seconds=(at - subject.started_at).total_seconds(),
    )
    publish(
        f"verification-{subject.plan}",
        f"Verification of {cell(subject.name)}",
        unverified_report(subject, fault, reason),
    )


# --- the result for people. Pure.


def verified_report(done: Verified, recorded: bool) -> str:
    """A backup that has passed: what was proved, and the rows of every table."""
    speed = done.plain_size / max(done.restore_seconds, 0.001) / 1e6
    values = {
        "Backup": f"`{done.filename}` of {done.created_at:%Y-%m-%d %H:%M:%S} UTC, {human_bytes(done.size)}",
        "Verified": f"{done.at:%Y-%m-%d %H:%M:%S} UTC" + ("" if recorded else ", which could not be recorded"),
        "Rows": f"{done.rows:,} in {len(done.tables):,} tables, all as backed up",
        "Large objects": f"{done.large_objects:,}, all as backed up",
        "Restored on": cell(f"{done.where}: {done.why}") if done.why else cell(done.where),
        "Restore": f"{done.restore_seconds:.1f} s for {human_bytes(done.plain_size)} of SQL ({speed:.0f} MB/s)",
        "Duration": f"{done.seconds:.1f} s",
    }
    proofs = "".join(f"- {proof}\n" for proof in proved(done))
    return (
        f"# Verified\n\n{facts(values)}{notes(done.warnings)}\nWhat was proved:\n\n{proofs}\n{count_table(done.tables)}"
    )


def proved(done: Verified) -> list[str]:
    """What is proved of a backup that has passed, one sentence each."""
    recorded = done.backup_id is not None
    major = done.server_version // 10_000
    rest = ", but for the entries that were left out" if done.left_out else ""
    rows_alone = done.rows_by_content and not done.by_content
    return [
        "The manifest is the one that the catalogue recorded."
        if recorded
        else "The manifest is whole; the catalogue could not say whether it is the recorded one.",
        f"Every part in bucket {cell(done.bucket)} has the SHA-256 of the manifest.",
        *([f"The file decodes ({done.decoded}) without an error."] if done.decoded else []),
        "The SQL has the size and the SHA-256 of what pg_dump wrote, to its last line.",
        f"psql {cell(done.psql_version)} ran all of it{rest} on PostgreSQL {major} without an error.",
        f"Every table has the rows that were backed up{rest}.",
        *([f"Dumped again, every definition and every row is what the backup holds{rest}."] if done.by_content else []),
        *([f"Dumped again, every row and every sequence is what the backup holds{rest}."] if rows_alone else []),
        *([f"Every check of the plan is true of it: {done.checks}."] if done.checks else []),
        f"It was restored into a scratch database of this run alone, on {cell(done.where)}; the live database was not "
        "touched.",
    ]


def unverified_report(subject: Subject, fault: Fault, reason: str) -> str:
    """A verify run that did not prove its backup."""
    earlier = f"{subject.verified_at:%Y-%m-%d %H:%M:%S} UTC" if subject.verified_at else ""
    title = "Could not be verified" if fault == "environment" else "Not verified"
    advice = _ADVICE[fault]
    if earlier:
        lost = f" That it was verified at {earlier} no longer holds."
        advice += f" It was last verified at {earlier}." if fault == "environment" else lost
    return f"# {title}: {cell(subject.name)}\n\n{cell(reason)}\n\n{advice}\n"
