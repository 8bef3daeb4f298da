"""The files of backups in a bucket: which there are, whether they are what was sent and recorded, and their removal.

Files that are not named like a backup or a manifest are ignored.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial

from tasks.catalogue.rows import Record
from tasks.errors import (
    AccessRefused,
    BackupDamaged,
    BackupGone,
    BackupSystemError,
    BadSetting,
    NotSigned,
    UploadMismatch,
)
from tasks.names import MANIFEST_SUFFIX, is_backup_filename, is_in_future, manifest_key, object_key
from tasks.plans.plan import Plan
from tasks.storage.backup_values import Part, StoredBackup
from tasks.storage.manifest_file import Manifest
from tasks.storage.manifest_text import ADVICE, is_signed, read_manifest, without_advice
from tasks.storage.s3 import Storage
from tasks.storage.s3_client import asked_again

#: Manifests that are read at the same time: as many as the storage's client keeps connections for.
AT_ONCE = 8
_AHEAD = 4 * AT_ONCE  # manifests that may wait in memory
#: Parts to read back beside the first and the last, where the store does not tell how parts arrived.
_READ_BACK = 4


def confirm(storage: Storage, key: str, parts: Sequence[Part]) -> None:
    """Proves that the bucket holds an object of the right size whose first and last part read back as sent.

    Where nothing else proves how parts arrived, some others are read back as well. An answer that is wrong is asked for
    again. Raises UploadMismatch.
    """
    expected = sum(part.size for part in parts)
    stored = asked_again(lambda: storage.size(key), lambda size: size == expected)
    if stored != expected:
        raise UploadMismatch(f"{key}: sent {expected} bytes, the store holds {stored or 0}: back up again.")
    proofs = storage.proofs(key)
    doubtful = parts[1:-1] if proofs.needs_md5 and not proofs.etag_is_md5 else ()
    chosen = [parts[0], parts[-1], *random.sample(doubtful, min(_READ_BACK, len(doubtful)))]
    for part in {part.number: part for part in chosen}.values():
        ask = partial(_sha256, storage, key, (part.number - 1) * parts[0].size, part.size)
        if asked_again(ask, lambda sha256, part=part: sha256 == part.sha256) != part.sha256:  # type: ignore[misc]
            raise UploadMismatch(f"{key}: part {part.number} does not read back as it was sent: back up again.")


def _sha256(storage: Storage, key: str, start: int, size: int) -> str:
    digest = hashlib.sha256()
    with contextlib.suppress(FileNotFoundError):
        for chunk in storage.read(key, start, size):
            digest.update(chunk)
    return digest.hexdigest()


@dataclass(frozen=True)
class _Place:
    """Where the object of a backup may be: the plan's own bucket, or a replica."""

    storage: Storage
    key: str


def proved(plan: Plan, filename: str, row: Record | None, warnings: Iterable[str]) -> StoredBackup:
    """The backup from the first bucket that has it complete and as recorded in `row`, if there is a row.

    Its `warnings` are those given, and what is wrong in the plan's own bucket when a replica has to stand in.
    Raises what is wrong in the plan's own bucket when no bucket has the backup: BackupGone, BackupDamaged, or what
    the storage raises.
    """
    own = _Place(plan.storage, row.s3_key if row else plan.key(filename))
    replicas = [_Place(copy.storage, object_key(copy.folder, plan.name, filename)) for copy in plan.replicas]
    problems: list[BackupSystemError] = []
    for place in (own, *replicas):
        try:
            backup = _proved(place, plan, filename, row)
        except BackupSystemError as error:
            problems.append(error)
            continue
        stand_in = [
            f"{without_advice(problem)} It is read from the replica in bucket {place.storage.bucket}."
            for problem in problems[:1]
        ]
        return replace(backup, warnings=(*warnings, *backup.warnings, *stand_in))
    raise problems[0]


def _proved(place: _Place, plan: Plan, filename: str, row: Record | None) -> StoredBackup:
    """As `_proved_in`; the store is asked once more before a backup is called damaged or missing."""
    with contextlib.suppress(BackupDamaged, BackupGone):
        return _proved_in(place, plan, filename, row)
    return _proved_in(place, plan, filename, row)


