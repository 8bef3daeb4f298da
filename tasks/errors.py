"""Every error this system raises on purpose.

    BackupSystemError
    ├── Permanent                 trying again cannot help: a person has to change something
    │   ├── BadSetting            a setting, parameter or block is wrong
    │   ├── PreflightFailed       one or more things stand in the way; carries all of them
    │   ├── ToolMissing           no suitable PostgreSQL client program
    │   ├── AlreadyRunning        somebody else holds the lock
    │   │   └── BackupUnderWay    another run makes a backup of the plan
    │   ├── AccessRefused         credentials or privileges were refused
    │   ├── DiskFull              no room for the spool
    │   ├── UploadMismatch        the store does not hold what was sent
    │   │   └── UploadUnknown     the store no longer knows the upload
    │   ├── DumpRefused           pg_dump failed for a reason that stays
    │   ├── CleanUpFailed         something that was due could not be removed
    │   ├── HealthFailed          a health check found something that is wrong
    │   ├── PlansFailed           work for several plans failed for some of them
    │   ├── DeletionRefused       a backup that must stay, or is in use, was to be deleted
    │   ├── BackupNotFound        no backup of that name can be restored
    │   │   └── BackupGone        a recorded backup is no longer in its bucket
    │   ├── BackupUnverifiable    a drill found that a backup cannot be restored as it was
    │   ├── DrillImpossible       a backup could not be tried out, which says nothing about it
    │   ├── BackupDamaged         a stored file is not what was recorded of it
    │   ├── RestoreRefused        psql met an error that another try would meet again; nothing stays of it
    │   ├── RowsDiffer            what was restored is not what was backed up
    │   ├── SwapFailed            the databases could not change their names; both are as they were
    │   ├── OutcomeUnknown        the server went away while it committed, and nobody can tell what became of that
    │   ├── Superseded            the run lost its claim on the backup it was making
    │   └── Stopped               the work was told to stop by its flow
    └── Transient                 it may pass: the task tries again
        ├── Unreachable           no answer from a server
        ├── DumpFailed            pg_dump ended early
        ├── RestoreFailed         psql ended early; nothing stays of it
        ├── ReplicationFailed     a replica lacks a backup
        └── CatalogueUnavailable  the catalogue did not answer

The message of each is one sentence for a person: what is wrong, which thing, what to do next. No message holds
a secret, so all of them may be logged, stored and shown.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

#: So many reasons fit into one message.
_TOLD = 10


class BackupSystemError(Exception):
    """Base of every error raised on purpose; its text is fit to be shown to a person."""


class Permanent(BackupSystemError):
    """Trying again cannot help."""


class Transient(BackupSystemError):
    """Trying again may help."""


class BadSetting(Permanent):
    """A setting, parameter or block has a value that cannot be used."""


class PreflightFailed(Permanent):
    """Something stands in the way of the work; nothing was changed.

    `problems` holds one sentence for each thing found.
    """

    def __init__(self, subject: str, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(f"{subject}: {' '.join(self.problems)}")


class ToolMissing(Permanent):
    """No PostgreSQL client program of a suitable version is installed."""


class AlreadyRunning(Permanent):
    """The lock that this work needs is held by another run."""


class BackupUnderWay(AlreadyRunning):
    """Another run makes a backup of the plan: it tells how that ends."""


class AccessRefused(Permanent):
    """A server answered, and refused the credentials or the privilege."""


class DiskFull(Permanent):
    """There is no room left on the disk of the spool."""


class UploadMismatch(Permanent):
    """The store does not hold what was sent to it; what it holds was removed."""


class UploadUnknown(UploadMismatch):
    """The store no longer knows an upload that was under way."""


class DumpRefused(Permanent):
    """pg_dump failed for a reason that another try would meet again."""


class CleanUpFailed(Permanent):
    """Something that was due could not be removed; every backup that stays is as it was."""


class PlansFailed(Permanent):
    """Work for several plans failed for some of them; the others are done. `reasons` holds a sentence a plan."""

    def __init__(self, action: str, reasons: Mapping[str, str], plans: int) -> None:
        self.reasons = dict(reasons)
        told = " ".join(f"Plan {plan}: {reason}" for plan, reason in list(self.reasons.items())[:_TOLD])
        if len(self.reasons) > _TOLD:
            told += f" Of {len(self.reasons) - _TOLD} more, the log says why."
        super().__init__(
            f"{action} failed for {len(self.reasons)} of {plans} plans ({', '.join(self.reasons)}). {told}"
        )


class HealthFailed(Permanent):
    """A health check found something that is wrong; `report` is all that it found, a line for each check."""

    def __init__(self, message: str, report: str) -> None:
        self.report = report
        super().__init__(message)


class DeletionRefused(Permanent):
    """A backup was to be deleted that must stay, is in use, or is locked by its store; it is as it was."""


class BackupNotFound(Permanent):
    """No backup of that name is there to be restored."""


class BackupGone(BackupNotFound):
    """A backup that was stored is no longer in its bucket, nor in a replica."""


class BackupUnverifiable(Permanent):
    """A drill found that a backup cannot be restored as it was; the message says why. Nothing else was changed."""


class DrillImpossible(Permanent):
    """A backup could not be tried out because of what is around it, which says nothing about the backup."""


class BackupDamaged(Permanent):
    """A stored file is not what was recorded of it; the message names the part or the field."""


class RestoreRefused(Permanent):
    """psql met an error that another try would meet again. Nothing that it did stays."""


class RowsDiffer(Permanent):
    """What was restored is not what was backed up; the live database is as it was."""


class SwapFailed(Permanent):
    """The databases could not change their names; both are as they were."""


class OutcomeUnknown(Permanent):
    """The server went away while it committed: nobody can tell what became of that, so nothing is repeated."""


class Superseded(Permanent):
    """Another run has declared this one dead and cleared its work away."""


class Stopped(Permanent):
    """The flow told this step to stop because another step failed or the run was cancelled."""


class Unreachable(Transient):
    """A server did not answer, or the connection to it broke."""


class DumpFailed(Transient):
    """pg_dump ended before the dump was whole."""


class RestoreFailed(Transient):
    """psql ended before the restore was whole. Nothing that it did stays."""


class CatalogueUnavailable(Transient):
    """The catalogue did not answer, or the connection to it broke."""


class ReplicationFailed(Transient):
    """A replica lacks a backup; the backup itself is completed."""
