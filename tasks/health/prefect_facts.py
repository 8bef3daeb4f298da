"""Reads a plan's deployments, work pools, workers and automations from the Prefect server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import DeploymentFilter, FlowFilter, FlowRunFilter, WorkPoolFilter
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import NoSchedule
from prefect.client.schemas.sorting import AutomationSort, FlowRunSort
from prefect.events.actions import SendNotification
from prefect.events.filters import (
    AutomationFilter,
    EventFilter,
    EventNameFilter,
    EventOccurredFilter,
    EventResourceFilter,
)
from prefect.events.schemas.automations import Automation
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from tasks.alarms.automations import block_name
from tasks.alarms.event_names import ALARMS, TELLS_PROBLEM
from tasks.errors import Unreachable
from tasks.health.prefect_server import Next, Pool, PrefectFacts, Scheduled, Worker
from tasks.plans.schedules import dates, is_for
from tasks.prefect_client import NO_ANSWER, PAGE, aware, pages, run_filter

_BACKUPS = ("backup", "backup-all")
_VERIFY = "verify-backup"
#: A run that no worker has taken this long after its time has waited for too long.
LATE = timedelta(minutes=5)
#: The events of an automation's action.
_SENT, _NOT_SENT = "prefect.automation.action.executed", "prefect.automation.action.failed"
_LATELY = timedelta(days=1)
_BEAT = 30  # seconds between heartbeats, for a worker that does not name them


def prefect_facts(plan: str, now: datetime) -> PrefectFacts:
    """All that the health check asks of the server. Raises Unreachable when no server answers."""
    if not PREFECT_API_URL.value():
        raise Unreachable("no Prefect server is in use.")
    try:
        with get_client(sync_client=True) as client:
            return _facts(client, plan, now)
    except httpx.HTTPStatusError as error:
        raise Unreachable(f"the Prefect server answered {error.response.status_code}.") from None
    except NO_ANSWER as error:
        raise Unreachable(f"the Prefect server gave no answer ({type(error).__name__}).") from None


def next_due(schedules: Iterable[Any]) -> Next:
    """When the first of these schedules makes a run, at or after a given moment."""
    rules = list(schedules)
    return lambda moment: min((date for rule in rules for date in dates(rule, moment, 1)), default=None)


def _facts(client: SyncPrefectClient, plan: str, now: datetime) -> PrefectFacts:
    every = [pair for flow in _BACKUPS for pair in _deployments(client, flow)]
    own = [(name, deployment) for name, deployment in every if _is_for(name, deployment, plan)]
    ours = AutomationFilter.model_validate({"name": {"any_": list(ALARMS)}})
    automations = client.read_automations(automations=ours, sort=AutomationSort.NAME_ASC, limit=PAGE)
    alarms = {name: [alarm for alarm in automations if alarm.name == name] for name in ALARMS}
    return PrefectFacts(
        scheduled=tuple(
            _scheduled(client, name, deployment, plan, now)
            for name, deployment in own
            if _schedules(name, deployment, plan)
        ),
        pools=tuple(_pools(client, own or every, now)),
        verifies=any(_is_active(name, deployment, plan) for name, deployment in _deployments(client, _VERIFY)),
        missing_alarms=tuple(name for name, same in alarms.items() if not same),
        silenced_alarms=tuple(name for name, same in alarms.items() if same and not any(a.enabled for a in same)),
        mute=_mute(client, alarms[TELLS_PROBLEM]),
        unsent=tuple(_unsent(client, automations, now)),
    )


def _mute(client: SyncPrefectClient, alarms: Sequence[Automation]) -> str:
    """Why the automation for problems notifies nobody; empty when it does, or is missing."""
    blocks = [act.block_document_id for alarm in alarms for act in alarm.actions if isinstance(act, SendNotification)]
    if not blocks:
        return "NOTIFY_URL is not set." if alarms else ""
    try:
        client.read_block_document(blocks[0], include_secrets=False)
    except ObjectNotFound:
        return f"the notification block {block_name('problem')} is gone."
    return ""


def _unsent(client: SyncPrefectClient, alarms: Sequence[Automation], now: datetime) -> Iterator[tuple[str, datetime]]:
    """The alarms whose newest message of the last day could not be sent, through a block that is the same since."""
    since = EventOccurredFilter.model_validate({"since": now - _LATELY, "until": now})
    for alarm in alarms:
        blocks = [action.block_document_id for action in alarm.actions if isinstance(action, SendNotification)]
        if not blocks:
            continue
        own = EventResourceFilter(id=[f"prefect.automation.{alarm.id}"])
        wanted = EventFilter(occurred=since, event=EventNameFilter(name=[_SENT, _NOT_SENT]), resource=own)
        newest = next(iter(client.read_events(wanted, limit=1).events), None)
        if newest is not None and newest.event == _NOT_SENT and not _changed_since(client, blocks[0], newest.occurred):
            yield alarm.name, aware(newest.occurred)


def _changed_since(client: SyncPrefectClient, block: UUID, moment: datetime) -> bool:
    try:
        changed = client.read_block_document(block, include_secrets=False).updated
    except ObjectNotFound:
        return False
    return changed is not None and aware(changed) > aware(moment)


def _deployments(client: SyncPrefectClient, flow: str) -> Iterator[tuple[str, DeploymentResponse]]:
    """Name (`<flow>/<deployment>`) and all else of every deployment of a flow."""
    named = FlowFilter.model_validate({"name": {"any_": [flow]}})
    deployments = pages(client.read_deployments, flow_filter=named)
    return ((f"{flow}/{deployment.name}", deployment) for deployment in deployments)


def _flow(name: str) -> str:
    return name.partition("/")[0]


def _is_for(name: str, deployment: DeploymentResponse, plan: str) -> bool:
    return is_for(_flow(name), deployment.parameters, plan) or bool(_schedules(name, deployment, plan))


def _schedules(name: str, deployment: DeploymentResponse, plan: str) -> list[Any]:
    """The schedules, active or not, whose runs are for `plan`: each may have parameters of its own."""
    return [
        schedule
        for schedule in deployment.schedules
        if not isinstance(schedule.schedule, NoSchedule)
        and is_for(_flow(name), {**deployment.parameters, **(schedule.parameters or {})}, plan)
    ]


def _is_active(name: str, deployment: DeploymentResponse, plan: str) -> bool:
    return not deployment.paused and any(schedule.active for schedule in _schedules(name, deployment, plan))


def _scheduled(
    client: SyncPrefectClient, name: str, deployment: DeploymentResponse, plan: str, now: datetime
) -> Scheduled:
    active = [schedule.schedule for schedule in _schedules(name, deployment, plan) if schedule.active]
    return Scheduled(
        name=name,
        is_paused=deployment.paused,
        active=len(active),
        next_run=_next_run(client, name, deployment, plan, now),
        made_at=_aware(deployment.created) or now,
        next_due=next_due(active),
    )


def _next_run(
    client: SyncPrefectClient, name: str, deployment: DeploymentResponse, plan: str, now: datetime
) -> datetime | None:
    """When the server has scheduled the next run for `plan`; the deployment may have runs of other plans too."""
    waiting = pages(
        client.read_flow_runs,
        deployment_filter=DeploymentFilter.model_validate({"id": {"any_": [deployment.id]}}),
        flow_run_filter=_waiting(after=now),
        sort=FlowRunSort.NEXT_SCHEDULED_START_TIME_ASC,
    )
    times = (run.next_scheduled_start_time for run in waiting if is_for(_flow(name), run.parameters or {}, plan))
    return _aware(next(times, None))


def _pools(
    client: SyncPrefectClient, deployments: list[tuple[str, DeploymentResponse]], now: datetime
) -> Iterator[Pool]:
    """The work pool of every deployment, each once; a pool without a name for a deployment whose pool was deleted."""
    for name, deployment in deployments:
        if not deployment.work_pool_name:
            yield Pool("", f"The work pool of {name} was deleted: run the set-up again.")
    by_pool = {deployment.work_pool_name: deployment for _, deployment in deployments if deployment.work_pool_name}
    yield from (_pool(client, pool, deployment, now) for pool, deployment in by_pool.items())


def _pool(client: SyncPrefectClient, name: str, deployment: DeploymentResponse, now: datetime) -> Pool:
    try:
        pool = client.read_work_pool(name)
        queue = client.read_work_queue(deployment.work_queue_id) if deployment.work_queue_id else None
    except ObjectNotFound:
        return Pool(name, f"There is no work pool {name}: run the set-up again.")
    if pool.is_paused:
        return Pool(name, f"Work pool {name} is paused: resume it under Work Pools in the Prefect UI.")
    if queue is not None and queue.is_paused:
        return Pool(name, f"Work queue {queue.name} of work pool {name} is paused: resume it under Work Pools.")
    late = client.read_flow_runs(
        work_pool_filter=WorkPoolFilter.model_validate({"name": {"any_": [name]}}),
        flow_run_filter=_waiting(before=now - LATE),
        limit=PAGE,
    )
    workers = tuple(
        Worker(
            worker.name,
            _aware(worker.last_heartbeat_time),
            timedelta(seconds=worker.heartbeat_interval_seconds or _BEAT),
        )
        for worker in client.read_workers_for_work_pool(name)
    )
    return Pool(name, "", not (pool.is_push_pool or pool.is_managed_pool), workers, len(late))


def _waiting(after: datetime | None = None, before: datetime | None = None) -> FlowRunFilter:
    """Runs that wait for their start time, or for a worker."""
    times = {"after_": after, "before_": before}
    return run_filter(state={"type": {"any_": ["SCHEDULED"]}}, next_scheduled_start_time=times)


def _aware(moment: Any) -> datetime | None:
    return aware(moment) if moment is not None else None
