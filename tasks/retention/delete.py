"""Deletes one stored backup because a person asked for it, unless it must stay.

Everything is decided and done while nobody else removes or copies backups of the plan.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from tasks.catalogue.rows import Record
from tasks.errors import BackupNotFound, BackupSystemError, BadSetting, DeletionRefused
from tasks.names import FULL
from tasks.plans.plan import Plan
from tasks.postgres.locks import REMOVAL_PATIENCE, removal_lock
from tasks.retention.removal import Removed, reader, remove_backup
from tasks.stored_backups.find_backup import LATEST, name_of

ACTION = "delete-backup"
#: What a person reads about a backup that is not there to be deleted, by the status of its row.
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
    """Size of the object that was removed; 0 when it was gone already."""
    message: str
    """What was done, in sentences for a person."""


def delete_backup(
    plan: Plan, wanted: str, confirm: str, run_id: str, actor: str, patience: float = REMOVAL_PATIENCE
) -> Deleted:
    """The backup `wanted` (file name or id) is gone from the plan's bucket and its replicas; its row stays.

    Asking for a backup that is gone already is no error. Raises BadSetting for `latest`, BackupNotFound,
    DeletionRefused when it must stay (without `confirm`), is in use or is locked, and AlreadyRunning when other backups
    of the plan are being removed or copied for longer than `patience` seconds; then it is as it was.
    """
    name = _checked(wanted)
    plan.catalogue.check()
    with removal_lock(plan.catalogue.dsn, plan.name, f"run {run_id}", patience):
        backups = plan.catalogue.rows(plan.name)
        backup = _wanted(plan, backups, name, wanted)
        if backup.status in _GONE:
            message = f"{backup.filename} {_GONE[backup.status]}"
            return Deleted(backup.id, backup.filename, backup.status, 0, message)
        _refuse_if_kept(backup)
        _refuse_if_in_use(plan, backup, run_id)
        if confirm.strip() != backup.filename:
            _refuse_unconfirmed(plan, backups, backup)
        removed = _removed(plan, backup, run_id, actor)
    return Deleted(backup.id, backup.filename, backup.status, removed.bytes or 0, _message(backup, removed))


def _removed(plan: Plan, backup: Record, run_id: str, actor: str) -> Removed:
    """A refused deletion leaves no note in the row: nobody is about to remove the backup any more."""
    try:
        return remove_backup(plan, backup, "deleted", run_id, actor)
    except DeletionRefused:
        with suppress(BackupSystemError):  # the refusal is what a person must read, whatever else fails
            if plan.storage.size(backup.s3_key) is not None:
                plan.catalogue.cancel_removal(backup.filename)
        raise


def _message(backup: Record, removed: Removed) -> str:
    gone = "; its file was gone from the bucket already" if removed.bytes is None else ""
    versions = [
        f" Bucket {bucket} keeps older versions, so its bytes stay stored there until the rules of the bucket remove "
        "them."
        for bucket in removed.versioned
    ]
    locks = [f" Bucket {lock} lets nobody remove them." for lock in removed.locked]
    return f"{backup.filename} is deleted{gone}.{''.join(versions)}{''.join(locks)}"


def _checked(wanted: str) -> str:
    name = name_of(wanted)
    if name in ("", LATEST):
        raise BadSetting(
            f"{wanted.strip() or 'An empty name'!r} names no backup to delete: give a file name or an id, "
            "so that it is clear which one goes."
        )
    return name


def _wanted(plan: Plan, backups: Sequence[Record], name: str, wanted: str) -> Record:
    for backup in backups:
        if name in (backup.filename, str(backup.id)):
            return backup
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


def _refuse_if_kept(backup: Record) -> None:
    if backup.kept:
        raise DeletionRefused(
            f"{backup.filename} is kept for ever {backup.kept}: let it go first (keep-backup with let_go)."
        )


def _refuse_if_in_use(plan: Plan, backup: Record, run_id: str) -> None:
    filename = backup.filename
    if backup.status == "in_progress":
        raise DeletionRefused(
            f"{filename} is still being made: cancel its run, or wait for its end. If that run has "
            "died, the next backup of the plan clears it away."
        )
    if not backup.lies_in(plan.storage.bucket):
        raise DeletionRefused(
            f"{filename} lies in bucket {backup.bucket}, and plan {plan.name} names bucket "
            f"{plan.storage.bucket}: name its bucket in the plan to delete it."
        )
    used_by = reader(plan, filename, run_id)
    if used_by:
        raise DeletionRefused(f"{filename} is being read by {used_by}: wait for that to end, or cancel it.")


def _refuse_unconfirmed(plan: Plan, backups: Sequence[Record], backup: Record) -> None:
    """Raises DeletionRefused for a backup that somebody may badly need."""
    stored = [one for one in backups if one.is_completed and one.lies_in(plan.storage.bucket)]
    needed: dict[str, Callable[[Record], bool]] = {
        "newest completed backup": lambda _: True,
        "newest completed backup (not counting those made before a restore)": _is_full,
        "newest completed backup that is not suspicious": lambda one: _is_full(one) and not one.suspicious,
        "newest backup whose file is still in the bucket": lambda one: _is_full(one) and _is_there(plan, one),
    }
    for what, fits in needed.items():
        if next(filter(fits, stored), None) is backup:
            raise DeletionRefused(
                f"{backup.filename} is the {what} of plan {plan.name}: to delete it all the same, "
                "give its file name as confirm as well."
            )


def _is_full(backup: Record) -> bool:
    return backup.backup_type == FULL


def _is_there(plan: Plan, backup: Record) -> bool:
    return plan.storage.size(backup.s3_key) == backup.file_size
