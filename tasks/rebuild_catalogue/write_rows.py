"""Writes what a comparison of bucket and catalogue has decided: rows and audit in one transaction, all or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg2.extras import Json, RealDictCursor, execute_values

from tasks.catalogue.rows import SETTLED, STATUS_WHEN_GONE, WITHOUT_REMOVAL, Event, append_event
from tasks.plans.plan import Plan
from tasks.rebuild_catalogue.differences import Difference

ACTION = "rebuild-catalogue"
_LARGEST_ID = (1 << 31) - 1
_GONE = ("missing", "deleted", "expired")
_OUTCOMES = {"add": "recorded", "complete": "found again", "repair": "repaired", **{kind: kind for kind in _GONE}}
#: The last outcome of verify-backup for each backup, as far as the audit still has it.
_VERIFICATIONS = """
    SELECT DISTINCT ON (filename) filename, details->'verification' AS verification, outcome,
           (details->'verification'->>'at')::timestamptz AS at
      FROM backup_events WHERE action = 'verify-backup' AND filename = ANY (%s) AND plan = %s
       AND jsonb_typeof(details->'verification') = 'object' ORDER BY filename, id DESC
"""


def write(plan: Plan, changes: Sequence[Difference], run_id: str, actor: str) -> frozenset[str]:
    """The rows are as decided, each with a line in the audit; returns the file names of those that were changed.

    A row that somebody has changed since it was compared stays as it is. Nobody writes to the table meanwhile.
    """
    with plan.catalogue.cursor() as cursor:
        cursor.execute("LOCK TABLE database_backups IN SHARE ROW EXCLUSIVE MODE")
        done = _add(cursor, plan, [change for change in changes if change.kind == "add"])
        done |= {change.filename for change in changes if change.kind != "add" and _change(cursor, change)}
        for change in changes:
            if change.filename in done:
                append_event(cursor, _event(plan, change, run_id, actor))
    return frozenset(done)


def _event(plan: Plan, change: Difference, run_id: str, actor: str) -> Event:
    return Event(
        ACTION,
        _OUTCOMES[change.kind],
        plan.name,
        actor,
        run_id,
        filename=change.filename,
        bytes=change.row.get("file_size"),
        details={"why": change.why},
    )


def _add(cursor: RealDictCursor, plan: Plan, changes: Sequence[Difference]) -> set[str]:
    """Rows get the ids that they had, unless another row has them by now; else new ids, in the order of time."""
    if not changes:
        return set()
    verifications = _verifications(cursor, plan, [change.filename for change in changes])
    taken = _taken(cursor, changes)
    keeping, renumbered = [], []
    for change in sorted(changes, key=lambda one: (one.row["created_at"], one.filename)):
        verified_at, more = verifications.get(change.filename, (None, {}))
        row = {**change.row, "verified_at": verified_at, "metadata": Json({**change.row["metadata"], **more})}
        if change.wanted_id is None or change.wanted_id in taken or change.wanted_id > _LARGEST_ID:
            renumbered.append(row)
        else:
            taken.add(change.wanted_id)
            keeping.append({**row, "id": change.wanted_id})
    done = _insert(cursor, keeping)
    if keeping:
        cursor.execute(
            "SELECT setval(s, greatest((SELECT max(id) FROM database_backups), nextval(s)))"
            " FROM pg_get_serial_sequence('database_backups', 'id') s"
        )
    return done | _insert(cursor, renumbered)


def _insert(cursor: RealDictCursor, rows: Sequence[dict[str, Any]]) -> set[str]:
    if not rows:
        return set()
    columns = list(rows[0])
    written = execute_values(
        cursor,
        f"INSERT INTO database_backups ({', '.join(columns)}) VALUES %s ON CONFLICT (filename) DO NOTHING"
        " RETURNING filename",
        [[row[name] for name in columns] for row in rows],
        page_size=500,
        fetch=True,
    )
    return {str(row["filename"]) for row in written}


def _taken(cursor: RealDictCursor, changes: Sequence[Difference]) -> set[int]:
    wanted = [change.wanted_id for change in changes if change.wanted_id is not None]
    cursor.execute("SELECT id FROM database_backups WHERE id = ANY (%s::bigint[])", [wanted])
    return {int(row["id"]) for row in cursor.fetchall()}


def _verifications(cursor: RealDictCursor, plan: Plan, filenames: Sequence[str]) -> dict[str, tuple[Any, Any]]:
    """`verified_at` and additional metadata by file name."""
    cursor.execute(_VERIFICATIONS, [list(filenames), plan.name])
    return {
        str(row["filename"]): (
            row["at"] if row["outcome"] == "completed" else None,
            {"verification": row["verification"]},
        )
        for row in cursor.fetchall()
    }


def _change(cursor: RealDictCursor, change: Difference) -> bool:
    """Writes one row; says whether the row was still what it was compared as."""
    if change.kind in _GONE:
        cursor.execute(
            f"UPDATE database_backups SET status = {STATUS_WHEN_GONE} WHERE filename = %s AND status = 'completed'",
            [change.filename],
        )
        return bool(cursor.rowcount)
    columns = (*SETTLED, "manifest_sha256")
    cursor.execute(
        f"UPDATE database_backups SET status = 'completed', {', '.join(f'{name} = %({name})s' for name in columns)},"
        f" metadata = {WITHOUT_REMOVAL} || %(metadata)s"
        " WHERE filename = %(filename)s AND plan = %(plan)s AND status = %(was)s"
        " AND coalesce(manifest_sha256, %(manifest_sha256)s) = %(manifest_sha256)s",
        {
            **change.row,
            "metadata": Json(change.row["metadata"]),
            "was": "missing" if change.kind == "complete" else "completed",
        },
    )
    return bool(cursor.rowcount)
