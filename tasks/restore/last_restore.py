"""How long the last whole restore of a plan took, as the audit has it: what the next will take is about that."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from psycopg2.extras import RealDictCursor

from tasks.runs.markdown import duration, human_bytes, moment

#: A restore in place began with a backup, chosen tables are a part, and another server has its own speed: none says how
#: long a restore takes. A restore that was interrupted after its end has no bytes.
_LAST = """
    SELECT DISTINCT ON (plan) plan, action, at, duration_seconds AS seconds, bytes AS size
      FROM backup_events
     WHERE plan = ANY (%(plans)s) AND outcome = 'completed' AND duration_seconds IS NOT NULL AND bytes IS NOT NULL
       AND (action = 'verify-backup'
            OR action = 'restore' AND details->>'tables' = '[]' AND details->>'mode' <> 'in_place'
               AND details->>'into' IS NULL)
     ORDER BY plan, at DESC, id DESC
"""
_WORK = {
    "restore": "download, load, count and swap",
    "verify-backup": "download, load, and a comparison of all content",
}
UNKNOWN = "How long a restore takes is not known: nothing was restored or verified yet."


@dataclass(frozen=True)
class LastRestore:
    """A restore or a verify run that has completed."""

    action: str
    at: datetime
    seconds: float
    """From the beginning of its run to its end."""
    size: int
    """Bytes of the backup, as it is stored."""

    @property
    def sentence(self) -> str:
        """What was measured."""
        return (
            f"The last {self.action} ({moment(self.at)} UTC) took {duration(self.seconds)} for a backup of "
            f"{human_bytes(self.size)}: {_WORK[self.action]}. A restore takes about as long."
        )


def last_restores(cursor: RealDictCursor, plans: Collection[str]) -> dict[str, LastRestore]:
    """The newest of each plan that has one."""
    cursor.execute(_LAST, {"plans": list(plans)})
    return {row.pop("plan"): LastRestore(**row) for row in cursor.fetchall()}


def time_to_restore(last: LastRestore | None) -> str:
    """How long a restore takes, as far as that was measured. Pure."""
    return last.sentence if last else UNKNOWN
