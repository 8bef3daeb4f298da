"""Tells a service outside, and the Prefect server, that a backup begins and how it ends. Never costs the backup."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from tasks.alarms import event_names as alarms
from tasks.alarms.ping_url import Kind, ping
from tasks.alarms.tell import tell, watch_if_new
from tasks.errors import BackupSystemError, BackupUnderWay
from tasks.plans.find_plan import plan_named
from tasks.runs.reporting import warn
from tasks.runs.retries import reason_of


@contextmanager
def watched(plan: str) -> Iterator[None]:
    """A failure of the `with` block is told, even the first one of a new plan: a cancellation too.

    A run that finds a backup of the plan under way tells nothing of its end: the other run does.

    The plan's ping address, if there is one, is called at the beginning and at the end. The Prefect server hears of
    the end by an event too: one on SQLite may lose that of the run's state when it is busy.
    """
    watch_if_new(plan)
    _ping(plan, "start")
    try:
        yield
    except BackupUnderWay:
        raise
    except BaseException as error:
        _ping(plan, "fail", f"Plan {plan}: {_told(error)}")
        if isinstance(error, Exception):  # anything else is a cancellation, which is no problem
            tell(alarms.FAILED, alarms.backup_name(plan), plan, sentence=_told(error))
        raise
    tell(alarms.WELL, alarms.backup_name(plan), plan)
    _ping(plan, "success")


def _told(error: BaseException) -> str:
    """The sentence of one of our errors; of any other the type alone, as its text may repeat what was given."""
    return reason_of(error) if isinstance(error, BackupSystemError) else f"it ended with {type(error).__name__}."


def _ping(plan: str, kind: Kind, body: str = "") -> None:
    try:
        url = plan_named(plan).ping_url
    except BackupSystemError:  # the steps say what is wrong with the plan
        return
    if url and (problem := ping(url, kind, body)):
        warn(f"The address in PING_URL could not be told of the backup's {kind}: {problem}")
