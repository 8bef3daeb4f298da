"""The last lines of the audit `backup_events`, of those that somebody wants to see."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tasks.catalogue.catalogue import Catalogue
from tasks.errors import BadSetting

MOST_LINES = 1000
_COLUMNS = "at, action, outcome, plan, backup_id, filename, actor, run_id, duration_seconds, bytes, error, details"
_CONDITIONS = {
    "plan": "plan = %(plan)s",
    "action": "action = %(action)s",
    "outcome": "outcome = %(outcome)s",
    "actor": "position(lower(%(actor)s) IN lower(actor)) > 0",
    "backup": "(filename = %(backup)s OR backup_id::text = %(backup)s OR filename IN"
    " (SELECT filename FROM database_backups WHERE id::text = %(backup)s))",
}


@dataclass(frozen=True)
class Asked:
    """Which lines: those that fit everything given here, and of these the last. Empty means any."""

    plan: str = ""
    action: str = ""
    outcome: str = ""
    actor: str = ""
    """A part of the name, in capitals or not."""
    backup: str = ""
    """A file name or an id."""
    last: int = 100

    def __post_init__(self) -> None:
        if not 1 <= self.last <= MOST_LINES:
            raise BadSetting(f"The last {self.last} lines cannot be listed: set last to 1 to {MOST_LINES}.")

    @property
    def filters(self) -> dict[str, str]:
        """What was given, without the space around it."""
        return {name: str(value).strip() for name in _CONDITIONS if (value := getattr(self, name)).strip()}


@dataclass(frozen=True)
class EventLine:
    """One line of the audit."""

    at: datetime
    action: str
    outcome: str
    plan: str
    backup_id: int | None
    filename: str | None
    actor: str
    run_id: str
    duration_seconds: float | None
    bytes: int | None
    error: str | None
    details: Mapping[str, Any]

    @property
    def more(self) -> str:
        """What went wrong, and whatever else was noted, as one text."""
        noted = [f"{name}: {_short(value)}" for name, value in self.details.items() if value not in (None, "", [], {})]
        return "; ".join(([self.error] if self.error else []) + noted)


def last_events(catalogue: Catalogue, asked: Asked) -> tuple[EventLine, ...]:
    """The lines that fit, newest first. Raises as every question to the catalogue."""
    filters = asked.filters
    where = " AND ".join(_CONDITIONS[name] for name in filters) or "true"
    with catalogue.cursor() as cursor:
        cursor.execute(
            f"SELECT {_COLUMNS} FROM backup_events WHERE {where} ORDER BY id DESC LIMIT %(last)s",
            {**filters, "last": asked.last},
        )
        return tuple(EventLine(**{**row, "at": row["at"].astimezone(UTC)}) for row in cursor.fetchall())


def newest(several: Iterable[Iterable[EventLine]], last: int) -> tuple[EventLine, ...]:
    """The last lines of several catalogues' together, newest first. Pure."""
    every = [line for lines in several for line in lines]
    return tuple(sorted(every, key=lambda line: line.at, reverse=True)[:last])


def _short(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
