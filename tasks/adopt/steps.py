"""The steps of an adoption: open, adopt beside upload, record."""

from __future__ import annotations

from dataclasses import dataclass, replace

from prefect import task

from tasks.adopt import adopt_file as core
from tasks.adopt.adopt_file import Adopted
from tasks.backup import record_backup as recording
from tasks.backup.steps import failed_unless_completed, upload
from tasks.names import ADOPTION
from tasks.plans.find_plan import plan_named
from tasks.runs.at_once import spool, together
from tasks.runs.audit import failure_recorded
from tasks.runs.markdown import cell, facts, human_bytes
from tasks.runs.reporting import created_by, current_run_id, now, progress, publish, run_started_at, say, warn
from tasks.runs.retries import RETRIED
from tasks.storage.backup_stages import Backup, BackupRun, StoredObject
from tasks.storage.spool import Spool


@dataclass(frozen=True)
class AdoptedBackup:
    """A dump that became a backup."""

    backup_id: int
    filename: str
    key: str
    """Of the object that was read, and stays as it is."""
    message: str
    """What was done, in sentences for a person."""


def make_adopted(key: str, plan: str, requested_by: str) -> AdoptedBackup:
    """Makes a backup of the object and returns it, unproved. After an error only a row `failed` is left of it.

    The caller holds the plan's lock.
    """
    with failure_recorded(ADOPTION, plan, requested_by, key=key):
        run = open_adoption(key, plan, requested_by)
    with failed_unless_completed(run), spool(run) as parts:
        adopted, stored = together(parts, adopt.submit(run, parts, key), upload.submit(run, parts))
        return record(run, adopted, stored)


@task(name="open", **RETRIED)
def open_adoption(key: str, plan: str, requested_by: str) -> BackupRun:
    """Checks what could stand in the way, and writes the row `in_progress`."""
    source, actor = plan_named(plan), created_by(requested_by)
    run = core.open_adoption(source, key, current_run_id(), actor, run_started_at(), warn)
    say(f"{run.filename}: adopting s3://{source.storage.bucket}/{key} ({human_bytes(run.expected_size)}) for {actor}.")
    return run


@task(name="adopt", **RETRIED)
def adopt(run: BackupRun, parts: Spool, key: str) -> Adopted:
    """Reads the object into the spool. A second try starts again from the beginning, and so does the upload."""
    with progress(f"Adopting {key}", run.expected_size) as show:
        adopted = core.adopt(plan_named(run.plan), run, parts, key, now, show)
    dump = adopted.dump
    say(
        f"Read {human_bytes(adopted.size)}: {dump.table_count:,} tables, {dump.rows:,} rows, "
        f"{human_bytes(dump.plain_size)} of SQL from PostgreSQL {dump.source.database.server_version}, whole."
    )
    for note in adopted.notes:
        warn(f"{key}: {note}")
    return adopted


@task(name="record", **RETRIED)
def record(run: BackupRun, adopted: Adopted, stored: StoredObject) -> AdoptedBackup:
    """Writes the manifest, then the row `unproved`, and publishes the result."""
    run = replace(run, pg_dump_version=adopted.pg_dump_version)
    backup = recording.record(plan_named(run.plan), run, adopted.dump, stored, now(), adopted.origin)
    message = (
        f"{adopted.key} was adopted as {backup.filename}, and stays as it is. It is unproved: verify-backup "
        f"with backup={backup.filename} proves that it can be; until then no restore takes it."
    )
    publish(f"adopted-{run.plan}", f"Adoption of {adopted.key}", summary(adopted, backup, message))
    say(message)
    return AdoptedBackup(backup.backup_id, backup.filename, adopted.key, message)


def summary(adopted: Adopted, backup: Backup, message: str) -> str:
    """The adopted dump as a markdown page. Pure."""
    dump = adopted.dump
    lines = {
        "Object": f"`{cell(adopted.key)}`, {human_bytes(adopted.size)}, SHA-256 `{adopted.sha256}`",
        "Backup": f"`{backup.filename}`, {human_bytes(backup.file_size)}",
        "Made by": f"pg_dump {cell(adopted.pg_dump_version)}, from PostgreSQL "
        f"{cell(dump.source.database.server_version)}, with encoding {dump.source.database.encoding}",
        "Tables with rows": f"{backup.tables:,}",
        "Rows": f"{backup.rows:,}",
        "Unknown": "name, owner, locale, tablespace and settings of its database, versions of its extensions",
    }
    notes = "".join(f"- {note}\n" for note in adopted.notes)
    return f"# Adopted\n\n{cell(message)}\n\n{facts(lines)}\n{notes}"
