"""The Prefect tasks that write the admin page, the artifact `backups`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from prefect import task
from prefect.settings import PREFECT_API_URL

from tasks.admin_page.gather import changed, gather
from tasks.admin_page.notes import kept_notes, sources_with_backups, with_earlier_sources
from tasks.admin_page.page import page
from tasks.admin_page.prefect_data import AdminPageApi, admin_page_api
from tasks.admin_page.view import PlanView
from tasks.alarms.run_reports import run_reported
from tasks.errors import BackupSystemError, BadSetting, CatalogueUnavailable, Unreachable
from tasks.names import base_of
from tasks.prefect_client import NO_ANSWER
from tasks.runs.other_runs import is_part_of_backup_all
from tasks.runs.reporting import address_of, now, say, warn
from tasks.runs.retries import STEP

#: The page is written again when another run has recorded something meanwhile, so that it is right in the end.
_TRIES = 3


@task(name="publish", **STEP)
def publish_backups(unasked: str = "") -> None:
    """Writes the admin page with every plan's backups as they are now; for `unasked` see `gather`.

    Never fails a run: problems are in its log, and on the page when a catalogue does not answer.
    """
    try:
        with admin_page_api() as api:
            for view in _publish(api, unasked):
                for problem in view.problems:
                    warn(f"On the admin page: {problem}")
    except NO_ANSWER as error:
        warn(f"The admin page could not be rewritten: {_silent(error)}")
    except BackupSystemError as error:
        warn(f"The admin page could not be rewritten: {error}")


@contextmanager
def admin_page_follows(unasked: str = "") -> Iterator[None]:
    """Writes the admin page when the `with` block has ended, after an error too. Alarms learn that the run has begun.

    A backup that backup-all has started leaves the page to backup-all: else n runs would write n pages of n plans each.
    On the temporary server of a direct run nobody could see the page. The server of the plan `unasked` is not asked.
    """
    with run_reported():
        try:
            yield
        finally:
            if PREFECT_API_URL.value() and not is_part_of_backup_all():
                publish_backups(unasked, return_state=True)


@task(name="list", **STEP)
def refresh(plan: str) -> tuple[PlanView, ...]:
    """Writes the admin page; returns what it shows of `plan`, or of every plan when that is empty.

    Raises BadSetting when there is no such plan, CatalogueUnavailable when a catalogue of these plans did not answer,
    Unreachable when the Prefect server did not. The page is written as far as possible in any case.
    """
    try:
        with admin_page_api() as api:
            views = chosen(_publish(api), plan.strip())
    except NO_ANSWER as error:
        raise Unreachable(_silent(error)) from None
    say(f"The admin page shows the plans {', '.join(view.name for view in views)}.")
    return views


def chosen(views: Sequence[PlanView], plan: str) -> tuple[PlanView, ...]:
    """The view of `plan`, or all of them. Raises BadSetting and CatalogueUnavailable. Pure."""
    shown = tuple(view for view in views if plan in ("", view.name, base_of(view.name)))
    if not shown:
        wanted = f"There is no plan {plan!r}" if plan else "There is no backup plan yet"
        raise BadSetting(f"{wanted}: see the blocks in the Prefect UI, or run backups plan add.")
    silent = [view for view in shown if view.reading is None]
    if silent:
        names, why = ", ".join(view.name for view in silent), dict.fromkeys(p for view in silent for p in view.problems)
        raise CatalogueUnavailable(f"The backups of {names} cannot be listed. {' '.join(why)}")
    return shown


def _publish(api: AdminPageApi, unasked: str = "") -> tuple[PlanView, ...]:
    plans, deployments = api.plans(), api.deployments()
    links = api.links(deployments)
    next_runs = api.next_runs(deployments, [plan.name for plan in plans], now())
    before = api.page()["metadata_"] or {}
    for _ in range(_TRIES):
        at = now()
        gathered = gather(plans, next_runs, at, unasked, before)
        views = with_earlier_sources(gathered.views, before)
        noted = {**sources_with_backups(views, before), **kept_notes(views)}
        written = api.publish(page(views, links, at), links, noted)
        if not changed(plans, gathered.marks):
            break
    api.describe(deployments, address_of(written))
    return views


def _silent(error: Exception) -> str:
    return f"the Prefect server gave no answer ({type(error).__name__}); try again once it does."
