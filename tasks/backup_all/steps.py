"""The Prefect tasks of backup-all: choose the plans, back them up a few at a time, report the results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

from prefect import State, task
from prefect.client.orchestration import get_client
from prefect.settings import PREFECT_API_URL

from tasks.admin_page.gather import DEADLINE, place_of
from tasks.admin_page.prefect_data import admin_page_api
from tasks.admin_page.view import Links
from tasks.alarms.event_names import (
    EVERY_PLAN,
    FAILED,
    GONE,
    WELL,
    all_backups_of,
    backups_of,
    every_backup_name,
    gone_name,
)
from tasks.alarms.run_reports import failure_reported, report_event
from tasks.alarms.watch import arm_new
from tasks.backup_all.backups_under_way import BackupRuns, BackupsUnderWay, Chosen
from tasks.backup_all.start_order import ACTION, COMPLETED, NOT_STARTED, Ended, Job, blocked, checked_names, refusal
from tasks.catalogue.catalogue import Catalogue
from tasks.catalogue.rows import Event, append_event
from tasks.databases.gone import ACTION as GONE_ACTION
from tasks.databases.gone import note_gone
from tasks.databases.on_server import databases_of
from tasks.errors import BackupSystemError, BadSetting, PlansFailed, Unreachable
from tasks.names import base_of, database_plan
from tasks.plans.addresses import PlanAddress
from tasks.plans.find_plan import any_plan_named, backs_up_server, plan_deployments, plans_to_back_up
from tasks.plans.plan import check_backs_up
from tasks.postgres.dsn import Dsn
from tasks.prefect_client import NO_ANSWER
from tasks.runs.at_once import asked_at_once
from tasks.runs.audit import run_event
from tasks.runs.markdown import NONE, cell, duration, human_bytes, table
from tasks.runs.reporting import created_by, now, publish, run_started_at, say, warn
from tasks.runs.retries import RETRIED, STEP

_EVERY = EVERY_PLAN.replace("-", " ")
#: No plan's backup has an artifact of this name.
KEY = "summary-of-backup-all"


#: So many databases of one server are backed up at the same time.
DATABASES_AT_ONCE = 3


def own_failure_reported() -> AbstractContextManager[None]:
    """Reports an error of backup-all itself in the `with` block; the plans' own runs report theirs."""
    return failure_reported(every_backup_name(), _EVERY, but_not=PlansFailed)


@task(name="choose", **RETRIED)
def choose(plans: list[str], at_once: int, requested_by: str = "") -> Chosen:
    """The plans of these names, or all of them; the plan of a server stands for its databases. A plan that cannot be
    started is reported at the end, and stops no other.

    Raises BadSetting when a parameter cannot be used, Unreachable when the server does not answer.
    """
    names = checked_names(plans, at_once)
    if not PREFECT_API_URL.value():
        raise BadSetting(
            "Backups of many plans are run by the workers of a Prefect server, and none is in use here: "
            "start it (make up), or back up one plan with backups backup --here."
        )
    try:
        with get_client(sync_client=True) as client:
            chosen = _chosen(BackupRuns(client), names, at_once, requested_by)
            # A run that dies before it begins cannot do so itself.
            arm_new(client, [job.plan for job in chosen.jobs])
            return chosen
    except NO_ANSWER as error:
        raise Unreachable(f"The Prefect server gave no answer ({type(error).__name__}).") from None


@task(name="find databases", **RETRIED)
def find_databases(plan: str, requested_by: str) -> list[str]:
    """The plans of the databases that the server of a plan has now and the plan means. Those that are gone are told.

    Raises BadSetting when there is none, or the plan makes no backups.
    """
    found = _databases_of(plan, requested_by)
    say(f"Plan {plan} backs up {len(found)} databases, {DATABASES_AT_ONCE} at once at most: {', '.join(found)}.")
    return found


def _databases_of(plan: str, requested_by: str) -> list[str]:
    server = any_plan_named(plan)
    check_backs_up(server)
    meant = [database_plan(plan, name) for name in databases_of(server).meant_by(server)]
    gone = note_gone(
        server.catalogue, plan, meant, lambda name: run_event(GONE_ACTION, "completed", name, requested_by)
    )
    for name, what in gone.items():
        report_event(GONE, gone_name(name), name, sentence=what)
        warn(f"Plan {name}: {what}")
    if not meant:
        raise BadSetting(
            f"The server of plan {plan} has no database that its patterns mean: correct databases in the plan."
        )
    return meant


