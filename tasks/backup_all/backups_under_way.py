"""The backups of a run of backup-all while they go on: starts their runs, a few at a time, and waits for all."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowFilter, FlowRunFilter, WorkPoolFilter, WorkQueueFilter
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.deployments import run_deployment
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled

from tasks.admin_page.steps import publish_backups
from tasks.alarms.event_names import all_backups_of, backup_name
from tasks.backup_all.start_order import (
    ACTION,
    COMPLETED,
    FLOW,
    NOT_STARTED,
    Ended,
    Job,
    Lane,
    Limit,
    Started,
    not_begun,
    startable,
    starving,
)
from tasks.errors import Unreachable
from tasks.prefect_client import NO_ANSWER, batches, run_filter
from tasks.runs.other_runs import key_for_child
from tasks.runs.reporting import now, say, warn

_STATE = {"type": {"any_": ["RUNNING", "PENDING", "CANCELLING"]}}
_ALIVE = run_filter(state=_STATE)
_OF_SERVERS = run_filter(state=_STATE, name={"like_": all_backups_of("")})
#: What Prefect puts before the sentence of an exception.
_PREFIX = re.compile(r"Flow run encountered an exception:? *(?:\w+: )?")
POLL_SECONDS = 1.0
#: A server that does not answer for so long, while the backups go on, is given up.
OUTAGE_SECONDS = 3600.0
#: The admin page is rewritten this often meanwhile, but for a tenth of the time at most.
PAGE_SECONDS = 60.0
PAGE_SHARE = 10


@dataclass(frozen=True)
class Seen:
    """A run as the server describes it; `ended` is None until its state is final."""

    begun: bool
    ended: Ended | None


class BackupRuns:
    """Every method raises httpx.HTTPError when the server does not answer, or answers with an error."""

    def __init__(self, client: SyncPrefectClient) -> None:
        self._client = client
        self._deployments: dict[str, DeploymentResponse | None] = {}
        self._queues: dict[Lane, UUID | None] = {}

    def job(self, plan: str, deployment: str) -> Job | Ended:
        """The plan with its deployment, or why that cannot be run."""
        if deployment not in self._deployments:
            try:
                self._deployments[deployment] = self._client.read_deployment_by_name(deployment)
            except ObjectNotFound:
                self._deployments[deployment] = None
        stored = self._deployments[deployment]
        if stored is None:
            what = f"There is no deployment {deployment} on the Prefect server: run the set-up again (make up)."
            return Ended(plan, NOT_STARTED, what)
        if not stored.work_pool_name:
            what = f"The deployment {deployment} has no work pool (any more): run the set-up again (make up)."
            return Ended(plan, NOT_STARTED, what)
        lane = Lane(stored.work_pool_name, stored.work_queue_name or "")
        self._queues[lane] = stored.work_queue_id
        return Job(plan, deployment, str(stored.id), lane)

    def limit(self, lane: Lane) -> Limit | None:
        """The limit on a lane's runs that leaves the least room; None when there is none."""
        most = {"": self._client.read_work_pool(lane.pool).concurrency_limit}
        if queue := self._queues.get(lane):
            most[lane.queue] = self._client.read_work_queue(queue).concurrency_limit
        limits = [
            Limit(number, max(0, number - self._waiting(Lane(lane.pool, name))))
            for name, number in most.items()
            if number is not None
        ]
        return min(limits, key=lambda limit: limit.room, default=None)

    def start(self, job: Job, requested_by: str, key: str) -> str:
        """The id of a run of the job's deployment; empty when that refuses it.

        Asked again with the same `key`, the server starts no other.
        """
        try:
            run = run_deployment(
                UUID(job.deployment_id),
                parameters={"plan": job.plan, "requested_by": requested_by},
                flow_run_name=backup_name(job.plan),
                timeout=0,
                idempotency_key=key,
                as_subflow=False,  # a run of its own, which goes on when this one ends
            )
        except ObjectNotFound:
            return ""
        except httpx.HTTPStatusError as error:
            if error.response.is_client_error:
                return ""
            raise
        assert isinstance(run, FlowRun)  # called from synchronous code, so not a coroutine
        return str(run.id)

    def seen(self, started: Iterable[Started]) -> dict[str, Seen]:
        """What has become of these runs, by their ids. A run that the server no longer has was deleted."""
        plans = {run.run_id: run.job.plan for run in started}
        seen = {
            run_id: Seen(True, Ended(plan, "deleted", "Somebody deleted its run.", run_id))
            for run_id, plan in plans.items()
        }
        for batch in batches([UUID(run_id) for run_id in plans]):
            asked = run_filter(id={"any_": list(batch)})
            for run in self._client.read_flow_runs(flow_run_filter=asked, limit=len(batch)):
                seen[str(run.id)] = _seen(plans[str(run.id)], run)
        return seen

    def give_up(self, run_ids: Iterable[str], why: str) -> None:
        """Cancels runs that no worker has begun."""
        for run_id in run_ids:
            self._client.set_flow_run_state(UUID(run_id), Cancelled(message=why))

    def is_working(self, lane: Lane) -> bool:
        """Whether the work pool does anything but run backup-all, or that of a server."""
        pool = Lane(lane.pool)
        return self._alive(pool) > self._waiting(pool)

    def _waiting(self, lane: Lane) -> int:
        """How many runs hold a place while they wait for others: those of backup-all, and of plans of servers."""
        return self._alive(lane, ACTION) + self._alive(lane, FLOW, _OF_SERVERS)

    def _alive(self, lane: Lane, flow: str = "", runs: FlowRunFilter = _ALIVE) -> int:
        """How many runs (of a flow) hold a place in a work pool, or in one queue of it."""
        return self._client.count_flow_runs(
            flow_filter=FlowFilter.model_validate(_named(flow)) if flow else None,
            flow_run_filter=runs,
            work_pool_filter=WorkPoolFilter.model_validate(_named(lane.pool)),
            work_queue_filter=WorkQueueFilter.model_validate(_named(lane.queue)) if lane.queue else None,
        )


