"""Does the work of a run for one plan or for all of them. A plan that fails stops no other."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import httpx
import psycopg2
from prefect.runtime import flow_run

from tasks.errors import AlreadyRunning, BackupSystemError, PlansFailed
from tasks.plans.find_plan import plan_names
from tasks.runs.audit import failure_recorded
from tasks.runs.reporting import say, warn
from tasks.runs.retries import reason_of

Done = TypeVar("Done")
#: Errors of one plan that do not stop the work for the others.
_OF_ONE_PLAN = (BackupSystemError, psycopg2.Error, httpx.HTTPError, OSError)


def named_by_plan(action: str) -> Callable[[], str]:
    """The name of a flow run: `cleanup-shop`, or `cleanup-every-plan`."""
    return lambda: f"{action}-{(flow_run.parameters or {}).get('plan') or 'every-plan'}"


def for_each_plan(plan: str, action: str, requested_by: str, work: Callable[[str], Done]) -> tuple[Done, ...]:
    """What `work` returns for `plan`, or for every plan when that is empty. Failures are in the audit.

    One plan that fails stops no other. Raises the error of a single plan; for several plans PlansFailed, which names
    those that failed and why.
    """
    names = [plan.strip()] if plan.strip() else plan_names()
    done: list[Done] = []
    failed: dict[str, str] = {}
    for name in names:
        try:
            with failure_recorded(action, name, requested_by, refused=AlreadyRunning):
                done.append(work(name))
        except _OF_ONE_PLAN as error:
            if len(names) == 1:
                raise
            failed[name] = reason_of(error)
            warn(f"Plan {name}: {failed[name]}")
    if failed:
        raise PlansFailed(action, failed, len(names))
    if len(names) > 1:
        say(f"{action}: all {len(names)} plans are done: {', '.join(names)}.")
    return tuple(done)