def _expanded(names: Iterable[str], requested_by: str) -> Iterator[str | Ended]:
    """The names, with the plans of its databases in place of the plan of a server; or why there are none."""
    for plan in names:
        try:
            yield from _databases_of(plan, requested_by) if backs_up_server(plan) else [plan]
        except BackupSystemError as error:
            yield Ended(plan, NOT_STARTED, str(error))


def _chosen(runs: BackupRuns, names: list[str], at_once: int, requested_by: str) -> Chosen:
    known = plan_deployments()
    jobs: list[Job] = []
    refused: list[Ended] = []
    for plan in dict.fromkeys(_expanded(names or plans_to_back_up(), requested_by)):
        if isinstance(plan, Ended):
            refused.append(plan)
            continue
        deployment = known.get(base_of(plan), "")
        reason = refusal(plan, deployment, known)
        job = Ended(plan, NOT_STARTED, reason) if reason else runs.job(plan, deployment)
        jobs += [job] if isinstance(job, Job) else []
        refused += [job] if isinstance(job, Ended) else []
    limits = {lane: limit for lane in {job.lane for job in jobs} if (limit := runs.limit(lane))}
    full = {lane: blocked(lane, limit) for lane, limit in limits.items() if not limit.room}
    refused += [Ended(job.plan, NOT_STARTED, full[job.lane]) for job in jobs if job.lane in full]
    rooms = {lane: limit.room for lane, limit in limits.items()}
    return Chosen(tuple(job for job in jobs if job.lane not in full), at_once, rooms, tuple(refused))


def ended_here(plan: str, state: State[Any]) -> Ended:
    """What became of a plan whose backup ran in this process."""
    run_id = str(state.state_details.flow_run_id or "")
    if state.is_completed():
        return Ended(plan, COMPLETED, run_id=run_id)
    return Ended(plan, state.type.value.lower(), state.message or "No reason was recorded.", run_id)


@task(name="back-up", **STEP)
def back_up(chosen: Chosen, requested_by: str, server: str = "") -> tuple[Ended, ...]:
    """What became of every plan. Each has a run of its own on its work pool; one that fails stops no other.

    `server` is the plan whose databases they are; without one, they are those of backup-all. When this run is
    cancelled, so are the runs that no worker has begun; runs that have begun go on.
    """
    actor = created_by(requested_by)
    say(f"{len(chosen.jobs)} plans are backed up, {chosen.at_once} at once at most, for {actor}.")
    for ended in chosen.refused:
        warn(f"Plan {ended.plan}: {ended.reason}")
    with get_client(sync_client=True) as client:
        whole = all_backups_of(server) if server else ACTION
        backups = BackupsUnderWay(BackupRuns(client), chosen, f"{whole} for {actor}")
        with backups.abandoned_on_error():
            return backups.finish()


@task(name="report", **STEP)
def report(ended: Sequence[Ended], requested_by: str, server: str = "") -> tuple[Outcome, ...]:
    """Every plan's outcome with what is stored of it, written to the audit of its catalogue and shown in a table.

    `server` is the plan whose databases they are; without one, they are those of backup-all. Raises PlansFailed, which
    names the plans that failed, when any did. For a catalogue that does not answer, lines and sizes are missing.
    """
    addresses, links = _addresses_and_links()
    catalogues = {plan.name: plan.catalogue for plan in addresses if plan.catalogue}
    stored = _recorded(ended, catalogues, requested_by)
    outcomes = tuple(Outcome(plan, stored.get(plan.run_id)) for plan in ended)
    seconds = (now() - run_started_at()).total_seconds()
    _report_starts(ended, server)
    publish(
        f"databases-of-{server}" if server else KEY,
        f"Backups of {len(outcomes)} plans",
        markdown(outcomes, seconds, links.run),
    )
    check_all(outcomes, f"The backup of plan {server}" if server else ACTION)
    say(f"All {len(outcomes)} plans are backed up.")
    return outcomes


def _report_starts(ended: Sequence[Ended], server: str) -> None:
    """A plan without a run of its own has nobody else to report its failure."""
    name, whose = (backups_of(server), server) if server else (every_backup_name(), _EVERY)
    left = [f"Plan {plan.plan}: {plan.reason}" for plan in ended if plan.outcome == NOT_STARTED]
    if left:
        what = f"{len(left)} of {len(ended)} plans were not started. {' '.join(left)}"
        report_event(FAILED, name, whose, sentence=what)
    else:
        report_event(WELL, name, whose)


def _addresses_and_links() -> tuple[list[PlanAddress], Links]:
    try:
        with admin_page_api() as api:
            return api.plans(), api.links([])
    except (*NO_ANSWER, BackupSystemError) as error:
        warn(f"Sizes and lines of the audit are missing: the Prefect server gave no answer ({type(error).__name__}).")
        return [], Links()


