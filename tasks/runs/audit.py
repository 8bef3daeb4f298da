"""The audit: one line for each thing that a run does, and for how it ended when it could not do it.

A run that goes through all plans gets a line for each plan that fails, which stops no other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from typing import TypeVar

import httpx
import psycopg2
from prefect.runtime import flow_run

from tasks.catalogue.catalogue import Catalogue
from tasks.catalogue.rows import Event
from tasks.errors import AlreadyRunning, BackupSystemError, Permanent, PlansFailed, Transient
from tasks.plans.find_plan import any_plan_named, backs_up_server, plan_named, plan_names
from tasks.plans.plan import Plan
from tasks.runs.reporting import created_by, current_run_id, now, run_started_at, say, warn
from tasks.runs.retries import reason_of

#: Waiting times before the next try when the catalogue does not take a line, for example while its server restarts.
AUDIT_DELAYS = (0.5, 1.5, 3.0)  # seconds
_LONGEST_DETAIL = 200  # characters
Errors = type[BaseException] | tuple[type[BaseException], ...]
Done = TypeVar("Done")
#: Errors of one plan that do not stop the work for the others.
_OF_ONE_PLAN = (BackupSystemError, psycopg2.Error, httpx.HTTPError, OSError)


def run_event(action: str, outcome: str, plan: str, requested_by: str, **details: object) -> Event:
    """A line of this run for the audit, with its duration until now; long texts in `details` are cut."""
    return Event(
        action,
        outcome,
        plan,
        created_by(requested_by),
        current_run_id(),
        duration_seconds=(now() - run_started_at()).total_seconds(),
        details={name: value[:_LONGEST_DETAIL] if isinstance(value, str) else value for name, value in details.items()},
    )


def audit(catalogue: Catalogue, event: Event) -> None:
    """Writes one line. A catalogue that does not answer for some seconds costs a line in the log, not the run."""
    for delay in (*AUDIT_DELAYS, None):
        try:
            catalogue.note(event)
            return
        except BackupSystemError as problem:
            if delay is None or not isinstance(problem, Transient):
                warn(f"The audit could not be written: {problem}", cause=str(problem))
                return
            time.sleep(delay)


def failure_recorded(
    action: str,
    plan: str,
    requested_by: str,
    *,
    refused: Errors = Permanent,
    but_not: Errors = (),
    **details: object,
) -> AbstractContextManager[None]:
    """As `error_recorded`, with a line of this run; `details` are what was asked for."""
    return error_recorded(lambda: run_event(action, "failed", plan, requested_by, **details), refused, but_not)


@contextmanager
def error_recorded(line: Callable[[], Event], refused: Errors = Permanent, but_not: Errors = ()) -> Iterator[None]:
    """Writes a line for an error in the `with` block, a cancellation too: `refused` or `failed`, with the reason.

    `refused` are the errors that mean that nothing was begun; errors of the types `but_not` are written elsewhere. A
    plan that cannot be read has no catalogue to write to.
    """
    try:
        yield
    except BaseException as error:
        if not isinstance(error, but_not):
            outcome = "refused" if isinstance(error, refused) else "failed"
            event = replace(line(), outcome=outcome, error=reason_of(error))
            with suppress(BackupSystemError):
                audit(plan_named(event.plan).catalogue, event)
        raise


def named_by_plan(action: str) -> Callable[[], str]:
    """The name of a flow run: `cleanup-shop`, or `cleanup-every-plan`."""
    return lambda: f"{action}-{(flow_run.parameters or {}).get('plan') or 'every-plan'}"


def restore_name() -> str:
    """The name of a run: `restore-shop-swap`, or `restore-shop-into-staging-swap`."""
    given = {"plan": "default", "mode": "swap", "into": "", **(flow_run.parameters or {})}
    into = f"-into-{given['into']}" if given["into"] else ""
    return f"restore-{given['plan']}{into}-{given['mode']}"


def _with_records(server: Plan) -> list[str]:
    return server.catalogue.plans_of_server(server.name)


def for_each_plan(
    plan: str,
    action: str,
    requested_by: str,
    work: Callable[[str], Done],
    of_server: Callable[[Plan], list[str]] = _with_records,
) -> tuple[Done, ...]:
    """What `work` returns for `plan`, or for every plan when that is empty. Failures are in the audit.

    The plan of a server stands for its databases: those that have records, or what `of_server` says. One plan that
    fails stops no other. Raises the error of a single plan; for several plans PlansFailed, which names those that
    failed and why.
    """
    done: list[Done] = []
    names, failed = _names(plan.strip(), of_server)
    for name in names:
        try:
            with failure_recorded(action, name, requested_by, refused=AlreadyRunning):
                done.append(work(name))
        except _OF_ONE_PLAN as error:
            if len(names) + len(failed) == 1:
                raise
            failed[name] = reason_of(error)
            warn(f"Plan {name}: {failed[name]}")
    if failed:
        raise PlansFailed(action, failed, len({*names, *failed}))
    if len(names) > 1:
        say(f"{action}: all {len(names)} plans are done: {', '.join(names)}.")
    return tuple(done)


def _names(plan: str, of_server: Callable[[Plan], list[str]]) -> tuple[list[str], dict[str, str]]:
    """The plans that `plan` stands for, or all of them; and why those of the databases of a server are not known."""
    names: list[str] = []
    failed: dict[str, str] = {}
    for name in [plan] if plan else plan_names():
        try:
            names += of_server(any_plan_named(name)) if backs_up_server(name) else [name]
        except BackupSystemError as error:
            if plan:
                raise
            failed[name] = reason_of(error)
            warn(f"Plan {name}: {failed[name]}")
    return names, failed
