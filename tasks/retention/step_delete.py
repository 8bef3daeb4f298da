"""The step that deletes one backup because a person asked for it."""

from __future__ import annotations

from prefect import task

from tasks.catalogue.events import Event
from tasks.errors import Transient
from tasks.plans.find_plan import plan_named
from tasks.retention.delete import ACTION, Deleted, delete_backup
from tasks.runs.audit import audit
from tasks.runs.markdown import cell, human_bytes
from tasks.runs.reporting import created_by, current_run_id, publish, say
from tasks.runs.retries import RETRIED
from tasks.runs.run_locks import no_restore


@task(name="delete", **RETRIED)
def delete(backup: str, plan: str, confirm: str, requested_by: str) -> Deleted:
    """Deletes a backup from bucket and replicas, and says what became of it."""
    found, actor, run_id = plan_named(plan), created_by(requested_by), current_run_id()
    refusal = (
        f"No backup of plan {plan} can be deleted now, since its database {found.database.dbname} is being restored"
    )
    try:
        with no_restore(plan, refusal):
            done = delete_backup(found, backup, confirm, run_id, actor)
    except Transient as error:
        kind = type(error)
        raise kind(f"{backup[:200]} may not be deleted as a whole: run this again. {error}") from None
    if done.was != "completed":
        audit(
            found.catalogue,
            Event(ACTION, "completed", plan, actor, run_id, done.backup_id, done.filename, details={"was": done.was}),
        )
    publish(f"deleted-{plan}", f"Deletion of {done.filename}", summary(done, actor))
    say(done.said)
    return done


def summary(done: Deleted, actor: str) -> str:
    """What became of a backup that somebody wanted deleted, as markdown. Pure."""
    facts = {
        "File": f"`{done.filename}`",
        "Id": str(done.backup_id),
        "Was": done.was,
        "Is": "deleted" if done.was == "completed" else done.was,
        "Removed": human_bytes(done.bytes),
        "Asked by": cell(actor),
    }
    rows = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    return f"# Deletion\n\n{cell(done.said)}\n\n| | |\n|---|---|\n{rows}\n\nThe row stays in the catalogue.\n"
