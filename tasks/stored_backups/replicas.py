"""Copies of completed backups in other buckets: another region, another provider.

A copy is made part by part, each part proved by its SHA-256 on the way. The manifest is copied last, so a manifest in
a replica means a complete copy. The next backup copies what a replica lacks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tasks.catalogue.rows import Record
from tasks.errors import BackupDamaged, BackupSystemError, UploadMismatch
from tasks.names import manifest_key, object_key, plan_prefix
from tasks.plans.plan import Plan, Replica
from tasks.postgres.locks import removal_lock
from tasks.storage.backup_values import Part
from tasks.storage.manifest_text import read_manifest
from tasks.storage.s3 import Storage
from tasks.storage.s3_client import SMALLEST_PART
from tasks.storage.spool import open_spool, private_file
from tasks.stored_backups.backup_files import confirm
from tasks.stored_backups.store_facts import known_facts

#: How long copies wait while another run removes backups of the plan.
COPY_PATIENCE = 120.0  # seconds


@dataclass(frozen=True)
class Copies:
    """The backups that were copied, and what went wrong: one sentence each."""

    made: tuple[str, ...]
    bytes: int
    problems: tuple[str, ...]


def replicate(plan: Plan, run_id: str) -> Copies:
    """Copies every completed backup of the plan that a replica lacks, newest first.

    A replica that fails does not stop the others. No run removes backups meanwhile, so that no copy is left of a
    deleted backup. Raises AlreadyRunning when another run removes backups for longer than `COPY_PATIENCE`.
    """
    with removal_lock(plan.catalogue.dsn, plan.name, f"run {run_id}", COPY_PATIENCE):
        return _replicate(plan, run_id)


def _replicate(plan: Plan, run_id: str) -> Copies:
    made: list[str] = []
    problems: list[str] = []
    copied = 0
    with open_spool(plan.spool_directory, f"{run_id}-copies", SMALLEST_PART, SMALLEST_PART) as spool:
        for replica in plan.replicas:
            try:
                _abort_leftovers(replica, plan.name)
                prefix = plan_prefix(replica.folder, plan.name)
                known_facts(plan.catalogue, plan.name, replica.storage, prefix, run_id, datetime.now(UTC))
                for backup in plan.catalogue.completed(plan.name, plan.storage.bucket):
                    size = _copy(plan, replica, backup, spool.directory / "part")
                    if size:
                        made.append(f"{backup.filename} → {replica.storage.bucket}")
                        copied += size
            except BackupSystemError as error:
                problems.append(f"The replica in bucket {replica.storage.bucket} lacks a backup: {error}")
    return Copies(tuple(made), copied, tuple(problems))


def _copy(plan: Plan, replica: Replica, backup: Record, scratch: Path) -> int:
    """The bytes copied: 0 when the replica has the backup, or when the plan's own bucket has lost it.

    A manifest that is not the recorded one never replaces a good one: raises BackupDamaged.
    """
    source_key, key = plan.key(backup.filename), object_key(replica.folder, plan.name, backup.filename)
    try:
        content = plan.storage.get(manifest_key(source_key))
        if replica.storage.find(manifest_key(key)) == content:
            return 0
    except FileNotFoundError:
        return 0
    if backup.manifest_sha256 not in (None, hashlib.sha256(content).hexdigest()):
        raise BackupDamaged(
            f"{manifest_key(source_key)} in bucket {plan.storage.bucket} is damaged: its SHA-256 is not the "
            "manifest_sha256 that the catalogue has, so it was not copied."
        )
    parts = read_manifest(content, manifest_key(source_key)).backup.parts
    _copy_object(plan, source_key, replica.storage, key, parts, scratch)
    replica.storage.put(manifest_key(key), content)
    return sum(part.size for part in parts)


def _copy_object(plan: Plan, source_key: str, target: Storage, key: str, parts: Sequence[Part], scratch: Path) -> None:
    """Raises UploadMismatch when the source does not fit its manifest, or the target does not hold what was sent."""
    upload_id = target.begin(key)
    etags: dict[int, str] = {}
    start = 0
    try:
        for part in parts:
            _fetch(plan.storage, source_key, start, part, scratch)
            etags[part.number] = target.send(key, upload_id, part, scratch)
            start += part.size
        target.complete(key, upload_id, etags)
        confirm(target, key, parts)
    except BaseException:
        target.abort(key, upload_id)
        raise


def _fetch(source: Storage, key: str, start: int, part: Part, file: Path) -> None:
    digest = hashlib.sha256()
    with private_file(file) as out:
        for chunk in source.read(key, start, part.size):
            digest.update(chunk)
            out.write(chunk)
    if digest.hexdigest() != part.sha256:
        raise UploadMismatch(f"{key}: part {part.number} in bucket {source.bucket} does not fit its manifest.")


def _abort_leftovers(replica: Replica, plan: str) -> None:
    """Aborts the uploads of copies that died. The caller holds the removal lock, so no copy is alive."""
    for key, upload_id in replica.storage.unfinished(plan_prefix(replica.folder, plan)):
        replica.storage.abort(key, upload_id)
