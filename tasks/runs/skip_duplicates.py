"""A missed run is caught up once: of several runs of a schedule that are due, only the newest works."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterStartTime,
)
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.context import FlowRunContext
from prefect.exceptions import PrefectException
from prefect.states import Completed

from tasks.prefect_client import aware, pages
from tasks.runs.missed_runs import CLOSE, SKIPPED, STARVING, Occurrence, is_starving, later_run, same_occurrence
from tasks.runs.reporting import now, say, warn


def skipped_as_duplicate() -> State[None] | None:
    """The state Skipped, in which this run ends at once, when another run does its work; None when this run works.

    A flow returns the state instead of its result. Only runs that a schedule has made are skipped, and no second try of
    a run. When the Prefect server does not answer, the run works: two backups are better than none.
    """
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run is None or not run.auto_scheduled or run.deployment_id is None or run.run_count > 1:
        return None
    if run.created_by is None or run.created_by.id is None or run.expected_start_time is None:
        return None
    try:
        with get_client(sync_client=True) as client:
            message = _reason(client, run, now())
    except (httpx.HTTPError, PrefectException) as error:
        warn(f"The Prefect server does not say whether a later run is due ({type(error).__name__}): this run works.")
        return None
    if not message:
        return None
    say(message)
    return Completed(name=SKIPPED, message=message)


def _reason(client: SyncPrefectClient, run: FlowRun, at: datetime) -> str:
    due = aware(run.expected_start_time)
    around = FlowRunFilterExpectedStartTime(after_=due - CLOSE, before_=at)  # type: ignore[arg-type]
    others = list(_others(client, run, FlowRunFilter(expected_start_time=around)))
    if newest := later_run(due, others, at):
        since = FlowRunFilterStartTime(after_=at - 2 * STARVING)  # type: ignore[arg-type]
        if not is_starving(_others(client, run, FlowRunFilter(start_time=since)), at):
            return (
                f"Skipped: this run was due at {due:%Y-%m-%d %H:%M} UTC, and the run of this schedule that was due at "
                f"{newest.due:%Y-%m-%d %H:%M} UTC does its work."
            )
    close = [other for other in others if other.due < due]
    if close and (same := same_occurrence(due, _interval(client, run), close)):
        return (
            f"Skipped: the clocks were changed, and the run of this schedule that was due at "
            f"{same.due:%Y-%m-%d %H:%M} UTC did the work of this run."
        )
    return ""


def _others(client: SyncPrefectClient, run: FlowRun, asked: FlowRunFilter) -> Iterator[Occurrence]:
    """The other runs of the same schedule, for the same plan."""
    asked.deployment_id = FlowRunFilterDeploymentId(any_=[run.deployment_id])  # type: ignore[list-item]
    for other in pages(client.read_flow_runs, flow_run_filter=asked):
        if other.id != run.id and _schedule(other) == _schedule(run) and _plan(other) == _plan(run):
            yield _occurrence(other)


def _occurrence(run: FlowRun) -> Occurrence:
    state = run.state
    return Occurrence(
        due=aware(run.expected_start_time),
        state=state.type.value if state else "",
        name=(state.name or "") if state else "",
        began=aware(run.start_time) if run.start_time else None,
        ended=aware(run.end_time) if run.end_time else None,
    )


def _schedule(run: FlowRun) -> Any:
    return run.created_by.id if run.created_by else None


def _plan(run: FlowRun) -> Any:
    return (run.parameters or {}).get("plan")


def _interval(client: SyncPrefectClient, run: FlowRun) -> timedelta | None:
    """The interval of the schedule that has made the run; None when it is of another kind, or gone."""
    assert run.deployment_id is not None  # skipped_as_duplicate() has looked
    for made in client.read_deployment_schedules(run.deployment_id):
        if made.id == _schedule(run) and isinstance(made.schedule, IntervalSchedule):
            return made.schedule.interval
    return None
