"""What dead runs and restores left of one plan: databases on its server, uploads and orphans in its bucket.

Orphans are files in the plan's folder that belong to no backup of the catalogue. Rows are never removed from a
catalogue. So a complete backup without a row is no debris: the catalogue was lost, or the backup belongs to another
installation. It always stays, until rebuild-catalogue has written its row.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from tasks.backup.dead_runs import is_young, stale_uploads
from tasks.catalogue.rows import UNPROVED, Event, Record
from tasks.errors import BackupSystemError, ObjectLocked
from tasks.plans.plan import Plan, pinned
from tasks.postgres.locks import backup_lock, removal_lock
from tasks.postgres.server import maintenance
from tasks.restore.databases import drop_dead_scratches, drop_scratches, scratches_left
from tasks.restore.kept_databases import UNFINISHED_STAYS, Kept, drop_due, due, of_plan
from tasks.stored_backups.backup_files import Proved, Stored, Unproved, backups_in, proofs, remove_object

NAME = "backup clean-up"
ACTION = "cleanup"
_REBUILD = "run rebuild-catalogue, which writes its row"


@dataclass(frozen=True)
class Databases:
    """The databases that restores had replaced, and which of them were dropped (or would be, in a dry run)."""

    kept: tuple[Kept, ...] = ()
    dropped: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    """What went wrong: one sentence each."""
    scratches: tuple[str, ...] = ()
    """What dead restores had left, and what became of it (or would): one sentence each."""


@dataclass(frozen=True)
class Uploads:
    """Keys of the open uploads that no live backup made; they are aborted, except in a dry run."""

    keys: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def clear_databases(plan: Plan, now: datetime, dry_run: bool = False) -> Databases:
    """Drops kept databases that are due, and scratch databases of dead restores; with `dry_run`, only says which.

    A restore that is alive keeps what it has made. A server that cannot be asked is a problem, no error.
    """
    kept: tuple[Kept, ...] = ()
    try:
        plan = pinned(plan)
        own = plan.database.dbname
        with backup_lock(plan.database, NAME), maintenance(plan.database).session(NAME) as server:
            kept = tuple(of_plan(server, plan.name, own))
            since = now - UNFINISHED_STAYS
            mine = (
                scratches_left(server, own, since) if dry_run else drop_scratches(server, own, unfinished_since=since)
            )
            scratches = (*mine, *drop_dead_scratches(server, plan.name, own, since, dry_run))
            if dry_run:
                return Databases(kept, tuple(one.name for one in due(kept, now, plan.kept_days)), (), scratches)
            dropped, problems = drop_due(plan.database, plan.name, now, plan.kept_days)
        return Databases(kept, dropped, problems, scratches)
    except BackupSystemError as error:
        return Databases(kept, problems=(f"Replaced databases could not be looked for: {error}",))


def clear_uploads(plan: Plan, now: datetime, dry_run: bool = False) -> Uploads:
    """Aborts open uploads of dead runs; with `dry_run`, only says which. A store that does not answer is a problem."""
    keys: list[str] = []
    try:
        for key, upload_id in stale_uploads(plan, now):
            if not dry_run:
                plan.storage.abort(key, upload_id)
            keys.append(key)
    except BackupSystemError as error:
        return Uploads(tuple(keys), (f"Not every open upload could be aborted: {error}",))
    return Uploads(tuple(keys))


@dataclass(frozen=True)
class Orphan:
    """Files that no backup of the catalogue accounts for."""

    filename: str
    what: str
    """`object`, `manifest`, or `object and manifest`."""
    bytes: int
    goes: bool
    """Whether it is removed when that is asked for."""
    why: str
    """What it is, and why it goes or stays."""
    marks_missing: bool = False
    """Whether its row says `completed` although the object is gone."""
    removed: bool = False


@dataclass(frozen=True)
class Orphans:
    """The orphans of a plan, and what went wrong: one sentence each."""

    files: tuple[Orphan, ...] = ()
    problems: tuple[str, ...] = ()


def clear_orphans(plan: Plan, run_id: str, actor: str, now: datetime, remove: bool, dry_run: bool = False) -> Orphans:
    """Every orphan of the plan; with `remove`, and without `dry_run`, those that may go are gone.

    Nobody else removes backups of the plan meanwhile. Raises AlreadyRunning when somebody does so for long, and what
    storage and catalogue raise when they cannot be asked.
    """
    if not remove or dry_run:
        return Orphans(find_orphans(plan, now))
    with removal_lock(plan.catalogue.dsn, plan.name, f"run {run_id}"):
        files, problems = [], []
        for orphan in find_orphans(plan, now):
            try:
                files.append(_removed(plan, orphan, run_id, actor) if orphan.goes else orphan)
            except ObjectLocked:
                files.append(replace(orphan, goes=False, why=f"{orphan.why} A rule of the bucket keeps it for now."))
            except BackupSystemError as error:
                files.append(orphan)
                problems.append(f"The orphan {orphan.filename} could not be removed: {error}")
        return Orphans(tuple(files), tuple(problems))


def find_orphans(plan: Plan, now: datetime) -> tuple[Orphan, ...]:
    """Every orphan of the plan, by name. A run writes its row before it stores anything, so it makes no orphans."""
    stored = backups_in(plan)  # before the rows, so that a backup which is begun in between is not listed
    rows = plan.catalogue.named(stored)
    unknown = [files for name, files in stored.items() if name not in rows]
    if plan.catalogue.completed(plan.name):
        orphans = [_without_row(files, proved, now) for files, proved in proofs(plan, unknown)]
    else:
        orphans = [_unknown_to_an_empty_catalogue(files) for files in unknown]
    orphans += [orphan for name, row in rows.items() if (orphan := _with_row(plan, stored[name], row))]
    return tuple(sorted(orphans, key=lambda orphan: orphan.filename))


# --- what it is


def _without_row(files: Stored, proved: Proved | Unproved, now: datetime) -> Orphan:
    orphan = _orphan(files)
    if isinstance(proved, Proved):
        return replace(orphan, why=f"is a whole backup that the catalogue does not know: it stays; {_REBUILD}.")
    if is_young(files.filename, now):
        return replace(
            orphan,
            why="has no row, and was begun less than 24 hours ago: it stays, since another "
            "installation may still be making it.",
        )
    if not proved.damaged:
        return replace(orphan, why=f"has no row and cannot be judged: it stays. {proved.why}")
    return replace(orphan, goes=True, why=f"has no row. {proved.why}")


def _unknown_to_an_empty_catalogue(files: Stored) -> Orphan:
    return replace(
        _orphan(files),
        why="has no row, and the catalogue knows no completed backup of this plan at all, so "
        f"it is new or was lost: nothing is removed; {_REBUILD}.",
    )


def _with_row(plan: Plan, files: Stored, row: Record) -> Orphan | None:
    """None when all is as it should be, or a run may still be at work on it."""
    orphan, status = _orphan(files), row.status
    if row.plan != plan.name:
        return replace(orphan, why=f"belongs to plan {row.plan} by its row: it stays.")
    if status == "in_progress":
        return None
    if status == UNPROVED:
        return replace(orphan, why=f"is unproved: it stays until a person trusts it ({_REBUILD}) or deletes it.")
    if row.s3_key != plan.key(files.filename) or not row.lies_in(plan.storage.bucket):
        where = f"{row.bucket or plan.storage.bucket}/{row.s3_key}"
        return replace(orphan, why=f"lies elsewhere by its row, as {where}: this copy stays.")
    if files.size is None:
        return replace(
            orphan,
            goes=True,
            marks_missing=status == "completed",
            why=f"is a manifest without an object; its row says {status}.",
        )
    return _object_with_row(orphan, files, status)


def _object_with_row(orphan: Orphan, files: Stored, status: str) -> Orphan | None:
    if status == "missing":
        return replace(orphan, why=f"is there again, and its row says missing: it stays; {_REBUILD} anew.")
    if status != "completed":
        return replace(orphan, goes=True, why=f"is there although its row says {status}.")
    if files.manifest_size is None:
        return replace(
            orphan,
            why="has lost its manifest, so that nothing proves it any more: it stays, since psql alone can restore it.",
        )
    return None


def _orphan(files: Stored) -> Orphan:
    parts = {"object": files.size, "manifest": files.manifest_size}
    there = {name: size for name, size in parts.items() if size is not None}
    return Orphan(files.filename, " and ".join(there), sum(there.values()), goes=False, why="")


# --- removing


def _removed(plan: Plan, orphan: Orphan, run_id: str, actor: str) -> Orphan:
    """A clean-up that is killed between row and files leaves an orphan again."""
    key = plan.key(orphan.filename)
    if "object" not in orphan.what and plan.storage.size(key) is not None:
        return replace(orphan, goes=False, why="has got its object just now: it stays.")
    if orphan.marks_missing:
        plan.catalogue.remove(orphan.filename, "missing", _event(plan, orphan, run_id, actor, "missing"))
    remove_object(plan.storage, key)
    plan.catalogue.note(_event(plan, orphan, run_id, actor, "orphan removed"))
    return replace(orphan, removed=True)


def _event(plan: Plan, orphan: Orphan, run_id: str, actor: str, outcome: str) -> Event:
    details = {"what": orphan.what, "why": orphan.why}
    return Event(
        ACTION, outcome, plan.name, actor, run_id, filename=orphan.filename, bytes=orphan.bytes, details=details
    )
