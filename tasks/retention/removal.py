"""Removes a stored backup, always in the same order, and ends removals that were killed half-way.

    1. the row notes what it is about to become, and who asked for that
    2. the copies in the replicas go, manifest first; if one cannot go, the backup itself is still complete
    3. in the plan's own bucket open uploads, the object and the manifest go
    4. the row becomes `deleted`, `expired` or `missing`, and the audit gets a line

So a `completed` row has its object until step 3, and the whole can be repeated. When the object of a
`completed` row is missing, the note says whether somebody removed it. Callers hold the plan's lock of removals, and
ask first whether somebody reads the backup (`reader`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Literal

from tasks.catalogue.rows import Event, Record, Removal
from tasks.errors import (
    AccessRefused,
    BackupSystemError,
    BadSetting,
    DeletionRefused,
    KeptByStore,
    ObjectLocked,
    RemovalHalted,
)
from tasks.names import FULL, manifest_key, object_key
from tasks.plans.plan import Plan
from tasks.postgres.dsn import Dsn
from tasks.postgres.locks import removal_lock
from tasks.postgres.server import maintenance, source_session
from tasks.retention.halt import halted, most_a_day, removed_of_late, stored_sizes, within_bounds
from tasks.retention.policy import Decision, decide
from tasks.storage.probe import lock_of
from tasks.storage.s3 import Storage
from tasks.stored_backups.backup_files import is_there, remove_object

Gone = Removal | Literal["missing"]
#: Action and outcome in the audit, by the status that the row gets.
_AUDIT = {
    "deleted": ("delete-backup", "completed"),
    "expired": ("retention", "expired"),
    "missing": ("retention", "missing"),
}
_BEGUN = """
    SELECT began.action, began.run_id, began.at FROM backup_events began
     WHERE began.filename = %s AND began.outcome = 'started' AND began.run_id <> %s AND NOT EXISTS (
       SELECT FROM backup_events e WHERE e.run_id = began.run_id AND e.action = began.action
          AND e.id > began.id AND e.outcome <> 'started')
     ORDER BY began.id DESC LIMIT 100
"""


@dataclass(frozen=True)
class Removed:
    """What was removed of one backup."""

    bytes: int | None
    """Size of the object in the plan's own bucket; None when it was gone already."""
    versioned: tuple[str, ...]
    """The buckets that keep it as an older version."""
    locked: tuple[str, ...] = ()
    """Those of them that do so by a lock, and until when: `shop until 2026-03-01 02:00 UTC`."""


@dataclass(frozen=True)
class Interrupted:
    """Removals that were killed half-way."""

    ended: dict[str, str]
    """By file name: what had been begun, now ended."""
    problems: tuple[str, ...] = ()
    """A sentence for each that cannot be ended now."""


def remove_backup(plan: Plan, backup: Record, status: Removal, run_id: str, actor: str) -> Removed:
    """The backup is gone from the plan's bucket and its replicas, and its row says `status`.

    What should expire and is gone already becomes `missing`, unless an earlier removal was noted. Raises
    DeletionRefused when a bucket does not let it go, BadSetting for a row that names another backup's object, and what
    storage and catalogue raise; then the row stays `completed`.
    """
    _refuse_foreign(backup)
    size = plan.storage.size(backup.s3_key)
    lost = size is None and status == "expired"
    if not lost:
        plan.catalogue.begin_removal(backup.filename, status, actor)
    versioned, locked = _remove_everywhere(plan, backup)
    if lost:
        mark_missing(plan, backup, run_id, actor, "The object was gone already.")
    else:
        plan.catalogue.remove(backup.filename, status, _event(plan, backup, status, run_id, actor, bytes=size))
    return Removed(size, versioned, locked)


def _refuse_foreign(backup: Record) -> None:
    if not backup.names_its_own_object:
        raise BadSetting(
            f"The row of {backup.filename} names {backup.s3_key} as its object, which belongs to another backup: "
            "nothing was removed; find out who wrote that, then run rebuild-catalogue."
        )


def mark_missing(plan: Plan, backup: Record, run_id: str, actor: str, why: str) -> None:
    """The row says that its object is gone: `missing`, or what a removal that was killed had noted."""
    event = _event(plan, backup, "missing", run_id, actor, error=why)
    plan.catalogue.remove(backup.filename, "missing", event)


def end_interrupted(plan: Plan, backups: Iterable[Record], run_id: str, actor: str, dry_run: bool) -> Interrupted:
    """Every removal that was killed after the object went is ended, with the status that it was to get.

    A removal that was killed before that is cancelled, and may be asked for again. With `dry_run` nothing changes.
    """
    ended, problems = {}, []
    for backup in backups:
        if not backup.removal or not backup.lies_in(plan.storage.bucket):
            continue
        try:
            if plan.storage.size(backup.s3_key) is None:
                ended[backup.filename] = f"its removal was begun by a run that died; it is {backup.removal}"
                if not dry_run:
                    _end(plan, backup, backup.removal, run_id, actor)
            elif not dry_run:
                plan.catalogue.cancel_removal(backup.filename)
        except BackupSystemError as error:
            ended.pop(backup.filename, None)
            problems.append(f"{backup.filename} is half removed, which could not be ended: {error}")
    return Interrupted(ended, tuple(problems))


