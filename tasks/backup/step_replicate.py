"""The step that copies backups to the plan's replicas."""

from __future__ import annotations

from prefect import task

from tasks.catalogue.catalogue import Event
from tasks.errors import ReplicationFailed
from tasks.plans.find_plan import plan_named
from tasks.runs.reporting import current_run_id, human_bytes, now, say
from tasks.runs.retries import RETRIED
from tasks.storage.backup_stages import Backup
from tasks.stored_backups import replicas as replication


@task(name="replicate", **RETRIED)
def replicate(backup: Backup) -> tuple[str, ...]:
    """Copies what the replicas lack. Raises ReplicationFailed; the backup itself is completed whatever happens here."""
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
