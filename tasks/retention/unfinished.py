"""Ends what a deletion or a retention that was killed between object and row has left: the row says what it is now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tasks.catalogue.catalogue import Event
from tasks.catalogue.removal_intent import asked_by, intended
from tasks.errors import BackupSystemError
from tasks.names import object_key
from tasks.plans.plan import Plan
from tasks.retention.orphans import bucket_of
from tasks.stored_backups.remove import remove_object

ACTIONS = {"deleted": "delete-backup", "expired": "retention"}


@dataclass(frozen=True)
class Finished:
    """Removals that were begun and not ended: of which backups, and a sentence for each that cannot be ended now."""

    why: Mapping[str, str]
    """By file name: what had been begun."""
    problems: tuple[str, ...] = ()


def finish_removals(plan: Plan, rows: Iterable[Mapping[str, Any]], run_id: str, actor: str, dry_run: bool) -> Finished:
    """Every row whose object is gone because somebody was removing it is `deleted` or `expired`, its copies are gone.

    The caller sees to it that nobody else removes backups of the plan meanwhile. A removal that died before the object
    went is none any more: whoever wants it asks again. With `dry_run` nothing is changed.
    """
    why, problems = {}, []
    for row in rows:
        if not intended(row) or bucket_of(plan, row) != plan.storage.bucket:
            continue
        try:
            if _is_ended(plan, row, run_id, actor, dry_run):
                why[row["filename"]] = f"its removal was begun by a run that died; it is {intended(row)}"
        except BackupSystemError as error:
            problems.append(f"{row['filename']} is half removed, which could not be ended: {error}")
    return Finished(why, tuple(problems))


def _is_ended(plan: Plan, row: Mapping[str, Any], run_id: str, actor: str, dry_run: bool) -> bool:
    """Whether the object is gone; then all the rest is gone as well, and the row says so."""
    filename, status = row["filename"], intended(row)
    assert status is not None
    if plan.storage.size(row["s3_key"]) is not None:
        if not dry_run:
            plan.catalogue.forgo(filename)
        return False
    if not dry_run:
        remove_object(plan.storage, row["s3_key"])
        for replica in plan.replicas:
            remove_object(replica.storage, object_key(replica.folder, plan.name, filename))
        details = {"why": "The run that removed it had died before it could say so.", "asked_by": asked_by(row)}
        event = Event(ACTIONS[status], _outcome(status), plan.name, actor, run_id, row["id"], filename, details=details)
        plan.catalogue.remove(filename, status, event)
    return True


def _outcome(status: str) -> str:
    """As the lines of the audit say it that a removal writes which was not killed."""
    return "completed" if status == "deleted" else status
