"""Every error that this system raises on purpose, and how several become one.

    BackupSystemError
    ├── Permanent   another try cannot help: a person has to change something
    └── Transient   it may pass: Prefect tries the step again

Each message is one sentence for a person: what is wrong, with which thing, and what to do next. No message holds a
secret, so all of them may be logged, stored and shown.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

_NAMED_AT_MOST = 10


class BackupSystemError(Exception):
    """Base of every error that is raised on purpose."""


class Permanent(BackupSystemError):
    """Another try cannot help."""


class Transient(BackupSystemError):
    """Another try may help."""


# --- settings and surroundings


class BadSetting(Permanent):
    """A setting, parameter or block has a value that cannot be used."""


class PreflightFailed(Permanent):
    """The work cannot begin; nothing was changed. `problems` holds a sentence for each problem."""

    def __init__(self, subject: str, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(f"{subject}: {' '.join(self.problems)}")


class ToolMissing(Permanent):
    """No PostgreSQL client program of a suitable version is installed."""


class ServerNotStarted(Permanent):
    """A server of the worker's own, which a drill needs, could not be started."""


class AccessRefused(Permanent):
    """A server answered, and refused the credentials or the privilege."""


class ObjectLocked(AccessRefused):
    """A rule of the bucket keeps an object from being removed or written over for now."""


class Unreachable(Transient):
    """A server did not answer, or the connection to it broke."""


class CatalogueUnavailable(Transient):
    """The catalogue did not answer, or the connection to it broke."""


class DiskFull(Permanent):
    """The disk of the spool is full."""


# --- runs


class AlreadyRunning(Permanent):
    """Another run holds the lock that this work needs."""


class BackupUnderWay(AlreadyRunning):
    """Another run already backs up the plan, and will report the outcome."""


class Superseded(Permanent):
    """Another run has declared this run dead and removed its work."""


class Stopped(Permanent):
    """The step was stopped because another step failed or the run was cancelled."""


class PlansFailed(Permanent):
    """The work failed for some of several plans and is done for the others. `reasons` holds a sentence for each."""

    def __init__(self, action: str, reasons: Mapping[str, str], plans: int) -> None:
        self.reasons = dict(reasons)
        text = " ".join(f"Plan {plan}: {reason}" for plan, reason in list(self.reasons.items())[:_NAMED_AT_MOST])
        if len(self.reasons) > _NAMED_AT_MOST:
            text += f" The log has the reasons of the other {len(self.reasons) - _NAMED_AT_MOST}."
        super().__init__(
            f"{action} failed for {len(self.reasons)} of {plans} plans ({', '.join(self.reasons)}). {text}"
        )


class HealthFailed(Permanent):
    """The health check found a problem. `report` holds a line for each check."""

    def __init__(self, message: str, report: str) -> None:
        self.report = report
        super().__init__(message)


# --- making, copying and removing backups


class DumpRefused(Permanent):
    """pg_dump failed for a reason that another try would meet again."""


class AdoptionRefused(Permanent):
    """A file is no dump that can become a backup. Nothing of it was stored, and the file was not changed."""


class DumpFailed(Transient):
    """pg_dump ended before the dump was complete."""


class TablesChanged(DumpFailed):
    """Tables were no longer what the snapshot of the dump saw, before pg_dump could lock them."""

    def __init__(self, sentence: str, tables: Iterable[str]) -> None:
        super().__init__(sentence)
        self.tables = frozenset(tables)


class UploadMismatch(Permanent):
    """The store does not hold what was sent to it. The stored object was removed."""


class UploadUnknown(UploadMismatch):
    """The store no longer knows an upload that was under way."""


class ReplicationFailed(Transient):
    """A replica lacks a backup; the backup itself is completed."""


class DeletionRefused(Permanent):
    """A backup that must stay, is in use, or is locked by its store was to be deleted; it was not changed."""


class KeptByStore(DeletionRefused):
    """The bucket's lock keeps a backup for now; it was not changed, and goes once the lock has ended."""


class RemovalHalted(Permanent):
    """What the store says cannot be right, or should be looked at by a person: no backup was removed."""


class CleanUpFailed(Permanent):
    """Something that was due could not be removed. No backup that stays was changed."""


# --- finding, restoring and verifying backups


class BackupNotFound(Permanent):
    """No backup of that name can be restored."""


class BackupGone(BackupNotFound):
    """A recorded backup is no longer in its bucket, nor in a replica."""


class BackupDamaged(Permanent):
    """A stored file is not what was recorded of it; the message names the part or the field."""


class NotSigned(BackupDamaged):
    """Nothing but the bucket knows a backup, and no trusted key has signed its manifest."""


class RestoreRefused(Permanent):
    """psql met an error that another try would meet again. All that psql did was rolled back."""

    def __init__(self, message: str, sqlstate: str = "") -> None:
        self.sqlstate = sqlstate
        super().__init__(message)


class EntriesFailed(RestoreRefused):
    """Entries of the dump could not be restored; all others were. `entries` holds name, SQLSTATE and reason of each.

    `which` is the message without advice.
    """

    def __init__(self, which: str, advice: str, entries: Sequence[tuple[str, str, str]]) -> None:
        self.which, self.entries = which, tuple(entries)
        super().__init__(f"{which} {advice}")


class RestoreFailed(Transient):
    """psql ended before the restore was complete. All that psql did was rolled back."""


class RowsDiffer(Permanent):
    """The restored rows are not those of the backup; the live database was not changed."""


class ContentDiffers(Permanent):
    """A restored database does not hold what the backup holds; the live database was not changed."""


class CheckFailed(Permanent):
    """A restored database holds what the backup holds, and a check of the plan is not true of it."""


class SwapFailed(Permanent):
    """The databases could not be renamed; both have their old names."""


class OutcomeUnknown(Permanent):
    """The connection broke during the commit: it is not known whether it happened, so it is not repeated."""


class BackupUnverifiable(Permanent):
    """A backup cannot be restored as it was made; the message says why. Nothing else was changed."""


class VerifyImpossible(Permanent):
    """A backup could not be verified because of its surroundings, which says nothing about the backup."""


# --- several problems in one error


def named(beginning: str, names: Sequence[str], advice: str) -> list[str]:
    """One sentence: the first ten of `names`, how many more there are, what to do. None when there are no names."""
    if not names:
        return []
    more = f" and {len(names) - _NAMED_AT_MOST} more" if len(names) > _NAMED_AT_MOST else ""
    return [f"{beginning}{', '.join(names[:_NAMED_AT_MOST])}{more}: {advice}"]


class Problems:
    """Collects the errors of several `with` blocks, for one error that names all of them."""

    def __init__(self) -> None:
        self._sentences: list[str] = []
        self._may_pass = True

    def add(self, sentences: Iterable[str], may_pass: bool = False) -> None:
        """Notes problems that a person must solve or, with `may_pass`, that may end by themselves."""
        for sentence in sentences:
            self._note(sentence, may_pass)

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        if isinstance(error, BackupSystemError):
            self._note(str(error), may_pass=isinstance(error, Transient))
            return True
        return False

    def raise_any(self, subject: str) -> None:
        """Raises PreflightFailed if there is a problem that does not pass, Unreachable if all of them may pass."""
        if self._sentences and self._may_pass:
            raise Unreachable(f"{subject}: {' '.join(self._sentences)}")
        if self._sentences:
            raise PreflightFailed(subject, self._sentences)

    def _note(self, sentence: str, may_pass: bool) -> None:
        if sentence not in self._sentences:
            self._sentences.append(sentence)
            self._may_pass = self._may_pass and may_pass
