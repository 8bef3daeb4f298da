"""Asks all catalogues and servers at the same time, with a deadline of some seconds.

A catalogue is read in a few statements for any number of rows: numbers, newest backups and points of the picture.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from types import MappingProxyType
from typing import TypeVar

from psycopg2.extras import RealDictCursor

from tasks.admin_page.notes import kept_plan, noted_kept
from tasks.admin_page.view import BackupLine, CatalogueReading, PlanReading, PlanView, Point, Statistics
from tasks.catalogue.catalogue import Catalogue
from tasks.errors import CatalogueUnavailable
from tasks.names import base_of
from tasks.plans.addresses import PlanAddress, of_databases
from tasks.postgres.dsn import Dsn
from tasks.postgres.server import maintenance, source_session
from tasks.restore.kept_databases import Kept, belongs, labelled
from tasks.restore.last_restore import last_restores
from tasks.runs.at_once import asked_at_once

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
      FROM (SELECT *, created_at >= %(month)s AND backup_type <> 'adopted' AS recent FROM database_backups) each_row
     GROUP BY plan ORDER BY plan
"""
_COLUMNS = """
    id AS backup_id, plan, filename, status, backup_type, file_size AS size, row_count AS rows, table_count AS tables,
    left(created_by, 200) AS created_by, created_at, completed_at, verified_at,
    left(suspicious, %(longest)s) AS suspicious,
    left(coalesce(error, ''), %(longest)s) AS error,
    left(metadata #>> '{kept,reason}', %(longest)s) AS kept,
    left(coalesce(metadata ->> 'left_out', ''), %(longest)s) AS left_out,
    status = 'completed' AND coalesce(metadata #>> '{verification,outcome}', '') = 'unverifiable' AS unverifiable
"""
_LINES = f"""
    SELECT newest.* FROM unnest(%(plans)s::text[]) AS wanted (name) CROSS JOIN LATERAL (
      (SELECT {_COLUMNS} FROM database_backups WHERE plan = wanted.name
        ORDER BY created_at DESC, id DESC LIMIT %(count)s)
      UNION
      (SELECT {_COLUMNS} FROM database_backups WHERE plan = wanted.name AND status = 'completed'
        ORDER BY created_at DESC, id DESC LIMIT least(%(always)s, %(count)s))) AS newest
     ORDER BY plan, created_at DESC, backup_id DESC
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
_ATTENTION = """
    SELECT DISTINCT ON (plan) plan, metadata -> 'attention' AS sentences FROM database_backups
     WHERE plan = ANY (%(plans)s) AND status = 'completed' ORDER BY plan, created_at DESC, id DESC
