"""The last lines of the audit `backup_events` that fit what somebody asks for, as values, as markdown and as text."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from tasks.catalogue.catalogue import Catalogue
from tasks.catalogue.rows import Event
from tasks.errors import BadSetting
from tasks.runs.markdown import cell, columns, human_bytes, printable, table

MOST_LINES = 1000
HEADERS = ("when (UTC)", "action", "outcome", "plan", "backup", "who", "took", "size", "more", "run")
_COLUMNS = "at, action, outcome, plan, backup_id, filename, actor, run_id, duration_seconds, bytes, error, details"
_CONDITIONS = {
    "plan": "%(plan)s IN (plan, split_part(plan, '.', 1))",
    "action": "action = %(action)s",
    "outcome": "outcome = %(outcome)s",
    "actor": "position(lower(%(actor)s) IN lower(actor)) > 0",
    "backup": "(filename = %(backup)s OR backup_id::text = %(backup)s OR filename IN"
    " (SELECT filename FROM database_backups WHERE id::text = %(backup)s))",
}


@dataclass(frozen=True)
class Asked:
    """Which lines: the last of those that fit everything given here. Empty means any."""

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
class EventLine(Event):
    """One line of the audit, with the time at which it was written, in UTC."""

    at: datetime = field(kw_only=True)

    @property
    def more(self) -> str:
        """What went wrong, and whatever else was noted, as one text."""
        noted = [f"{name}: {_short(value)}" for name, value in self.details.items() if value not in (None, "", [], {})]
        return "; ".join(([self.error] if self.error else []) + noted)


def last_events(catalogue: Catalogue, asked: Asked) -> tuple[EventLine, ...]:
    """The lines that fit, newest first. Raises what every query of the catalogue raises."""
    filters = asked.filters
    where = " AND ".join(_CONDITIONS[name] for name in filters) or "true"
    with catalogue.cursor() as cursor:
        cursor.execute(
            f"SELECT {_COLUMNS} FROM backup_events WHERE {where} ORDER BY id DESC LIMIT %(last)s",
            {**filters, "last": asked.last},
        )
        return tuple(EventLine(**{**row, "at": row["at"].astimezone(UTC)}) for row in cursor.fetchall())


def newest(several: Iterable[Iterable[EventLine]], last: int) -> tuple[EventLine, ...]:
    """The last lines of several catalogues together, newest first. Pure."""
    every = [line for lines in several for line in lines]
    return tuple(sorted(every, key=lambda line: line.at, reverse=True)[:last])


# --- what is shown, all of it pure


@dataclass(frozen=True)
class Listed:
    """What was asked for, and the lines that fit, newest first."""

    asked: Asked
    lines: tuple[EventLine, ...]


def markdown(listed: Listed) -> str:
    """The lines as a table, with names as they are."""
    rows = [[cell(text) for text in _cells(line)] for line in listed.lines]
    return f"# Events\n\n{cell(_heading(listed))}\n\n{table(HEADERS, rows)}"


def plain(listed: Listed) -> str:
    """The same as text in columns; what cannot be printed is left out."""
    return f"{_heading(listed)}\n\n{columns([HEADERS, *map(_cells, listed.lines)])}"


def _cells(line: EventLine) -> tuple[str, ...]:
    """One line as texts, in the order of `HEADERS`."""
    return (
        f"{line.at:%Y-%m-%d %H:%M:%S}",
        line.action,
        line.outcome,
        line.plan,
        line.filename or ("" if line.backup_id is None else str(line.backup_id)),
        line.actor,
        "" if line.duration_seconds is None else f"{line.duration_seconds:.1f} s",
        "" if line.bytes is None else human_bytes(line.bytes),
        line.more,
        line.run_id,
    )


def _heading(listed: Listed) -> str:
    """How many lines these are, and of which, in a sentence."""
    filters = ", ".join(f"{name} {printable(value)}" for name, value in listed.asked.filters.items())
    count = len(listed.lines)
    some = f"The last {count} lines" if count != 1 else "One line"
    return f"{some if count else 'No line'} of the audit{f' with {filters}' if filters else ''}."


def _short(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 200 else f"{text[:200]}…"
