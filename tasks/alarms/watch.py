"""What the Prefect server knows of runs: how the newest ended, and since when something has been wrong.

And what it is to watch: the first problem of a plan or a deployment is reported, and dead runs count as crashed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from fnmatch import fnmatchcase
from typing import Literal
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import DeploymentFilter
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events import Event
from prefect.events.filters import EventFilter, EventNameFilter, EventRelatedFilter, EventResourceFilter
from prefect.events.schemas.events import ReceivedEvent, RelatedResource, Resource
from prefect.states import Crashed

from tasks.alarms.event_names import (
    ARMED,
    BEGIN_SERIES,
    NOTED,
    REFUSED,
    TIME,
    Series,
    all_backups_of,
    backup_name,
    names_before_begin,
    names_of_plan,
    series_of,
)
from tasks.names import TAG
from tasks.prefect_client import NO_ANSWER, aware, batches, brief_client, pages, run_filter
from tasks.runs.reporting import now, warn

_ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
_BEGUN = (*_ENDED, "RUNNING", "CANCELLING")
Standing = Literal["new", "well", "failed", "unknown"]
_STANDINGS: dict[str, Standing] = {"COMPLETED": "well", "FAILED": "failed", "CRASHED": "failed"}
NAME = "prefect.resource.name"
_NEWEST_EVENTS = 50  # the server gives so many at once
_NEWEST_RUNS = 20
_WITHOUT_SINCE = "a message does not say since when something was wrong."
_LATE = {"name": {"any_": ["Late"]}}
#: A run may need so long from the moment that a worker takes it: for a machine, for an image.
STUCK = timedelta(minutes=15)
#: The automations look at events with this tag alone.
OUR_TAG = {"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"}
_AT_ONCE = 100  # events sent in one request
_LOSS = "a first failure may not be reported."


@contextmanager
def forgiving_client(loss: str) -> Iterator[SyncPrefectClient]:
    """A client that does not wait long. An error of the server ends the `with` block, and costs a line: `loss`."""
    try:
        with brief_client() as client:
            yield client
    except NO_ANSWER as error:
        warn(f"The Prefect server did not answer ({type(error).__name__}): {loss}")


def standing(client: SyncPrefectClient, *names: str) -> Standing:
    """How the newest ended run of these names ended; `new` when none has. Raises httpx.HTTPError.

    `unknown` when it was cancelled, or a newer run is late. Refused runs do not count.
    """
    named = {"any_": list(names)}
    if client.read_flow_runs(flow_run_filter=run_filter(name=named, state=_LATE), limit=1):
        return "unknown"
    newest = run_filter(name=named, state={"type": {"any_": _ENDED}, "name": {"not_any_": [REFUSED]}})
    for run in client.read_flow_runs(flow_run_filter=newest, sort=FlowRunSort.END_TIME_DESC, limit=1):
        return _STANDINGS.get(run.state.type.value, "unknown") if run.state is not None else "unknown"
    return "new"


def standing_of(name: str) -> Standing:
    """As `standing`; `unknown` when the server does not answer."""
    with forgiving_client(f"how {name} ended is not repeated.") as client:
        return standing(client, name)
    return "unknown"


def has_runs(client: SyncPrefectClient, deployment: UUID) -> bool:
    """Whether a run of the deployment has ended, goes on, or is late. Raises httpx.HTTPError."""
    own, states = {"any_": [deployment]}, ({"type": {"any_": _BEGUN}}, _LATE)
    filters = [run_filter(deployment_id=own, state=state) for state in states]
    return any(client.read_flow_runs(flow_run_filter=wanted, limit=1) for wanted in filters)


def wrong_since(name: str, plan: str = "") -> str:
    """Since when something has been wrong with what this name stands for; empty when nothing is, or it is not known.

    Our own events are those of `plan`; the others are states of the runs of this name.
    """
    with forgiving_client(_WITHOUT_SINCE) as client:
        named = run_filter(name={"any_": [name]})
        runs = client.read_flow_runs(
            flow_run_filter=named, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=_NEWEST_RUNS
        )
        ids = [plan_resource(plan), *(f"prefect.flow-run.{run.id}" for run in runs)]
        wanted = EventFilter(resource=EventResourceFilter(id=ids))
        return _since(client, wanted, series_of(name), [name])
    return ""


def not_begun_since(deployment: UUID) -> str:
    """Since when runs of the deployment have not begun; empty when they begin, or it is not known."""
    with forgiving_client(_WITHOUT_SINCE) as client:
        related = EventRelatedFilter(id=[f"prefect.deployment.{deployment}"])
        return _since(client, EventFilter(related=related), BEGIN_SERIES, names_before_begin())
    return ""


def plan_resource(plan: str) -> str:
    """The id of the resource that our own events of a plan have."""
    return f"backup-plan.{plan}"


def begin_of_problem(events: Sequence[ReceivedEvent], series: Series) -> str:
    """When the problem began that lasts after these events, the newest first; empty when there is none. Pure.

    An event that repeats a problem says when that began: so the begin is known longer than the server keeps events.
    """
    begin = ""
    for event in events:
        if event.event in series.right:
            break
        begin = min(filter(None, (begin, str(event.payload.get("since") or ""), f"{aware(event.occurred):{TIME}}")))
    return begin


def time_of_now() -> str:
    """The time as events and messages write it."""
    return f"{now():{TIME}}"


def _since(client: SyncPrefectClient, wanted: EventFilter, series: Series, globs: Sequence[str]) -> str:
    """The begin of the problem that the newest events of resources with such names tell of."""
    wanted.event = EventNameFilter(name=sorted(series.wrong | series.right))
    events = client.read_events(wanted, limit=_NEWEST_EVENTS).events
    fitting = [event for event in events if any(fnmatchcase(event.resource.get(NAME) or "", glob) for glob in globs)]
    return begin_of_problem(fitting, series)


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
    pending = run_filter(state={"type": {"any_": ["PENDING"]}}, tags={"all_": [TAG]})
    for run in list(pages(client.read_flow_runs, flow_run_filter=pending)):
        if run.state is not None and aware(run.state.timestamp) < before:
            message = "A worker took it, and it has not begun since then: worker or process have died."
            client.set_flow_run_state(run.id, Crashed(message=message))


def watch_deployments(client: SyncPrefectClient, *, everyone: bool = False) -> None:
    """From now on it is reported when runs of our deployments do not begin: of deployments without runs, or of all.

    Raises httpx.HTTPError.
    """
    tagged = DeploymentFilter.model_validate({"tags": {"all_": [TAG]}})
    deployments = [deployment.id for deployment in pages(client.read_deployments, deployment_filter=tagged)]
    new = [deployment for deployment in deployments if everyone or not has_runs(client, deployment)]
    _send(client, [_event(ARMED, "runs that have not begun", deployment) for deployment in new])


def arm_new(client: SyncPrefectClient, plans: Iterable[str]) -> None:
    """From now on, the first problem is reported of those `plans` that have no backup yet. Raises httpx.HTTPError."""
    new = [plan for plan in plans if standing(client, backup_name(plan), all_backups_of(plan)) == "new"]
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
