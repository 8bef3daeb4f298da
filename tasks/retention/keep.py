"""Keeps one backup for ever because a person asked for it, or lets it go again.

The row says so in its metadata: retention and deletion read it there. Nobody removes backups of the plan meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tasks.catalogue.rows import Event, Record
from tasks.errors import BackupNotFound, BadSetting
from tasks.plans.plan import Plan
from tasks.postgres.locks import REMOVAL_PATIENCE, removal_lock
from tasks.stored_backups.find_backup import recorded_row

ACTION = "keep-backup"
_LONGEST_REASON = 300  # characters


@dataclass(frozen=True)
class KeptBackup:
    """What became of a backup that somebody wanted kept, or let go."""

    backup_id: int
    filename: str
    is_kept: bool
    message: str
    """What was done, in sentences for a person."""


def keep_backup(
    plan: Plan,
    wanted: str,
    reason: str,
    let_go: bool,
    run_id: str,
    actor: str,
    now: datetime,
    patience: float = REMOVAL_PATIENCE,
) -> KeptBackup:
    """The backup `wanted` (latest, file name or id) is kept for ever, or with `let_go` counts as any other again.

    Asking twice is no error; the last reason counts. Raises BackupNotFound when there is no such completed backup,
    BadSetting for a reason that is too long or a backup that is half removed, and AlreadyRunning when backups of the
    plan are being removed or copied for longer than `patience` seconds.
    """
    text = " ".join(reason.split())
    if len(text) > _LONGEST_REASON:
        raise BadSetting(f"The reason has {len(text)} characters: give at most {_LONGEST_REASON}.")
    plan.catalogue.check()
    with removal_lock(plan.catalogue.dsn, plan.name, f"run {run_id}", patience):
        backup = _found(plan, wanted)
        note = None if let_go else {"reason": text, "by": actor, "at": now.isoformat(timespec="seconds")}
        event = Event(ACTION, "let go" if let_go else "kept", plan.name, actor, run_id, backup.id, backup.filename)
        plan.catalogue.keep(backup.filename, note, event)
    return KeptBackup(backup.id, backup.filename, not let_go, _message(backup, let_go))


def _found(plan: Plan, wanted: str) -> Record:
    backup = recorded_row(plan, wanted)
    if backup is None:
        raise BackupNotFound(
            f"Plan {plan.name} has no backup {wanted[:80]!r} in its catalogue: run rebuild-catalogue, or name another."
        )
    if backup.removal:
        raise BadSetting(
            f"The removal of {backup.filename} has begun, and its run has died: run cleanup first, which ends it."
        )
    return backup


def _message(backup: Record, let_go: bool) -> str:
    if not let_go:
        return (
            f"{backup.filename} is kept for ever: neither retention nor delete-backup removes it before it is let go."
        )
    if backup.kept:
        return f"{backup.filename} was let go: it stays as long as the plan's retention says."
    return f"{backup.filename} was not kept by anybody: nothing is left to be done."