def _proved_in(place: _Place, plan: Plan, filename: str, row: Record | None) -> StoredBackup:
    """Raises BackupGone when the object is missing, BackupDamaged when object or manifest is not the recorded one."""
    bucket = place.storage.bucket
    size = place.storage.size(place.key)
    if size is None:
        raise BackupGone(f"{filename} is missing from bucket {bucket}: {ADVICE}.")
    content = _manifest(place)
    beside = f"{manifest_key(place.key)} in bucket {bucket}"
    warnings = _doubts(content, plan, filename, row, beside)
    manifest = read_manifest(content, manifest_key(place.key))
    if manifest.plan != plan.name:
        raise BackupDamaged(f"{beside} is damaged: the field plan is {manifest.plan}, not {plan.name}: {ADVICE}.")
    if size != manifest.object.size:
        raise BackupDamaged(
            f"{place.key} in bucket {bucket} is damaged: it has {size} bytes, and the field "
            f"object.size of its manifest says {manifest.object.size}: {ADVICE}."
        )
    if row:
        _check_row(manifest, row)
    elif is_in_future(manifest.started_at):
        raise BackupDamaged(f"{beside} cannot be true: the field started_at is {_future(manifest)}: {ADVICE}.")
    backup = replace(manifest.backup, bucket=bucket, key=place.key, backup_id=row.id if row else None)
    return replace(backup, warnings=warnings)


def _manifest(place: _Place) -> bytes:
    """The content of the manifest beside the object."""
    key = manifest_key(place.key)
    try:
        return place.storage.get(key)
    except FileNotFoundError:
        raise BackupDamaged(
            f"{key} is missing from bucket {place.storage.bucket}, and nothing can be proved without it: {ADVICE}."
        ) from None


def _doubts(content: bytes, plan: Plan, filename: str, row: Record | None, beside: str) -> tuple[str, ...]:
    """What proves a manifest: the SHA-256 in the catalogue's row; without a row, a trusted key. Before it is read.

    Returns what is in doubt all the same. Raises BackupDamaged, NotSigned without a row.
    """
    if row and hashlib.sha256(content).hexdigest() != row.manifest_sha256:
        raise BackupDamaged(
            f"{beside} is damaged: its SHA-256 is not the manifest_sha256 that the catalogue has: {ADVICE}."
        )
    if not plan.keys.are_asked_for or is_signed(content, plan.keys):
        return ()
    if row:
        return (f"No trusted key has signed the manifest of {filename}: the catalogue alone proves it.",)
    raise NotSigned(
        f"No trusted key of plan {plan.name} has signed {beside}, and the catalogue does not know it: restore another "
        f"backup; or if you know that it is yours, run rebuild-catalogue with trust={filename} first."
    )


def _future(manifest: Manifest) -> str:
    return f"{manifest.started_at:%Y-%m-%d %H:%M} UTC, which lies in the future"


def _check_row(manifest: Manifest, row: Record) -> None:
    """Raises BackupDamaged when a column that somebody changed no longer fits the manifest."""
    expected = {
        "file_size": manifest.object.size,
        "plain_size": manifest.plain.size,
        "row_count": manifest.rows,
        "table_count": manifest.table_count,
        "backup_type": manifest.backup_type,
    }
    for column, value in expected.items():
        recorded = getattr(row, column)
        if recorded not in (None, value):
            raise BackupDamaged(
                f"The catalogue's row of {manifest.filename} is damaged: the field {column} is {recorded}, "
                f"and the manifest says {value}: {ADVICE}."
            )


def storage_of(plan: Plan, backup: StoredBackup) -> Storage:
    """The storage of `plan` that holds `backup`. Raises BadSetting when the plan no longer has that bucket."""
    replicas = [
        replica.storage
        for replica in plan.replicas
        if object_key(replica.folder, plan.name, backup.filename) == backup.key
    ]
    candidates = [storage for storage in (plan.storage, *replicas) if storage.bucket == backup.bucket]
    if len(candidates) == 1:
        return candidates[0]
    for storage in candidates:  # several providers may have buckets of the same name
        with contextlib.suppress(BackupSystemError):
            if storage.size(backup.key) == backup.size:
                return storage
    raise BadSetting(f"Plan {plan.name} has no bucket {backup.bucket} with {backup.key}: name the bucket in the plan.")


