"""Makes sure that the first problem of a plan or a deployment is reported, and that dead runs count as crashed."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    DeploymentFilter,
    DeploymentFilterTags,
    FlowRunFilter,
    FlowRunFilterState,
    FlowRunFilterStateType,
    FlowRunFilterTags,
)
from prefect.client.schemas.objects import StateType
from prefect.events import Event
from prefect.events.schemas.events import RelatedResource, Resource
from prefect.states import Crashed

from tasks.alarms.event_names import ARMED, NOTED, backup_name, names_of_plan
from tasks.alarms.run_history import NAME, forgiving_client, has_runs, standing
from tasks.names import TAG
from tasks.prefect_client import aware, batches, pages
from tasks.runs.reporting import now

#: A run may need so long from the moment that a worker takes it: for a machine, for an image.
STUCK = timedelta(minutes=15)
#: The automations look at events with this tag alone.
OUR_TAG = {"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"}
_AT_ONCE = 100  # events sent in one request
_LOSS = "a first failure may not be reported."


def watch_if_new(plan: str) -> None:
    """From its very first run on, a plan is watched that was made after the last set-up. Never fails the run."""
    with forgiving_client(_LOSS) as client:
        arm_new(client, [plan])


def look_after_runs() -> None:
    """Runs that died before they began are Crashed; new deployments are watched. Never fails the run."""
    with forgiving_client(_LOSS) as client:
        watch_deployments(client)
        end_stuck_runs(client, now() - STUCK)


def end_stuck_runs(client: SyncPrefectClient, before: datetime) -> None:
    """Marks our runs as Crashed that a worker took before that time and that have not begun. Raises httpx.HTTPError.

    Such a run has sent no heartbeat yet, so nothing else notices that its worker died.
    """
    pending = FlowRunFilter(
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PENDING])),
        tags=FlowRunFilterTags(all_=[TAG]),
    )
    for run in list(pages(client.read_flow_runs, flow_run_filter=pending)):
        if run.state is not None and aware(run.state.timestamp) < before:
            message = "A worker took it, and it has not begun since then: worker or process have died."
            client.set_flow_run_state(run.id, Crashed(message=message))


def watch_deployments(client: SyncPrefectClient, *, everyone: bool = False) -> None:
    """From now on it is reported when runs of our deployments do not begin: of deployments without runs, or of all.

    Raises httpx.HTTPError.
    """
    tagged = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
    deployments = [deployment.id for deployment in pages(client.read_deployments, deployment_filter=tagged)]
    new = [deployment for deployment in deployments if everyone or not has_runs(client, deployment)]
    _send(client, [_event(ARMED, "runs that have not begun", deployment) for deployment in new])


def arm_new(client: SyncPrefectClient, plans: Iterable[str]) -> None:
    """From now on, the first problem is reported of those `plans` that have no backup yet. Raises httpx.HTTPError."""
    new = [plan for plan in plans if standing(client, backup_name(plan)) == "new"]
    arm(client, [name for plan in new for name in names_of_plan(plan)])


def arm(client: SyncPrefectClient, names: Iterable[str]) -> None:
    """From now on, the next problem of each of these names is reported. Raises httpx.HTTPError."""
    _send(client, [_event(ARMED, name) for name in names])


def note(client: SyncPrefectClient, names: Iterable[str]) -> None:
    """Something is wrong already with each of these names, and its end is reported. Raises httpx.HTTPError."""
    _send(client, [_event(NOTED, name) for name in names])


def _event(event: str, name: str, deployment: UUID | None = None) -> Event:
    related = [RelatedResource(OUR_TAG)]
    if deployment is not None:
        role = {"prefect.resource.id": f"prefect.deployment.{deployment}", "prefect.resource.role": "deployment"}
        related.append(RelatedResource(role))
    resource = Resource({"prefect.resource.id": "backup-alarms", NAME: name})
    return Event(event=event, occurred=now(), resource=resource, related=related)  # type: ignore[arg-type]


def _send(client: SyncPrefectClient, events: list[Event]) -> None:
    """At once and in this thread: the caller may end right after."""
    for batch in batches(events, _AT_ONCE):
        body = [event.model_dump(mode="json") for event in batch]
        client.request("POST", "/events", json=body).raise_for_status()
