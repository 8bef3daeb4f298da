"""Asks all catalogues and servers at the same time, with a deadline of some seconds."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from tasks.admin_page.statistics import mark_of, read
from tasks.admin_page.view import CatalogueReading, PlanAddress, PlanView
from tasks.catalogue.catalogue import Catalogue
from tasks.errors import CatalogueUnavailable
from tasks.postgres.dsn import Dsn
from tasks.postgres.server import maintenance
from tasks.restore.kept_databases import Kept, belongs, kept
from tasks.runs.at_once import asked_at_once

CONNECT_SECONDS = 4
DEADLINE = 12.0  # seconds for all of them together
#: Rows on the page in all, so that a browser can show it; each plan has its share of them.
ROWS_IN_ALL = 1000
ROWS_OF_A_PLAN = 50
#: What Prefect takes for one value of an artifact's metadata, in characters.
_LONGEST_NOTE = 500
_NOTE = "source of plan "

Place = tuple[tuple[str, str], ...]
Marks = Mapping[Place, tuple[int, int]]


@dataclass(frozen=True)
class Gathered:
    """Every plan as it is now; by `marks`, `changed` sees whether anything was recorded since."""

    views: tuple[PlanView, ...]
    marks: Marks


def gather(plans: Collection[PlanAddress], next_runs: Mapping[str, datetime], now: datetime) -> Gathered:
    """What the catalogues and the servers of `plans` hold. The plans of those that do not answer say so."""
    catalogues = {place_of(plan.catalogue): plan.catalogue for plan in plans if plan.catalogue}
    servers = {_server_of(plan.database): plan.database for plan in plans if plan.database}
    names = frozenset(plan.name for plan in plans)
    share = max(1, min(ROWS_OF_A_PLAN, ROWS_IN_ALL // max(len(plans), 1)))
    jobs: dict[tuple[str, Place], Callable[[], CatalogueReading | dict[str, list[Kept]]]] = {}
    for place, dsn in catalogues.items():
        jobs["catalogue", place] = _reader(dsn, [plan.name for plan in plans if _at(plan, place)], names, share, now)
    for place, dsn in servers.items():
        jobs["server", place] = _kept_reader(dsn, [plan for plan in plans if _on(plan, place)])
    answers = asked_at_once(jobs, DEADLINE)
    readings = {place: answers["catalogue", place] for place in catalogues}
    views = [_view(plan, answers, next_runs.get(plan.name)) for plan in plans]
    views += [
        PlanView(name, reading, configured=False)
        for answer in readings.values()
        if isinstance(answer, CatalogueReading)
        for name, reading in answer.plans.items()
        if name not in names
    ]
    marks = {place: reading.mark for place, reading in readings.items() if isinstance(reading, CatalogueReading)}
    return Gathered(tuple(views), marks)


def changed(plans: Collection[PlanAddress], marks: Marks) -> bool:
    """Whether a catalogue has recorded anything since it gave its mark. If it does not answer, this is False."""
    asked = {place_of(plan.catalogue): plan.catalogue for plan in plans if plan.catalogue}
    jobs = {place: _mark_reader(dsn) for place, dsn in asked.items() if place in marks}
    answers = asked_at_once(jobs, DEADLINE)
    return any(isinstance(answer, tuple) and answer != marks[place] for place, answer in answers.items())


def with_earlier_sources(views: Iterable[PlanView], noted: Mapping[str, str]) -> tuple[PlanView, ...]:
    """The views with `earlier_source` filled in: what a plan without records backed up when it had some. Pure.

    `noted` is what `sources_with_backups` returned when the page was last written.
    """
    return tuple(
        replace(view, earlier_source=earlier) if (earlier := _earlier_source(view, noted)) else view for view in views
    )


def sources_with_backups(views: Iterable[PlanView], noted: Mapping[str, str]) -> dict[str, str]:
    """What to keep with the page: for each plan the source of its records, or what was noted before. Pure."""
    sources = {_note_of(view.name): view.source for view in views if view.source and _has_records(view)}
    return {name: text for name, text in noted.items() if name.startswith(_NOTE)} | sources


def _earlier_source(view: PlanView, noted: Mapping[str, str]) -> str:
    earlier = noted.get(_note_of(view.name), "")
    is_empty = view.reading is not None and not _has_records(view)
    return earlier if is_empty and earlier != view.source else ""


def _has_records(view: PlanView) -> bool:
    return view.reading is not None and view.reading.statistics.recorded > 0


def _note_of(plan: str) -> str:
    return f"{_NOTE}{plan}"


def _source(plan: PlanAddress) -> str:
    if plan.database is None or plan.catalogue is None:
        return ""
    return f"{plan.database.place} with the catalogue {plan.catalogue.place}"[:_LONGEST_NOTE]


def place_of(dsn: Dsn | None) -> Place:
    """A key for the address: the same for equal addresses."""
    return tuple(sorted(dsn.parameters.items())) if dsn else ()


def _server_of(dsn: Dsn | None) -> Place:
    return place_of(dsn.with_dbname("")) if dsn else ()


def _at(plan: PlanAddress, place: Place) -> bool:
    return plan.catalogue is not None and place_of(plan.catalogue) == place


def _on(plan: PlanAddress, place: Place) -> bool:
    return plan.database is not None and _server_of(plan.database) == place


def _impatient(dsn: Dsn) -> Dsn:
    return Dsn({**dsn.parameters, "connect_timeout": str(CONNECT_SECONDS)})


def _reader(
    dsn: Dsn, wanted: list[str], names: Collection[str], count: int, now: datetime
) -> Callable[[], CatalogueReading]:
    return lambda: read(Catalogue(_impatient(dsn)), wanted, names, count, now)


def _mark_reader(dsn: Dsn) -> Callable[[], tuple[int, int]]:
    return lambda: mark_of(Catalogue(_impatient(dsn)))


def _kept_reader(dsn: Dsn, plans: list[PlanAddress]) -> Callable[[], dict[str, list[Kept]]]:
    def look() -> dict[str, list[Kept]]:
        with maintenance(_impatient(dsn)).session("backup admin page") as server:
            every = kept(server)  # once for all plans: the sizes of databases take the server some time
        return {
            plan.name: [
                database for database in every if plan.database and belongs(database, plan.name, plan.database.dbname)
            ]
            for plan in plans
        }

    return look


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
        kept=tuple(kept[plan.name]) if isinstance(kept, dict) else (),
        kept_days=plan.kept_days,
        next_run=next_run,
        problems=tuple(problems),
    )


def _sentence(dsn: Dsn, what: str, error: BaseException) -> str:
    if isinstance(error, CatalogueUnavailable):
        return str(error)
    return f"{what} at {dsn.place} gave no answer. {dsn.clean(str(error))}"
