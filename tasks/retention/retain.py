"""Carries out what the policy decides, for all backups of one plan."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from tasks.catalogue.rows import Record
from tasks.errors import BackupSystemError, DeletionRefused
from tasks.names import FULL
from tasks.plans.plan import Plan
from tasks.postgres.locks import removal_lock
from tasks.retention.policy import Decision, decide
from tasks.retention.removal import end_interrupted, mark_missing, reader, remove_backup


@dataclass(frozen=True)
class Retained:
    """What was decided for each backup, and what became of that."""

    decisions: tuple[Decision, ...]
    removed: tuple[str, ...]
    """File names of what was removed, or would be in a dry run."""
    problems: tuple[str, ...]
    """What went wrong: one sentence each."""


def retain(plan: Plan, run_id: str, actor: str, now: datetime, dry_run: bool = False) -> Retained:
    """Removes the backups of `plan` that are due; with `dry_run`, only says which.

    Before anything goes, the newest backup that stays is looked for in the bucket: when its object is gone, it is
    marked `missing` and no longer counts. A backup that cannot be removed does not keep others from being removed,
    and a backup that a restore or a verification reads stays for now. Removals that were killed half-way are ended
    first. Nobody else removes backups of the plan between decision and removal; raises AlreadyRunning when somebody
    does so for long.
    """
    if dry_run:
        return _retain(plan, run_id, actor, now, dry_run)
    with removal_lock(plan.catalogue.dsn, plan.name, f"run {run_id}"):
        return _retain(plan, run_id, actor, now, dry_run)


def _retain(plan: Plan, run_id: str, actor: str, now: datetime, dry_run: bool) -> Retained:
    backups = plan.catalogue.completed(plan.name, plan.storage.bucket)
    begun = end_interrupted(plan, backups, run_id, actor, dry_run)
    ended = [
        Decision(backup, False, (begun.ended[backup.filename],)) for backup in backups if backup.filename in begun.ended
    ]
    decisions, lost = _sound_decisions(
        plan, [backup for backup in backups if backup.filename not in begun.ended], run_id, actor, now, dry_run
    )
    decisions = tuple(_unless_in_use(plan, decision, run_id) for decision in decisions)
    removed, problems = [decision.backup.filename for decision in ended], [*begun.problems, *lost]
    for backup in (decision.backup for decision in decisions if not decision.keep):
        try:
            if not dry_run:
                remove_backup(plan, backup, "expired", run_id, actor)
            removed.append(backup.filename)
        except DeletionRefused as error:
            problems.append(str(error))
        except BackupSystemError as error:
            problems.append(f"{backup.filename} could not be removed: {error}")
    return Retained((*decisions, *ended), tuple(removed), tuple(problems))


def _sound_decisions(
    plan: Plan, backups: list[Record], run_id: str, actor: str, now: datetime, dry_run: bool
) -> tuple[tuple[Decision, ...], list[str]]:
    """Decisions that rest on a newest backup which is in the bucket, and a sentence for each that is not."""
    problems = []
    while decisions := decide(backups, plan.policy, now):
        newest = next((decision.backup for decision in decisions if decision.backup.backup_type == FULL), None)
        if newest is None or all(decision.keep for decision in decisions):
            break
        stored = plan.storage.size(newest.s3_key)
        if stored == newest.file_size:
            break
        problems.append(_unsound(newest, stored))
        if stored is None and not dry_run:
            mark_missing(plan, newest, run_id, actor, problems[-1])
        backups = [backup for backup in backups if backup != newest]
    return decisions, problems


def _unsound(backup: Record, stored: int | None) -> str:
    if stored is None:
        return f"{backup.filename} is missing from the bucket: it does not count any more."
    return (
        f"{backup.filename} has {stored} bytes in the bucket, not {backup.file_size}: it is damaged and does not count."
    )


def _unless_in_use(plan: Plan, decision: Decision, run_id: str) -> Decision:
    """The same decision, or that the backup stays for now since somebody reads it."""
    used_by = "" if decision.keep else reader(plan, decision.backup.filename, run_id)
    return replace(decision, keep=True, reasons=(f"due, and still being read by {used_by}",)) if used_by else decision
