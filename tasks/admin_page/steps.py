"""Keeps the admin page, the artifact `backups`, as things are."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpx
from prefect import task
from prefect.exceptions import PrefectException

from tasks.admin_page.gather import changed, gather, sources_with_backups, with_earlier_sources
from tasks.admin_page.page import page
from tasks.admin_page.prefect_data import AdminPageApi, admin_page_api
from tasks.admin_page.view import PlanView
from tasks.alarms.tell import begun
from tasks.errors import BackupSystemError, BadSetting, CatalogueUnavailable, Unreachable
from tasks.runs.admin_page_link import address_of
from tasks.runs.parent_run import is_part_of_backup_all
from tasks.runs.reporting import now, say, warn
from tasks.runs.retries import STEP

#: The page is written again when somebody has done something meanwhile, so that the last one written is right.
_TRIES = 3
_NO_SERVER = (httpx.HTTPError, PrefectException)


@task(name="publish", **STEP)
def publish_backups() -> None:
    """The admin page shows every plan's backups as they are now.

    Never fails a run: what is wrong is in its log, and a catalogue that does not answer on the page.
    """
    try:
        with admin_page_api() as api:
            for view in _publish(api):
                for problem in view.problems:
                    warn(f"On the admin page: {problem}")
    except _NO_SERVER as error:
        warn(f"The admin page could not be rewritten: {_silent(error)}")
    except BackupSystemError as error:
        warn(f"The admin page could not be rewritten: {error}")


@contextmanager
def admin_page_follows() -> Iterator[None]:
    """Rewrites the admin page once the `with` block has ended, however it ended.

    One of many backups leaves that to the run of backup-all that has started it: else n of them would write n pages
    of n plans each. Alarms are told that the run has begun.
    """
    begun()
    try:
        yield
    finally:
        if not is_part_of_backup_all():
            publish_backups(return_state=True)


@task(name="list", **STEP)
def refresh(plan: str) -> tuple[PlanView, ...]:
    """The admin page as things are now; returns what it says of `plan`, or of every plan when that is empty.

    Raises BadSetting when there is no such plan, CatalogueUnavailable when the catalogue of one did not answer, and
    Unreachable when the Prefect server did not; the page is rewritten as far as it can be.
    """
    try:
        with admin_page_api() as api:
            views = chosen(_publish(api), plan.strip())
    except _NO_SERVER as error:
        raise Unreachable(_silent(error)) from None
    say(f"The admin page shows the plans {', '.join(view.name for view in views)}.")
    return views


def chosen(views: Sequence[PlanView], plan: str) -> tuple[PlanView, ...]:
    """The view of `plan`, or all of them. Raises BadSetting and CatalogueUnavailable. Pure."""
    found = tuple(view for view in views if plan in ("", view.name))
    if not found:
        wanted = f"There is no plan {plan!r}" if plan else "There is no backup plan yet"
        raise BadSetting(f"{wanted}: see the blocks in the Prefect UI, or run python -m deployments.add_plan.")
    silent = [view for view in found if view.reading is None]
    if silent:
        told = " ".join(dict.fromkeys(problem for view in silent for problem in view.problems))
        raise CatalogueUnavailable(f"The backups of {', '.join(view.name for view in silent)} cannot be listed. {told}")
    return found


def _publish(api: AdminPageApi) -> tuple[PlanView, ...]:
    plans, deployments = api.plans(), api.deployments()
    links = api.links(deployments)
    next_runs = api.next_runs(deployments, [one.name for one in plans], now())
    before = api.page()["metadata_"] or {}
    for _ in range(_TRIES):
        at = now()
        gathered = gather(plans, next_runs, at)
        views = with_earlier_sources(gathered.views, before)
        written = api.publish(page(views, links, at), links, sources_with_backups(views, before))
        if not changed(plans, gathered.marks):
            break
    api.describe(deployments, address_of(written))
    return views


def _silent(error: Exception) -> str:
    return f"the Prefect server gave no answer ({type(error).__name__}); try again once it does."
