"""The step that validates a restore."""

from __future__ import annotations

from typing import Any

from prefect import task

from tasks.errors import Transient
from tasks.plans.find_plan import plan_named
from tasks.restore import validate as validation
from tasks.restore.values import RestoreRequest, RestoreRun
from tasks.runs.audit import failure_recorded
from tasks.runs.markdown import human_bytes
from tasks.runs.reporting import created_by, current_run_id, run_started_at, say, warn
from tasks.runs.retries import RETRIED


@task(name="validate", **RETRIED)
def validate(plan: str, request: RestoreRequest, requested_by: str) -> RestoreRun:
    """Finds the backup, proves its manifest, and looks for everything that could stand in the way."""
    found, actor = plan_named(plan), created_by(requested_by)
    with failure_recorded("restore", plan, requested_by, but_not=Transient, **details(request)):
        run = validation.validate(found, request, current_run_id(), actor, run_started_at(), warn)
    for warning in run.warnings:
        warn(warning)
    backup = run.backup
    say(
        f"{backup.filename} of {backup.created_at:%Y-%m-%d %H:%M:%S} UTC ({human_bytes(backup.size)}, "
        f"{backup.rows:,} rows) will be restored as {run.database} (mode {run.mode}) with psql {run.psql_version} "
        f"for {actor}."
    )
    return run


def details(request: RestoreRequest) -> dict[str, Any]:
    """What was asked for, for the audit."""
    return {
        "backup": request.backup[:200],
        "mode": request.mode,
        "target": request.target[:200],
        "tables": [one[:200] for one in request.tables[:100]],
    }
