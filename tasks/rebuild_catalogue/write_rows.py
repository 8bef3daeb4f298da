"""Writes what a rebuilding of the catalogue has decided: rows and audit in one transaction, so all or nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from psycopg2.extras import Json, RealDictCursor, execute_values

from tasks.catalogue.events import Event, append_event
from tasks.catalogue.record import STATUS_WHEN_GONE, WITHOUT_REMOVAL
from tasks.plans.plan import Plan
from tasks.rebuild_catalogue.differences import Difference
from tasks.rebuild_catalogue.manifest_row import SETTLED

ACTION = "rebuild-catalogue"
_LARGEST_ID = (1 << 31) - 1
_GONE = ("missing", "deleted", "expired")
_OUTCOMES = {"add": "recorded", "complete": "found again", "repair": "repaired", **{kind: kind for kind in _GONE}}
#: What a drill has found out, as far as the audit still has it.
_PROVED = """
    SELECT DISTINCT ON (filename) filename, details->'verification' AS told, outcome,
           (details->'verification'->>'at')::timestamptz AS at
      FROM backup_events WHERE action = 'verify-backup' AND filename = ANY (%s) AND plan = %s
       AND jsonb_typeof(details->'verification') = 'object' ORDER BY filename, id DESC
"""


def write(plan: Plan, changes: Sequence[Difference], run_id: str, actor: str) -> frozenset[str]:
    """The rows are as decided, each with a line in the audit; returns the file names of those that were changed.

    A row that somebody has changed since it was compared stays as it is. Nobody writes to the table meanwhile.
    """
    done: set[str] = set()
    with plan.catalogue.cursor() as cursor:
        cursor.execute("LOCK TABLE database_backups IN SHARE ROW EXCLUSIVE MODE")
        done |= _add(cursor, plan, [one for one in changes if one.kind == "add"])
        done |= {one.filename for one in changes if one.kind != "add" and _change(cursor, one)}
        for one in changes:
            if one.filename in done:
                append_event(
                    cursor,
                    Event(
                        ACTION,
                        _OUTCOMES[one.kind],
                        plan.name,
                        actor,
                        run_id,
                        filename=one.filename,
                        bytes=one.row.get("file_size"),
                        details={"why": one.why},
                    ),
                )
    return frozenset(done)


def _add(cursor: RealDictCursor, plan: Plan, found: Sequence[Difference]) -> set[str]:
    """Rows get the ids that they had, unless somebody else has them by now; else new ones, in order of time."""
    if not found:
        return set()
    inserted = sorted(found, key=lambda one: (one.row["created_at"], one.filename))
    proved = _proofs(cursor, plan, [one.filename for one in inserted])
    taken = _taken(cursor, inserted)
    keeping, renumbered = [], []
    for one in inserted:
        row = {**one.row, "verified_at": None, **proved.get(one.filename, {})}
        row["metadata"] = Json({**one.row["metadata"], **proved.get(one.filename, {}).get("metadata", {})})
        if one.wanted_id is None or one.wanted_id in taken or one.wanted_id > _LARGEST_ID:
            renumbered.append(row)
        else:
            taken.add(one.wanted_id)
            keeping.append({**row, "id": one.wanted_id})
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


def _taken(cursor: RealDictCursor, found: Sequence[Difference]) -> set[int]:
    wanted = [one.wanted_id for one in found if one.wanted_id is not None]
    cursor.execute("SELECT id FROM database_backups WHERE id = ANY (%s::bigint[])", [wanted])
    return {int(row["id"]) for row in cursor.fetchall()}


def _proofs(cursor: RealDictCursor, plan: Plan, filenames: Sequence[str]) -> dict[str, dict[str, Any]]:
    """`verified_at` and metadata of those that a drill has had something to say of."""
    cursor.execute(_PROVED, [list(filenames), plan.name])
    return {
        str(row["filename"]): {
            "verified_at": row["at"] if row["outcome"] == "completed" else None,
            "metadata": {"verification": row["told"]},
        }
        for row in cursor.fetchall()
    }


def _change(cursor: RealDictCursor, one: Difference) -> bool:
    """Whether the row was still what it was compared as."""
    if one.kind in _GONE:
        cursor.execute(
            f"UPDATE database_backups SET status = {STATUS_WHEN_GONE} WHERE filename = %s AND status = 'completed'",
            [one.filename],
        )
        return bool(cursor.rowcount)
    again = one.kind == "complete"
    columns = (*SETTLED, "manifest_sha256")
    cursor.execute(
        f"UPDATE database_backups SET status = 'completed', {', '.join(f'{name} = %({name})s' for name in columns)},"
        f" metadata = {WITHOUT_REMOVAL} || %(metadata)s"
        " WHERE filename = %(filename)s AND plan = %(plan)s AND status = %(was)s"
        " AND coalesce(manifest_sha256, %(manifest_sha256)s) = %(manifest_sha256)s",
        {**one.row, "metadata": Json(one.row["metadata"]), "was": "missing" if again else "completed"},
    )
    return bool(cursor.rowcount)
