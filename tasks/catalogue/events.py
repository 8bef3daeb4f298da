"""The lines of the audit `backup_events`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from psycopg2.extras import Json, RealDictCursor


@dataclass(frozen=True)
class Event:
    """One line of the audit: what was done, by whom, with what outcome."""

    action: str
    outcome: str
    plan: str
    actor: str
    run_id: str
    backup_id: int | None = None
    filename: str | None = None
    duration_seconds: float | None = None
    bytes: int | None = None
    error: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


def append_event(cursor: RealDictCursor, event: Event) -> None:
    """Adds one line to the audit, as part of the cursor's transaction."""
    values = {**vars(event), "details": Json(dict(event.details))}
    columns, places = ", ".join(values), ", ".join(f"%({name})s" for name in values)
    cursor.execute(f"INSERT INTO backup_events ({columns}) VALUES ({places})", values)