def _named(name: str) -> dict[str, Any]:
    return {"name": {"any_": [name]}}


def _seen(plan: str, run: FlowRun) -> Seen:
    state = run.state
    if state is None or not state.is_final():
        return Seen(state is not None and not state.is_scheduled(), None)
    seconds = run.total_run_time.total_seconds() if isinstance(run.total_run_time, timedelta) else 0.0
    if state.is_completed():
        return Seen(True, Ended(plan, COMPLETED, "", str(run.id), seconds))
    outcome = str(state.type.value).lower()
    reason = _PREFIX.sub("", " ".join((state.message or "").split()), count=1)
    return Seen(True, Ended(plan, outcome, reason or f"Its run was {outcome}.", str(run.id), seconds))


@dataclass(frozen=True)
class Chosen:
    """What to do: the jobs, how many at once, how many in which lane, and the plans that cannot be started."""

    jobs: tuple[Job, ...]
    at_once: int
    rooms: dict[Lane, int]
    refused: tuple[Ended, ...]


class BackupsUnderWay:
    """The jobs that wait, the runs that have not ended (by id), and what became of the others."""

    def __init__(self, runs: BackupRuns, chosen: Chosen, requested_by: str) -> None:
        self._runs, self._chosen, self._requested_by = runs, chosen, requested_by
        self._waiting = list(chosen.jobs)
        self._started: dict[str, Started] = {}
        self._ended: list[Ended] = []
        self._alive_at: dict[Lane, datetime] = {}
        self._page_due = time.monotonic() + PAGE_SECONDS

    def finish(self) -> tuple[Ended, ...]:
        """Starts everything and waits for all of it. Raises Unreachable when the server does not come back."""
        answered = time.monotonic()
        while self._waiting or self._started:
            try:
                self._look()
                self._start()
                self._give_up_starving()
                self._rewrite_page()
            except NO_ANSWER as error:
                if time.monotonic() - answered > OUTAGE_SECONDS:
                    raise Unreachable(
                        f"The Prefect server gave no answer for an hour ({type(error).__name__}); the "
                        "backups that were begun go on without it."
                    ) from None
            else:
                answered = time.monotonic()
            if self._waiting or self._started:
                time.sleep(POLL_SECONDS)
        return (*self._chosen.refused, *self._ended)

    @contextmanager
    def abandoned_on_error(self) -> Iterator[None]:
        """An error in the `with` block, a cancellation too, cancels the runs that no worker has begun."""
        try:
            yield
        except BaseException:
            with suppress(*NO_ANSWER):
                self._look()
                idle = [run_id for run_id, run in self._started.items() if not run.begun]
                self._runs.give_up(idle, "backup-all ended before a worker had begun this.")
            left = [run.job.plan for run in self._started.values() if run.begun]
            warn(f"backup-all ends early. Backups that go on: {', '.join(left) or 'none'}.")
            raise

    def _look(self) -> None:
        for run_id, seen in self._runs.seen(self._started.values()).items():
            if seen.begun:
                self._started[run_id] = replace(self._started[run_id], begun=True)
                self._alive_at[self._started[run_id].job.lane] = now()
            if seen.ended:
                del self._started[run_id]
                self._note(seen.ended)

    def _start(self) -> None:
        running = [run.job for run in self._started.values()]
        for job in startable(self._waiting, running, self._chosen.at_once, self._chosen.rooms):
            run_id = self._runs.start(job, self._requested_by, key_for_child(job.plan))
            if run_id:
                self._waiting.remove(job)
                self._started[run_id] = Started(job, run_id, now())
            else:
                self._refuse(
                    job,
                    f"The deployment {job.deployment} refused it: see whether it takes the parameters "
                    "plan and requested_by.",
                )

    def _give_up_starving(self) -> None:
        for lane in starving(self._started.values(), self._alive_at, now()):
            if self._runs.is_working(lane):
                self._alive_at[lane] = now()
                continue
            idle = [run_id for run_id, run in self._started.items() if run.job.lane == lane]
            self._runs.give_up(idle, not_begun(lane))
            for run_id in idle:
                plan = self._started.pop(run_id).job.plan
                self._note(Ended(plan, NOT_STARTED, not_begun(lane), run_id))
            for job in [job for job in self._waiting if job.lane == lane]:
                self._refuse(job, not_begun(lane))

    def _refuse(self, job: Job, reason: str) -> None:
        self._waiting.remove(job)
        self._note(Ended(job.plan, NOT_STARTED, reason))

    def _note(self, ended: Ended) -> None:
        self._ended.append(ended)
        left = len(self._waiting) + len(self._started)
        if ended.outcome == COMPLETED:
            say(f"Plan {ended.plan} is backed up; {left} to go.")
        else:
            warn(f"Plan {ended.plan} {ended.outcome}: {ended.reason} ({left} to go)")

    def _rewrite_page(self) -> None:
        """The backups leave that to this run, so that it is not done for each of them."""
        if time.monotonic() > self._page_due:
            began = time.monotonic()
            publish_backups.fn()
            took = time.monotonic() - began
            self._page_due = time.monotonic() + max(PAGE_SECONDS, PAGE_SHARE * took)
