"""What Prefect does for a plan: whether a schedule backs it up, a worker takes the runs, and alarms are in place. Pure.

The facts, which `prefect_facts` reads from the server, and the lines that follow from them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tasks.alarms.event_names import ALARMS
from tasks.health.lines import Line, span, utc
from tasks.runs.at_once import Answer

#: A worker that has missed this many heartbeats is dead.
SILENT_BEATS = 3
_LEAST_SILENCE = timedelta(seconds=90)
_LONG_GONE = timedelta(days=1)
_ADVICE = "Start it with make up; until then no schedule runs."

#: Gives the time of the first scheduled run at or after a moment; None when there is no further run.
Next = Callable[[datetime], datetime | None]


@dataclass(frozen=True)
class Scheduled:
    """A deployment whose schedules back the plan up."""

    name: str
    is_paused: bool
    active: int
    """How many of its schedules are active."""
    next_run: datetime | None
    """The next run that the server has planned."""
    made_at: datetime
    next_due: Next

    @property
    def is_active(self) -> bool:
        """Whether it makes runs."""
        return bool(self.active) and not self.is_paused


@dataclass(frozen=True)
class Worker:
    """A worker, and when the server last heard from it."""

    name: str
    heard_at: datetime | None
    beat: timedelta
    """The time between two heartbeats."""


@dataclass(frozen=True)
class Pool:
    """A work pool for backups of the plan. `problem` says why it cannot take runs, or is empty."""

    name: str
    problem: str = ""
    needs_worker: bool = True
    workers: tuple[Worker, ...] = ()
    late: int = 0
    """How many runs have waited in it for too long."""


@dataclass(frozen=True)
class PrefectFacts:
    """All that the health check reads from a Prefect server."""

    scheduled: tuple[Scheduled, ...]
    pools: tuple[Pool, ...]
    verifies: bool
    """Whether a schedule verifies backups of the plan."""
    missing_alarms: tuple[str, ...]
    silenced_alarms: tuple[str, ...]
    mute: str = ""
    """Why the alarms reach nobody although they are in place; empty when they reach somebody."""
    unsent: tuple[tuple[str, datetime], ...] = ()
    """The automations whose last message could not be sent, and when that was."""

    @property
    def active(self) -> list[Scheduled]:
        """The deployments that make runs."""
        return [deployment for deployment in self.scheduled if deployment.is_active]

    def due_after(self, moment: datetime) -> datetime | None:
        """When the first scheduled run at or after `moment` is due; None without an active schedule."""
        return min(filter(None, (deployment.next_due(moment) for deployment in self.active)), default=None)


def prefect_lines(plan: str, answer: Answer[PrefectFacts], now: datetime, *, restore_only: bool = False) -> list[Line]:
    """Schedule, worker and alarms; a single warning for all of them when no server answers."""
    if answer.value is None:
        return [Line("Prefect", "warning", f"Schedule, worker and alarms were not checked: {answer.problem}", _ADVICE)]
    schedule = no_schedule_line(plan, answer.value) if restore_only else schedule_line(plan, answer.value, now)
    return [schedule, worker_line(answer.value, now), alarm_line(answer.value)]


def no_schedule_line(plan: str, facts: PrefectFacts) -> Line:
    """Whether no schedule backs up a plan that is only restored into."""
    if facts.active:
        names = " and ".join(deployment.name for deployment in facts.active)
        return Line(
            "Schedule",
            "warning",
            f"{names} has a schedule that backs up plan {plan}, which is only restored into: these runs fail.",
            "Switch it off under Deployments in the Prefect UI, or switch Restore only off in the plan.",
        )
    return Line("Schedule", "ok", f"None backs up plan {plan}, which is only restored into.")


def schedule_line(plan: str, facts: PrefectFacts, now: datetime) -> Line:
    """Whether a schedule backs the plan up, and when next."""
    if not facts.scheduled:
        return Line(
            "Schedule",
            "warning",
            f"No deployment has a schedule that backs up plan {plan}.",
            "Add one in the Prefect UI: a deployment of the flow backup, Schedules.",
        )
    if not facts.active:
        idle = " ".join(
            f"{deployment.name} is paused."
            if deployment.is_paused
            else f"The schedule of {deployment.name} is switched off."
            for deployment in facts.scheduled
        )
        return Line(
            "Schedule",
            "failed",
            f"{idle} Nothing backs up plan {plan}.",
            "Switch it on under Deployments in the Prefect UI.",
        )
    names = " and ".join(deployment.name for deployment in facts.active)
    planned = min(filter(None, (deployment.next_run for deployment in facts.active)), default=None)
    due = planned or facts.due_after(now)
    if due is None:
        what = f"The schedule of {names} has no further run."
        return Line("Schedule", "failed", what, "Correct it under Deployments in the Prefect UI.")
    if planned is None:
        return Line(
            "Schedule",
            "warning",
            f"{names} is due at {utc(due)}, but the Prefect server has not scheduled the run.",
            "If this lasts for minutes, restart the Prefect server: its scheduler does not work.",
        )
    return Line("Schedule", "ok", f"{names} runs next at {utc(due)}, in {span(due - now)}.")


def worker_line(facts: PrefectFacts, now: datetime) -> Line:
    """Whether every work pool for backups has a live worker."""
    if not facts.pools:
        return Line("Worker", "warning", "No deployment of the flow backup names a work pool.", "Run the set-up again.")
    broken = [problem for pool in facts.pools if (problem := _pool_problem(pool, now))]
    if broken:
        return Line("Worker", "failed", " ".join(broken), "make up starts the worker; its log is in .state/worker.")
    if late := [pool for pool in facts.pools if pool.late]:
        what = " ".join(f"{pool.late} runs wait in work pool {pool.name}; its worker is alive." for pool in late)
        advice = "See whether other runs keep the worker busy, or a concurrency limit holds them back."
        return Line("Worker", "warning", what, advice)
    served = (f"Work pool {pool.name} is served{_by(pool, now)}.{_gone(pool, now)}" for pool in facts.pools)
    return Line("Worker", "ok", " ".join(served))


def alarm_line(facts: PrefectFacts) -> Line:
    """Whether the automations are on the server and switched on."""
    problems = [f"There is no automation {name!r}." for name in facts.missing_alarms]
    problems += [f"The automation {name!r} is switched off." for name in facts.silenced_alarms]
    if problems:
        return Line(
            "Alarms",
            "failed",
            " ".join(problems),
            "Run the set-up again (make up), or switch it on under Automations in the Prefect UI.",
        )
    in_place = f"{len(ALARMS)} of {len(ALARMS)} automations are in place."
    if facts.unsent:
        when = " ".join(f"The last message of {name!r} could not be sent, at {utc(at)}." for name, at in facts.unsent)
        return Line(
            "Alarms",
            "failed",
            when,
            "See the reason in the Event Feed of the Prefect UI; correct NOTIFY_URL in .env and run the set-up again.",
        )
    if facts.mute:
        return Line(
            "Alarms",
            "warning",
            f"{in_place} They notify nobody: {facts.mute}",
            "Set NOTIFY_URL in .env and run the set-up again.",
        )
    return Line("Alarms", "ok", in_place)


def _pool_problem(pool: Pool, now: datetime) -> str:
    if pool.problem or not pool.needs_worker or _alive(pool, now):
        return pool.problem
    waiting = f" {pool.late} runs wait." if pool.late else ""
    heard = [worker for worker in pool.workers if worker.heard_at is not None]
    if not heard:
        return f"No worker serves work pool {pool.name}.{waiting}"
    last = max(heard, key=lambda worker: worker.heard_at or now)
    assert last.heard_at is not None
    silence = span(now - last.heard_at)
    return f"The last heartbeat of worker {last.name} of work pool {pool.name} was {silence} ago.{waiting}"


def _alive(pool: Pool, now: datetime) -> list[Worker]:
    return [
        worker
        for worker in pool.workers
        if worker.heard_at and now - worker.heard_at <= max(_LEAST_SILENCE, SILENT_BEATS * worker.beat)
    ]


def _by(pool: Pool, now: datetime) -> str:
    names = [worker.name for worker in _alive(pool, now)]
    return f" by {_first(names)}" if names else ""


def _gone(pool: Pool, now: datetime) -> str:
    """Names the workers that have said nothing for a day; the server lists them until somebody deletes them."""
    gone = [worker.name for worker in pool.workers if not worker.heard_at or now - worker.heard_at >= _LONG_GONE]
    return f" Without a heartbeat for a day or more: {_first(gone)}." if gone else ""


def _first(names: Sequence[str]) -> str:
    return f"{', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}"
