"""Finds the backup that somebody asks for, by the catalogue; by the buckets alone when the catalogue is lost."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

import psycopg2

from tasks.catalogue.rows import UNPROVED, Record
from tasks.errors import BackupNotFound, BackupSystemError, NotSigned
from tasks.names import (
    ADOPTED,
    FULL,
    MANIFEST_SUFFIX,
    is_backup_filename,
    is_in_future,
    manifest_key,
    plan_prefix,
    started_at,
)
from tasks.plans.plan import Plan
from tasks.storage.backup_values import StoredBackup
from tasks.stored_backups.backup_files import proved

LATEST = "latest"
_NAMED_AT_MOST = 3
#: Why a backup of each other status cannot be restored.
_STATUS = {
    "in_progress": "its run has not ended, or has died",
    "failed": "its run did not complete it",
    "expired": "retention has removed it",
    "deleted": "somebody has deleted it",
    "missing": "its object is gone from the bucket",
    "unproved": "it is known from the bucket alone, and anybody who can write there may have made it",
}


def chosen_backup(plan: Plan, wanted: str, drill: bool = False) -> StoredBackup:
    """The backup that `wanted` names: `latest`, a file name (or a whole key), or the catalogue's id.

    With `drill` it may be one that was adopted and that no drill has proved.
    Its object has the recorded size, and its manifest is the recorded one. A replica stands in when the plan's own
    bucket no longer has it. `warnings` hold what could not be proved, and what is wrong in the plan's own bucket.
    Raises BackupNotFound, BackupDamaged, BadSetting for a format that is newer than this program, and AccessRefused
    or Unreachable when no bucket answers.
    """
    search = _begin(plan, wanted, drill)
    row = search.recorded()
    if row is None:
        return search.unrecorded()
    warnings = [f"{row.filename} is suspicious: {row.suspicious}"] * bool(row.suspicious)
    if row.backup_type == ADOPTED:
        warnings.append(f"{row.filename} was adopted: this system did not make the dump that it holds.")
    return proved(plan, row.filename, row, warnings)


def recorded_row(plan: Plan, wanted: str, drill: bool = False) -> Record | None:
    """The catalogue's row of the completed backup that `wanted` names; None when only a bucket may know the backup.

    With `drill` it may be one that was adopted and that no drill has proved.
    Does not ask a bucket whether the backup exists. Raises BackupNotFound as `chosen_backup` does.
    """
    return _begin(plan, wanted, drill).recorded()


def name_of(wanted: str) -> str:
    """`wanted` without the space around it, the folders before it and the suffix of a manifest. Pure."""
    name = wanted.strip().rpartition("/")[2].removesuffix(MANIFEST_SUFFIX)
    return str(int(name)) if name.isascii() and name.isdigit() and len(name) < 20 else name


@dataclass(frozen=True)
class _Search:
    """The search for one backup."""

    plan: Plan
    wanted: str
    """What somebody typed."""
    name: str
    """The same as `name_of` reads it."""
    rows: tuple[Record, ...]
    """The catalogue's rows of the plan, newest first."""
    silence: str
    """Why the catalogue did not answer; empty when it did."""
    drill: bool = False
    """Whether an adopted backup need not be proved."""

    @property
    def is_id(self) -> bool:
        return self.name.isdigit()

    @property
    def restorable(self) -> list[Record]:
        """The rows that count for retention and are stored in the plan's bucket."""
        bucket = self.plan.storage.bucket
        return [row for row in self.rows if row.is_completed and row.backup_type == FULL and row.lies_in(bucket)]

    def recorded(self) -> Record | None:
        """The row of the completed backup; None when the catalogue does not know it, but a bucket may."""
        if self.name == LATEST:
            return next((row for row in self.restorable if row.removal is None), None)
        if self.is_id and self.silence:
            raise BackupNotFound(
                f"The catalogue cannot be asked which backup has the id {self.name[:20]} ({self.silence}): "
                f"give a file name{self._such_as()}."
            )
        for row in self.rows:
            if self.name in (row.filename, str(row.id)):
                return self._completed(row)
        self._refuse_other_plan()
        if self.is_id:
            raise self.not_found()
        return None

    def _completed(self, row: Record) -> Record:
        if row.is_completed or (self.drill and row.status == UNPROVED and row.is_adopted):
            return row
        confirm = ""
        if row.status == UNPROVED and row.is_adopted:
            raise BackupNotFound(
                f"{row.filename} of plan {self.plan.name} was adopted, and no drill has proved it: run verify-backup "
                "with its name first, which restores it into a scratch database."
            )
        if row.status == UNPROVED:
            confirm = f"if you know that it is yours, run rebuild-catalogue with trust={row.filename} first; or "
        raise BackupNotFound(
            f"{row.filename} of plan {self.plan.name} has the status {row.status} "
            f"({_STATUS.get(row.status, 'unknown')}): {confirm}choose a completed backup{self._such_as()}."
        )

    def _refuse_other_plan(self) -> None:
        other = "" if self.silence else self.plan.catalogue.plan_of(self.name)
        if other:
            raise BackupNotFound(
                f"{self.name} is a backup of plan {other}, not of {self.plan.name}: name that plan, or another backup."
            )

    def unrecorded(self) -> StoredBackup:
        """The backup as a bucket alone has it; for `latest` the newest full one that has no row and that is proved."""
        warnings = [self._unrecorded_warning()]
        for filename in self._without_row() if self.name == LATEST else [self.name]:
            try:
                backup = proved(self.plan, filename, None, warnings)
            except NotSigned as refusal:
                if self.name != LATEST:
                    raise
                warnings.append(str(refusal))
                continue
            except BackupNotFound:
                break
            if self.name != LATEST or backup.backup_type == FULL:
                return backup
        raise self.not_found()

    def _unrecorded_warning(self) -> str:
        reason = f"could not be asked ({self.silence})" if self.silence else "does not know this backup"
        if self.plan.keys.are_asked_for:
            return f"The catalogue {reason}: its signature proves the backup, but not that there was no newer one."
        return f"The catalogue {reason}: nothing proves that its manifest is the one that was recorded."

    def _without_row(self) -> list[str]:
        known = {row.filename for row in self.rows}
        return [name for name in _in_buckets(self.plan) if name not in known and not is_in_future(started_at(name))]

    def not_found(self) -> BackupNotFound:
        shown = repr(self.wanted[:80]) + ("…" if len(self.wanted) > 80 else "")
        if unproved := [row.filename for row in self.rows if row.status == UNPROVED and not row.is_adopted]:
            return BackupNotFound(
                f"Plan {self.plan.name} has no completed backup {shown}, and {len(unproved)} from the bucket alone, "
                f"such as {unproved[0]}: run rebuild-catalogue with trust and the names of those that are yours."
            )
        names = self._such_as()
        advice = f"give {LATEST}, an id or a file name{names}" if names else "nothing of this plan can be restored yet"
        return BackupNotFound(f"Plan {self.plan.name} has no backup {shown}: {advice}.")

    def _such_as(self) -> str:
        """`, such as …` with the newest few backups that can be restored; empty when none are known."""
        names = [row.filename for row in self.restorable]
        if not names:
            with contextlib.suppress(BackupSystemError):
                names = self._without_row()
        return f", such as {', '.join(names[:_NAMED_AT_MOST])}" if names else ""


