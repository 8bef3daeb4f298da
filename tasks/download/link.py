"""A link that downloads a stored backup until it expires. It needs no key, so the link is a secret."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from urllib.parse import parse_qs, urlsplit

from tasks.errors import BackupDamaged, BackupNotFound, BadSetting
from tasks.plans.plan import Plan
from tasks.storage.manifest_model import StoredBackup
from tasks.stored_backups.find_backup import chosen_backup

#: What signature version 4 allows: seven days.
MOST_MINUTES = 7 * 24 * 60
_RESTORE_ADVICE = "restore another backup, or this one from a replica"


@dataclass(frozen=True)
class Link:
    """`url` is never logged, shown or returned; only its artifact holds it."""

    url: str = field(repr=False)
    expires_at: datetime
    temporary: bool
    """Signed with temporary credentials: the link expires with them, which may be earlier."""

    @property
    def host(self) -> str:
        """Host and port that the downloading machine must reach."""
        return urlsplit(self.url).netloc


def checked_minutes(minutes: int) -> int:
    """`minutes` unchanged. Raises BadSetting when a link cannot be valid for that time."""
    if not 1 <= minutes <= MOST_MINUTES:
        raise BadSetting(
            f"A link cannot be valid for {minutes} minutes: set expires_minutes to 1 to {MOST_MINUTES} (seven days)."
        )
    return minutes


def stored_backup(plan: Plan, wanted: str) -> StoredBackup:
    """The backup that `wanted` names, chosen as by a restore, in the plan's own bucket.

    It has the recorded size and the recorded manifest. When the catalogue is lost, the bucket is enough. Raises as
    `chosen_backup`.
    """
    try:
        return chosen_backup(replace(plan, replicas=()), wanted)
    except (BackupNotFound, BackupDamaged) as error:
        instead = "choose another backup" + (", or restore this one from a replica" if plan.replicas else "")
        raise type(error)(str(error).replace(_RESTORE_ADVICE, instead)) from None


def link_to(plan: Plan, backup: StoredBackup, minutes: int, now: datetime) -> Link:
    """A link to a backup in the plan's own bucket, valid for `minutes` from `now` on."""
    url = plan.storage.presigned(backup.key, checked_minutes(minutes) * 60, backup.filename)
    temporary = "X-Amz-Security-Token" in parse_qs(urlsplit(url).query)
    return Link(url, now + timedelta(minutes=minutes), temporary)
