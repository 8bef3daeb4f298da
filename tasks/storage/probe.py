"""What a store does with parts, and which rules its bucket has: found out by a few requests that leave nothing behind.

Requests that S3 has and some services lack are not used at all: parts have one size, objects are removed one by one,
parts go with a Content-MD5 where that is needed (B2 refuses `x-amz-checksum-…`), and no write is conditional.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tasks.errors import AccessRefused, BackupSystemError, BadSetting, UploadUnknown
from tasks.storage.s3 import WRITE_CHECK, Storage
from tasks.storage.s3_client import Proofs, in_base64

#: The parts that S3 allows for one object, and what stores allow that refuse the last of these.
MOST_PARTS, FEW_PARTS = 10_000, 1_000
_BODY = b"database backup"


@dataclass(frozen=True)
class StoreFacts:
    """What a store does, and the rules of its bucket as far as the keys may see them."""

    needs_md5: bool
    etag_is_md5: bool
    most_parts: int
    """So many parts of one object the store takes."""
    versioning: str
    """`Enabled` or `Suspended`; empty when the bucket keeps no versions, or the store does not say."""
    object_lock: str
    """`on`, or the default retention such as `GOVERNANCE 30 days`; empty without Object Lock, or if it is not said."""
    expiry_days: int
    """A rule of the bucket removes backups of this age; 0 when none does, or when it is not said."""

    @classmethod
    def of(cls, noted: Mapping[str, Any]) -> StoreFacts | None:
        """Facts as they were noted; None for what another version of this program has noted."""
        try:
            return cls(**noted)
        except TypeError:
            return None

    @property
    def proofs(self) -> Proofs:
        """What proves parts."""
        return Proofs(self.needs_md5, self.etag_is_md5)

    def sentence(self) -> str:
        """The facts for a person. Pure."""
        how = "the SHA-256 of their signature"
        if self.needs_md5:
            how = "Content-MD5 and ETag" if self.etag_is_md5 else "Content-MD5"
        versions = {"": "no versions are known of", "Suspended": "versions are suspended"}.get(
            self.versioning, "versions are kept"
        )
        lock = f"Object Lock is {self.object_lock}" if self.object_lock else "no Object Lock is known of"
        return f"Parts are proved by {how}, {self.most_parts:,} are allowed; {versions}; {lock}."


def probe(storage: Storage, prefix: str) -> StoreFacts:
    """Asks the store. Raises what the storage raises when it cannot be asked."""
    proofs = storage.proofs(prefix)
    return StoreFacts(
        needs_md5=proofs.needs_md5,
        etag_is_md5=proofs.etag_is_md5,
        most_parts=_most_parts(storage, prefix + WRITE_CHECK),
        versioning=storage.versioning(),
        object_lock=_object_lock(storage),
        expiry_days=_expiry_days(storage, prefix),
    )


def _most_parts(storage: Storage, key: str) -> int:
    """Whether the last part that S3 allows is taken, of an upload that is aborted at once."""
    upload_id = storage.begin(key)
    try:
        storage.ask(
            "upload_part",
            Key=key,
            UploadId=upload_id,
            PartNumber=MOST_PARTS,
            Body=_BODY,
            ContentMD5=in_base64(hashlib.md5(_BODY, usedforsecurity=False).digest()),
        )
    except UploadUnknown:
        raise
    except BadSetting:
        return FEW_PARTS
    finally:
        storage.abort(key, upload_id)
    return MOST_PARTS


def _object_lock(storage: Storage) -> str:
    try:
        found = storage.ask("get_object_lock_configuration").get("ObjectLockConfiguration", {})
    except (AccessRefused, BadSetting):
        return ""
    rule = found.get("Rule", {}).get("DefaultRetention", {})
    lengths = [f"{rule[unit]} {unit.lower()}" for unit in ("Days", "Years") if rule.get(unit)]
    if found.get("ObjectLockEnabled") != "Enabled":
        return ""
    return " ".join([str(rule["Mode"]), *lengths]) if rule.get("Mode") else "on"


def _expiry_days(storage: Storage, prefix: str) -> int:
    try:
        rules = storage.ask("get_bucket_lifecycle_configuration").get("Rules", ())
    except (AccessRefused, BadSetting):
        return 0
    days = [rule["Expiration"]["Days"] for rule in rules if _expires(rule, prefix)]
    return min(days, default=0)


def _expires(rule: Mapping[str, Any], prefix: str) -> bool:
    """Whether a lifecycle rule removes what lies below the prefix. Backups have no tags, so no rule for tags does."""
    chosen = rule.get("Filter", {})
    both = chosen.get("And", {})
    if rule.get("Status") != "Enabled" or not rule.get("Expiration", {}).get("Days"):
        return False
    if "Tag" in chosen or both.get("Tags"):
        return False
    below = rule.get("Prefix") or chosen.get("Prefix") or both.get("Prefix") or ""
    return prefix.startswith(below) or below.startswith(prefix)


def lock_of(storage: Storage, key: str, version: str = "") -> str:
    """How the bucket keeps an object, or a version of it: `until 2026-03-01 02:00 UTC`. Empty: not, or not said."""
    try:
        told = storage.ask("head_object", Key=key, **({"VersionId": version} if version else {}))
    except BackupSystemError:
        return ""
    if told.get("ObjectLockLegalHoldStatus") == "ON":
        return "under a legal hold"
    until = told.get("ObjectLockRetainUntilDate")
    return f"until {until.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if until and until > datetime.now(UTC) else ""
