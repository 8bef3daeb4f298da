"""Deletes one stored backup because a person asked for it: its copies first, then object and manifest, its row last.

In that order a completed row has its object whatever fails on the way but the very last step, and asking again goes on
from there. The row says beforehand what is about to happen, so that the next clean-up ends what was killed in between.
Everything is decided and done while nobody else removes or copies backups of the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from tasks.catalogue.events import Event
from tasks.catalogue.record import Record
from tasks.errors import AccessRefused, BackupNotFound, BackupSystemError, BadSetting, DeletionRefused
from tasks.names import FULL, manifest_key, object_key
from tasks.plans.plan import Plan
from tasks.postgres.dsn import Dsn
from tasks.postgres.locks import REMOVAL_PATIENCE, removal_lock
from tasks.postgres.server import maintenance
from tasks.storage.s3 import Storage
from tasks.stored_backups.find_backup import LATEST, name_of

ACTION = "delete-backup"
#: What is said of a backup that is not there to be deleted, by the status of its row.
_GONE = {
    "deleted": "was deleted already: nothing is left to be done.",
    "expired": "is gone already, since retention has removed it: nothing is left to be done.",
    "missing": "is missing from its bucket already: nothing was deleted.",
    "failed": "was never completed, and nothing of it is stored: nothing was deleted.",
}


@dataclass(frozen=True)
class Deleted:
    """What became of a backup that somebody wanted deleted."""

    backup_id: int
    filename: str
    was: str
    """The status of its row until now; the row of a `completed` one is `deleted` now, every other is as it was."""
    bytes: int
    """Bytes of the object that was removed; 0 when it was gone already."""
    said: str
    """What was done, in sentences for a person."""


def delete_backup(
    plan: Plan, wanted: str, confirm: str, run_id: str, actor: str, patience: float = REMOVAL_PATIENCE
) -> Deleted:
    """The backup `wanted` (file name or id) is gone from the plan's bucket and its replicas; its row stays.

    Asking for one that is gone already is no error. Raises BadSetting for `latest`, BackupNotFound, DeletionRefused
    when it must stay (without `confirm`), is in use or is locked, and AlreadyRunning when other backups of the plan
    are being removed or copied for longer than `patience` seconds; then it is as it was.
    """
    name = _checked(wanted)
    plan.catalogue.check()
    with removal_lock(plan.catalogue.dsn, plan.name, f"run {run_id}", patience):
        rows = plan.catalogue.rows(plan.name)
        row = _row(plan, rows, name, wanted)
        filename, status = row.filename, row.status
        if status in _GONE:
            return Deleted(row.id, filename, status, 0, f"{filename} {_GONE[status]}")
        _refuse_if_in_use(plan, row, run_id)
        if confirm.strip() != filename:
            _refuse_unconfirmed(plan, rows, row)
        size = plan.storage.size(row.s3_key)
        plan.catalogue.begin_removal(filename, "deleted", actor)
        notes = _remove_everywhere(plan, row)
        event = Event(ACTION, "completed", plan.name, actor, run_id, row.id, filename, bytes=size)
        plan.catalogue.remove(filename, "deleted", event)
    found = "is deleted" if size is not None else "is deleted; its file was gone from the bucket already"
    return Deleted(row.id, filename, status, size or 0, " ".join((f"{filename} {found}.", *notes)))


def _checked(wanted: str) -> str:
    name = name_of(wanted)
    if name in ("", LATEST):
        raise BadSetting(
            f"{wanted.strip() or 'An empty name'!r} names no backup to delete: give a file name or an id, "
            "so that it is clear which one goes."
        )
    return name


def _row(plan: Plan, rows: Sequence[Record], name: str, wanted: str) -> Record:
    for row in rows:
        if name in (row.filename, str(row.id)):
            return row
    other = plan.catalogue.plan_of(name)
    if other:
        raise BackupNotFound(
            f"{name} is a backup of plan {other}, not of {plan.name}: name that plan, or another backup."
        )
    shown = repr(wanted[:80]) + ("…" if len(wanted) > 80 else "")
    raise BackupNotFound(
        f"Plan {plan.name} has no backup {shown} in its catalogue: give the file name or the id of a "
        "backup that the page of backups lists."
    )


def _refuse_if_in_use(plan: Plan, row: Record, run_id: str) -> None:
    filename = row.filename
    if row.status == "in_progress":
        raise DeletionRefused(
            f"{filename} is still being made: cancel its run, or wait for its end. If that run has "
            "died, the next backup of the plan clears it away."
        )
    if not row.lies_in(plan.storage.bucket):
        raise DeletionRefused(
            f"{filename} lies in bucket {row.bucket}, and plan {plan.name} names bucket "
            f"{plan.storage.bucket}: name its bucket in the plan to delete it."
        )
    used_by = reader(plan, filename, run_id)
    if used_by:
        raise DeletionRefused(f"{filename} is being read by {used_by}: wait for that to end, or cancel it.")


def _refuse_unconfirmed(plan: Plan, rows: Sequence[Record], row: Record) -> None:
    """Raises DeletionRefused for a backup that somebody may badly need."""
    stored = [one for one in rows if one.is_completed and one.lies_in(plan.storage.bucket)]
    full = [one for one in stored if one.backup_type == FULL]
    wanted: dict[str, Callable[[], Record | None]] = {
        "newest completed backup": lambda: next(iter(stored), None),
        "newest completed backup (not counting those made before a restore)": lambda: next(iter(full), None),
        "newest completed backup that is not suspicious": lambda: next((o for o in full if not o.suspicious), None),
        "newest backup whose file is still in the bucket": lambda: next((o for o in full if _is_there(plan, o)), None),
    }
    for what, found in wanted.items():
        if found() is row:
            raise DeletionRefused(
                f"{row.filename} is the {what} of plan {plan.name}: to delete it all the same, "
                "give its file name as confirm as well."
            )


def _is_there(plan: Plan, row: Record) -> bool:
    return bool(plan.storage.size(row.s3_key) == row.file_size)


def reader(plan: Plan, filename: str, run_id: str) -> str:
    """Who has begun to read a backup, has not ended, and lives: as long as a run does, it has a session somewhere."""
    with plan.catalogue.cursor() as cursor:
        cursor.execute(
            "SELECT began.action, began.run_id, began.at FROM backup_events began"
            " WHERE began.filename = %s AND began.outcome = 'started' AND began.run_id <> %s AND NOT EXISTS ("
            " SELECT FROM backup_events e WHERE e.run_id = began.run_id AND e.action = began.action"
            " AND e.id > began.id AND e.outcome <> 'started') ORDER BY began.id DESC LIMIT 100",
            [filename, run_id],
        )
        begun = cursor.fetchall()
    alive = _sessions(plan, [f"run {one['run_id']}" for one in begun]) if begun else set()
    for one in begun:
        if f"run {one['run_id']}" in alive:
            return f"{one['action']} (run {one['run_id']} since {one['at']:%Y-%m-%d %H:%M:%S %Z})"
    return ""


def _sessions(plan: Plan, names: Sequence[str]) -> set[str]:
    """Those of the names that a session on the plan's servers has. A server that cannot be asked has none."""
    places: tuple[Callable[[], Dsn], ...] = (lambda: maintenance(plan.database), lambda: plan.catalogue.dsn)
    found: set[str] = set()
    for place in places:
        with suppress(BackupSystemError), place().session("backup deletion") as server, server.cursor() as cursor:
            cursor.execute(
                "SELECT application_name FROM pg_stat_activity WHERE application_name = ANY (%s)", [list(names)]
            )
            found |= {str(name) for (name,) in cursor.fetchall()}
    return found