"""
CONNECT_SECONDS = 4
DEADLINE = 12.0  # seconds for all of them together
#: Rows on the page in all, so that a browser can show it; each plan has its share of them.
ROWS_IN_ALL = 1000
ROWS_OF_A_PLAN = 50
#: What Prefect takes for one value of an artifact's metadata, in characters.
_LONGEST_NOTE = 500

#: A plan that has never been backed up.
NOTHING = Statistics(0, 0, 0, None, 0, 0, None, None, None)
Place = tuple[tuple[str, str], ...]
Marks = Mapping[Place, tuple[int, int]]
T = TypeVar("T")


def read(
    catalogue: Catalogue, wanted: Collection[str], elsewhere: Collection[str], count: int, now: datetime
) -> CatalogueReading:
    """The newest `count` backups, and the numbers, of the plans `wanted` and of deleted plans, in one transaction.

    `elsewhere` are plans with another catalogue: their rows here do not count. Raises what the catalogue raises when it
    does not answer or has no tables.
    """
    with catalogue.cursor() as cursor:
        mark = _mark(cursor)
        cursor.execute(_STATISTICS, {"month": now - MONTH})
        statistics = {row.pop("plan"): Statistics(**row) for row in cursor.fetchall()}
        own = [name for name in statistics if name in wanted or base_of(name) in wanted]
        left = [name for name in statistics if name not in own and {name, base_of(name)}.isdisjoint(elsewhere)]
        plans = own + left[:MOST_DELETED_PLANS]
        asked = {
            "plans": plans,
            "count": max(1, min(count, ROWS_IN_ALL // max(len(plans), 1))),
            "always": ALWAYS_LISTED,
            "longest": _LONGEST_TEXT,
            "now": now,
            "pictured": now - PICTURED,
            "slots": SLOTS,
        }
        cursor.execute(_LINES, asked)
        lines = _by_plan(cursor, BackupLine)
        cursor.execute(_POINTS, asked)
        points = _by_plan(cursor, Point)
        restores = last_restores(cursor, plans)
        cursor.execute(_ATTENTION, asked)
        attention = {row["plan"]: _sentences(row["sentences"]) for row in cursor.fetchall()}
    shown = [*plans, *(name for name in wanted if name not in statistics)]
    return CatalogueReading(
        mark,
        {
            name: PlanReading(
                statistics.get(name, NOTHING),
                tuple(lines.get(name, ())),
                tuple(points.get(name, ())),
                restores.get(name),
                attention.get(name, ()),
            )
            for name in shown
        },
    )


def _sentences(noted: object) -> tuple[str, ...]:
    return tuple(str(sentence) for sentence in noted) if isinstance(noted, list) else ()


def mark_of(catalogue: Catalogue) -> tuple[int, int]:
    """A value that changes with every record. Raises as `read`."""
    with catalogue.cursor() as cursor:
        return _mark(cursor)


def _mark(cursor: RealDictCursor) -> tuple[int, int]:
    """The first question of a transaction, none of whose statements may take long."""
    cursor.execute("SELECT set_config('statement_timeout', %s, true)", [f"{STATEMENT_SECONDS}s"])
    cursor.execute(_MARK)
    row = cursor.fetchone()
    return int(row["event"]), int(row["backup"])


def _by_plan(cursor: RealDictCursor, kind: Callable[..., T]) -> dict[str, list[T]]:
    rows: dict[str, list[T]] = {}
    for row in cursor.fetchall():
        rows.setdefault(row.pop("plan"), []).append(kind(**row))
    return rows


@dataclass(frozen=True)
class Gathered:
    """Every plan as it is now; by `marks`, `changed` sees whether anything was recorded since."""

    views: tuple[PlanView, ...]
    marks: Marks


def gather(
    plans: Collection[PlanAddress],
    next_runs: Mapping[str, datetime],
    now: datetime,
    unasked: str = "",
    noted: Mapping[str, str] = MappingProxyType({}),
) -> Gathered:
    """What the catalogues and the servers of `plans` hold. The plans of those that do not answer say so.

    The server of the plan `unasked` is not asked: the kept databases there are those that `kept_notes` has noted.
    """
    catalogues = {place_of(plan.catalogue): plan.catalogue for plan in plans if plan.catalogue}
    quiet = {_server_of(plan.database) for plan in plans if plan.database and plan.name == base_of(unasked)}
    servers = {_server_of(plan.database): plan.database for plan in plans if plan.database}
    servers = {place: dsn for place, dsn in servers.items() if place not in quiet}
    names = frozenset(plan.name for plan in plans)
    share = max(1, min(ROWS_OF_A_PLAN, ROWS_IN_ALL // max(len(plans), 1)))
    jobs: dict[tuple[str, Place], Callable[[], CatalogueReading | dict[str, list[Kept]]]] = {}
    for place, dsn in catalogues.items():
        wanted = [plan.name for plan in plans if place_of(plan.catalogue) == place]
        jobs["catalogue", place] = partial(read, Catalogue(_impatient(dsn)), wanted, names, share, now)
    for place, dsn in servers.items():
        jobs["server", place] = partial(_kept, dsn, [plan for plan in plans if _server_of(plan.database) == place])
    answers = dict(asked_at_once(jobs, DEADLINE))
    for place in quiet:
        answers["server", place] = {
            plan: noted_kept(plan, noted) for plan in {*names, *(kept_plan(note) for note in noted)}
        }
    readings = {place: answers["catalogue", place] for place in catalogues}
    views = [
        _view(each, answers, next_runs.get(plan.name)) for plan in plans for each in _with_databases(plan, answers)
    ]
    shown = {view.name for view in views}
    views += [
        PlanView(name, reading, configured=False)
        for answer in readings.values()
        if isinstance(answer, CatalogueReading)
        for name, reading in answer.plans.items()
        if name not in shown and name not in names
    ]
    marks = {place: reading.mark for place, reading in readings.items() if isinstance(reading, CatalogueReading)}
    return Gathered(tuple(views), marks)


def changed(plans: Collection[PlanAddress], marks: Marks) -> bool:
    """Whether a catalogue has recorded anything since it gave its mark. If it does not answer, this is False."""
    asked = {place_of(plan.catalogue): plan.catalogue for plan in plans if plan.catalogue}
    jobs = {place: partial(mark_of, Catalogue(_impatient(dsn))) for place, dsn in asked.items() if place in marks}
    answers = asked_at_once(jobs, DEADLINE)
    return any(isinstance(answer, tuple) and answer != marks[place] for place, answer in answers.items())


def _source(plan: PlanAddress) -> str:
    if plan.database is None or plan.catalogue is None:
        return ""
    return f"{plan.database.place} with the catalogue {plan.catalogue.place}"[:_LONGEST_NOTE]


def place_of(dsn: Dsn | None) -> Place:
    """A key for the address: the same for equal addresses."""
    return tuple(sorted(dsn.parameters.items())) if dsn else ()


def _server_of(dsn: Dsn | None) -> Place:
    return place_of(dsn.with_dbname("")) if dsn else ()


def _impatient(dsn: Dsn) -> Dsn:
    return Dsn({**dsn.parameters, "connect_timeout": str(CONNECT_SECONDS)})


def _kept(dsn: Dsn, plans: list[PlanAddress]) -> dict[str, list[Kept]]:
    with source_session(maintenance(_impatient(dsn)), "backup admin page") as server:
        every = labelled(server)  # once for all plans: the sizes of databases take the server some time
    found = {
        plan.name: [
            database for database in every if plan.database and belongs(database, plan.name, plan.database.dbname)
        ]
        for plan in plans
    }
    servers = {plan.name for plan in plans if plan.databases}
    for database in every:
        if base_of(database.plan) in servers and database.plan not in found:
            found[database.plan] = [each for each in every if each.plan == database.plan]
    return found


def _with_databases(plan: PlanAddress, answers: Mapping[tuple[str, Place], object]) -> list[PlanAddress]:
    """The plans of its databases that have records, in place of the plan of a server.

    Itself too while there are none, and where it has backups of the time before it had patterns.
    """
    reading = answers.get(("catalogue", place_of(plan.catalogue)))
    if not plan.databases or not isinstance(reading, CatalogueReading):
        return [plan]
    own = reading.plans.get(plan.name)
    databases = of_databases(plan, [name for name in reading.plans if name.startswith(f"{plan.name}.")])
    return [*([plan] if own and own.statistics.recorded else []), *databases] or [plan]


def _view(plan: PlanAddress, answers: Mapping[tuple[str, Place], object], next_run: datetime | None) -> PlanView:
    catalogue = answers.get(("catalogue", place_of(plan.catalogue)))
    kept = answers.get(("server", _server_of(plan.database)))
    problems = [plan.problem] if plan.problem else []
    reading = catalogue.plans.get(plan.name) if isinstance(catalogue, CatalogueReading) else None
    if plan.catalogue and isinstance(catalogue, BaseException):
        problems.append(_sentence(plan.catalogue, "The catalogue", catalogue))
    if plan.database and isinstance(kept, BaseException):
        problems.append(_sentence(plan.database, "The kept databases are not known: the server", kept))
    return PlanView(
        name=plan.name,
        reading=reading,
        database=plan.database.dbname if plan.database else "",
        source=_source(plan),
        kept=tuple(kept.get(plan.name, ())) if isinstance(kept, dict) else (),
        kept_days=plan.kept_days,
        price_per_gib=plan.price_per_gib,
        next_run=next_run,
        restore_only=plan.restore_only,
        problems=tuple(problems),
    )


def _sentence(dsn: Dsn, what: str, error: BaseException) -> str:
    if isinstance(error, CatalogueUnavailable):
        return str(error)
    return f"{what} at {dsn.place} gave no answer. {dsn.clean(str(error))}"
