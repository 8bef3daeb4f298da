"""Reads a catalogue: numbers, newest backups and points of the picture, in a few statements for any number of rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Any

from psycopg2.extras import RealDictCursor

from tasks.admin_page.view import BackupLine, CatalogueReading, PlanReading, Point, Statistics
from tasks.catalogue.catalogue import Catalogue

MONTH = timedelta(days=30)
PICTURED = timedelta(days=90)
SLOTS = 90  # points of a picture at most
#: This many completed backups are listed in any case, even if many failed backups are newer.
ALWAYS_LISTED = 5
#: Of the plans that were deleted, whose rows are still there, this many are shown.
MOST_DELETED_PLANS = 20
_LONGEST_TEXT = 300  # characters of an error
STATEMENT_SECONDS = 10

_MARK = """
    SELECT coalesce((SELECT max(id) FROM backup_events), 0) AS event,
           coalesce((SELECT max(id) FROM database_backups), 0) AS backup
"""
_SUCCEEDED = "status NOT IN ('in_progress', 'failed')"
_STATISTICS = f"""
    SELECT plan, count(*) AS recorded,
           count(*) FILTER (WHERE status = 'completed') AS completed,
           coalesce(sum(file_size) FILTER (WHERE status = 'completed'), 0)::bigint AS stored,
           max(coalesce(completed_at, created_at)) FILTER (WHERE {_SUCCEEDED} AND backup_type = 'full') AS last_success,
           count(*) FILTER (WHERE recent AND status <> 'in_progress') AS month_ended,
           count(*) FILTER (WHERE recent AND {_SUCCEEDED}) AS month_succeeded,
           percentile_cont(0.5) WITHIN GROUP (ORDER BY extract(epoch FROM completed_at - created_at)::float8)
             FILTER (WHERE recent AND {_SUCCEEDED}) AS month_seconds,
           (array_agg(plain_size ORDER BY created_at, id)
             FILTER (WHERE recent AND {_SUCCEEDED} AND backup_type = 'full'))[1] AS month_first_size,
           (array_agg(plain_size ORDER BY created_at DESC, id DESC)
             FILTER (WHERE recent AND {_SUCCEEDED} AND backup_type = 'full'))[1] AS month_last_size
      FROM (SELECT *, created_at >= %(month)s AS recent FROM database_backups) each_row
     GROUP BY plan ORDER BY plan
"""
_COLUMNS = """
    id, plan, filename, status, backup_type, file_size, row_count, table_count, left(created_by, 200) AS created_by,
    created_at, completed_at, verified_at, left(suspicious, %(longest)s) AS suspicious,
    left(coalesce(error, ''), %(longest)s) AS error,
    status = 'completed' AND coalesce(metadata #>> '{verification,outcome}', '') = 'unverifiable' AS unverifiable
"""
_LINES = f"""
    SELECT newest.* FROM unnest(%(plans)s::text[]) AS wanted (name) CROSS JOIN LATERAL (
      (SELECT {_COLUMNS} FROM database_backups WHERE plan = wanted.name
        ORDER BY created_at DESC, id DESC LIMIT %(count)s)
      UNION
      (SELECT {_COLUMNS} FROM database_backups WHERE plan = wanted.name AND status = 'completed'
        ORDER BY created_at DESC, id DESC LIMIT least(%(always)s, %(count)s))) AS newest
     ORDER BY plan, created_at DESC, id DESC
"""
_POINTS = f"""
    WITH recent AS (
      SELECT plan, created_at, status, file_size, extract(epoch FROM completed_at - created_at)::float8 AS seconds,
             min(created_at) OVER (PARTITION BY plan) AS start
        FROM database_backups
       WHERE plan = ANY (%(plans)s) AND backup_type = 'full' AND status <> 'in_progress'
         AND created_at BETWEEN %(pictured)s AND %(now)s)
    SELECT plan, max(created_at) AS at, max(file_size) FILTER (WHERE {_SUCCEEDED}) AS size,
           max(seconds) FILTER (WHERE {_SUCCEEDED}) AS seconds, count(*) FILTER (WHERE status = 'failed') AS failed
      FROM recent
     GROUP BY plan, floor(extract(epoch FROM created_at - start) * %(slots)s
                          / (extract(epoch FROM %(now)s - start) + 1))
     ORDER BY plan, at
"""


def read(
    catalogue: Catalogue, wanted: Collection[str], elsewhere: Collection[str], count: int, now: datetime
) -> CatalogueReading:
    """The newest `count` backups, and the numbers, of the plans `wanted` and of deleted plans, in one transaction.

    `elsewhere` are plans with another catalogue: their rows here do not count. Raises what the catalogue raises when it
    does not answer or has no tables.
    """
    with catalogue.cursor() as cursor:
        cursor.execute("SELECT set_config('statement_timeout', %s, true)", [f"{STATEMENT_SECONDS}s"])
        mark = _mark(cursor)
        cursor.execute(_STATISTICS, {"month": now - MONTH})
        statistics = {row.pop("plan"): Statistics(**row) for row in cursor.fetchall()}
        left = [name for name in statistics if name not in wanted and name not in elsewhere]
        plans = [name for name in statistics if name in wanted] + left[:MOST_DELETED_PLANS]
        asked = {
            "plans": plans,
            "count": count,
            "always": ALWAYS_LISTED,
            "longest": _LONGEST_TEXT,
            "now": now,
            "pictured": now - PICTURED,
            "slots": SLOTS,
        }
        cursor.execute(_LINES, asked)
        lines = _by_plan(cursor)
        cursor.execute(_POINTS, asked)
        points = _by_plan(cursor)
    recorded = {name: _reading(statistics[name], lines.get(name, []), points.get(name, [])) for name in plans}
    missing = {name: PlanReading(NOTHING, (), ()) for name in wanted if name not in recorded}
    return CatalogueReading(mark, {**recorded, **missing})


def mark_of(catalogue: Catalogue) -> tuple[int, int]:
    """A value that changes with every record. Raises as `read`."""
    with catalogue.cursor() as cursor:
        cursor.execute("SELECT set_config('statement_timeout', %s, true)", [f"{STATEMENT_SECONDS}s"])
        return _mark(cursor)


#: A plan that has never been backed up.
NOTHING = Statistics(0, 0, 0, None, 0, 0, None, None, None)


def _mark(cursor: RealDictCursor) -> tuple[int, int]:
    cursor.execute(_MARK)
    row = cursor.fetchone()
    return int(row["event"]), int(row["backup"])


def _by_plan(cursor: RealDictCursor) -> dict[str, list[Mapping[str, Any]]]:
    rows: dict[str, list[Mapping[str, Any]]] = {}
    for row in cursor.fetchall():
        rows.setdefault(row["plan"], []).append(row)
    return rows


def _reading(statistics: Statistics, lines: list[Mapping[str, Any]], points: list[Mapping[str, Any]]) -> PlanReading:
    return PlanReading(
        statistics,
        tuple(
            BackupLine(
                backup_id=row["id"],
                filename=row["filename"],
                status=row["status"],
                backup_type=row["backup_type"],
                size=row["file_size"],
                rows=row["row_count"],
                tables=row["table_count"],
                created_by=row["created_by"],
                created_at=row["created_at"],
                completed_at=row["completed_at"],
                verified_at=row["verified_at"],
                unverifiable=row["unverifiable"],
                suspicious=row["suspicious"],
                error=row["error"],
            )
            for row in lines
        ),
        tuple(Point(row["at"], row["size"], row["seconds"], row["failed"]) for row in points),
    )
