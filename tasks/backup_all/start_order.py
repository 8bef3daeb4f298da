"""Backups of many plans, a few at a time: which to start next, and which to give up. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from tasks.errors import BadSetting
from tasks.names import base_of, parted

#: A run that no worker begins for so long, while its work pool does nothing else, is given up.
PATIENCE = timedelta(minutes=10)
#: Only deployments of this flow are started: a plan's block may name any deployment by mistake.
FLOW = "backup"
COMPLETED, NOT_STARTED = "completed", "not started"


@dataclass(frozen=True)
class Lane:
    """A work pool and one of its queues: what limits how many runs go on at once."""

    pool: str
    queue: str = ""

    def __str__(self) -> str:
        return f"work pool {self.pool}" + (f", queue {self.queue}" if self.queue not in ("", "default") else "")


@dataclass(frozen=True)
class Limit:
    """How many runs a lane takes at once, and how many besides those of backup-all, which wait for the others."""

    most: int
    room: int


@dataclass(frozen=True)
class Job:
    """A plan whose backup is to be started through a deployment."""

    plan: str
    deployment: str
    """`<flow>/<deployment>`."""
    deployment_id: str
    lane: Lane


@dataclass(frozen=True)
class Started:
    """A job that has a run."""

    job: Job
    run_id: str
    at: datetime
    begun: bool = False
    """Whether a worker has taken it."""


@dataclass(frozen=True)
class Ended:
    """What became of a plan. `reason` is empty when its backup run completed."""

    plan: str
    outcome: str
    """The state of its run in lower-case letters, or NOT_STARTED."""
    reason: str = ""
    run_id: str = ""
    """Empty when no run was started."""
    seconds: float | None = None
    """How long the run took, without its wait for a worker."""


def checked_names(plans: Sequence[str], at_once: int) -> list[str]:
    """The plans' names, each once. Raises BadSetting when a name is empty, or `at_once` is less than 1."""
    if at_once < 1:
        raise BadSetting(f"{at_once} backups at once would make none: set at_once to 1 or more.")
    names = [name.strip() for name in plans]
    if not all(names):
        raise BadSetting("One of the plans has no name: fill it in, or take it out; an empty list means every plan.")
    return list(dict.fromkeys(names))


def refusal(plan: str, deployment: str, known: Collection[str]) -> str:
    """Why no run can be started for `plan`, in a sentence; empty when one can."""
    if base_of(plan) not in known:
        try:
            parted(plan)
        except BadSetting as error:
            return str(error)
        return f"There is no plan {plan!r}: see the blocks in the Prefect UI, or take it out of the list."
    flow, _, name = deployment.partition("/")
    if flow != FLOW or not name:
        return (
            f"Its block names the deployment {deployment!r}, which makes no backups: name one of the flow {FLOW}, "
            f"such as {FLOW}/manual."
        )
    return ""


def startable(waiting: Sequence[Job], running: Collection[Job], at_once: int, rooms: Mapping[Lane, int]) -> list[Job]:
    """The jobs to start now, in their order: at most `at_once` under way in all, and in each lane what it has room for.

    A job whose lane is full does not hold up jobs of other lanes.
    """
    taken = Counter(job.lane for job in running)
    chosen: list[Job] = []
    for job in waiting:
        if len(running) + len(chosen) >= at_once:
            break
        if taken[job.lane] < rooms.get(job.lane, at_once):
            taken[job.lane] += 1
            chosen.append(job)
    return chosen


def blocked(lane: Lane, limit: Limit) -> str:
    """Why nothing can be started where runs of backup-all, which wait for others to end, hold every place."""
    places = "that place" if limit.most == 1 else "all these places"
    return (
        f"The {lane} takes {limit.most} at once, and backup-all itself holds {places}: "
        f"raise the limit to {limit.most + 1} at least, or give the plan a deployment in another work pool."
    )


def starving(started: Collection[Started], alive_at: Mapping[Lane, datetime], now: datetime) -> list[Lane]:
    """The lanes in which runs wait, none has begun, and nothing has been alive for PATIENCE.

    `alive_at` says when a lane was last seen to work.
    """
    runs_by_lane: dict[Lane, list[Started]] = {}
    for run in started:
        runs_by_lane.setdefault(run.job.lane, []).append(run)
    return [
        lane
        for lane, runs in runs_by_lane.items()
        if not any(run.begun for run in runs)
        and now - max([alive_at.get(lane, runs[0].at), *(run.at for run in runs)]) >= PATIENCE
    ]


def not_begun(lane: Lane) -> str:
    """Why a run was given up that no worker has begun."""
    minutes = int(PATIENCE.total_seconds() // 60)
    return (
        f"No worker has begun anything in {lane} for {minutes} minutes: start a worker, resume the work pool, or raise "
        "its limit and that of its workers, since backup-all itself takes a place."
    )


ACTION = "backup-all"
