"""The admin page as markdown. Pure: everything that it shows is given to it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from tasks.admin_page.links import Links
from tasks.admin_page.picture import picture
from tasks.admin_page.tables import backups_table, kept_table, overview, remarks
from tasks.admin_page.view import PlanView
from tasks.admin_page.words import moment
from tasks.runs.markdown import cell, human_bytes

#: Plans that get a picture: each is some kilobytes.
_PICTURES = 12


def page(views: Sequence[PlanView], links: Links, now: datetime, problems: Sequence[str] = ()) -> str:
    """Totals, then each plan: what needs attention, its picture, its newest backups, its kept databases."""
    configured = [view for view in views if view.configured]
    only = configured[0].name if len(configured) == 1 else ""
    parts = [
        "# Backups",
        _actions(links, only),
        _totals(views, now),
        *(f"⚠ {cell(problem)}" for problem in problems),
        overview(views)
        if views
        else "There is no backup plan yet: run `make up`, or add one with `python -m deployments.add_plan <name>`.",
    ]
    for number, view in enumerate(views):
        parts += _plan(view, links, pictured=number < _PICTURES, alone=bool(only))
    return "\n\n".join(part for part in parts if part) + "\n"


def _actions(links: Links, only: str) -> str:
    """What can be done with no backup in particular; with one plan alone, the forms name it."""
    given = {"plan": only} if only else {}
    found = [
        links.form("Back up now", "backup/manual", **given),
        links.form("Clean up", "cleanup/clean-up-now", **given),
        links.form("Check health", "check-health/check-now"),
        links.form("Undo last restore", "undo-restore/undo-last-restore", **given),
        links.form("Refresh", "list-backups/refresh-admin-page"),
    ]
    return " · ".join(f"**{link}**" for link in found if link)


def _totals(views: Sequence[PlanView], now: datetime) -> str:
    read = [view.reading.statistics for view in views if view.reading]
    kept = [one for view in views for one in view.kept]
    plans = sum(view.configured for view in views)
    count = sum(one.completed for one in read)
    text = (
        f"**{_many(plans, 'plan')} · {_many(count, 'backup')} · {human_bytes(sum(one.stored for one in read))} stored**"
    )
    if kept:
        text += f" · {_many(len(kept), 'kept database')}, {human_bytes(sum(one.size or 0 for one in kept))}"
    return f"{text}\n\nAs of {moment(now, seconds=True)}; all times are UTC."


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _plan(view: PlanView, links: Links, pictured: bool, alone: bool) -> list[str]:
    parts = [f"## {cell(view.name)}", *(f"⚠ {cell(problem)}" for problem in view.problems)]
    if not view.configured:
        parts.append("⚠ There is no plan of this name any more; what it has stored is still there.")
    elif not alone:
        parts.append(_plan_actions(view, links))
    if view.reading is not None:
        parts += remarks(view.reading)
        drawn = picture(view.reading.points) if pictured else ""
        parts.append(f"![Size and duration of the backups over time]({drawn})" if drawn else "")
        parts.append(backups_table(view, links))
        left = view.reading.statistics.recorded - len(view.reading.lines)
        shown = len(view.reading.lines)
        parts.append(f"The newest {shown:,} of {shown + left:,} rows." if left > 0 else "")
    parts.append(kept_table(view, links))
    return parts


def _plan_actions(view: PlanView, links: Links) -> str:
    found = [
        links.form("Back up now", "backup/manual", plan=view.name),
        links.form("Clean up", "cleanup/clean-up-now", plan=view.name),
        links.form("Undo last restore", "undo-restore/undo-last-restore", plan=view.name),
    ]
    return " · ".join(link for link in found if link)
