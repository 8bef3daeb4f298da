"""Calls an outside service and reports to the Prefect server that a backup begins and how it ends.

The outside service raises the alarm when no call comes, so it works while the Prefect server is down. The addresses are
those of Healthchecks (https://healthchecks.io/docs/http_api/): the address itself for success, `/start` and `/fail`
below it; a body has the reason. Whoever knows the address can call it: no text repeats it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import httpx

from tasks.alarms.event_names import backup_name
from tasks.alarms.run_events import outcome_reported, sentence_of
from tasks.alarms.watch import watch_if_new
from tasks.errors import BackupSystemError, BackupUnderWay, BadSetting
from tasks.plans.find_plan import plan_named
from tasks.runs.reporting import warn

Kind = Literal["start", "success", "fail"]
SECONDS = 5.0  # for one call
DELAY = 1.0  # seconds until a service that does not answer is called once more
_LONGEST = 10_000  # characters; Healthchecks keeps no more than 100 kB


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


def ping(url: str, kind: Kind, body: str = "") -> str:
    """Makes one call; returns why it failed, or an empty text. Takes 11 seconds at most; raises nothing."""
    try:
        address = address_for(url, kind)
    except BadSetting as error:
        return str(error)
    if not _call(address, body[:_LONGEST]):
        return ""
    time.sleep(DELAY)
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
        url = plan_named(plan).ping_url
    except BackupSystemError:  # the steps say what is wrong with the plan
        return
    if url and (problem := ping(url, kind, body)):
        warn(f"The address in PING_URL was not called for the backup's {kind}: {problem}")


def _call(address: str, body: str) -> str:
    try:
        with httpx.Client(timeout=SECONDS) as client:
            answer = client.post(address, content=body.encode()) if body else client.get(address)
    except httpx.HTTPError as error:
        return f"it did not answer ({type(error).__name__})."
    return f"it answered {answer.status_code}." if answer.is_error else ""
