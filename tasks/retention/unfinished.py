"""Ends what a deletion or a retention that was killed between object and row has left: the row says what it is now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from tasks.catalogue.events import Event
from tasks.catalogue.record import Record
from tasks.errors import BackupSystemError
from tasks.names import object_key
from tasks.plans.plan import Plan
from tasks.stored_backups.remove import remove_object

ACTIONS = {"deleted": "delete-backup", "expired": "retention"}


@dataclass(frozen=True)
class Finished:
    """Removals that were begun and not ended: of which backups, and a sentence for each that cannot be ended now."""

    why: Mapping[str, str]
    """By file name: what had been begun."""
    problems: tuple[str, ...] = ()


def finish_removals(plan: Plan, rows: Iterable[Record], run_id: str, actor: str, dry_run: bool) -> Finished:
    """Every row whose object is gone because somebody was removing it is `deleted` or `expired`, its copies are gone.

    The caller sees to it that nobody else removes backups of the plan meanwhile. A removal that died before the object
    went is none any more: whoever wants it asks again. With `dry_run` nothing is changed.
    """
    why, problems = {}, []
    for row in rows:
        if not row.removal or not row.lies_in(plan.storage.bucket):
            continue
        try:
            if _is_ended(plan, row, run_id, actor, dry_run):
                why[row.filename] = f"its removal was begun by a run that died; it is {row.removal}"
        except BackupSystemError as error:
            problems.append(f"{row.filename} is half removed, which could not be ended: {error}")
    return Finished(why, tuple(problems))


def _is_ended(plan: Plan, row: Record, run_id: str, actor: str, dry_run: bool) -> bool:
    """Whether the object is gone; then all the rest is gone as well, and the row says so."""
    filename, status = row.filename, row.removal
    assert status is not None
    if plan.storage.size(row.s3_key) is not None:
        if not dry_run:
            plan.catalogue.cancel_removal(filename)
        return False
    if not dry_run:
        remove_object(plan.storage, row.s3_key)
        for replica in plan.replicas:
            remove_object(replica.storage, object_key(replica.folder, plan.name, filename))
        details = {"why": "The run that removed it had died before it could say so.", "asked_by": row.removal_by}
        event = Event(ACTIONS[status], _outcome(status), plan.name, actor, run_id, row.id, filename, details=details)
        plan.catalogue.remove(filename, status, event)
    return True


def _outcome(status: str) -> str:
    """As the lines of the audit say it that a removal writes which was not killed."""
    return "completed" if status == "deleted" else status
