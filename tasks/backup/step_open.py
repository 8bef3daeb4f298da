"""The step that opens a backup."""

from __future__ import annotations

from prefect import task

from tasks.backup import open_backup as opening
from tasks.catalogue.catalogue import Event
from tasks.errors import PreflightFailed
from tasks.names import FULL
from tasks.plans.find_plan import plan_named
from tasks.runs.reporting import audit, created_by, current_run_id, human_bytes, run_started_at, say, warn
from tasks.runs.retries import RETRIED
from tasks.storage.backup_stages import BackupRun


@task(name="open", **RETRIED)
def open_backup(plan: str, requested_by: str, backup_type: str = FULL) -> BackupRun:
    """Looks for everything that could stand in the way, clears the remains of dead runs, and opens the row."""
    found, actor, run_id = plan_named(plan), created_by(requested_by), current_run_id()
    try:
        run = opening.open_backup(found, run_id, actor, run_started_at(), warn, backup_type)
    except PreflightFailed as refusal:
        audit(found.catalogue, Event("backup", "refused", plan, actor, run_id, error=str(refusal)))
        raise
    say(
        f"{run.filename}: backing up {found.database.place} with pg_dump {run.pg_dump_version} for {actor}, "
        f"about {human_bytes(run.expected_size)}, in parts of {human_bytes(run.part_size)}."
    )
    return run
