"""The steps of a backup: open, dump beside upload, record, replicate; and the two guards around them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from prefect import task

from tasks.alarms.event_names import SOUND, SUSPICIOUS, data_name
from tasks.alarms.run_reports import report_event
from tasks.backup import dump as core
from tasks.backup import open_backup as opening
from tasks.backup import record_backup as recording
from tasks.backup.upload import Shipper
from tasks.catalogue.rows import Event
from tasks.errors import (
    AlreadyRunning,
    BackupSystemError,
    BackupUnderWay,
    ReplicationFailed,
    Transient,
)
from tasks.names import FULL
from tasks.plans.find_plan import plan_named
from tasks.plans.plan import pinned
from tasks.postgres.locks import exclusive
from tasks.runs.at_once import spool, together
from tasks.runs.audit import failure_recorded
from tasks.runs.markdown import cell, facts, human_bytes
from tasks.runs.reporting import created_by, current_run_id, now, progress, publish, run_started_at, say, warn
from tasks.runs.retries import RETRIED, patiently, reason_of
from tasks.storage.backup_stages import Backup, BackupRun, Dump, StoredObject
from tasks.storage.spool import Spool
from tasks.stored_backups import replicas as replication
from tasks.stored_backups.backup_files import remove_object


def make_backup(plan: str, requested_by: str, backup_type: str = FULL) -> Backup:
    """Makes a backup and returns it completed. After an error only a row `failed` is left of it.

    The caller holds the plan's lock.
    """
    run = open_backup(plan, requested_by, backup_type)
    with failed_unless_completed(run), spool(run) as parts:
        dumped, stored = together(parts, dump.submit(run, parts), upload.submit(run, parts))
        return record(run, dumped, stored)


@contextmanager
def sole_backup(plan: str) -> Iterator[None]:
    """Holds the plan's lock for the length of a `with` block. Raises BackupUnderWay while another run has it."""
    holder = f"run {current_run_id()}"
    with ExitStack() as held:
        try:
            patiently(lambda: held.enter_context(exclusive(plan_named(plan).catalogue.dsn, "backup", plan, holder)))
        except AlreadyRunning as refusal:
            raise BackupUnderWay(str(refusal)) from None
        yield


@contextmanager
def failed_unless_completed(run: BackupRun) -> Iterator[None]:
    """After an error in the `with` block, a cancellation too: removes what was stored and marks the row `failed`."""
    try:
        yield
    except BaseException as error:
        _give_up(run, error)
        raise


def _give_up(run: BackupRun, error: BaseException) -> None:
    reason = reason_of(error)
    event = Event(
        run.action,
        "failed",
        run.plan,
        run.created_by,
        run.run_id,
        run.backup_id,
        run.filename,
        duration_seconds=(now() - run.started_at).total_seconds(),
        error=reason,
    )
    try:
        plan = plan_named(run.plan)
        if not plan.catalogue.fence(run.backup_id, reason):  # the backup is completed, so nothing is removed
            return
        remove_object(plan.storage, run.key)
        plan.catalogue.fail(run.backup_id, reason, event)
        say(f"{run.filename}: everything that was stored of it has been removed.")
    except BackupSystemError as problem:
        warn(f"{run.filename}: its remains could not be cleared now; the next backup does that. {problem}")


@task(name="open", **RETRIED)
def open_backup(plan: str, requested_by: str, backup_type: str = FULL) -> BackupRun:
    """Checks everything that could stand in the way, clears what dead runs left, and writes the row `in_progress`."""
    source, actor = plan_named(plan), created_by(requested_by)
    with failure_recorded("backup", plan, requested_by, but_not=Transient):
        run = opening.open_backup(source, current_run_id(), actor, run_started_at(), warn, backup_type)
    database = pinned(source).database
    say(
        f"{run.filename}: backing up {database.place} as role {database.user} with pg_dump {run.pg_dump_version} "
        f"for {actor}, about {human_bytes(run.expected_size)}, in parts of {human_bytes(run.part_size)}."
    )
    return run


@task(name="dump", **RETRIED)
def dump(run: BackupRun, parts: Spool) -> Dump:
    """Runs pg_dump into the spool. A second try starts again from the beginning, and so does the upload."""
    with progress(f"Dumping {run.filename}", run.expected_size) as show:
        done = core.dump(run, parts, pinned(plan_named(run.plan)).database, now, show)
    seconds = (done.finished_at - done.started_at).total_seconds()
    say(
        f"Dumped {done.table_count:,} tables, {done.rows:,} rows, {human_bytes(done.plain_size)} of SQL "
        f"in {seconds:.1f} s ({done.plain_size / max(seconds, 0.001) / 1e6:.0f} MB/s)."
    )
    return done