def _recorded(ended: Sequence[Ended], catalogues: Mapping[str, Dsn], requested_by: str) -> dict[str, Stored]:
    """What is stored, by the id of the run; every catalogue gets its lines in one transaction."""
    by_place: dict[object, list[Ended]] = {}
    for plan in ended:
        if catalogue := catalogues.get(base_of(plan.plan)):
            by_place.setdefault(place_of(catalogue), []).append(plan)

    def recorder(plans: Sequence[Ended]) -> Callable[[], dict[str, Stored]]:
        return lambda: record(Catalogue(catalogues[base_of(plans[0].plan)]), plans, requested_by)

    stored: dict[str, Stored] = {}
    for answer in asked_at_once({place: recorder(plans) for place, plans in by_place.items()}, DEADLINE).values():
        if isinstance(answer, dict):
            stored |= answer
        else:
            warn(f"Sizes and lines of the audit of {ACTION} are missing. {answer}")
    return stored


# --- what is shown and recorded at the end


@dataclass(frozen=True)
class Stored:
    """What the catalogue says of the backup that a run made."""

    backup_id: int
    filename: str
    status: str
    size: int | None
    """Bytes as stored."""


@dataclass(frozen=True)
class Outcome:
    """What became of a plan; `stored` is None when the catalogue has no row of its run, or gave no answer."""

    ended: Ended
    stored: Stored | None = None

    @property
    def completed(self) -> bool:
        return self.ended.outcome == COMPLETED


def record(catalogue: Catalogue, ended: Sequence[Ended], requested_by: str) -> dict[str, Stored]:
    """What is stored of these plans, by the id of the run; the audit gets a line for each of them, all or none.

    Raises CatalogueUnavailable when the catalogue does not answer.
    """
    with catalogue.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT ON (run_id) run_id, id, filename, status, file_size FROM database_backups"
            " WHERE run_id = ANY (%s) ORDER BY run_id, id DESC",
            [[plan.run_id for plan in ended if plan.run_id]],
        )
        stored = {
            row["run_id"]: Stored(row["id"], row["filename"], row["status"], row["file_size"])
            for row in cursor.fetchall()
        }
        for plan in ended:
            event = run_event(ACTION, "failed", plan.plan, requested_by)
            append_event(cursor, with_outcome(event, Outcome(plan, stored.get(plan.run_id))))
    return stored


def with_outcome(event: Event, outcome: Outcome) -> Event:
    """The line of the audit that says what a run of backup-all did for a plan. Pure."""
    ended, stored = outcome.ended, outcome.stored
    return replace(
        event,
        outcome="completed" if outcome.completed else "failed",
        backup_id=stored.backup_id if stored else None,
        filename=stored.filename if stored else None,
        duration_seconds=ended.seconds,
        bytes=stored.size if stored else None,
        error=ended.reason or None,
        details={"run": ended.run_id, "state": ended.outcome},
    )


def markdown(outcomes: Sequence[Outcome], seconds: float, link: Callable[[str, str], str]) -> str:
    """A row for every plan, those that failed first. `link` makes a link of a text and a run's id. Pure."""
    done = sum(outcome.completed for outcome in outcomes)
    size = sum(outcome.stored.size or 0 for outcome in outcomes if outcome.stored)
    rows = [_row(outcome, link) for outcome in sorted(outcomes, key=lambda outcome: outcome.completed)]
    return (
        f"# Backup of {len(outcomes):,} plan{'' if len(outcomes) == 1 else 's'}\n\n"
        f"**{done:,} completed, {len(outcomes) - done:,} failed** · "
        f"{human_bytes(size)} stored · {duration(seconds)}\n\n"
        f"{table(('plan', 'outcome', 'size', 'took', 'backup', 'run'), rows)}"
    )


def check_all(outcomes: Sequence[Outcome], action: str = ACTION) -> None:
    """Raises PlansFailed, which names the plans that failed and why, when any did."""
    failed = {outcome.ended.plan: outcome.ended.reason for outcome in outcomes if not outcome.completed}
    if failed:
        raise PlansFailed(action, failed, len(outcomes))


def _row(outcome: Outcome, link: Callable[[str, str], str]) -> tuple[str, ...]:
    ended, stored = outcome.ended, outcome.stored
    file = f"`{stored.filename}`" if stored else NONE
    return (
        cell(ended.plan),
        "✓ completed" if outcome.completed else f"✗ {cell(ended.outcome)}: {cell(ended.reason)}",
        human_bytes(stored.size if stored else None),
        duration(ended.seconds),
        f"{file} ({stored.status})" if stored and stored.status != COMPLETED else file,
        link("run", ended.run_id) if ended.run_id else NONE,
    )
