"""A bucket, tried with a probe: written, read back, listed, deleted, below the plan's prefix."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta

from tasks.errors import BackupDamaged, BackupSystemError, BadSetting, Unreachable
from tasks.health.lines import Line
from tasks.names import PROBE
from tasks.runs.at_once import Answer
from tasks.storage.s3 import Storage
from tasks.stored_backups.store_facts import Kept

#: Two checks at the same time may delete each other's probe: then another try shows the truth.
_TRIES = 3
_VERSIONED = (
    "The bucket keeps versions: what retention removes stays there, and is paid for, until a lifecycle rule of the "
    "bucket (NoncurrentVersionExpiration) or clean-up with remove_versions removes it."
)


@dataclass(frozen=True)
class Tried:
    """What a bucket lets us do: the error of each verb (write, read, list, delete) that failed."""

    failures: Mapping[str, BackupSystemError]
    ahead: timedelta | None = None
    """How far the store's clock is ahead of ours, to the second; None when it is not known."""
    keeps_versions: bool = False
    """The bucket is known to keep what is deleted, as older versions."""

    @property
    def has_lost_probe(self) -> bool:
        """Whether the bucket did not have the probe as it was written."""
        return any(isinstance(error, BackupDamaged) for error in self.failures.values())


def try_bucket(storage: Storage, prefix: str, clock: Callable[[], datetime]) -> Tried:
    """Tries each verb by itself. The probe is deleted in any case, unless the store refuses that."""
    for left in reversed(range(_TRIES)):
        tried = _try_once(storage, prefix + PROBE, clock)
        if not (tried.has_lost_probe and left):
            break
    return tried


def bucket_line(check: str, bucket: str, answer: Answer[Tried]) -> Line:
    """What each verb that failed means. Pure."""
    if answer.value is None:
        return Line(check, "failed", answer.problem, "Until then nothing can be stored in it or fetched from it.")
    failures = answer.value.failures
    if not failures:
        kept = f" {_VERSIONED}" if answer.value.keeps_versions else ""
        return Line(check, "ok", f"In {bucket}, a probe was written, read back, listed and deleted.{kept}")
    verbs: dict[str, list[str]] = {}
    for verb, error in failures.items():
        verbs.setdefault(str(error), []).append(verb)
    what = " ".join(f"{' and '.join(names).capitalize()} failed: {sentence}" for sentence, names in verbs.items())
    if set(failures) == {"delete"}:
        return Line(check, "warning", what, f"Backups go on, but retention cannot remove any; the probe {PROBE} stays.")
    return Line(check, "failed", what, "Until then backups or restores fail.")


def store_line(bucket: str, kept: Answer[Kept | None]) -> Line:
    """What the last probe of a backup has found out about a store. Pure."""
    check = f"Store of {bucket}"
    if kept.value is None:
        return Line(check, "ok", "What it does is not known, or no longer: the next backup finds out.")
    facts = kept.value.facts
    found = f"{facts.sentence()} Found out on {kept.value.at:%Y-%m-%d}."
    if facts.expiry_days:
        rule = f"A rule of the bucket removes objects after {facts.expiry_days} days, the newest backup too."
        return Line(check, "warning", f"{rule} {found}", "Take the rule away: retention removes what is due.")
    return Line(check, "ok", found)


def _try_once(storage: Storage, key: str, clock: Callable[[], datetime]) -> Tried:
    failures: dict[str, BackupSystemError] = {}
    body = f"A probe of the health check: {uuid.uuid4()}. It may be removed.\n".encode()
    ahead, at, version = None, clock(), ""
    try:
        with _noted(failures, "write"):
            version = storage.put(key, body, "text/plain")
        is_written = "write" not in failures
        if not isinstance(failures.get("write"), (BadSetting, Unreachable)):
            with _noted(failures, "read"):
                _read_back(storage, key, body if is_written else None)
            with _noted(failures, "list"):
                ahead = _time_listed(storage, key, at, is_written)
    finally:
        if not isinstance(failures.get("write"), BadSetting):
            with _noted(failures, "delete"):
                storage.delete_with_version(key, version)
    return Tried(failures, ahead, not failures and storage.versioning() == "Enabled")


@contextmanager
def _noted(failures: dict[str, BackupSystemError], verb: str) -> Iterator[None]:
    try:
        yield
    except BackupSystemError as error:
        failures[verb] = error


def _read_back(storage: Storage, key: str, body: bytes | None) -> None:
    """Raises BackupDamaged unless the object is `body`; None stands for an object that need not be there."""
    try:
        content = storage.get(key)
    except FileNotFoundError:
        content = b""
    if body is not None and content != body:
        fault = "gives back other bytes than" if content else "does not have"
        raise BackupDamaged(f"Bucket {storage.bucket} {fault} what was just written to it: do not rely on this store.")


def _time_listed(storage: Storage, key: str, at: datetime, is_written: bool) -> timedelta | None:
    """How far the store's clock was ahead of ours at the moment `at`. Raises BackupDamaged when it lists no probe."""
    for stored in storage.objects(key):
        if stored.key == key and is_written:
            return stored.modified_at - at
    if is_written:
        raise BackupDamaged(
            f"Bucket {storage.bucket} does not list what was just written to it: do not rely on this store."
        )
    return None
