"""What the admin page shows: the values, and links to the run forms of the Prefect UI, filled in. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import quote, urlsplit

from tasks.names import base_of
from tasks.restore.kept_databases import Kept
from tasks.restore.last_restore import LastRestore
from tasks.runs.markdown import cell

_V2 = "/v2"
_TARGETS = 5  # plans
_SAFE = "/:@!$&'*+,;=%~"


@dataclass(frozen=True)
class Statistics:
    """The numbers of a plan; `month` is the 30 days before the page was written."""

    completed: int
    stored: int
    """Bytes of all completed backups, as they are stored."""
    recorded: int
    """Rows of every status."""
    last_success: datetime | None
    month_ended: int
    """Backups that have ended, completed or failed."""
    month_succeeded: int
    month_seconds: float | None
    """Median from the start of a backup to its record; None without a completed backup."""
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
    """Whether the last verification failed: the backup cannot be restored."""
    suspicious: str
    error: str
    kept: str | None = None
    """Why a person keeps it for ever, which may be empty; None when nobody does."""
    left_out: str = ""
    """What the plan left out of it, in words."""

    @property
    def seconds(self) -> float | None:
        """From the start of the backup to its record; None while it has none."""
        return (self.completed_at - self.created_at).total_seconds() if self.completed_at else None


@dataclass(frozen=True)
class Point:
    """A part of the picture's time."""

    at: datetime
    size: int | None
    """Bytes of the largest backup, as it is stored; None when no backup completed."""
    seconds: float | None
    failed: int


@dataclass(frozen=True)
class PlanReading:
    """What a catalogue has of a plan."""

    statistics: Statistics
    lines: tuple[BackupLine, ...]
    """Newest first."""
    points: tuple[Point, ...]
    """Oldest first."""
    last_restore: LastRestore | None = None
    attention: tuple[str, ...] = ()
    """What of the newest completed backup will need attention when it is restored, a sentence each."""


@dataclass(frozen=True)
class CatalogueReading:
    """What a catalogue has of its plans; `mark` changes with every record."""

    mark: tuple[int, int]
    plans: Mapping[str, PlanReading]


@dataclass(frozen=True)
class PlanView:
    """A plan on the page. `reading` is None when its catalogue did not answer; `problems` has a sentence for each."""

    name: str
    reading: PlanReading | None
    database: str = ""
    source: str = ""
    """Which database the plan backs up, and where its records are."""
    earlier_source: str = ""
    """The same as long as the plan had backups, if the settings have changed and it has none now; else empty."""
    kept: tuple[Kept, ...] = ()
    kept_days: int = 3
    next_run: datetime | None = None
    problems: tuple[str, ...] = ()
    configured: bool = True
    """False when the plan was deleted and only its rows are left."""
    restore_only: bool = False
    """Whether backups of other plans are restored into it, and none are made of it."""
    price_per_gib: float = 0
    """What a GiB of its backups costs in a month; 0 when nobody has said it."""

    @property
    def monthly_cost(self) -> float:
        """What its backups cost in a month, if they stay as they are."""
        return self.price_per_gib * (self.reading.statistics.stored if self.reading else 0) / (1 << 30)


@dataclass(frozen=True)
class Links:
    """`base` is where the UI begins, `deployments` the ids of those that there are, by `<flow>/<name>`."""

    base: str = _V2
    deployments: Mapping[str, str] = field(default_factory=dict)

    def form(self, text: str, deployment: str, **parameters: str | bool) -> str:
        """A link that opens the run form of `deployment` with these parameters; empty when there is none."""
        identity = self.deployments.get(deployment)
        if not identity:
            return ""
        given = f"?parameters={quote(json.dumps(parameters, separators=(',', ':')), safe='')}" if parameters else ""
        return f"[{cell(text)}]({self.base}/deployments/deployment/{quote(identity, safe='')}/run{given})"

    def run(self, text: str, identity: str) -> str:
        """A link to a flow run."""
        return f"[{cell(text)}]({self.base}/runs/flow-run/{quote(identity, safe='')})"


def into_others(view: PlanView, links: Links, others: Sequence[PlanView]) -> list[str]:
    """Links that restore the newest backup of a plan into the server of another.

    Plans that are only restored into are offered alone. Without one, other plans are, those without backups first, but
    no other database of a server.
    """
    if not _has_backups(view):
        return []
    offered = [other for other in others if other.restore_only] or [
        other for other in others if base_of(other.name) == other.name
    ]
    nearest = sorted(offered, key=lambda other: (_has_backups(other), other.name))[:_TARGETS]
    return [
        links.form(f"Restore into {other.name}", "restore/restore-backup", plan=view.name, into=other.name)
        for other in nearest
    ]


def _has_backups(view: PlanView) -> bool:
    return bool(view.reading and view.reading.statistics.completed)


def ui_base(configured: str, serve_base: str, cloud: bool = False) -> str:
    """Where the UI's pages begin, without a slash at the end.

    `configured` is the address that somebody has set for it, such as a proxy's; without one the links stay on
    whatever host the page was opened on, below the path `serve_base`. Prefect Cloud knows one UI alone.
    """
    if configured and urlsplit(configured).scheme in ("http", "https"):
        base = quote(configured.split("?")[0].split("#")[0].rstrip("/"), safe=_SAFE + "[]")
    else:
        base = quote(f"/{serve_base.strip('/')}" if serve_base.strip("/") else "", safe=_SAFE)
    return base if cloud or base.endswith(_V2) else base + _V2
