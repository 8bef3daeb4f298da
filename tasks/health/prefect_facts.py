"""What the Prefect server says of a plan's deployments, work pools, workers and automations, for the health check."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterId,
    FlowFilter,
    FlowFilterName,
    FlowRunFilter,
    FlowRunFilterNextScheduledStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
    WorkPoolFilter,
    WorkPoolFilterName,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import NoSchedule
from prefect.client.schemas.sorting import AutomationSort, FlowRunSort
from prefect.events.actions import SendNotification
from prefect.events.filters import AutomationFilter, AutomationFilterName
from prefect.events.schemas.automations import Automation
from prefect.exceptions import ObjectNotFound
from prefect.server.schemas import schedules as known
from prefect.settings import PREFECT_API_URL
from pydantic import TypeAdapter

from tasks.alarms.event_names import ALARMS, TELLS_PROBLEM
from tasks.errors import Unreachable
from tasks.health.checks.prefect_side import Next, Pool, PrefectFacts, Scheduled, Worker

_BACKUPS = ("backup", "backup-all")
_DRILL = "verify-backup"
#: A run that nobody has taken for so long after its time waits for longer than it should.
LATE = timedelta(minutes=5)
_PAGE = 100
_BEAT = 30  # seconds; what a worker that does not tell sends its heartbeats at
_SCHEDULES: TypeAdapter[Any] = TypeAdapter(known.SCHEDULE_TYPES)


def prefect_facts(plan: str, now: datetime) -> PrefectFacts:
    """All that the health check asks of the server. Raises Unreachable when it does not answer, or there is none."""
    if not PREFECT_API_URL.value():
        raise Unreachable("no Prefect server is in use.")
    try:
        with get_client(sync_client=True) as client:
            return _facts(client, plan, now)
    except httpx.HTTPStatusError as error:
        raise Unreachable(f"the Prefect server answered {error.response.status_code}.") from None
    except httpx.HTTPError as error:
        raise Unreachable(f"the Prefect server does not answer ({type(error).__name__}).") from None


def covers(parameters: Mapping[str, Any], plan: str) -> bool:
    """Whether a run with these parameters works for `plan`. Pure."""
    if isinstance(several := parameters.get("plans"), list):
        return not several or plan in several
    return parameters.get("plan", "default") in (plan, "")


def next_due(schedules: Iterable[Any]) -> Next:
    """When the first of these schedules makes a run, not before a given moment."""
    rules = [_SCHEDULES.validate_python(one.model_dump()) for one in schedules]

    def first(moment: datetime) -> datetime | None:
        dates = [date for rule in rules for date in asyncio.run(rule.get_dates(n=1, start=moment))]
        return _aware(min(dates, default=None))

    return first


def _facts(client: SyncPrefectClient, plan: str, now: datetime) -> PrefectFacts:
    every = [one for flow in _BACKUPS for one in _deployments(client, flow)]
    own = [(name, one) for name, one in every if _is_for(one, plan)]
    asked = AutomationFilter(name=AutomationFilterName(any_=list(ALARMS)))
    every_alarm = client.read_automations(automations=asked, sort=AutomationSort.NAME_ASC, limit=_PAGE)
    alarms = {name: [one for one in every_alarm if one.name == name] for name in ALARMS}
    return PrefectFacts(
        scheduled=tuple(_scheduled(client, name, one, plan, now) for name, one in own if _schedules(one, plan)),
        pools=tuple(_pools(client, own or every, now)),
        has_drills=any(_is_active(one, plan) for _, one in _deployments(client, _DRILL)),
        missing_alarms=tuple(name for name, found in alarms.items() if not found),
        silenced_alarms=tuple(name for name, found in alarms.items() if found and not any(a.enabled for a in found)),
        mute=_mute(client, alarms[TELLS_PROBLEM]),
    )


def _mute(client: SyncPrefectClient, found: Sequence[Automation]) -> str:
    """Why the automation that tells of problems tells nobody; empty when it does, or is not there."""
    blocks = [act.block_document_id for one in found for act in one.actions if isinstance(act, SendNotification)]
    if not blocks:
        return "NOTIFY_URL is not set." if found else ""
    try:
        client.read_block_document(blocks[0], include_secrets=False)
    except ObjectNotFound:
        return "the notification block backup-alarms is gone."
    return ""


def _deployments(client: SyncPrefectClient, flow: str) -> Iterator[tuple[str, DeploymentResponse]]:
    """Name (`<flow>/<deployment>`) and all else of every deployment of a flow."""
    named, read = FlowFilter(name=FlowFilterName(any_=[flow])), 0
    while found := client.read_deployments(flow_filter=named, limit=_PAGE, offset=read):
        yield from ((f"{flow}/{one.name}", one) for one in found)
        read += len(found)


def _is_for(deployment: DeploymentResponse, plan: str) -> bool:
    return covers(deployment.parameters, plan) or bool(_schedules(deployment, plan))


def _schedules(deployment: DeploymentResponse, plan: str) -> list[Any]:
    """The schedules, active or not, whose runs are for `plan`: each may have parameters of its own."""
    return [
        one
        for one in deployment.schedules
        if not isinstance(one.schedule, NoSchedule)
        and covers({**deployment.parameters, **(one.parameters or {})}, plan)
    ]


def _is_active(deployment: DeploymentResponse, plan: str) -> bool:
    return not deployment.paused and any(one.active for one in _schedules(deployment, plan))


def _scheduled(
    client: SyncPrefectClient, name: str, deployment: DeploymentResponse, plan: str, now: datetime
) -> Scheduled:
    schedules = _schedules(deployment, plan)
    active = [one.schedule for one in schedules if one.active]
    return Scheduled(
        name=name,
        is_paused=deployment.paused,
        schedules=len(schedules),
        active=len(active),
        pool=deployment.work_pool_name or "",
        next_run=_next_run(client, deployment, plan, now),
        made_at=_aware(deployment.created) or now,
        next_due=next_due(active),
    )


def _next_run(client: SyncPrefectClient, deployment: DeploymentResponse, plan: str, now: datetime) -> datetime | None:
    """When the server has planned the next run for `plan`: the schedules of other plans have runs there too."""
    of_it, read = DeploymentFilter(id=DeploymentFilterId(any_=[deployment.id])), 0
    while page := client.read_flow_runs(
        deployment_filter=of_it,
        flow_run_filter=_waiting(after=now),
        sort=FlowRunSort.NEXT_SCHEDULED_START_TIME_ASC,
        limit=_PAGE,
        offset=read,
    ):
        read += len(page)
        if found := next((one for one in page if covers(one.parameters or {}, plan)), None):
            return _aware(found.next_scheduled_start_time)
    return None


def _pools(
    client: SyncPrefectClient, deployments: list[tuple[str, DeploymentResponse]], now: datetime
) -> Iterator[Pool]:
    """The work pool of every deployment, each once; one without a name for those that have lost theirs."""
    for name, one in deployments:
        if not one.work_pool_name:
            yield Pool("", f"{name} has no work pool (any more): run the set-up again.")
    by_pool = {one.work_pool_name: one for _, one in deployments if one.work_pool_name}
    yield from (_pool(client, pool, one, now) for pool, one in by_pool.items())


def _pool(client: SyncPrefectClient, name: str, deployment: DeploymentResponse, now: datetime) -> Pool:
    try:
        found = client.read_work_pool(name)
        queue = client.read_work_queue(deployment.work_queue_id) if deployment.work_queue_id else None
    except ObjectNotFound:
        return Pool(name, f"There is no work pool {name}: run the set-up again.")
    if found.is_paused:
        return Pool(name, f"Work pool {name} is paused: resume it under Work Pools in the Prefect UI.")
    if queue is not None and queue.is_paused:
        return Pool(name, f"Work queue {queue.name} of work pool {name} is paused: resume it under Work Pools.")
    late = client.read_flow_runs(
        work_pool_filter=WorkPoolFilter(name=WorkPoolFilterName(any_=[name])),
        flow_run_filter=_waiting(before=now - LATE),
        limit=_PAGE,
    )
    workers = tuple(
        Worker(one.name, _aware(one.last_heartbeat_time), timedelta(seconds=one.heartbeat_interval_seconds or _BEAT))
        for one in client.read_workers_for_work_pool(name)
    )
    return Pool(name, "", not (found.is_push_pool or found.is_managed_pool), workers, len(late))


def _waiting(after: datetime | None = None, before: datetime | None = None) -> FlowRunFilter:
    """Runs that wait for their time, or for a worker."""
    return FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
        next_scheduled_start_time=FlowRunFilterNextScheduledStartTime(after_=after, before_=before),  # type: ignore[arg-type]
    )


def _aware(moment: Any) -> datetime | None:
    """Prefect's own kind of time loses its zone when something is added to it."""
    return datetime.fromtimestamp(moment.timestamp(), UTC) if moment is not None else None
