"""What the Prefect server knows of earlier runs: how the newest ended, and since when something has been wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatchcase
from typing import Literal
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterName,
    FlowRunFilterState,
    FlowRunFilterStateName,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.events.filters import EventFilter, EventNameFilter, EventRelatedFilter, EventResourceFilter
from prefect.events.schemas.events import ReceivedEvent
from prefect.exceptions import PrefectException
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from tasks.alarms.event_names import BEGIN_SERIES, REFUSED, TIME, Series, names_before_begin, series_of
from tasks.prefect_client import aware
from tasks.runs.reporting import now, warn

_ENDED = (StateType.COMPLETED, StateType.FAILED, StateType.CRASHED, StateType.CANCELLED)
_BEGUN = (*_ENDED, StateType.RUNNING, StateType.CANCELLING)
Standing = Literal["new", "well", "failed", "unknown"]
_STANDINGS: dict[StateType, Standing] = {
    StateType.COMPLETED: "well",
    StateType.FAILED: "failed",
    StateType.CRASHED: "failed",
}
NAME = "prefect.resource.name"
_SECONDS = 10.0  # for one answer of the server
_NEWEST_EVENTS = 50  # the server gives so many at once
_NEWEST_RUNS = 20
_WITHOUT_SINCE = "a message does not say since when something was wrong."
_LATE = FlowRunFilterState(name=FlowRunFilterStateName(any_=["Late"]))


@contextmanager
def forgiving_client(loss: str) -> Iterator[SyncPrefectClient]:
    """A client that does not wait long. An error of the server ends the `with` block, and costs a line: `loss`."""
    try:
        with (
            temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 2}),
            get_client(httpx_settings={"timeout": _SECONDS}, sync_client=True) as client,
        ):
            yield client
    except (httpx.HTTPError, PrefectException) as error:
        warn(f"The Prefect server did not answer ({type(error).__name__}): {loss}")


def standing(client: SyncPrefectClient, name: str) -> Standing:
    """How the newest ended run of this name ended; `new` when none has. Raises httpx.HTTPError.

    `unknown` when it was cancelled, or a newer run is late. Refused runs do not count.
    """
    named = FlowRunFilterName(any_=[name])
    if client.read_flow_runs(flow_run_filter=FlowRunFilter(name=named, state=_LATE), limit=1):
        return "unknown"
    ended = FlowRunFilterState(
        type=FlowRunFilterStateType(any_=list(_ENDED)), name=FlowRunFilterStateName(not_any_=[REFUSED])
    )
    newest = FlowRunFilter(name=named, state=ended)
    for run in client.read_flow_runs(flow_run_filter=newest, sort=FlowRunSort.END_TIME_DESC, limit=1):
        return _STANDINGS.get(run.state.type, "unknown") if run.state is not None else "unknown"
    return "new"


def standing_of(name: str) -> Standing:
    """As `standing`; `unknown` when the server does not answer."""
    with forgiving_client(f"how {name} ended is not repeated.") as client:
        return standing(client, name)
    return "unknown"


def has_runs(client: SyncPrefectClient, deployment: UUID) -> bool:
    """Whether a run of the deployment has ended, goes on, or is late. Raises httpx.HTTPError."""
    of_it = FlowRunFilterDeploymentId(any_=[deployment])
    states = (FlowRunFilterState(type=FlowRunFilterStateType(any_=list(_BEGUN))), _LATE)
    return any(
        client.read_flow_runs(flow_run_filter=FlowRunFilter(deployment_id=of_it, state=state), limit=1)
        for state in states
    )


def wrong_since(name: str, plan: str = "") -> str:
    """Since when something has been wrong with what this name stands for; empty when nothing is, or it is not known.

    Our own events are those of `plan`; the others are states of the runs of this name.
    """
    with forgiving_client(_WITHOUT_SINCE) as client:
        named = FlowRunFilter(name=FlowRunFilterName(any_=[name]))
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