def _begin(plan: Plan, wanted: str, drill: bool = False) -> _Search:
    """A search with the catalogue read once. Raises BackupNotFound for what cannot name a backup."""
    try:
        plan.catalogue.check()
        rows, silence = tuple(plan.catalogue.rows(plan.name)), ""
    except (BackupSystemError, psycopg2.Error) as error:
        rows, silence = (), plan.catalogue.dsn.clean(str(error)).rstrip(".")
    search = _Search(plan, wanted, name_of(wanted), rows, silence, drill)
    if not (search.name == LATEST or search.is_id or is_backup_filename(search.name)):
        raise search.not_found()
    return search


def _in_buckets(plan: Plan) -> list[str]:
    """File names, newest first, of all backups that have object and manifest in a bucket of the plan.

    Raises what the plan's own bucket raises when no bucket answers.
    """
    buckets = [(plan.storage, plan.prefix)]
    buckets += [(replica.storage, plan_prefix(replica.folder, plan.name)) for replica in plan.replicas]
    filenames: set[str] = set()
    problems: list[BackupSystemError] = []
    for storage, prefix in buckets:
        try:
            names = {stored.key.removeprefix(prefix) for stored in storage.objects(prefix)}
        except BackupSystemError as error:
            problems.append(error)
            continue
        filenames |= {name for name in names if is_backup_filename(name) and manifest_key(name) in names}
    if len(problems) == len(buckets):
        raise problems[0]
    return sorted(filenames, reverse=True)