@dataclass(frozen=True)
class Stored:
    """The files of one backup: bytes of its object and of its manifest; None for a file that is missing."""

    filename: str
    size: int | None
    manifest_size: int | None


@dataclass(frozen=True)
class Proved:
    """A complete backup: its manifest is valid, belongs to this plan, and has the object's size."""

    manifest: Manifest
    sha256: str
    """Of the manifest's file."""
    is_signed: bool
    """Whether a trusted key of the plan has signed it."""


@dataclass(frozen=True)
class Unproved:
    """A backup with a file missing, or with files that do not fit; `why` is a sentence."""

    why: str
    damaged: bool
    """False when another program, or another try, may be able to read it."""


def backups_in(plan: Plan) -> dict[str, Stored]:
    """Every backup below the plan's prefix of which object or manifest exists, by file name. Lists the bucket once."""
    objects: dict[str, int] = {}
    manifests: dict[str, int] = {}
    for stored in plan.storage.objects(plan.prefix):
        name = stored.key.removeprefix(plan.prefix)
        filename = name.removesuffix(MANIFEST_SUFFIX)
        if is_backup_filename(filename):
            (objects if filename == name else manifests)[filename] = stored.size
    return {name: Stored(name, objects.get(name), manifests.get(name)) for name in sorted(objects | manifests)}


def proofs(plan: Plan, backups: Iterable[Stored]) -> Iterator[tuple[Stored, Proved | Unproved]]:
    """Each backup with what its manifest proves, in their order; a few manifests are read at the same time."""
    waiting: list[tuple[Stored, Future[Proved | Unproved]]] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for backup in backups:
            waiting.append((backup, pool.submit(proof, plan, backup)))
            if len(waiting) >= _AHEAD:
                first, result = waiting.pop(0)
                yield first, result.result()
        for first, result in waiting:
            yield first, result.result()


def proof(plan: Plan, backup: Stored) -> Proved | Unproved:
    """What the manifest of one backup proves. Raises what the storage raises when it cannot be asked."""
    name = backup.filename
    if backup.size is None:
        return Unproved(f"{name} is missing, only its manifest is there.", damaged=True)
    if backup.manifest_size is None:
        return Unproved(f"{name} has no manifest: nothing says what it should be.", damaged=True)
    key = manifest_key(plan.key(name))
    try:
        content = plan.storage.get(key)
        manifest = read_manifest(content, key)
    except FileNotFoundError:
        return Unproved(f"{name} has lost its manifest just now.", damaged=False)
    except BackupDamaged as error:
        return Unproved(without_advice(error), damaged=True)
    except BadSetting as error:  # a newer format
        return Unproved(str(error), damaged=False)
    if manifest.plan != plan.name:
        return Unproved(f"{name} is a backup of plan {manifest.plan}, by its manifest.", damaged=False)
    if is_in_future(manifest.started_at):
        return Unproved(f"{name} cannot be true: the field started_at is {_future(manifest)}.", damaged=False)
    if manifest.object.size != backup.size:
        return Unproved(
            f"{name} has {backup.size:,} bytes, and its manifest says {manifest.object.size:,}.", damaged=True
        )
    return Proved(manifest, hashlib.sha256(content).hexdigest(), is_signed(content, plan.keys))


def remove_object(storage: Storage, key: str) -> bool:
    """Removes everything that the bucket holds of the backup `key`: open uploads, then the object, then its manifest.

    Returns whether the bucket keeps what was removed as an older version. Sends no delete request for what is not
    there. Raises AccessRefused when the access key may not delete.
    """
    for upload_key, upload_id in storage.unfinished(key):
        if upload_key == key:
            storage.abort(key, upload_id)
    versioned = False
    for stored in (key, manifest_key(key)):
        if is_there(storage, stored):
            versioned |= storage.delete(stored)
    return versioned


def is_there(storage: Storage, key: str) -> bool:
    """Whether the bucket has the object: one answer that it has not is not believed while the listing shows it."""
    if storage.size(key) is not None:
        return True
    with contextlib.suppress(AccessRefused):
        return any(stored.key == key for stored in storage.objects(key))
    return False
