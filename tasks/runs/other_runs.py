"""What other runs mean for this run: whether another does its work, and whether backup-all has started it.

A missed run is caught up once: of several runs of a schedule that are due, only the newest works.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.context import FlowRunContext
from prefect.states import Completed

from tasks.prefect_client import NO_ANSWER, aware, pages, run_filter
from tasks.runs.reporting import current_run_id, now, say, warn

#: The name of the state in which a duplicate ends.
SKIPPED = "Skipped"
#: If runs were only skipped for this long, each starts too late for its schedule: the next run must work.
STARVING = timedelta(minutes=30)
#: Two runs of a schedule of days that are this close are the same occurrence: the clocks changed between them.
CLOSE = timedelta(hours=3)
_VAIN = ("FAILED", "CRASHED", "CANCELLED", "CANCELLING")
_BACKUP_ALL = "backup-all"


@dataclass(frozen=True)
class Occurrence:
    """A run of one schedule and plan, by the time at which it was due."""

    due: datetime
    state: str
    """Its state's type, such as COMPLETED."""
    name: str = ""
    """Its state's name, such as Skipped."""
    began: datetime | None = None
    ended: datetime | None = None

    @property
    def is_skipped(self) -> bool:
        return self.name == SKIPPED


def later_run(due: datetime, others: Iterable[Occurrence], now: datetime) -> Occurrence | None:
    """The newest run that is due as well and works, or will work: it does what the run that was due at `due` should do.

    A run that has failed does not count, so that a second run can do better.
    """
    fit = [other for other in others if due < other.due <= now and _counts(other)]
    return max(fit, key=lambda other: other.due, default=None)


def is_starving(lately: Iterable[Occurrence], now: datetime) -> bool:
    """Whether for a while no run has worked, because each was skipped for a later run. Then this run must work."""
    runs = list(lately)
    worked = max((run.began for run in runs if run.began and not run.is_skipped), default=None)
    skipped = [run.ended for run in runs if run.is_skipped and run.ended and (worked is None or run.ended > worked)]
    return bool(skipped) and now - min(skipped) > STARVING


def same_occurrence(due: datetime, interval: timedelta | None, others: Iterable[Occurrence]) -> Occurrence | None:
    """The run before, when both stand for the same occurrence of a schedule with an interval of days.

    Prefect counts such an interval by the local clock, so that a change of the clocks gives one day two times.
    """
    if interval is None or interval < timedelta(days=1):
        return None
    fit = [other for other in others if due - CLOSE <= other.due < due and _counts(other)]
    return max(fit, key=lambda other: other.due, default=None)


def _counts(run: Occurrence) -> bool:
    return run.state not in _VAIN and not run.is_skipped


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
    except NO_ANSWER as error:
        warn(f"The Prefect server does not say whether a later run is due ({type(error).__name__}): this run works.")
        return None
    if not message:
        return None
    say(message)
    return Completed(name=SKIPPED, message=message)


def _reason(client: SyncPrefectClient, run: FlowRun, at: datetime) -> str:
    due = aware(run.expected_start_time)
    others = list(_others(client, run, expected_start_time={"after_": due - CLOSE, "before_": at}))
    newest = later_run(due, others, at)
    if newest and not is_starving(_others(client, run, start_time={"after_": at - 2 * STARVING}), at):
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


def _others(client: SyncPrefectClient, run: FlowRun, **when: object) -> Iterator[Occurrence]:
    """The other runs of the same schedule, for the same plan."""
    asked = run_filter(deployment_id={"any_": [run.deployment_id]}, **when)
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


def key_of(parent: str, tries: int, plan: str) -> str:
    """The key of a backup that the run `parent` of backup-all starts; asked twice, the server starts one run. Pure."""
    return f"{_BACKUP_ALL}/{parent}/{tries}/{plan}"


def key_for_child(plan: str) -> str:
    """The key of a backup that this run starts: the same for the same plan in the same try of the run."""
    context = FlowRunContext.get()
    tries = context.flow_run.run_count if context and context.flow_run else 0
    return key_of(current_run_id(), tries, plan)


def is_part_of_backup_all() -> bool:
    """Whether this flow run was started by a run of backup-all that still goes on."""
    context = FlowRunContext.get()
    key = (context.flow_run.idempotency_key or "") if context and context.flow_run else ""
    if not key.startswith(f"{_BACKUP_ALL}/"):
        return False
    try:
        with get_client(sync_client=True) as client:
            parent = client.read_flow_run(UUID(key.split("/")[1]))
    except NO_ANSWER:
        return False
    return parent.state is not None and parent.state.is_running()
