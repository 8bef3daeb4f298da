"""Which backup a restore takes, proved to be the recorded one; by the bucket alone when the catalogue is lost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

import psycopg2

from tasks.catalogue.record import Record
from tasks.errors import BackupNotFound, BackupSystemError
from tasks.names import FULL, MANIFEST_SUFFIX, is_backup_filename, manifest_key, object_key
from tasks.plans.plan import Plan
from tasks.storage.manifest_model import StoredBackup
from tasks.stored_backups.proof import proved
from tasks.stored_backups.proof import storage_of as storage_of

LATEST = "latest"
_NAMED_AT_MOST = 3
#: Why a backup of each other status cannot be restored.
_STATUS = {
    "in_progress": "its run is not done, or has died",
    "failed": "its run did not complete it",
    "expired": "retention has removed it",
    "deleted": "somebody has deleted it",
    "missing": "its object is gone from the bucket",
}


@dataclass(frozen=True)
class _Book:
    """The catalogue's rows of a plan, newest first; `silence` is why there are none to be had, or empty."""

    rows: tuple[Record, ...]
    silence: str = ""

    def completed(self, bucket: str) -> Iterator[Record]:
        """What retention goes by, as far as it lies in `bucket`."""
        for row in self.rows:
            if row.is_completed and row.backup_type == FULL and row.lies_in(bucket):
                yield row


def chosen_backup(plan: Plan, wanted: str) -> StoredBackup:
    """The backup that `wanted` names: `latest`, a file name (or a whole key), or the catalogue's id.

    Its object is there in the size that was recorded, and its manifest is the recorded one; from a replica where the
    plan's own bucket has it no longer. `warnings` say what could not be proved, and what was not as it should be.
    Raises BackupNotFound, BackupDamaged, BadSetting for a format that is newer than this program, and AccessRefused
    or Unreachable when no bucket can be asked.
    """
    name, book, row = _asked(plan, wanted)
    if row is not None:
        return proved(plan, row.filename, row, [_suspicion(row)] if row.suspicious else [])
    return _unrecorded(plan, name, book, wanted)


def recorded_row(plan: Plan, wanted: str) -> Record | None:
    """The catalogue's row of the completed backup that `wanted` names; None when only a bucket may know it.

    Raises BackupNotFound as `chosen_backup` does; no bucket is asked whether the backup is there.
    """
    return _asked(plan, wanted)[2]


def _asked(plan: Plan, wanted: str) -> tuple[str, _Book, Record | None]:
    name, book = name_of(wanted), _read(plan)
    if name != LATEST and not name.isdigit() and not is_backup_filename(name):
        raise _not_found(plan, book, wanted)
    return name, book, _recorded(plan, name, book, wanted)


def name_of(wanted: str) -> str:
    """What stands in `wanted` without the space around it, and without the folders and the suffix of a manifest."""
    name = wanted.strip().rpartition("/")[2].removesuffix(MANIFEST_SUFFIX)
    return str(int(name)) if name.isascii() and name.isdigit() and len(name) < 20 else name


def _read(plan: Plan) -> _Book:
    try:
        plan.catalogue.check()
        return _Book(tuple(plan.catalogue.rows(plan.name)))
    except (BackupSystemError, psycopg2.Error) as error:
        return _Book((), plan.catalogue.dsn.clean(str(error)).rstrip("."))


def _recorded(plan: Plan, name: str, book: _Book, wanted: str) -> Record | None:
    """The completed row; None when the catalogue does not know the backup, but a bucket may."""
    if name == LATEST:
        return next(book.completed(plan.storage.bucket), None)
    if name.isdigit() and book.silence:
        raise BackupNotFound(
            f"The catalogue cannot be asked which backup has the id {name[:20]} ({book.silence}): "
            f"give a file name{_newest(plan, book)}."
        )
    for row in book.rows:
        if name in (row.filename, str(row.id)):
            if not row.is_completed:
                raise BackupNotFound(
                    f"{row.filename} of plan {plan.name} has the status {row.status} "
                    f"({_STATUS.get(row.status, 'unknown')}): choose a completed backup"
                    f"{_newest(plan, book)}."
                )
            return row
    other = "" if book.silence else plan.catalogue.plan_of(name)
    if other:
        raise BackupNotFound(
            f"{name} is a backup of plan {other}, not of {plan.name}: name that plan, or another backup."
        )
    if name.isdigit():
        raise _not_found(plan, book, wanted)
    return None


def _unrecorded(plan: Plan, name: str, book: _Book, wanted: str) -> StoredBackup:
    """The backup as the bucket alone has it: for `latest` the newest full one that the catalogue says nothing of."""
    known = {row.filename for row in book.rows}
    missed = f"could not be asked ({book.silence})" if book.silence else "does not know this backup"
    doubt = f"The catalogue {missed}: nothing proves that its manifest is the one that was recorded."
    for filename in [one for one in _stored(plan) if one not in known] if name == LATEST else [name]:
        try:
            backup = proved(plan, filename, None, [doubt])
        except BackupNotFound:
            break
        if name != LATEST or backup.backup_type == FULL:
            return backup
    raise _not_found(plan, book, wanted)


def _suspicion(row: Record) -> str:
    return f"{row.filename} is suspicious: {row.suspicious}"


def _stored(plan: Plan) -> list[str]:
    """File names, newest first, of all that has object and manifest in a bucket of the plan.

    Raises what the plan's own bucket raises when no bucket can be asked.
    """
    found: set[str] = set()
    wrong: list[BackupSystemError] = []
    places = [
        (plan.storage, plan.prefix),
        *((one.storage, object_key(one.folder, plan.name, "")) for one in plan.replicas),
    ]
    for storage, prefix in places:
        try:
            names = {one.key.removeprefix(prefix) for one in storage.objects(prefix)}
        except BackupSystemError as error:
            wrong.append(error)
            continue
        found |= {name for name in names if is_backup_filename(name) and manifest_key(name) in names}
    if len(wrong) == len(places):
        raise wrong[0]
    return sorted(found, reverse=True)


def _newest(plan: Plan, book: _Book) -> str:
    """`, such as …` with the newest few that can be restored; empty when none are known."""
    names = [row.filename for row in book.completed(plan.storage.bucket)]
    if not names:
        with contextlib.suppress(BackupSystemError):
            names = [one for one in _stored(plan) if one not in {row.filename for row in book.rows}]
    return f", such as {', '.join(names[:_NAMED_AT_MOST])}" if names else ""


def _not_found(plan: Plan, book: _Book, wanted: str) -> BackupNotFound:
    shown = repr(wanted[:80]) + ("…" if len(wanted) > 80 else "")
    newest = _newest(plan, book)
    advice = f"give {LATEST}, an id or a file name{newest}" if newest else "nothing of this plan can be restored yet"
    return BackupNotFound(f"Plan {plan.name} has no backup {shown}: {advice}.")
