"""Starts a deployment, and watches its run until it has ended: log lines or a progress bar on standard error."""

from __future__ import annotations

import re
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from deployments.command_line.output import Run
from deployments.command_line.prefect_api import PrefectApi, find_server
from tasks.errors import BadSetting, Unreachable
from tasks.names import artifact_key

_ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
_POLL_SECONDS = 1.0
#: Programs hand their last log lines to the server this late.
_LOG_SECONDS = 3.0
#: After so long without a worker, a line says so.
_WAITING_SECONDS = 30.0
_INFO = 20
#: Prefect's own lines that are no warnings and say nothing to a person who waits.
_PREFECTS_OWN = re.compile(
    "(Beginning flow run|Finished in state|Created task run|Opening process|Process for flow run"
    "|Worker '.*' submitting flow run|Flow run '.*' submitted to infrastructure|Running [0-9]+ deployment pull step"
    "|Executing deployment step|Deployment step '.*' completed|All deployment steps completed)"
)


@dataclass(frozen=True)
class Started:
    """A run that was asked for."""

    id: str
    name: str
    deployment: str
    usual_seconds: float
    """How long the last such run took; 0 when there was none."""


def connected(otherwise: str = "") -> PrefectApi:
    """The API of the server that is set. Raises BadSetting when none is set, Unreachable when it does not answer.

    `otherwise` is what else a person can do then.
    """
    server = find_server(Path.cwd())
    if server is None:
        raise BadSetting(f"No Prefect server is set: run `make up`, or set PREFECT_API_URL{otherwise}.")
    api = PrefectApi(server)
    try:
        api.get("health")
    except Unreachable as error:
        raise Unreachable(f"{error} Start it (make up){otherwise}.") from None
    return api


def start(api: PrefectApi, deployment: str, parameters: Mapping[str, Any]) -> Started:
    """A run of the deployment `<flow>/<name>` with these parameters, which a worker takes. Raises BadSetting."""
    found = api.get(f"deployments/name/{deployment}")
    if found is None:
        raise BadSetting(f"The Prefect server has no deployment {deployment}: run python -m deployments.set_up.")
    # An answer that was lost is asked for again: the key makes one run of both.
    asked = {"parameters": parameters, "state": {"type": "SCHEDULED"}, "idempotency_key": str(uuid.uuid4())}
    run = api.patiently(f"deployments/{found['id']}/create_flow_run", asked)
    return Started(run["id"], run["name"], deployment, _usual_seconds(api, found["id"], run["parameters"]))


def _usual_seconds(api: PrefectApi, deployment_id: str, parameters: Mapping[str, Any]) -> float:
    asked = {
        "deployments": {"id": {"any_": [deployment_id]}},
        "flow_runs": {"state": {"type": {"any_": ["COMPLETED"]}}},
        "sort": "END_TIME_DESC",
        "limit": 20,
    }
    runs = api.post("flow_runs/filter", asked) or []
    same = [run for run in runs if (run["parameters"] or {}).get("plan") == parameters.get("plan")]
    return float(same[0]["total_run_time"]) if same else 0.0


class Shown(Protocol):
    """Where a person sees how a run goes."""

    def line(self, text: str) -> None:
        """Something has happened."""

    def at(self, name: str, step: str, seconds: float) -> None:
        """The run, which is called so by now, is at this step, so long after its start."""


def watch(api: PrefectApi, started: Started, shown: Shown | None) -> Run:
    """The run, once it has ended, however it ended; `shown` gets its log lines and steps."""
    seen: set[str] = set()
    waited = time.monotonic()
    while True:
        run = api.patiently(f"flow_runs/{started.id}")
        if run is None:
            raise BadSetting(f"Somebody has deleted the run {started.name} in Prefect.")
        state = run["state"]["type"]
        if shown is not None:
            _show(api, run, shown, seen)
            if state == "SCHEDULED" and 0 < waited < time.monotonic() - _WAITING_SECONDS:
                shown.line("No worker has taken the run yet: see whether one runs (backups health).")
                waited = 0.0
        if state in _ENDED:
            break
        time.sleep(_POLL_SECONDS)
    if shown is not None:
        time.sleep(_LOG_SECONDS)
        _show(api, run, shown, seen)
    return Run(
        id=started.id,
        name=run["name"],
        deployment=started.deployment,
        state=state,
        message="" if state == "COMPLETED" else run["state"]["message"] or "No reason was recorded.",
        seconds=round(float(run["total_run_time"] or 0), 1),
        link="",
    )


