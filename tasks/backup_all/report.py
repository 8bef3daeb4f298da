"""The step that tells what has become of a run of backup-all: lines of the audit, and a table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import httpx
from prefect import task
from prefect.exceptions import PrefectException

from tasks.admin_page.gather import DEADLINE, place_of
from tasks.admin_page.links import Links
from tasks.admin_page.prefect_data import admin_page_api
from tasks.admin_page.view import PlanAddress
from tasks.alarms import event_names as alarms
from tasks.alarms.tell import tell as tell_server
from tasks.backup_all.start_order import NOT_STARTED, Ended
from tasks.backup_all.summary import ACTION, Outcome, Stored, check_all, markdown, record
from tasks.catalogue.catalogue import Catalogue
from tasks.errors import BackupSystemError, PlansFailed
from tasks.postgres.dsn import Dsn
from tasks.runs.at_once import asked_at_once
from tasks.runs.reporting import created_by, current_run_id, now, publish, run_started_at, say, warn
from tasks.runs.retries import STEP, reason_of

_EVERY = alarms.EVERY_PLAN.replace("-", " ")
#: No plan's backup has an artifact of this name.
KEY = "summary-of-backup-all"


@contextmanager
def watched_round() -> Iterator[None]:
    """An error of backup-all itself in the `with` block is told: what a plan's own run met, that run has told."""
    try:
        yield
    except PlansFailed:
        raise
    except BackupSystemError as error:
        _raise_alarm(reason_of(error))
        raise
    except Exception as error:
        _raise_alarm(f"It ended with {type(error).__name__}.")
        raise


@task(name="tell", **STEP)
def tell(ended: Sequence[Ended], requested_by: str) -> tuple[Outcome, ...]:
    """Every plan's outcome with what is stored of it, told to the audit of its catalogue and shown in a table.

    Raises PlansFailed, which names those that failed, when any did. A catalogue that does not answer costs its plans'
    lines and sizes.
    """
    addresses, links = _addresses_and_links()
    stored = _recorded(ended, {one.name: one.catalogue for one in addresses if one.catalogue}, requested_by)
    outcomes = tuple(Outcome(one, stored.get(one.run_id)) for one in ended)
    seconds = (now() - run_started_at()).total_seconds()
    _tell_of_starts(ended)
    publish(KEY, f"Backups of {len(outcomes)} plans", markdown(outcomes, seconds, links.run))
    check_all(outcomes)
    say(f"All {len(outcomes)} plans are backed up.")
    return outcomes


def _tell_of_starts(ended: Sequence[Ended]) -> None:
    """A plan that has no run of its own cannot tell anybody."""
    left = [f"Plan {one.plan}: {one.reason}" for one in ended if one.outcome == NOT_STARTED]
    if left:
        _raise_alarm(f"{len(left)} of {len(ended)} plans were not started. {' '.join(left)}")
    else:
        tell_server(alarms.WELL, alarms.every_backup_name(), _EVERY)


def _raise_alarm(sentence: str) -> None:
    tell_server(alarms.FAILED, alarms.every_backup_name(), _EVERY, sentence=sentence)


def _addresses_and_links() -> tuple[list[PlanAddress], Links]:
    try:
        with admin_page_api() as api:
            return api.plans(), api.links([])
    except (httpx.HTTPError, PrefectException, BackupSystemError) as error:
        warn(f"Sizes and lines of the audit are missing: the Prefect server gave no answer ({type(error).__name__}).")
        return [], Links()


def _recorded(ended: Sequence[Ended], catalogues: Mapping[str, Dsn], requested_by: str) -> dict[str, Stored]:
    """What is stored, by the id of the run; every catalogue gets its lines in one transaction."""
    actor, run_id = created_by(requested_by), current_run_id()

    def recorder(place: object) -> Callable[[], dict[str, Stored]]:
        theirs = [one for one in ended if one.plan in catalogues and place_of(catalogues[one.plan]) == place]
        return lambda: record(Catalogue(catalogues[theirs[0].plan]), theirs, actor, run_id)

    places = {place_of(catalogues[one.plan]) for one in ended if one.plan in catalogues}
    found: dict[str, Stored] = {}
    for answer in asked_at_once({place: recorder(place) for place in places}, DEADLINE).values():
        if isinstance(answer, dict):
            found |= answer
        else:
            warn(f"Sizes and lines of the audit of {ACTION} are missing. {answer}")
    return found
