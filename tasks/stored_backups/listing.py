"""The backups in a plan's folder: which files there are, and what their manifests prove.

Files that are not named like a backup or a manifest are ignored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from tasks.errors import BackupDamaged, BadSetting
from tasks.names import MANIFEST_SUFFIX, is_backup_filename, manifest_key
from tasks.plans.plan import Plan
from tasks.storage.manifest_file import Manifest
from tasks.storage.manifest_text import read_manifest, without_advice

#: Manifests that are read at the same time: as many as the storage's client keeps connections for.
AT_ONCE = 8
_AHEAD = 4 * AT_ONCE  # manifests that may wait in memory


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
    except FileNotFoundError:
        return Unproved(f"{name} has lost its manifest just now.", damaged=False)
    try:
        manifest = read_manifest(content, key)
    except BackupDamaged as error:
        return Unproved(without_advice(error), damaged=True)
    except BadSetting as error:  # a newer format
        return Unproved(str(error), damaged=False)
    if manifest.plan != plan.name:
        return Unproved(f"{name} is a backup of plan {manifest.plan}, by its manifest.", damaged=False)
    if manifest.object.size != backup.size:
        return Unproved(
            f"{name} has {backup.size:,} bytes, and its manifest says {manifest.object.size:,}.", damaged=True
        )
    return Proved(manifest, hashlib.sha256(content).hexdigest())
