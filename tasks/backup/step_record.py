"""The step that records."""

from __future__ import annotations

from typing import Any

from prefect import task
from prefect.events import emit_event

from tasks.alarms import event_names as alarms
from tasks.alarms.tell import tell
from tasks.backup import record as recording
from tasks.plans.find_plan import plan_named
from tasks.runs.reporting import human_bytes, now, publish, say, warn
from tasks.runs.retries import RETRIED
from tasks.storage.backup_stages import Backup, BackupRun, Dump, StoredObject


@task(name="record", **RETRIED)
def record(run: BackupRun, dumped: Dump, stored: StoredObject) -> Backup:
    """Writes the manifest, then the row `completed`; tells Prefect's events and the run's artifacts."""
    backup = recording.record(plan_named(run.plan), run, dumped, stored, now())
    _emit_completed(backup)
    if backup.suspicious:
        warn(f"{backup.filename} is suspicious, and nothing will be removed: {backup.suspicious}")
    _tell_content(backup)
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
    if backup.suspicious:
        lines["Suspicious"] = f"{backup.suspicious} Nothing is removed until this is looked into."
    rows = "\n".join(f"| {name} | {value} |" for name, value in lines.items())
    return f"# Backup completed\n\n| | |\n|---|---|\n{rows}\n"


def _tell_content(backup: Backup) -> None:
    """Whether the backup's content is sound: its alarm is raised once, until a backup is no longer suspicious."""
    if backup.suspicious:
        said = f"{backup.filename}: {backup.suspicious} Nothing is removed until this is looked into."
        tell(alarms.SUSPICIOUS, alarms.data_name(backup.plan), backup.plan, sentence=said, **_payload(backup))
    else:
        tell(alarms.SOUND, alarms.data_name(backup.plan), backup.plan, filename=backup.filename)


def _emit_completed(backup: Backup) -> None:
    emit_event(
        event="backup.completed",
        resource={"prefect.resource.id": f"backup-plan.{backup.plan}", "prefect.resource.name": backup.plan},
        payload=_payload(backup),
    )


def _payload(backup: Backup) -> dict[str, Any]:
    return {
        "filename": backup.filename,
        "size": backup.file_size,
        "rows": backup.rows,
        "seconds": backup.seconds,
        "suspicious": backup.suspicious,
    }
