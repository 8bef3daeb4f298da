"""What runs report to the Prefect server: that they have begun, how they ended, and what is wrong or well again."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect.context import FlowRunContext
from prefect.events import emit_event

from tasks.alarms.event_names import (
    BEGUN,
    ENDED,
    FAILED,
    ROUNDS,
    WELL,
    backup_name,
    names_of_plan,
    series_of,
)
from tasks.alarms.watch import (
    NAME,
    OUR_TAG,
    Standing,
    arm,
    forgiving_client,
    not_begun_since,
    plan_resource,
    time_of_now,
    wrong_since,
)
from tasks.errors import BackupSystemError
from tasks.runs.audit import Errors
from tasks.runs.reporting import current_run_id
from tasks.runs.retries import reason_of


def report_event(event: str, name: str, plan: str, **payload: Any) -> None:
    """Emits an event of a plan under a watched name (`backup-<plan>`, `health-<plan>`, `data-<plan>` …).

    It carries since when something is wrong, or was.
    """
    _emit(event, name, plan_resource(plan), plan=plan, **_since(event, name, plan), **payload)


@contextmanager
def failure_reported(name: str, plan: str, but_not: Errors = ()) -> Iterator[None]:
    """Reports an error in the `with` block under `name`. A cancellation is no problem.

    Errors of the types `but_not` are reported elsewhere.
    """
    try:
        yield
    except Exception as error:
        if not isinstance(error, but_not):
            report_event(FAILED, name, plan, sentence=sentence_of(error))
        raise


@contextmanager
def outcome_reported(name: str, plan: str, but_not: Errors = ()) -> Iterator[None]:
    """As `failure_reported`, and reports success too.

    The state of the run does not suffice: a server on SQLite may lose that event, and it does not say since when
    something was wrong.
    """
    with failure_reported(name, plan, but_not):
        yield
    report_event(WELL, name, plan)


@contextmanager
def run_reported() -> Iterator[None]:
    """Reports that this run has begun; for a run that goes through the plans also that it has ended, with any result.

    A cancellation is no end.
    """
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    deployment = run.deployment_id if run else None
    identity, since = f"backup-run.{current_run_id()}", not_begun_since(deployment) if deployment else ""
    _emit(BEGUN, "a run that has begun", identity, since=since)
    try:
        yield
    except Exception:
        _report_end(run.name if run else "", identity)
        raise
    _report_end(run.name if run else "", identity)


def remind(plan: str, name: str, stands: Standing) -> None:
    """Repeats how the plan's newest run of this name ended, in case the server has lost the event.

    What was reported already sends no message. A plan without any backup yet is watched from now on. Never fails the
    run.
    """
    if stands == "new" and name == backup_name(plan):
        with forgiving_client(f"a first failure of {name} may not be reported.") as client:
            arm(client, names_of_plan(plan))
    elif stands == "failed":
        report_event(FAILED, name, plan, sentence="Its newest run has failed: see Runs in the Prefect UI.")
    elif stands == "well":
        report_event(WELL, name, plan)


def sentence_of(error: BaseException) -> str:
    """The sentence of one of our errors; of any other the type alone, because its text may repeat parameters."""
    return reason_of(error) if isinstance(error, BackupSystemError) else f"It ended with {type(error).__name__}."


def _since(event: str, name: str, plan: str) -> dict[str, str]:
    series = series_of(name)
    if event in series.wrong:
        return {"since": wrong_since(name, plan) or time_of_now()}
    return {"since": wrong_since(name, plan)} if event in series.right else {}


def _report_end(name: str, identity: str) -> None:
    if name.startswith(ROUNDS):
        _emit(ENDED, name, identity, since=wrong_since(name))


def _emit(event: str, name: str, identity: str, **payload: Any) -> None:
    resource = {"prefect.resource.id": identity, NAME: name}
    emit_event(event=event, resource=resource, related=[OUR_TAG], payload=payload)
