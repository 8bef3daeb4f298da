"""Carries out what retention decides: object first, manifest next, row last, so that it may be repeated."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from tasks.catalogue.events import Event
from tasks.catalogue.record import Record
from tasks.errors import BackupSystemError
from tasks.names import FULL, object_key
from tasks.plans.plan import Plan
from tasks.postgres.locks import backup_lock, removal_lock
from tasks.postgres.server import maintenance
from tasks.restore.databases import drop_dead_scratches, drop_scratches, scratches_left
from tasks.restore.kept import Kept, drop_due, due, of_plan
from tasks.retention.delete import reader
from tasks.retention.policy import Decision, decide
from tasks.retention.unfinished import finish_removals
from tasks.stored_backups.remove import remove_object

NAME = "backup clean-up"


@dataclass(frozen=True)
class DatabaseCleanUp:
    """The databases that restores had replaced, and which of them were dropped (or would be, in a dry run)."""

    kept: tuple[Kept, ...]
    dropped: tuple[str, ...]
    problems: tuple[str, ...]
    """What went wrong: a sentence each."""
    found: tuple[str, ...] = ()
    """What dead restores had left, and what became of it (or would): a sentence each."""


@dataclass(frozen=True)
class CleanUp:
    """What a clean-up decided, and what went wrong while it was carried out: one sentence each."""

    decisions: tuple[Decision, ...]
    removed: tuple[str, ...]
    problems: tuple[str, ...]


def clean_up(plan: Plan, run_id: str, actor: str, now: datetime, dry_run: bool = False) -> CleanUp:
    """Removes the backups of `plan` that are due; with `dry_run`, only says which.

    Before anything goes, the newest backup that stays is looked for in the bucket: one whose object is gone is
    marked `missing` and counts no longer. A backup that cannot be removed does not keep others from being, and one
    that a restore or a drill reads stays for now. Removals that were killed between object and row are ended first.
    Nobody else removes backups of the plan between decision and removal; raises AlreadyRunning when somebody does so
    for long.
    """
    if dry_run:
        return _clean_up(plan, run_id, actor, now, dry_run)
    with removal_lock(plan.catalogue.dsn, plan.name, f"run {run_id}"):
        return _clean_up(plan, run_id, actor, now, dry_run)


def _clean_up(plan: Plan, run_id: str, actor: str, now: datetime, dry_run: bool) -> CleanUp:
    backups = plan.catalogue.completed(plan.name, plan.storage.bucket)
    rows = {row.filename: row for row in plan.catalogue.rows(plan.name)}
    begun = finish_removals(plan, rows.values(), run_id, actor, dry_run)
    finished = tuple(Decision(one, False, (begun.why[one.filename],)) for one in backups if one.filename in begun.why)
    backups = [one for one in backups if one.filename not in begun.why]
    sound, lost = _sound_decisions(plan, backups, run_id, actor, now, dry_run)
    decisions = tuple(_unless_in_use(plan, decision, run_id) for decision in sound)
    removed, problems = [one.backup.filename for one in finished], [*begun.problems, *lost]
    for decision in decisions:
        if decision.keep:
            continue
        try:
            if not dry_run:
                _remove(plan, rows[decision.backup.filename], run_id, actor)
            removed.append(decision.backup.filename)
        except BackupSystemError as error:
            problems.append(f"{decision.backup.filename} could not be removed: {error}")
    return CleanUp((*decisions, *finished), tuple(removed), tuple(problems))


def clean_up_databases(plan: Plan, now: datetime, dry_run: bool = False) -> DatabaseCleanUp:
    """Drops replaced databases that are due, and what dead restores left; with `dry_run`, only says which are due.

    A restore that is alive keeps what it has made. A server that cannot be asked is a problem, no error.
    """
    kept: tuple[Kept, ...] = ()
    own = plan.database.dbname
    try:
        with backup_lock(plan.database, NAME), maintenance(plan.database).session(NAME) as server:
            kept = tuple(of_plan(server, plan.name, own))
            mine = scratches_left(server, own) if dry_run else drop_scratches(server, own)
            found = (*mine, *drop_dead_scratches(server, plan.name, own, dry_run))
            if dry_run:
                return DatabaseCleanUp(kept, tuple(one.name for one in due(kept, now, plan.kept_days)), (), found)
            dropped, problems = drop_due(plan.database, plan.name, now, plan.kept_days)
        return DatabaseCleanUp(kept, dropped, problems, found)
    except BackupSystemError as error:
        return DatabaseCleanUp(kept, (), (f"Replaced databases could not be looked for: {error}",))


def _sound_decisions(
    plan: Plan,
    backups: list[Record],
    run_id: str,
    actor: str,
    now: datetime,
    dry_run: bool,
) -> tuple[tuple[Decision, ...], list[str]]:
    """Decisions that lean on a newest backup which is really there, and a sentence for each that was not."""
    lost = []
    while decisions := decide(backups, plan.policy, now):
        newest = next((one.backup for one in decisions if one.backup.backup_type == FULL), None)
        if newest is None or all(decision.keep for decision in decisions):
            break
        recorded, stored = newest.file_size, plan.storage.size(newest.s3_key)
        if stored == recorded:
            break
        backups = [backup for backup in backups if backup != newest]
        if stored is None:
            lost.append(f"{newest.filename} is missing from the bucket: it does not count any more.")
            if not dry_run:
                event = Event(
                    "retention", "missing", plan.name, actor, run_id, filename=newest.filename, error=lost[-1]
                )
                plan.catalogue.remove(newest.filename, "missing", event)
        else:
            lost.append(
                f"{newest.filename} has {stored} bytes in the bucket, not {recorded}: it is damaged and does not count."
            )
    return decisions, lost


def _unless_in_use(plan: Plan, decision: Decision, run_id: str) -> Decision:
    """The same, or that it stays for now since somebody reads it."""
    used_by = "" if decision.keep else reader(plan, decision.backup.filename, run_id)
    return replace(decision, keep=True, reasons=(f"due, and still being read by {used_by}",)) if used_by else decision


def _remove(plan: Plan, row: Record, run_id: str, actor: str) -> None:
    """Notes in the row that the backup is to go: a clean-up that is killed in between is then finished as such.

    One whose object is gone already, and of which nothing is noted, is `missing`.
    """
    filename, key = row.filename, row.s3_key
    size = plan.storage.size(key)
    if size is not None:
        plan.catalogue.begin_removal(filename, "expired", actor)
    remove_object(plan.storage, key)
    for replica in plan.replicas:
        remove_object(replica.storage, object_key(replica.folder, plan.name, filename))
    outcome = "missing" if size is None else "expired"
    reasons = None if outcome == "expired" else "The object was gone already."
    plan.catalogue.remove(
        filename,
        outcome,
        Event("retention", outcome, plan.name, actor, run_id, filename=filename, bytes=size, error=reasons),
    )
