"""What runs tell the Prefect server's automations: that things are watched, that a run has begun, what is wrong."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterTags,
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterName,
    FlowRunFilterState,
    FlowRunFilterStateName,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events import Event, emit_event
from prefect.events.schemas.events import RelatedResource, Resource
from prefect.exceptions import PrefectException
from prefect.states import Crashed

from tasks.alarms import event_names as alarms
from tasks.names import TAG
from tasks.prefect_client import PAGE, batches, pages
from tasks.runs.reporting import current_run_id, now, warn

_ENDED = (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)
Standing = Literal["new", "well", "failed", "unknown"]
_STANDINGS: dict[StateType, Standing] = {
    StateType.COMPLETED: "well",
    StateType.FAILED: "failed",
    StateType.CRASHED: "failed",
}
#: A run may need so long from the moment that a worker takes it: for a machine, for an image.
STUCK = timedelta(minutes=15)
_TAG = {"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"}
_AT_ONCE = 100  # events sent in one request


def tell(event: str, name: str, plan: str, **payload: Any) -> None:
    """Emits an event of a plan under a name that is kept (`backup-<plan>`, `health-<plan>`, `data-<plan>`)."""
    resource = {"prefect.resource.id": f"backup-plan.{plan}", "prefect.resource.name": name}
    emit_event(event=event, resource=resource, related=[_TAG], payload={"plan": plan, **payload})


def begun() -> None:
    """Says that this run has begun: whoever was told that runs of its deployment do not begin hears that they do."""
    resource = {
        "prefect.resource.id": f"backup-run.{current_run_id()}",
        "prefect.resource.name": "a run that has begun",
    }
    emit_event(event=alarms.BEGUN, resource=resource, related=[_TAG])


def watch_if_new(plan: str) -> None:
    """From its very first run on, a plan is watched that was made after the last set-up. Never costs the run."""
    with _forgiven(), get_client(sync_client=True) as client:
        arm_new(client, [plan])


def standing_of(name: str) -> Standing:
    """How backups or drills of a plan stand by their newest run; `unknown` when the server does not answer."""
    with _forgiven(), get_client(sync_client=True) as client:
        return standing(client, name)
    return "unknown"


def remind(plan: str, name: str, stands: Standing) -> None:
    """Says again how the plan's newest run of this name ended, in case that the server has lost the event.

    Whoever was told already hears nothing. A plan that has had no backup yet is armed. Never costs the run.
    """
    if stands == "new" and name == alarms.backup_name(plan):
        with _forgiven(), get_client(sync_client=True) as client:
            arm(client, alarms.names_of_plan(plan))
    elif stands == "failed":
        tell(alarms.FAILED, name, plan, sentence="Its newest run has failed: see Runs in the Prefect UI.")
    elif stands == "well":
        tell(alarms.WELL, name, plan)


def look_after_runs() -> None:
    """Runs that died before they began are Crashed; new deployments are watched. Never costs the run."""
    with _forgiven(), get_client(sync_client=True) as client:
        watch_deployments(client)
        end_stuck_runs(client, now() - STUCK)


def end_stuck_runs(client: SyncPrefectClient, before: datetime) -> None:
    """Runs of ours that a worker took before that time, and that have not begun, are Crashed. Raises httpx.HTTPError.

    Such a run has sent no heartbeat yet, so that nothing else notices that its worker died.
    """
    pending = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PENDING])),
        tags=FlowRunFilterTags(all_=[TAG]),
    )
    for run in client.read_flow_runs(flow_run_filter=pending, limit=PAGE):
        if run.state is not None and run.state.timestamp.timestamp() < before.timestamp():
            message = "A worker took it, and it has not begun since then: worker or process have died."
            client.set_flow_run_state(run.id, Crashed(message=message))


def watch_deployments(client: SyncPrefectClient, *, everyone: bool = False) -> None:
    """It is told when runs of our deployments do not begin: of those that never had a run, or of all.

    Raises httpx.HTTPError.
    """
    tagged = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
    deployments = pages(client.read_deployments, deployment_filter=tagged)
    arm_deployments(client, [one.id for one in deployments if everyone or not has_runs(client, one.id)])


def arm_new(client: SyncPrefectClient, plans: Iterable[str]) -> None:
    """From now on, the first problem of those of `plans` is told that had no backup yet. Raises httpx.HTTPError."""
    new = [plan for plan in plans if standing(client, alarms.backup_name(plan)) == "new"]
    arm(client, [name for plan in new for name in alarms.names_of_plan(plan)])


def arm(client: SyncPrefectClient, names: Iterable[str]) -> None:
    """From now on, the next problem of each of these names is told. Raises httpx.HTTPError."""
    _send(client, [_event(alarms.ARMED, name) for name in names])


def note(client: SyncPrefectClient, names: Iterable[str]) -> None:
    """The end of a problem that each of these names has already is told. Raises httpx.HTTPError."""
    _send(client, [_event(alarms.NOTED, name) for name in names])


def arm_deployments(client: SyncPrefectClient, deployments: Iterable[UUID]) -> None:
    """From now on it is told when a run of these deployments does not begin. Raises httpx.HTTPError."""
    _send(client, [_event(alarms.ARMED, "runs that have not begun", one) for one in deployments])


def standing(client: SyncPrefectClient, name: str) -> Standing:
    """How the newest ended run of this name ended; `new` when none has. Raises httpx.HTTPError.

    `unknown` when somebody cancelled it, or a newer one waits for longer than it should. Runs that were refused, as
    another one was at the plan, say nothing.
    """
    named = FlowRunFilterName(any_=[name])
    late = FlowRunFilterState(name=FlowRunFilterStateName(any_=["Late"]))
    if client.read_flow_runs(flow_run_filter=FlowRunFilter(name=named, state=late), limit=1):
        return "unknown"
    ended = FlowRunFilterState(
        type=FlowRunFilterStateType(any_=list(_ENDED)), name=FlowRunFilterStateName(not_any_=[alarms.REFUSED])
    )
    newest = FlowRunFilter(name=named, state=ended)
    for run in client.read_flow_runs(flow_run_filter=newest, sort=FlowRunSort.END_TIME_DESC, limit=1):
        return _STANDINGS.get(run.state.type, "unknown") if run.state is not None else "unknown"
    return "new"


def has_runs(client: SyncPrefectClient, deployment: UUID) -> bool:
    """Whether a run of the deployment has ended, goes on, or waits for too long. Raises httpx.HTTPError."""
    of_it = FlowRunFilterDeploymentId(any_=[deployment])
    states = (
        FlowRunFilterState(type=FlowRunFilterStateType(any_=[*_ENDED, StateType.RUNNING, StateType.CANCELLING])),
        FlowRunFilterState(name=FlowRunFilterStateName(any_=["Late"])),
    )
    return any(
        client.read_flow_runs(flow_run_filter=FlowRunFilter(deployment_id=of_it, state=one), limit=1) for one in states
    )


@contextmanager
def _forgiven() -> Iterator[None]:
    try:
        yield
    except (httpx.HTTPError, PrefectException) as error:
        warn(f"The Prefect server was not told what is new ({type(error).__name__}): a first failure may not be told.")


def _event(event: str, name: str, deployment: UUID | None = None) -> Event:
    related = [RelatedResource(_TAG)]
    if deployment is not None:
        role = {"prefect.resource.id": f"prefect.deployment.{deployment}", "prefect.resource.role": "deployment"}
        related.append(RelatedResource(role))
    resource = Resource({"prefect.resource.id": "backup-alarms", "prefect.resource.name": name})
    return Event(event=event, occurred=now(), resource=resource, related=related)  # type: ignore[arg-type]


def _send(client: SyncPrefectClient, events: list[Event]) -> None:
    """At once and in this thread: the caller may end right after."""
    for batch in batches(events, _AT_ONCE):
        body = [event.model_dump(mode="json") for event in batch]
        client.request("POST", "/events", json=body).raise_for_status()