def _end(plan: Plan, backup: Record, status: Removal, run_id: str, actor: str) -> None:
    _remove_everywhere(plan, backup)
    details = {"why": "The run that removed it had died before it could say so.", "asked_by": backup.removal_by}
    plan.catalogue.remove(backup.filename, status, _event(plan, backup, status, run_id, actor, details=details))


def _remove_everywhere(plan: Plan, backup: Record) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Returns the buckets that keep older versions, and those of them that have locked these.

    Raises DeletionRefused for a bucket that keeps the object, KeptByStore when a lock does that.
    """
    _refuse_foreign(backup)
    copies = [(copy.storage, object_key(copy.folder, plan.name, backup.filename)) for copy in plan.replicas]
    versioned, locked = [], []
    for storage, key in (*copies, (plan.storage, backup.s3_key)):
        lock = lock_of(storage, key)
        with _refusal_explained(backup.filename, storage, lock):
            if storage is not plan.storage:
                _remove_manifest(storage, key, backup.filename)
            if remove_object(storage, key):
                versioned.append(storage.bucket)
                locked += [f"{storage.bucket} {lock}"] * bool(lock)
        _refuse_if_there(storage, key, backup.filename)
        _refuse_if_there(storage, manifest_key(key), f"The manifest of {backup.filename}")
    return tuple(versioned), tuple(locked)


def _remove_manifest(storage: Storage, key: str, filename: str) -> None:
    """A manifest in a replica means a whole copy, so it goes first: a copy that is half removed is made again."""
    if is_there(storage, manifest_key(key)):
        storage.delete(manifest_key(key))
        _refuse_if_there(storage, manifest_key(key), f"The manifest of {filename}")


def _refuse_if_there(storage: Storage, key: str, what: str) -> None:
    if storage.size(key) is not None:
        raise DeletionRefused(
            f"{what} is still in bucket {storage.bucket}, though the store accepted its deletion: "
            "look for a lock or a retention rule there. Its row stays completed."
        )


@contextmanager
def _refusal_explained(filename: str, storage: Storage, lock: str) -> Iterator[None]:
    try:
        yield
    except (AccessRefused, BadSetting) as error:
        if lock or isinstance(error, ObjectLocked):
            raise KeptByStore(
                f"{filename} is kept by bucket {storage.bucket} {lock or 'by a rule, for now'}: its row stays "
                "completed, and it goes afterwards."
            ) from None
        raise DeletionRefused(
            f"{filename} cannot be deleted from bucket {storage.bucket}, and its row stays completed: "
            f"{str(error).rstrip('.')}; if the bucket locks its objects (Object Lock, a retention rule, a legal hold), "
            "wait until that ends."
        ) from None


def _event(plan: Plan, backup: Record, status: Gone, run_id: str, actor: str, **more: object) -> Event:
    action, outcome = _AUDIT[status]
    return Event(action, outcome, plan.name, actor, run_id, backup.id, backup.filename, **more)  # type: ignore[arg-type]


def reader(plan: Plan, filename: str, run_id: str) -> str:
    """The newest live run, other than `run_id`, that has begun to read the backup and has not ended; empty if none.

    A run that lives has a session on the server of the database or of the catalogue.
    """
    with plan.catalogue.cursor() as cursor:
        cursor.execute(_BEGUN, [filename, run_id])
        begun = cursor.fetchall()
    alive = _sessions(plan, [f"run {run['run_id']}" for run in begun]) if begun else set()
    for run in begun:
        if f"run {run['run_id']}" in alive:
            return f"{run['action']} (run {run['run_id']} since {run['at']:%Y-%m-%d %H:%M:%S %Z})"
    return ""


def _sessions(plan: Plan, names: Sequence[str]) -> set[str]:
    """Those of the names that a session on the plan's servers has. A server that cannot be asked has none."""
    places: tuple[Callable[[], Dsn], ...] = (lambda: maintenance(plan.database.pinned()), lambda: plan.catalogue.dsn)
    there: set[str] = set()
    for place in places:
        with (
            suppress(BackupSystemError),
            source_session(place(), "backup deletion") as server,
            server.cursor() as cursor,
        ):
            cursor.execute(
                "SELECT application_name FROM pg_stat_activity WHERE application_name = ANY (%s)", [list(names)]
            )
            there |= {str(name) for (name,) in cursor.fetchall()}
    return there


