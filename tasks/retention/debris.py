"""What restores and dead runs left of one plan: databases on its server, and uploads in its bucket."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tasks.backup.dead_runs import stale_uploads
from tasks.errors import BackupSystemError
from tasks.plans.plan import Plan
from tasks.postgres.locks import backup_lock
from tasks.postgres.server import maintenance
from tasks.restore.databases import drop_dead_scratches, drop_scratches, scratches_left
from tasks.restore.kept_databases import Kept, drop_due, due, of_plan

NAME = "backup clean-up"


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
    own = plan.database.dbname
    try:
        with backup_lock(plan.database, NAME), maintenance(plan.database).session(NAME) as server:
            kept = tuple(of_plan(server, plan.name, own))
            mine = scratches_left(server, own) if dry_run else drop_scratches(server, own)
            scratches = (*mine, *drop_dead_scratches(server, plan.name, own, dry_run))
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
