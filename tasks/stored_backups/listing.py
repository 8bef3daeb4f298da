"""What lies in a plan's folder: backups by their names, and what their manifests say of them.

Files that are not named like a backup or a manifest are nobody's business here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from tasks.errors import BackupDamaged, BackupSystemError
from tasks.names import MANIFEST_SUFFIX, is_backup_filename, manifest_key
from tasks.plans.plan import Plan
from tasks.storage import manifest
from tasks.storage.manifest import Manifest

#: Manifests that are read at the same time: as many as the storage's client keeps connections for.
AT_ONCE = 8
_AHEAD = 4 * AT_ONCE  # manifests that may wait in memory


@dataclass(frozen=True)
class Stored:
    """What there is of one backup: bytes of its object and of its manifest; None for what is not there."""

    filename: str
    size: int | None
    manifest_size: int | None


@dataclass(frozen=True)
class Proved:
    """A whole backup: its manifest could be read, is of this plan, and names the size that the object has."""

    read: Manifest
    sha256: str
    """Of the manifest's file."""


@dataclass(frozen=True)
class Unproved:
    """A backup of which too little is there, or something else than its manifest says; `why` is a sentence."""

    why: str
    damaged: bool
    """False when another program or another try might well read it."""


def backups_in(plan: Plan) -> dict[str, Stored]:
    """Everything below the plan's prefix that is named like a backup or its manifest, by file name; listed once."""
    objects: dict[str, int] = {}
    manifests: dict[str, int] = {}
    for one in plan.storage.objects(plan.prefix):
        name = one.key.removeprefix(plan.prefix)
        found, filename = (
            (manifests, name.removesuffix(MANIFEST_SUFFIX)) if name.endswith(MANIFEST_SUFFIX) else (objects, name)
        )
        if is_backup_filename(filename):
            found[filename] = one.size
    return {name: Stored(name, objects.get(name), manifests.get(name)) for name in sorted(objects | manifests)}


def proofs(plan: Plan, backups: Iterable[Stored]) -> Iterator[tuple[Stored, Proved | Unproved]]:
    """Each backup with what its manifest proves, in their order; a few manifests are read at the same time."""
    waiting: list[tuple[Stored, Future[Proved | Unproved]]] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for backup in backups:
            waiting.append((backup, pool.submit(proof, plan, backup)))
            if len(waiting) >= _AHEAD:
                first, told = waiting.pop(0)
                yield first, told.result()
        for first, told in waiting:
            yield first, told.result()


def proof(plan: Plan, backup: Stored) -> Proved | Unproved:
    """What the manifest of one backup proves. Raises what the storage raises when it cannot be asked."""
    beside = manifest_key(plan.key(backup.filename))
    if backup.size is None:
        return Unproved(f"{backup.filename} is not there, only its manifest is.", damaged=True)
    if backup.manifest_size is None:
        return Unproved(f"{backup.filename} has no manifest: nothing says what it should be.", damaged=True)
    try:
        content = plan.storage.get(beside)
    except FileNotFoundError:
        return Unproved(f"{backup.filename} has lost its manifest just now.", damaged=False)
    try:
        read = manifest.read(content, beside)
    except BackupDamaged as error:
        return Unproved(_without_advice(error), damaged=True)
    except BackupSystemError as error:  # of a newer format
        return Unproved(str(error), damaged=False)
    if read.backup.plan != plan.name:
        return Unproved(f"{backup.filename} is a backup of plan {read.backup.plan}, by its manifest.", damaged=False)
    if read.backup.size != backup.size:
        return Unproved(
            f"{backup.filename} has {backup.size:,} bytes, and its manifest says {read.backup.size:,}.", damaged=True
        )
    return Proved(read, manifest.sha256(content))


def _without_advice(error: BackupDamaged) -> str:
    return str(error).rpartition(": restore another")[0] + "." if ": restore another" in str(error) else str(error)