def _remove_everywhere(plan: Plan, row: Record) -> list[str]:
    """The copies go first: if one cannot, the backup itself is still whole. Returns what a person should know."""
    try:
        return _remove_from_each(plan, row)
    except DeletionRefused:
        with suppress(BackupSystemError):  # what was refused is to be told, whatever else fails
            if plan.storage.size(row.s3_key) is not None:
                plan.catalogue.cancel_removal(row.filename)
        raise


def _remove_from_each(plan: Plan, row: Record) -> list[str]:
    filename = row.filename
    places = [(one.storage, object_key(one.folder, plan.name, filename)) for one in plan.replicas]
    notes = []
    for storage, key in (*places, (plan.storage, row.s3_key)):
        with _locked_told(filename, storage.bucket):
            if _remove(storage, key):
                notes.append(
                    f"Bucket {storage.bucket} keeps older versions, so its bytes stay stored there until the "
                    "rules of the bucket remove them."
                )
        if storage.size(key) is not None:
            raise DeletionRefused(
                f"{filename} is still in bucket {storage.bucket}, and the store took its deletion: "
                "look for a lock or a retention rule there. Its row stays completed."
            )
    return notes


def _remove(storage: Storage, key: str) -> bool:
    """Object first, manifest next, and open uploads to the key; says whether the bucket keeps an older version."""
    for found, upload_id in storage.unfinished(key):
        if found == key:
            storage.abort(key, upload_id)
    had = storage.size(key) is not None
    kept = storage.delete(key)
    storage.delete(manifest_key(key))
    return had and kept


@contextmanager
def _locked_told(filename: str, bucket: str) -> Iterator[None]:
    try:
        yield
    except (AccessRefused, BadSetting) as error:
        raise DeletionRefused(
            f"{filename} cannot be deleted from bucket {bucket}, and its row stays completed: "
            f"{str(error).rstrip('.')}; if the bucket locks its objects (Object Lock, a retention rule, a legal hold), "
            "wait until that ends."
        ) from None
