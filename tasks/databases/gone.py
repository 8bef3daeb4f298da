"""Databases that the plan of a server backed up and that it does not find any more: each is told once.

Their backups stay by the rules of the plan. What was told is in the audit; a database that comes back, is backed up and
goes again is told again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from tasks.catalogue.catalogue import Catalogue
from tasks.catalogue.rows import Event, append_event
from tasks.names import FULL, parted, shown

ACTION = "database-gone"
#: The plans below a prefix that have a completed backup, or had one, and whether their end was told since.
_BACKED_UP = """
    SELECT plan, coalesce(last.action = %(gone)s, false) AS told
      FROM (SELECT DISTINCT plan FROM database_backups
             WHERE left(plan, length(%(prefix)s)) = %(prefix)s AND completed_at IS NOT NULL
               AND backup_type = %(full)s) AS backed_up
      LEFT JOIN (SELECT DISTINCT ON (plan) plan, action FROM backup_events
                  WHERE left(plan, length(%(prefix)s)) = %(prefix)s
                    AND (action = %(gone)s OR (action = 'backup' AND outcome = 'completed'))
                  ORDER BY plan, id DESC) AS last USING (plan)
     ORDER BY plan
"""


def note_gone(
    catalogue: Catalogue, server_plan: str, there: Collection[str], line: Callable[[str], Event]
) -> dict[str, str]:
    """The sentence for each plan whose database is not among `there`, if it was not reported before.

    The audit gets the `line` of each, all or none. Raises CatalogueUnavailable or BadSetting.
    """
    with catalogue.cursor() as cursor:
        # Of two runs at the same time, the second sees what the first has told.
        cursor.execute("SELECT pg_advisory_xact_lock(hashtext(%s))", [f"{ACTION} {server_plan}"])
        cursor.execute(_BACKED_UP, {"prefix": f"{server_plan}.", "gone": ACTION, "full": FULL})
        gone = [row["plan"] for row in cursor.fetchall() if not row["told"] and row["plan"] not in there]
        for plan in gone:
            append_event(cursor, line(plan))
    return {plan: _sentence(plan) for plan in gone}


def _sentence(plan: str) -> str:
    return (
        f"The database {shown(parted(plan)[1])} is not backed up any more: its server does not have it, it is a "
        "template or takes no connections, or the plan does not mean it. Its backups stay by the rules of retention, "
        f"the newest always; restore of plan {plan} brings it back. This is reported once."
    )