def link_of(api: PrefectApi, run_id: str) -> str:
    """The link that a run of download-backup has published."""
    key = artifact_key(f"download-{api.patiently(f'flow_runs/{run_id}')['parameters']['plan']}")
    asked = {"artifacts": {"flow_run_id": {"any_": [run_id]}, "key": {"any_": [key]}}, "limit": 1}
    [artifact] = api.patiently("artifacts/filter", asked) or [{"data": ""}]
    return str(artifact["data"]).rpartition("](")[2].removesuffix(")")


def _show(api: PrefectApi, run: Mapping[str, Any], shown: Shown, seen: set[str]) -> None:
    for line in _new_lines(api, str(run["id"]), seen):
        shown.line(line)
    shown.at(str(run["name"]), _step(api, run), float(run["estimated_run_time"] or 0))


def _new_lines(api: PrefectApi, run_id: str, seen: set[str]) -> Iterator[str]:
    asked = {"logs": {"flow_run_id": {"any_": [run_id]}, "level": {"ge_": _INFO}}, "sort": "TIMESTAMP_ASC"}
    for log in api.every("logs/filter", asked):
        is_prefects = log["level"] == _INFO and _PREFECTS_OWN.match(str(log["message"]))
        if log["id"] not in seen and not is_prefects:
            yield str(log["message"])
        seen.add(log["id"])


def _step(api: PrefectApi, run: Mapping[str, Any]) -> str:
    """What the run is doing: the names of its tasks that run now, else its state."""
    asked = {
        "flow_runs": {"id": {"any_": [run["id"]]}},
        "task_runs": {"state": {"type": {"any_": ["RUNNING"]}}},
        "limit": 5,
    }
    tasks = api.patiently("task_runs/filter", asked) if run["state"]["type"] == "RUNNING" else []
    return ", ".join(str(task["name"]) for task in tasks) or str(run["state"]["name"]).lower()


class Lines:
    """Each line with its time, for a log."""

    def line(self, text: str) -> None:
        """Writes it on standard error."""
        sys.stderr.write(f"{datetime.now().astimezone():%H:%M:%S}  {text}\n")

    def at(self, name: str, step: str, seconds: float) -> None:
        """Says nothing: the lines do."""


class Bar:
    """A bar at the foot of a terminal, as long as the last such run took; the lines stand above it."""

    def __init__(self, progress: Progress, name: str, usual_seconds: float) -> None:
        self.progress = progress
        self.usual_seconds = usual_seconds
        total = usual_seconds or None
        usual = f"of about {timedelta(seconds=round(usual_seconds))}" if usual_seconds else ""
        self.task = progress.add_task("scheduled", total=total, run=name, usual=usual)

    def line(self, text: str) -> None:
        """Writes it above the bar."""
        self.progress.console.print(text, markup=False, highlight=False)

    def at(self, name: str, step: str, seconds: float) -> None:
        """Moves the bar; a run that takes longer than the last one stays just below its end."""
        done = min(seconds, 0.99 * self.usual_seconds)
        self.progress.update(self.task, description=step, completed=done, run=name)


@contextmanager
def progress(started: Started, quiet: bool) -> Iterator[Shown | None]:
    """A bar on a terminal, lines anywhere else, nothing when it is to be quiet."""
    if quiet:
        yield None
        return
    console = Console(stderr=True)
    if not console.is_terminal:
        yield Lines()
        return
    shown = (
        TextColumn("{task.fields[run]}", markup=False),
        BarColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[usual]}", markup=False),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*shown, console=console, transient=True) as bars:
        yield Bar(bars, started.name, started.usual_seconds)
