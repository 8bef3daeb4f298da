"""What Prefect does for a plan: whether a schedule backs it up, a worker takes the runs, and alarms are in place.

Facts come in as plain values; what they mean is decided here. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from tasks.alarms.event_names import ALARMS
from tasks.health.lines import Line, span, utc
from tasks.runs.at_once import Answer

#: A worker that has been silent for so many of its heartbeats is dead.
SILENT_BEATS = 3
_LEAST_SILENCE = timedelta(seconds=90)
_ADVICE = "Start it with make up; until then nothing runs by itself."

#: The first moment, not before the given one, at which a schedule makes a run; None when there is none.
Next = Callable[[datetime], datetime | None]


@dataclass(frozen=True)
class Scheduled:
    """A deployment that makes backups of the plan by itself."""

    name: str
    is_paused: bool
    schedules: int
    active: int
    """So many of its schedules are active."""
    pool: str
    """The work pool; empty when it has none (any more)."""
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
    """A worker, and when it was last heard of by the server."""

    name: str
    heard_at: datetime | None
    beat: timedelta
    """How often it says that it lives."""


@dataclass(frozen=True)
class Pool:
    """A work pool that backups of the plan go through. `problem` is why it cannot take runs, or empty."""

    name: str
    problem: str = ""
    needs_worker: bool = True
    workers: tuple[Worker, ...] = ()
    late: int = 0
    """So many runs wait in it for longer than they should."""


@dataclass(frozen=True)
class PrefectFacts:
    """All that is asked of a Prefect server."""

    scheduled: tuple[Scheduled, ...]
    pools: tuple[Pool, ...]
    has_drills: bool
    """Whether a schedule verifies backups of the plan."""
    missing_alarms: tuple[str, ...]
    silenced_alarms: tuple[str, ...]
    mute: str = ""
    """Why nobody is told by the alarms that are in place; empty when somebody is."""

    @property
    def active(self) -> list[Scheduled]:
        """The deployments that make runs by themselves."""
        return [one for one in self.scheduled if one.is_active]

    def due_after(self, moment: datetime) -> datetime | None:
        """When the first scheduled run is due, not before `moment`; None without an active schedule."""
        return min(filter(None, (one.next_due(moment) for one in self.active)), default=None)


def prefect_lines(plan: str, told: Answer[PrefectFacts], now: datetime) -> list[Line]:
    """Schedule, worker and alarms; one warning for all when there is no server."""
    if told.value is None:
        return [Line("Prefect", "warning", f"Schedule, worker and alarms were not looked at: {told.problem}", _ADVICE)]
    return [schedule_line(plan, told.value, now), worker_line(told.value, now), alarm_line(told.value)]


def schedule_line(plan: str, facts: PrefectFacts, now: datetime) -> Line:
    """Whether something backs the plan up by itself, and when next."""
    if not facts.scheduled:
        return Line(
            "Schedule",
            "warning",
            f"No deployment has a schedule that backs up plan {plan}.",
            "Add one in the Prefect UI: a deployment of the flow backup, Schedules.",
        )
    if not facts.active:
        idle = " ".join(
            f"{one.name} is paused." if one.is_paused else f"The schedule of {one.name} is switched off."
            for one in facts.scheduled
        )
        return Line(
            "Schedule",
            "failed",
            f"{idle} Nothing backs up plan {plan}.",
            "Switch it on under Deployments in the Prefect UI.",
        )
    names = " and ".join(one.name for one in facts.active)
    planned = min(filter(None, (one.next_run for one in facts.active)), default=None)
    due = planned or facts.due_after(now)
    if due is None:
        what = f"The schedule of {names} has no further run."
        return Line("Schedule", "failed", what, "Correct it under Deployments in the Prefect UI.")
    if planned is None:
        return Line(
            "Schedule",
            "warning",
            f"{names} is due at {utc(due)}, but the server has planned no run.",
            "If this lasts for minutes, restart the Prefect server: it does not schedule.",
        )
    return Line("Schedule", "ok", f"{names} runs next at {utc(due)}, in {span(due - now)}.")


def worker_line(facts: PrefectFacts, now: datetime) -> Line:
    """Whether every work pool that backups go through has a worker that lives."""
    if not facts.pools:
        return Line("Worker", "warning", "No deployment of the flow backup names a work pool.", "Run the set-up again.")
    broken = [problem for pool in facts.pools if (problem := _pool_problem(pool, now))]
    if broken:
        return Line("Worker", "failed", " ".join(broken), "make up starts the worker; its log is in .state/worker.")
    if late := [pool for pool in facts.pools if pool.late]:
        what = " ".join(f"{one.late} runs wait in work pool {one.name}, although its worker lives." for one in late)
        return Line("Worker", "warning", what, "See whether other runs hold the worker, or a limit does.")
    return Line("Worker", "ok", " ".join(f"Work pool {pool.name} is served{_by(pool, now)}." for pool in facts.pools))


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
    if facts.mute:
        return Line(
            "Alarms",
            "warning",
            f"{in_place} Nobody is told: {facts.mute}",
            "Set NOTIFY_URL in .env and run the set-up again.",
        )
    return Line("Alarms", "ok", in_place)


def _pool_problem(pool: Pool, now: datetime) -> str:
    if pool.problem or not pool.needs_worker or _alive(pool, now):
        return pool.problem
    waiting = f" {pool.late} runs wait." if pool.late else ""
    heard = [one for one in pool.workers if one.heard_at is not None]
    if not heard:
        return f"No worker serves work pool {pool.name}.{waiting}"
    last = max(heard, key=lambda one: one.heard_at or now)
    assert last.heard_at is not None
    return (
        f"The worker {last.name} of work pool {pool.name} was last heard of {span(now - last.heard_at)} ago.{waiting}"
    )


def _alive(pool: Pool, now: datetime) -> list[Worker]:
    return [
        one
        for one in pool.workers
        if one.heard_at and now - one.heard_at <= max(_LEAST_SILENCE, SILENT_BEATS * one.beat)
    ]


def _by(pool: Pool, now: datetime) -> str:
    names = [one.name for one in _alive(pool, now)]
    return f" by {', '.join(names[:3])}{f' and {len(names) - 3} more' if len(names) > 3 else ''}" if names else ""
