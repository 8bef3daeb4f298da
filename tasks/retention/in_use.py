"""Who reads a backup now: a restore, a download or a verification keeps it from being removed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from tasks.errors import BackupSystemError
from tasks.plans.plan import Plan
from tasks.postgres.dsn import Dsn
from tasks.postgres.server import maintenance

_BEGUN = """
    SELECT began.action, began.run_id, began.at FROM backup_events began
     WHERE began.filename = %s AND began.outcome = 'started' AND began.run_id <> %s AND NOT EXISTS (
       SELECT FROM backup_events e WHERE e.run_id = began.run_id AND e.action = began.action
          AND e.id > began.id AND e.outcome <> 'started')
     ORDER BY began.id DESC LIMIT 100
"""


def reader(plan: Plan, filename: str, run_id: str) -> str:
    """The newest live run, other than `run_id`, that has begun to read the backup and has not ended; empty if none.

    A run that lives has a session on the server of the database or of the catalogue.
    """
    with plan.catalogue.cursor() as cursor:
        cursor.execute(_BEGUN, [filename, run_id])
        begun = cursor.fetchall()
    alive = _sessions(plan, [f"run {run['run_id']}" for run in begun]) if begun else set()
    for run in begun:
        if f"run {run['run_id']}" in alive:
            return f"{run['action']} (run {run['run_id']} since {run['at']:%Y-%m-%d %H:%M:%S %Z})"
    return ""


def _sessions(plan: Plan, names: Sequence[str]) -> set[str]:
    """Those of the names that a session on the plan's servers has. A server that cannot be asked has none."""
    places: tuple[Callable[[], Dsn], ...] = (lambda: maintenance(plan.database), lambda: plan.catalogue.dsn)
    there: set[str] = set()
    for place in places:
        with suppress(BackupSystemError), place().session("backup deletion") as server, server.cursor() as cursor:
            cursor.execute(
                "SELECT application_name FROM pg_stat_activity WHERE application_name = ANY (%s)", [list(names)]
            )
            there |= {str(name) for (name,) in cursor.fetchall()}
    return there
