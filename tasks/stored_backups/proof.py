"""Proves that a stored backup is the recorded one: its object is there, and its manifest says what it must say."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from tasks.errors import BackupDamaged, BackupGone, BackupSystemError, BadSetting
from tasks.names import manifest_key, object_key
from tasks.plans.plan import Plan
from tasks.storage import manifest
from tasks.storage.manifest_model import StoredBackup
from tasks.storage.s3 import Storage

_ELSEWHERE = "restore another backup, or this one from a replica"
Row = Mapping[str, Any]


@dataclass(frozen=True)
class _Place:
    """Where the object of a backup may lie."""

    storage: Storage
    key: str


def proved(plan: Plan, filename: str, row: Row | None, warnings: Iterable[str]) -> StoredBackup:
    """The backup from the first place that has it whole; what is wrong at those before it becomes a warning."""
    wrong: list[BackupSystemError] = []
    own = _Place(plan.storage, row["s3_key"] if row else plan.key(filename))
    for place in (own, *(_Place(one.storage, object_key(one.folder, plan.name, filename)) for one in plan.replicas)):
        try:
            backup = _proved_in(place, plan.name, filename, row)
        except BackupSystemError as error:
            wrong.append(error)
            continue
        taken = [
            f"{str(error).removesuffix(f': {_ELSEWHERE}.').removesuffix('.')}. "
            f"It is read from the replica in bucket {place.storage.bucket}."
            for error in wrong[:1]
        ]
        return replace(backup, warnings=(*warnings, *backup.warnings, *taken))
    raise wrong[0]


def _proved_in(place: _Place, plan: str, filename: str, row: Row | None) -> StoredBackup:
    """Raises BackupGone when the object is not there, BackupDamaged when object or manifest is another one."""
    bucket, beside = place.storage.bucket, manifest_key(place.key)
    size = place.storage.size(place.key)
    if size is None:
        raise BackupGone(f"{filename} is missing from bucket {bucket}: {_ELSEWHERE}.")
    try:
        content = place.storage.get(beside)
    except FileNotFoundError:
        raise BackupDamaged(
            f"{beside} is missing from bucket {bucket}, and nothing can be proved without it: {_ELSEWHERE}."
        ) from None
    if row and manifest.sha256(content) != row["manifest_sha256"]:
        raise BackupDamaged(
            f"{beside} in bucket {bucket} is damaged: its SHA-256 is not the manifest_sha256 that the "
            f"catalogue has: {_ELSEWHERE}."
        )
    read = manifest.read(content, beside)
    if read.backup.plan != plan:
        raise BackupDamaged(
            f"{beside} in bucket {bucket} is damaged: the field plan is {read.backup.plan}, not {plan}: {_ELSEWHERE}."
        )
    if size != read.backup.size:
        raise BackupDamaged(
            f"{place.key} in bucket {bucket} is damaged: it has {size} bytes, and the field "
            f"object.size of its manifest says {read.backup.size}: {_ELSEWHERE}."
        )
    _check_row(read, row or {}, filename)
    unproved = f"The manifest of {filename} has format 1, without a checksum: a change of it would not be noticed."
    return replace(
        read.backup,
        bucket=bucket,
        key=place.key,
        backup_id=row["id"] if row else None,
        warnings=(unproved,) if read.format == 1 and not row else (),
    )


def _check_row(read: manifest.Manifest, row: Row, filename: str) -> None:
    said = {
        "file_size": read.backup.size,
        "plain_size": read.backup.plain_size,
        "row_count": read.backup.rows,
        "table_count": read.table_count,
        "backup_type": read.backup.backup_type,
    }
    for column, value in said.items():
        if row.get(column) is not None and row[column] != value:
            raise BackupDamaged(
                f"The catalogue's row of {filename} is damaged: the field {column} is {row[column]}, "
                f"and the manifest says {value}: {_ELSEWHERE}."
            )


def storage_of(plan: Plan, backup: StoredBackup) -> Storage:
    """The storage of `plan` that `backup` lies in. Raises BadSetting when the plan no longer has it."""
    replicas = [
        one.storage for one in plan.replicas if object_key(one.folder, plan.name, backup.filename) == backup.key
    ]
    fitting = [one for one in (plan.storage, *replicas) if one.bucket == backup.bucket]
    if len(fitting) == 1:
        return fitting[0]
    for storage in fitting:  # stores of several providers may have buckets of one name
        with contextlib.suppress(BackupSystemError):
            if storage.size(backup.key) == backup.size:
                return storage
    raise BadSetting(f"Plan {plan.name} has no bucket {backup.bucket} with {backup.key}: name the bucket in the plan.")