@task(name="upload", **RETRIED)
def upload(run: BackupRun, parts: Spool) -> StoredObject:
    """Sends the parts while the dump still writes them. A second try sends only what the store has not acknowledged."""
    storage = plan_named(run.plan).storage
    with progress(f"Uploading {run.filename}", run.expected_size) as show:
        stored = Shipper(parts, storage, run.key).ship(now, show)
    say(
        f"Stored {human_bytes(stored.size)} in {len(stored.parts)} parts as s3://{storage.bucket}/{stored.key}, "
        "and confirmed it."
    )
    return stored


@task(name="record", **RETRIED)
def record(run: BackupRun, dumped: Dump, stored: StoredObject) -> Backup:
    """Writes the manifest, then the row `completed`; emits events and publishes the result."""
    backup = recording.record(plan_named(run.plan), run, dumped, stored, now())
    report_event("backup.completed", backup.plan, backup.plan, **_payload(backup))
    if backup.suspicious:
        warn(f"{backup.filename} is suspicious, and nothing will be removed: {backup.suspicious}")
    for sentence in backup.attention:
        warn(f"{backup.filename} will need attention when it is restored. {sentence}")
    for sentence in dumped.source.globals.missing if dumped.source.globals else ():
        warn(f"{backup.filename} does not hold all that belongs to the server. {sentence}")
    _emit_content(backup)
    publish(f"backup-{backup.plan}", f"Backup of plan {backup.plan}", summary(backup))
    say(f"{backup.filename} is completed.")
    return backup


def summary(backup: Backup) -> str:
    """A completed backup as a markdown table. Pure."""
    speed = backup.plain_size / max(backup.seconds, 0.001) / 1e6
    lines = {
        "File": f"`{backup.filename}`",
        "Where": f"`s3://{backup.bucket}/{backup.key}`",
        "Size": f"{human_bytes(backup.file_size)} ({backup.file_size:,} bytes)",
        "Plain SQL": human_bytes(backup.plain_size),
        "Tables": f"{backup.tables:,}",
        "Rows": f"{backup.rows:,}",
        "Duration": f"{backup.seconds:.1f} s ({speed:.0f} MB/s)",
        "Completed": f"{backup.completed_at:%Y-%m-%d %H:%M:%S} UTC",
    }
    if backup.left_out:
        lines["Left out"] = f"{cell(backup.left_out)}, as the plan says"
    if backup.suspicious:
        lines["Suspicious"] = f"{backup.suspicious} Nothing is removed until this is looked into."
    return f"# Backup completed\n\n{facts(lines)}"


def _emit_content(backup: Backup) -> None:
    """Emits whether the backup is suspicious: its alarm is sent once, until a backup is no longer suspicious."""
    if backup.suspicious:
        sentence = f"{backup.filename}: {backup.suspicious} Nothing is removed until this is looked into."
        report_event(SUSPICIOUS, data_name(backup.plan), backup.plan, sentence=sentence, **_payload(backup))
    else:
        report_event(SOUND, data_name(backup.plan), backup.plan, filename=backup.filename)


def _payload(backup: Backup) -> dict[str, Any]:
    return {
        "filename": backup.filename,
        "size": backup.file_size,
        "rows": backup.rows,
        "seconds": backup.seconds,
        "suspicious": backup.suspicious,
    }


@task(name="replicate", **RETRIED)
def replicate(backup: Backup) -> tuple[str, ...]:
    """Copies to the replicas what they lack. Raises ReplicationFailed; the backup itself stays completed."""
    plan = plan_named(backup.plan)
    if not plan.replicas:
        return ()
    began = now()
    copies = replication.replicate(plan, current_run_id())
    outcome, error = ("failed", " ".join(copies.problems)) if copies.problems else ("completed", None)
    seconds = (now() - began).total_seconds()
    plan.catalogue.note(
        Event(
            "replicate",
            outcome,
            plan.name,
            "system",
            current_run_id(),
            backup.backup_id,
            backup.filename,
            duration_seconds=seconds,
            bytes=copies.bytes,
            error=error,
        )
    )
    for line in copies.made:
        say(f"Copied {line}.")
    if copies.problems:
        raise ReplicationFailed(f"{backup.filename} is completed, its copies are not. {error}")
    say(f"All {len(plan.replicas)} replicas have every backup; {human_bytes(copies.bytes)} copied.")
    return copies.made
