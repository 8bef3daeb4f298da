"""The admin page as markdown, and its backups as text for a terminal. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from tasks.admin_page.picture import picture
from tasks.admin_page.tables import backups_table, kept_table, overview, remarks
from tasks.admin_page.view import BackupLine, Links, PlanView
from tasks.runs.markdown import NONE, cell, duration, human_bytes, moment

#: Plans that get a picture: each is some kilobytes.
_PICTURES = 12
_COLUMNS = ("plan", "backup", "status", "size", "rows", "tables", "created by", "when (UTC)", "took", "verified (UTC)")


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
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"


def _actions(links: Links, only: str) -> str:
    """Links to what concerns no backup in particular; where there is a single plan, the forms name it."""
    given = {"plan": only} if only else {}
    every = [
        links.form("Back up now", "backup/manual", **given),
        links.form("Clean up", "cleanup/clean-up-now", **given),
        links.form("Check health", "check-health/check-now"),
        links.form("Undo last restore", "undo-restore/undo-last-restore", **given),
        links.form("Refresh", "list-backups/refresh-admin-page"),
    ]
    return " · ".join(f"**{link}**" for link in every if link)


def _totals(views: Sequence[PlanView], now: datetime) -> str:
    numbers = [view.reading.statistics for view in views if view.reading]
    kept = [database for view in views for database in view.kept]
    plans = sum(view.configured for view in views)
    count = sum(plan.completed for plan in numbers)
    stored = human_bytes(sum(plan.stored for plan in numbers))
    text = f"**{_many(plans, 'plan')} · {_many(count, 'backup')} · {stored} stored**"
    if kept:
        text += f" · {_many(len(kept), 'kept database')}, {human_bytes(sum(database.size or 0 for database in kept))}"
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
    every = [
        links.form("Back up now", "backup/manual", plan=view.name),
        links.form("Clean up", "cleanup/clean-up-now", plan=view.name),
        links.form("Undo last restore", "undo-restore/undo-last-restore", plan=view.name),
    ]
    return " · ".join(link for link in every if link)


def plain(views: Sequence[PlanView]) -> str:
    """Every line of every plan, newest first, in columns and without control characters."""
    table = [_COLUMNS, *(_cells(view, line) for view in views if view.reading for line in view.reading.lines)]
    if len(table) == 1:
        return "No backup has been made yet.\n"
    widths = [max(len(row[column]) for row in table) for column in range(len(_COLUMNS))]
    return "".join(f"{_aligned(row, widths)}\n" for row in table)


def _cells(view: PlanView, line: BackupLine) -> tuple[str, ...]:
    texts = (
        view.name,
        line.filename,
        "suspicious" if line.status == "completed" and line.suspicious else line.status,
        NONE if line.size is None else human_bytes(line.size),
        NONE if line.rows is None else f"{line.rows:,}",
        NONE if line.tables is None else f"{line.tables:,}",
        line.created_by,
        moment(line.created_at, seconds=True),
        duration(line.seconds),
        "not restorable" if line.unverifiable else moment(line.verified_at),
    )
    return tuple("".join(character if character.isprintable() else " " for character in text) for text in texts)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
