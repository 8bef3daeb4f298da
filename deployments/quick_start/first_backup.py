"""The backup that `make up` makes, through the deployment `backup/manual`, as anybody else would start it.

Imports Prefect: import this module only after the environment says which server to use.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun

from tasks.catalogue.catalogue import Catalogue
from tasks.catalogue.rows import Record
from tasks.errors import Permanent
from tasks.postgres.dsn import parse
from tasks.prefect_client import run_filter

DEPLOYMENT = "backup/manual"
PLAN = "default"
POLL_SECONDS = 1.0
REPORT_SECONDS = 15.0
#: A worker asks for work every two seconds; a run that nobody took after this long will not be taken.
SECONDS_TO_BE_TAKEN = 120.0


class FirstBackupFailed(Permanent):
    """The run of `backup/manual` did not complete."""


def first_backup(catalog_url: str, ui_url: str, say: Callable[[str], None]) -> Record:
    """The newest completed backup of the plan `default`; made now when there is none.

    Raises FirstBackupFailed when the run ends in any other way than completed.
    """
    catalogue = Catalogue(parse(catalog_url, "CATALOG_URL"))
    backups = catalogue.completed(PLAN) or (wait_for_others(say) and catalogue.completed(PLAN))
    if not backups:
        say(f"Making the first backup: deployment {DEPLOYMENT} …")
        run_and_wait(ui_url, say)
        backups = catalogue.completed(PLAN)
    if not backups:
        raise FirstBackupFailed(f"{DEPLOYMENT} completed, yet the catalogue has no completed backup: see {ui_url}.")
    return backups[0]


def wait_for_others(say: Callable[[str], None]) -> bool:
    """No run of the deployment is waiting or under way, such as that of an interrupted `make up`; whether one was."""
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(DEPLOYMENT)
        active = {"type": {"any_": ["SCHEDULED", "PENDING", "RUNNING"]}}
        of_it = run_filter(deployment_id={"any_": [deployment.id]}, state=active)
        others = client.read_flow_runs(flow_run_filter=of_it)
        for run in others:
            say(f"Waiting for the backup that is under way already: {run.name} …")
            _wait(client, run.id, say)
    return bool(others)


def run_and_wait(ui_url: str, say: Callable[[str], None]) -> None:
    """A run of the deployment, started now, has completed. Raises FirstBackupFailed with its last words."""
    with get_client(sync_client=True) as client:
        deployment = client.read_deployment_by_name(DEPLOYMENT)
        started = client.create_flow_run_from_deployment(deployment.id, parameters={"requested_by": "make up"})
        run = _wait(client, started.id, say)
    if run.state is None or not run.state.is_completed():
        reason = f"{run.state.name}: {run.state.message}" if run.state else "unknown"
        raise FirstBackupFailed(f"The first backup ended as {reason} See {ui_url}/runs/flow-run/{run.id}.")


def _wait(client: SyncPrefectClient, run_id: UUID, say: Callable[[str], None]) -> FlowRun:
    """The run once its state is final. Raises FirstBackupFailed when no worker takes it."""
    began = reported = time.monotonic()
    while True:
        run = client.read_flow_run(run_id)
        if run.state is not None and run.state.is_final():
            return run
        now = time.monotonic()
        if now - began > SECONDS_TO_BE_TAKEN and run.start_time is None:
            raise FirstBackupFailed(f"No worker took the first backup for {SECONDS_TO_BE_TAKEN:.0f} seconds.")
        if now - reported > REPORT_SECONDS:
            reported = now
            say(f"  {run.state.name if run.state else 'waiting'} for {now - began:.0f} s …")
        time.sleep(POLL_SECONDS)