@dataclass(frozen=True)
class Retained:
    """What was decided for each backup, and what became of that."""

    decisions: tuple[Decision, ...]
    removed: tuple[str, ...]
    """File names of what was removed, or would be in a dry run."""
    problems: tuple[str, ...]
    """What went wrong: one sentence each."""
    waiting: int = 0
    """How many are due and stay for now, because more are due than usual."""
    versioned: tuple[str, ...] = ()
    """The buckets that keep what was removed as older versions, so that no room became free."""
    kept: tuple[str, ...] = ()
    """What buckets keep by a lock although it is due, a sentence each. That is as it should be."""


def retain(plan: Plan, run_id: str, actor: str, now: datetime, dry_run: bool = False, confirmed: int = 0) -> Retained:
    """Removes the backups of `plan` that are due; with `dry_run`, only says which.

    Before anything goes, the store is asked for all of them: one whose object is gone is marked `missing` and no
    longer counts; when more are gone, or the store contradicts itself, nothing is removed. No more than usual go on
    one day, unless a person has `confirmed` how many may. A backup that cannot be removed does not keep others from
    being removed, and a backup that a restore or a verification reads stays for now. Removals that were killed
    half-way are ended first. Nobody else removes backups of the plan between decision and removal; raises
    AlreadyRunning when somebody does so for long.
    """
    if dry_run:
        return _retain(plan, run_id, actor, now, dry_run, confirmed)
    with removal_lock(plan.catalogue.dsn, plan.name, f"run {run_id}"):
        return _retain(plan, run_id, actor, now, dry_run, confirmed)


def _retain(plan: Plan, run_id: str, actor: str, now: datetime, dry_run: bool, confirmed: int) -> Retained:
    backups = plan.catalogue.completed(plan.name, plan.storage.bucket)
    begun = end_interrupted(plan, backups, run_id, actor, dry_run)
    ended = [
        Decision(backup, False, (begun.ended[backup.filename],)) for backup in backups if backup.filename in begun.ended
    ]
    decisions, lost = _sound_decisions(
        plan, [backup for backup in backups if backup.filename not in begun.ended], run_id, actor, now, dry_run
    )
    decisions = tuple(_unless_in_use(plan, decision, run_id) for decision in decisions)
    a_day = most_a_day(plan.catalogue.rows(plan.name))
    decisions, waiting = within_bounds(decisions, a_day, removed_of_late(plan), confirmed)
    removed, problems = [decision.backup.filename for decision in ended], [*begun.problems, *lost]
    versioned: set[str] = set()
    kept: list[str] = []
    for decision in (decision for decision in decisions if not decision.keep):
        backup = decision.backup
        try:
            if not dry_run:
                done = remove_backup(plan, backup, "expired", run_id, actor)
                versioned.update(done.versioned)
                kept += [f"An older version of {backup.filename} is kept by bucket {lock}." for lock in done.locked]
            removed.append(backup.filename)
        except KeptByStore as lock:
            kept.append(str(lock))
            decisions = _kept_for_now(plan, decisions, decision)
        except DeletionRefused as error:
            problems.append(str(error))
        except BackupSystemError as error:
            problems.append(f"{backup.filename} could not be removed: {error}")
    return Retained(
        (*decisions, *ended), tuple(removed), tuple(problems), waiting, tuple(sorted(versioned)), tuple(kept)
    )


def _kept_for_now(plan: Plan, decisions: tuple[Decision, ...], locked: Decision) -> tuple[Decision, ...]:
    """The decisions, of which one cannot be carried out yet; the next run tries again."""
    plan.catalogue.cancel_removal(locked.backup.filename)
    stays = replace(locked, keep=True, reasons=("due, and kept by the lock of a bucket",))
    return tuple(stays if decision is locked else decision for decision in decisions)


def _sound_decisions(
    plan: Plan, backups: list[Record], run_id: str, actor: str, now: datetime, dry_run: bool
) -> tuple[tuple[Decision, ...], list[str]]:
    """Decisions that rest on backups which are in the bucket, and a sentence for each that is not."""
    decisions = decide(backups, plan.policy, now)
    if all(decision.keep for decision in decisions):
        return decisions, []
    try:
        sizes = stored_sizes(plan, backups)
    except RemovalHalted as doubt:
        return halted(backups, str(doubt)), [str(doubt)]
    problems: list[str] = []
    while backup := _counts_wrongly(decisions, sizes):
        stored = sizes.get(backup.s3_key)
        problems.append(_unsound(backup, stored))
        if stored is None and not dry_run:
            mark_missing(plan, backup, run_id, actor, problems[-1])
        backups = [other for other in backups if other != backup]
        decisions = decide(backups, plan.policy, now)
    return decisions, problems


def _counts_wrongly(decisions: Sequence[Decision], sizes: Mapping[str, int]) -> Record | None:
    """A backup that stays and is not in the bucket, or the newest when it is damaged: others must not go for it."""
    kept = [decision.backup for decision in decisions if decision.keep]
    newest = next((backup for backup in kept if backup.backup_type == FULL), None)
    if newest and sizes.get(newest.s3_key) != newest.file_size:
        return newest
    return next((backup for backup in kept if backup.s3_key not in sizes), None)


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
