"""What a row says of the removal of its object, before the object goes.

    metadata.removal      `deleted` or `expired`: the status that the row gets once object and manifest are gone
    metadata.removal_by   who asked for it

Whoever dies between object and row leaves this behind. So whoever finds the object gone knows whether that was meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from psycopg2.extras import Json, RealDictCursor

REMOVAL = "removal"
REMOVAL_BY = "removal_by"
Intended = Literal["deleted", "expired"]
#: SQL: the status of a row whose object is gone, and for which nothing else is known.
GONE_STATUS = (
    f"(CASE WHEN metadata->>'{REMOVAL}' IN ('deleted', 'expired') THEN metadata->>'{REMOVAL}' ELSE 'missing' END)"
)
#: SQL: a row's metadata without all this.
WITHOUT_INTENT = (
    f"(CASE WHEN jsonb_typeof(metadata) = 'object' THEN metadata ELSE '{{}}' END - '{REMOVAL}' - '{REMOVAL_BY}')"
)


def note_intent(cursor: RealDictCursor, filename: str, status: Intended, actor: str) -> None:
    """The row, which stays completed for now, says what its object is about to be removed as."""
    cursor.execute(
        f"UPDATE database_backups SET metadata = {WITHOUT_INTENT} || %s WHERE filename = %s AND status = 'completed'",
        [Json({REMOVAL: status, REMOVAL_BY: actor}), filename],
    )


def withdraw_intent(cursor: RealDictCursor, filename: str) -> None:
    """The row says nothing of that any more: its object stays."""
    cursor.execute(
        f"UPDATE database_backups SET metadata = {WITHOUT_INTENT} WHERE filename = %s AND status = 'completed'",
        [filename],
    )


def intended(row: Mapping[str, Any]) -> Intended | None:
    """What a removal of the row's object that was begun is to end as. Pure."""
    metadata = row["metadata"]
    found = metadata.get(REMOVAL) if isinstance(metadata, dict) else None
    return found if row["status"] == "completed" and found in ("deleted", "expired") else None


def asked_by(row: Mapping[str, Any]) -> str:
    """Who asked for a removal that was begun; empty when that is not known. Pure."""
    metadata = row["metadata"]
    return str(metadata.get(REMOVAL_BY, "")) if isinstance(metadata, dict) else ""
