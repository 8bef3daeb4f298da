"""Older versions in a bucket that keeps them: what retention removed, and the bucket still stores.

Only versions of a backup whose row says that it was removed may go, and of the health check's probe. What belongs to
any other backup stays: an older version may be all that is left of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby, islice

from tasks.catalogue.rows import Event
from tasks.errors import AccessRefused, BackupSystemError, BadSetting, KeptByStore
from tasks.names import MANIFEST_SUFFIX, PROBE, is_backup_filename, object_key
from tasks.plans.plan import Plan
from tasks.postgres.locks import removal_lock
from tasks.storage.probe import lock_of
from tasks.storage.s3 import Storage
from tasks.storage.s3_client import Version

ACTION = "cleanup"
#: Of a backup with such a row, nothing is wanted any more.
_GONE = ("expired", "deleted", "failed")
#: So many versions and delete markers of a bucket are looked at.
MOST = 100_000


@dataclass(frozen=True)
class Versions:
    """The older versions and delete markers of one bucket, below the plan's folder."""

    bucket: str
    count: int = 0
    bytes: int = 0
    markers: int = 0
    removable: int = 0
    """Those versions and markers that may go."""
    removed: int = 0
    removed_bytes: int = 0
    is_cut: bool = False
    """There are more than were looked at."""
    problems: tuple[str, ...] = ()
    locked: tuple[str, ...] = ()
    """Files whose versions the bucket keeps by a lock, each with how long: `folder/shop/… until …`."""


def clear_versions(
    plan: Plan, run_id: str, actor: str, remove: bool, dry_run: bool, most: int = MOST
) -> tuple[Versions, ...]:
    """The older versions in each bucket of the plan; with `remove`, and without `dry_run`, those that may go are gone.

    A bucket that keeps no versions, or does not say, is left out. Raises as `clear_orphans`.
    """
    places = [(plan.storage, plan.prefix)]
    places += [(copy.storage, object_key(copy.folder, plan.name, "")) for copy in plan.replicas]
    kept = [(storage, prefix) for storage, prefix in places if storage.versioning()]
    if not kept:
        return ()
    if not remove or dry_run:
        return tuple(_cleared(plan, *place, "", "", most) for place in kept)
    with removal_lock(plan.catalogue.dsn, plan.name, f"run {run_id}"):
        return tuple(_cleared(plan, *place, run_id, actor, most) for place in kept)


def _cleared(plan: Plan, storage: Storage, prefix: str, run_id: str, actor: str, most: int) -> Versions:
    """What there is; without a run, nothing is removed."""
    listed = list(islice(storage.versions(prefix), most + 1))
    found = listed[:most] if len(listed) > most else listed
    older = [one for one in found if one.is_older]
    goes = removable(found, prefix, _status_by_name(plan, found, prefix))
    done = _remove(plan, storage, prefix, goes, run_id, actor) if run_id else _Done()
    return Versions(
        storage.bucket,
        sum(not one.is_marker for one in older),
        sum(one.size for one in older),
        sum(one.is_marker for one in older),
        len(goes),
        len(done.removed),
        sum(one.size for one in done.removed),
        len(listed) > most,
        tuple(done.problems),
        tuple(done.locked),
    )


def _status_by_name(plan: Plan, versions: Iterable[Version], prefix: str) -> dict[str, str]:
    names = {filename_of(one.key, prefix) for one in versions}
    rows = plan.catalogue.named(name for name in names if is_backup_filename(name))
    return {name: row.status for name, row in rows.items() if row.plan == plan.name}


def filename_of(key: str, prefix: str) -> str:
    """The file name of the backup that an object or a manifest belongs to. Pure."""
    return key.removeprefix(prefix).removesuffix(MANIFEST_SUFFIX)


def removable(versions: Sequence[Version], prefix: str, status: dict[str, str]) -> list[Version]:
    """What may go: of each key its versions, then its delete markers, so that no older version comes back. Pure.

    Nothing goes of a backup of which something is there.
    """
    there = {filename_of(one.key, prefix) for one in versions if one.is_latest and not one.is_marker}
    goes: list[Version] = []
    for key, group in groupby(sorted(versions, key=lambda one: one.key), key=lambda one: one.key):
        name, every = filename_of(key, prefix), list(group)
        is_gone = status.get(name) in _GONE and name not in there
        if is_gone or key == prefix + PROBE:
            goes += sorted((one for one in every if one.is_older), key=lambda one: one.is_marker)
    return goes


@dataclass
class _Done:
    """What was removed, and sentences about the files of which something could not go."""

    removed: list[Version] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    locked: list[str] = field(default_factory=list)


def _remove(plan: Plan, storage: Storage, prefix: str, versions: Sequence[Version], run_id: str, actor: str) -> _Done:
    """Removes versions, with a line of the audit for each file."""
    done = _Done()
    for key, group in groupby(versions, key=lambda one: one.key):
        gone: list[Version] = []
        try:
            gone.extend(_each_removed(storage, group))
        except KeptByStore as lock:
            done.locked.append(str(lock))
        except BackupSystemError as error:
            done.problems.append(f"Older versions of {key} stay in bucket {storage.bucket}: {error}")
        if gone:
            plan.catalogue.note(_event(plan, storage, filename_of(key, prefix), gone, run_id, actor))
        done.removed += gone
    return done


def _each_removed(storage: Storage, versions: Iterable[Version]) -> Iterator[Version]:
    for version in versions:
        try:
            storage.delete_version(version.key, version.id)
        except (AccessRefused, BadSetting):
            if lock := lock_of(storage, version.key, version.id):
                raise KeptByStore(f"{version.key} {lock}") from None
            raise
        yield version


def _event(plan: Plan, storage: Storage, filename: str, gone: Sequence[Version], run_id: str, actor: str) -> Event:
    size, details = sum(one.size for one in gone), {"bucket": storage.bucket, "versions": len(gone)}
    return Event(ACTION, "versions removed", plan.name, actor, run_id, filename=filename, bytes=size, details=details)
