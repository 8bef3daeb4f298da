"""What runs report: to the Prefect server that they have begun, how they ended, and what is wrong or well again; and of
a backup, that it begins and how it ends, to an outside service.

That service raises the alarm when no call comes, so it works while the Prefect server is down. The addresses are those
of Healthchecks (https://healthchecks.io/docs/http_api/): the address itself for success, `/start` and `/fail` below it;
a body has the reason. Whoever knows the address can call it: no text repeats it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

import httpx
from prefect.context import FlowRunContext
from prefect.events import emit_event

from tasks.alarms.event_names import (
    BEGUN,
    ENDED,
    FAILED,
    ROUNDS,
    WELL,
    backup_name,
    backups_of,
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
    watch_if_new,
    wrong_since,
)
from tasks.errors import BackupSystemError, BackupUnderWay, BadSetting, PlansFailed
from tasks.plans.find_plan import any_plan_named
from tasks.runs.at_once import Deadline, answer, begin
from tasks.runs.audit import Errors
from tasks.runs.reporting import current_run_id, warn
from tasks.runs.retries import reason_of

Kind = Literal["start", "success", "fail"]
PING_SECONDS = 5.0  # for one call
PING_DELAY = 1.0  # seconds until a service that does not answer is called once more
_LONGEST = 10_000  # characters; Healthchecks keeps no more than 100 kB


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


@contextmanager
def watched(plan: str) -> Iterator[None]:
    """Reports how the `with` block ends, to the Prefect server and to the plan's ping address, if there is one.

    The first failure of a new plan is reported too; a cancellation only to the ping address. A run that finds a backup
    of the plan under way reports no end: the other run does. Problems with reporting never fail the backup.
    """
    watch_if_new(plan)
    _ping_plan(plan, "start")
    with outcome_reported(backup_name(plan), plan, BackupUnderWay):
        try:
            yield
        except BackupUnderWay:
            raise
        except BaseException as error:
            _ping_plan(plan, "fail", f"Plan {plan}: {sentence_of(error)}")
            raise
    _ping_plan(plan, "success")


@contextmanager
def databases_watched(plan: str) -> Iterator[None]:
    """The same for a run that backs up the databases of a server, of which each reports its own end.

    The ping address hears of all of them together; an alarm of its own comes where they could not be started.
    """
    watch_if_new(plan)
    _ping_plan(plan, "start")
    try:
        with failure_reported(backups_of(plan), plan, but_not=PlansFailed):
            yield
    except BaseException as error:
        _ping_plan(plan, "fail", f"Plan {plan}: {sentence_of(error)}")
        raise
    _ping_plan(plan, "success")


def ping(url: str, kind: Kind, body: str = "") -> str:
    """Makes one call; returns why it failed, or an empty text. Takes 11 seconds at most; raises nothing."""
    try:
        address = address_for(url, kind)
    except BadSetting as error:
        return str(error)
    if not _call(address, body[:_LONGEST]):
        return ""
    time.sleep(PING_DELAY)
    return _call(address, body[:_LONGEST])


def address_for(url: str, kind: Kind) -> str:
    """The address of one kind of call; what follows a question mark in `url` stays. Pure.

    Raises BadSetting, which does not repeat the address, when it is no HTTP address.
    """
    try:
        read = httpx.URL(url.strip())
    except httpx.InvalidURL:
        read = httpx.URL("")
    if read.scheme not in ("http", "https") or not read.host:
        raise BadSetting("PING_URL is no address of HTTP: write it as https://host/path.")
    return str(read) if kind == "success" else str(read.copy_with(path=f"{read.path.rstrip('/')}/{kind}"))


def _ping_plan(plan: str, kind: Kind, body: str = "") -> None:
    try:
        url = any_plan_named(plan).ping_url
    except BackupSystemError:  # the steps say what is wrong with the plan
        return
    if url and (problem := ping(url, kind, body)):
        warn(f"The address in PING_URL was not called for the backup's {kind}: {problem}")


def _call(address: str, body: str) -> str:
    """Why the call failed; empty when it was taken. Nobody waits for the end of an answer that comes byte by byte."""
    done = answer(begin(partial(_asked, address, body)), Deadline(PING_SECONDS), "it")
    return done.problem or done.value or ""


def _asked(address: str, body: str) -> str:
    try:
        with httpx.Client(timeout=PING_SECONDS) as client:
            reply = client.post(address, content=body.encode()) if body else client.get(address)
    except httpx.HTTPError as error:
        return f"it did not answer ({type(error).__name__})."
    return f"it answered {reply.status_code}." if reply.is_error else ""
