"""Whose fault it is that a backup could not be verified: the backup's own, or that of something around it."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Literal

from tasks.errors import BackupDamaged, BackupGone, BackupSystemError, RestoreRefused, RowsDiffer
from tasks.plans.plan import Plan
from tasks.verify.subject import Subject

Fault = Literal["backup", "environment"]
#: SQLSTATEs that speak of the server and the role, not of what psql was given: connections, resources, privileges,
#: locks, operators, the machine, the server itself; a role, a locale or a parameter that is not there; what this
#: server cannot do at all, such as an extension that is not installed.
_ENVIRONMENT = ("08", "0A", "25006", "28", "40", "42501", "42704", "53", "54001", "55", "57", "58", "XX")
_CODE = re.compile(r"(psql:<stdin>:\d+: [^:]{1,30}: )([0-9A-Z]{5}): ")
_LOCATION = re.compile(r" [^\s:]+: \w+, [\w./-]+\.[a-z]:\d+")
#: A script that met an error, as psql says it by its exit status.
_SCRIPT_FAILED = "psql ended with status 3 "
#: When the row of a backup that is gone is looked at: it changes last when a backup is removed on purpose.
_REMOVAL_DELAYS = (0.0, 1.0, 2.0, 4.0)  # seconds


def fault_of(error: BackupSystemError) -> Fault:
    """Whether an error shows a fault of the backup, or only of what is around it. Pure."""
    if isinstance(error, (BackupDamaged, BackupGone, RowsDiffer)):
        return "backup"
    if not isinstance(error, RestoreRefused):
        return "environment"
    if sqlstate := _CODE.search(str(error)):
        return "environment" if sqlstate[2].startswith(_ENVIRONMENT) else "backup"
    return "backup" if _SCRIPT_FAILED in str(error) else "environment"


def plain_words(error: BackupSystemError, name: str) -> str:
    """What an error says of backup `name`, for a sentence that begins with that name. Pure.

    Without SQLSTATEs and places in the server's source, which psql prints for `fault_of`.
    """
    text = str(error)
    if _CODE.search(text):
        text = _LOCATION.sub("", _CODE.sub(r"\1", text))
    return re.sub(rf"^{re.escape(name)}(?: cannot be verified)?: ", "", text)


def excuse(plan: Plan, subject: Subject, error: BackupSystemError) -> str:
    """Why what looks like a fault of the backup is none; empty when it is one."""
    if isinstance(error, BackupGone) and subject.bucket not in ("", plan.storage.bucket):
        names = f"plan {plan.name} names bucket {plan.storage.bucket}"
        return f"It lies in bucket {subject.bucket}, and {names}: name its bucket in the plan."
    return "It was removed while it was being verified." if removed_meanwhile(plan, subject) else ""


def removed_meanwhile(plan: Plan, subject: Subject, delays: Sequence[float] = _REMOVAL_DELAYS) -> bool:
    """Whether somebody removed the backup while it was being verified, which is no fault of its own."""
    if subject.backup_id is None:
        return False
    for delay in delays:
        time.sleep(delay)
        try:
            if plan.storage.size(subject.key) is not None:
                return False
            rows = plan.catalogue.rows(subject.plan)
        except BackupSystemError:
            return False
        if not any(row.id == subject.backup_id and row.is_completed for row in rows):
            return True
    return False
