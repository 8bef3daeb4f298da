"""What the admin page shows: frozen values, one a place on the page."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from tasks.postgres.dsn import Dsn
from tasks.restore.kept import Kept


@dataclass(frozen=True)
class PlanAddress:
    """Where a plan's database and catalogue are; `problem` says in a sentence why they are not known."""

    name: str
    database: Dsn | None = None
    catalogue: Dsn | None = None
    kept_days: int = 3
    problem: str = ""


@dataclass(frozen=True)
class Statistics:
    """One plan in numbers; `month` stands for the 30 days before the page was made."""

    completed: int
    stored: int
    """Bytes of all completed backups, as they are stored."""
    recorded: int
    """Rows of any status."""
    last_success: datetime | None
    month_ended: int
    """Backups that were begun and are over, well or not."""
    month_succeeded: int
    month_seconds: float | None
    """Median from the opening of a run to its record; None without a success."""
    month_first_size: int | None
    """Bytes of the SQL text, before compression, of the first backup of the month."""
    month_last_size: int | None


@dataclass(frozen=True)
class BackupLine:
    """One row of the catalogue."""

    backup_id: int
    filename: str
    status: str
    backup_type: str
    size: int | None
    rows: int | None
    tables: int | None
    created_by: str
    created_at: datetime
    completed_at: datetime | None
    verified_at: datetime | None
    unverifiable: bool
    """Whether the last drill found that the backup cannot be restored as it should be."""
    suspicious: str
    error: str

    @property
    def seconds(self) -> float | None:
        """From the opening of the run to its record; None when it has none."""
        return (self.completed_at - self.created_at).total_seconds() if self.completed_at else None


@dataclass(frozen=True)
class Point:
    """What happened in one slot of the picture's time."""

    at: datetime
    size: int | None
    """Bytes of the largest backup; None when none succeeded."""
    seconds: float | None
    failed: int


@dataclass(frozen=True)
class PlanReading:
    """What a catalogue says of one plan."""

    statistics: Statistics
    lines: tuple[BackupLine, ...]
    """Newest first."""
    points: tuple[Point, ...]
    """Oldest first."""


@dataclass(frozen=True)
class CatalogueReading:
    """What one catalogue says of its plans; `mark` differs after anything has been done."""

    mark: tuple[int, int]
    plans: Mapping[str, PlanReading]


@dataclass(frozen=True)
class PlanView:
    """One plan on the page. `reading` is None when its catalogue gave none; `problems` say why, a sentence each."""

    name: str
    reading: PlanReading | None
    database: str = ""
    source: str = ""
    """Which database the plan backs up, and where its records are."""
    earlier_source: str = ""
    """The same of the time when the plan had backups, if it has none now; else empty."""
    kept: tuple[Kept, ...] = ()
    kept_days: int = 3
    next_run: datetime | None = None
    problems: tuple[str, ...] = ()
    configured: bool = True
    """False when only rows are left of it: there is no such plan any more."""
