"""The admin page as markdown, with its tables, and its backups as text for a terminal. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from tasks.admin_page.picture import picture
from tasks.admin_page.view import BackupLine, Links, PlanReading, PlanView, Statistics, into_others
from tasks.names import ADOPTED, is_backup_filename
from tasks.restore.kept_databases import UNFINISHED, UNFINISHED_STAYS, Kept
from tasks.restore.last_restore import time_to_restore
from tasks.runs.markdown import NONE, cell, columns, duration, growth, human_bytes, moment, percent, table

#: Plans that get a picture: each is some kilobytes.
_PICTURES = 12
_BACK_UP = "Back up now"
_UNDO = "Undo last restore"
_FORMS = {
    _BACK_UP: "backup/manual",
    "Clean up": "cleanup/clean-up-now",
    "Check health": "check-health/check-now",
    _UNDO: "undo-restore/undo-last-restore",
    "Refresh": "list-backups/refresh-admin-page",
}
_OF_A_PLAN = (_BACK_UP, "Clean up", _UNDO)
_COLUMNS = ("plan", "backup", "status", "size", "rows", "tables", "created by", "when (UTC)", "took", "verified (UTC)")
#: A space as wide as a digit, at which no line is broken: what keeps a column of the UI from being squeezed.
_PAD = "\N{FIGURE SPACE}"
#: A space at which no line is broken.
_NO_BREAK = "\N{NO-BREAK SPACE}"
_LONGEST_NAME = 40  # characters of a name that is shown in a narrow column
_REMARKS = 5
_KEPT = 20
_STATUS = {
    "completed": "✓ completed",
    "failed": "✗ failed",
    "in_progress": "… in progress",
    "missing": "⚠ missing",
    "unproved": "⚠ unproved",
}
#: What a kept database holds, by the flow that replaced it.
_HOLDS = {
    "restore": "the database before a restore",
    "undo-restore": "the restored database that an undo took back",
    UNFINISHED: "a restore with entries that failed: run it again to go on",
}
_ACTIONS: tuple[tuple[str, str, dict[str, bool]], ...] = (
    ("Restore", "restore/restore-backup", {}),
    ("Download", "download-backup/download-backup", {}),
    ("Verify", "verify-backup/verify-backup", {}),
    ("Delete", "delete-backup/delete-backup", {}),
)
_KEEP: tuple[str, str, dict[str, bool]] = ("Keep", "keep-backup/keep-backup", {})
_LET_GO: tuple[str, str, dict[str, bool]] = ("Let go", "keep-backup/keep-backup", {"let_go": True})


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
        else "There is no backup plan yet: run `make up`, or add one with `backups plan add <name>`.",
    ]
    for number, view in enumerate(views):
        parts += _plan(view, links, number < _PICTURES, [other for other in configured if other is not view])
    return "\n\n".join(part.rstrip("\n") for part in parts if part) + "\n"


def _actions(links: Links, only: str) -> str:
    """Links to what concerns no backup in particular; where there is a single plan, the forms name it."""
    every = [
        links.form(text, deployment, **({"plan": only} if only and text in _OF_A_PLAN else {}))
        for text, deployment in _FORMS.items()
    ]
    return " · ".join(f"**{link}**" for link in every if link)


def _totals(views: Sequence[PlanView], now: datetime) -> str:
    numbers = [view.reading.statistics for view in views if view.reading]
    kept = [database for view in views for database in view.kept]
    plans = sum(view.configured for view in views)
    count = sum(plan.completed for plan in numbers)
    stored = human_bytes(sum(plan.stored for plan in numbers))
    text = f"**{_many(plans, 'plan')} · {_many(count, 'backup')} · {stored} stored**"
    if cost := sum(view.monthly_cost for view in views):
        text += f" · {_cost(cost)}"
    if kept:
        text += f" · {_many(len(kept), 'kept database')}, {human_bytes(sum(database.size or 0 for database in kept))}"
    return f"{text}\n\nAs of {moment(now, seconds=True)}; all times are UTC."


def _cost(monthly: float) -> str:
    """`12.30 a month`, in the currency in which the prices were entered."""
    return f"{monthly:,.2f} a month" if monthly >= 0.01 else "less than 0.01 a month"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}" if count == 1 else f"{count:,} {what}s"


def _plan(view: PlanView, links: Links, pictured: bool, others: Sequence[PlanView]) -> list[str]:
    parts = [f"## {cell(view.name)}", *(f"⚠ {cell(problem)}" for problem in view.problems)]
    if not view.configured:
        parts.append("⚠ There is no plan of this name any more; what it has stored is still there.")
    elif others:
        parts.append(_plan_actions(view, links, others))
    if view.reading is not None:
        parts += remarks(view.reading)
        drawn = picture(view.reading.points) if pictured else ""
        parts.append(attention(view.reading))
        parts.append(f"![Size and duration of the backups over time]({drawn})" if drawn else "")
        parts.append(backups_table(view, links))
        left = view.reading.statistics.recorded - len(view.reading.lines)
        shown = len(view.reading.lines)
        parts.append(time_to_restore(view.reading.last_restore) if view.reading.statistics.completed else "")
        parts.append(f"The newest {shown:,} of {shown + left:,} rows." if left > 0 else "")
    parts.append(kept_table(view, links))
    return parts


def _plan_actions(view: PlanView, links: Links, others: Sequence[PlanView]) -> str:
    own = [text for text in _OF_A_PLAN if not (view.restore_only and text == _BACK_UP)]
    every = [links.form(text, _FORMS[text], plan=view.name) for text in own] + into_others(view, links, others)
    return " · ".join(link for link in every if link)


def plain(views: Sequence[PlanView]) -> str:
    """Every line of every plan, newest first, as text for a terminal."""
    lines = [_cells(view, line) for view in views if view.reading for line in view.reading.lines]
    return columns([_COLUMNS, *lines]) if lines else "No backup has been made yet.\n"


def _cells(view: PlanView, line: BackupLine) -> tuple[str, ...]:
    return (
        view.name,
        line.filename,
        "suspicious" if line.status == "completed" and line.suspicious else line.status,
        human_bytes(line.size),
        NONE if line.rows is None else f"{line.rows:,}",
        NONE if line.tables is None else f"{line.tables:,}",
        line.created_by,
        moment(line.created_at, seconds=True),
        duration(line.seconds),
        "not restorable" if line.unverifiable else moment(line.verified_at),
    )


def overview(views: Sequence[PlanView]) -> str:
    """A line for each plan, and for several plans a line for all of them."""
    stored = sum(view.reading.statistics.stored for view in views if view.reading)
    lines = [_overview_line(view, stored) for view in views]
    if len(views) > 1:
        count = sum(view.reading.statistics.completed for view in views if view.reading)
        lines.append(["**All plans**", f"**{_backups(count)}<br>{whole(human_bytes(stored))}**", "", "", ""])
    headers = ["Plan,<br>database", "Stored", "Last 30 days", f"Last success{_PAD * 4}", f"Next run{_PAD * 7}"]
    return table([*map(whole, headers)], lines)


def _overview_line(view: PlanView, stored: int) -> list[str]:
    name = f"**{cell(view.name)}**" + (f"<br>{cell(_short(view.database))}" if view.database else "")
    if view.reading is None:
        return [name, "⚠ unknown", NONE, NONE, _next_run(view)]
    numbers = view.reading.statistics
    share = f" ({percent(numbers.stored, stored)})" if numbers.stored != stored else ""
    cost = f"<br>{whole(_cost(view.monthly_cost))}" if view.monthly_cost else ""
    return [
        name,
        f"{_backups(numbers.completed)}<br>{whole(human_bytes(numbers.stored) + share)}{cost}",
        _month(numbers),
        whole(moment(numbers.last_success)) if numbers.last_success else NONE if view.restore_only else "⚠ never",
        _next_run(view),
    ]


def _next_run(view: PlanView) -> str:
    unscheduled = "only restored into" if view.restore_only else "⚠ not scheduled" if view.configured else NONE
    return whole(moment(view.next_run) if view.next_run else unscheduled)


def _month(numbers: Statistics) -> str:
    """Success rate, median duration and growth."""
    if not numbers.month_ended:
        return "no backup"
    mark = "" if numbers.month_succeeded == numbers.month_ended else "⚠ "
    rate = f"{mark}{percent(numbers.month_succeeded, numbers.month_ended)} success"
    facts = [f"{rate} ({numbers.month_succeeded:,} of {numbers.month_ended:,})"]
    if numbers.month_seconds is not None:
        facts.append(f"{duration(numbers.month_seconds)} median duration")
    if numbers.month_succeeded > 1 and numbers.month_first_size and numbers.month_last_size is not None:
        facts.append(f"{growth(numbers.month_first_size, numbers.month_last_size)} growth")
    return "<br>".join(map(whole, facts))


def _backups(count: int) -> str:
    return whole(f"{count:,} backup{'' if count == 1 else 's'}")


def remarks(reading: PlanReading) -> list[str]:
    """What needs attention among the newest backups: why some failed, and which may be incomplete."""
    every = [f"- {remark}" for line in reading.lines if (remark := _remark(line))]
    more = [f"- … and {len(every) - _REMARKS:,} more below."] if len(every) > _REMARKS else []
    return ["\n".join([*every[:_REMARKS], *more])] if every else []


def _remark(line: BackupLine) -> str:
    when = whole(moment(line.created_at))
    if line.status == "failed":
        return f"✗ {when} failed: {cell(line.error or 'no reason was recorded')}"
    if line.status == "missing":
        return f"⚠ {when} is missing: its object is gone from the bucket."
    if line.status == "unproved":
        way = "verify-backup proves it" if line.backup_type == ADOPTED else "name it in trust of rebuild-catalogue"
        return f"⚠ {when} is unproved: if it is yours, {way}; else delete it."
    if line.unverifiable:
        return f"⚠ {when} did not pass its last verification: restore another backup."
    if line.status == "completed" and line.suspicious:
        return f"⚠ {when} is suspicious: {cell(line.suspicious)}"
    return ""


def attention(reading: PlanReading) -> str:
    """What of the newest backup will need attention when it is restored, and what to do about it."""
    if not reading.attention:
        return ""
    lines = "\n".join(f"- {cell(sentence)}" for sentence in reading.attention)
    return f"Will need attention when restored:\n\n{lines}"


def backups_table(view: PlanView, links: Links) -> str:
    """The newest backups, each with links to what can be done with it."""
    if view.reading is None:
        return ""
    if not view.reading.lines:
        return _no_backup(view)
    headers = [
        f"Backup,<br>actions{_PAD * 14}",
        f"Status,<br>verified{_PAD * 9}",
        "Size,<br>rows, tables",
        "Created by,<br>duration",
    ]
    return table([*map(whole, headers)], [_backup_line(line, view, links) for line in view.reading.lines])


def _no_backup(view: PlanView) -> str:
    if view.restore_only:
        return "Backups of other plans are restored into this one, and none are made of it."
    if not view.earlier_source:
        return "No backup has been made yet."
    return (
        f"⚠ The settings of this plan have changed. It backs up {cell(view.source)} now, and has made no backup of it "
        f"yet. Before, it backed up {cell(view.earlier_source)}: those backups and their records are still there."
    )


def _backup_line(line: BackupLine, view: PlanView, links: Links) -> list[str]:
    took = f"<br>{whole(duration(line.seconds))}" if line.seconds is not None else ""
    actions = _backup_actions(line, view, links)
    return [
        "<br>".join(filter(None, (whole(moment(line.created_at, seconds=True)), _filename(line.filename), actions))),
        _status(line),
        _contents(line),
        f"{cell(_short(line.created_by))}{took}",
    ]


def _status(line: BackupLine) -> str:
    """The status, the type of a backup that is not a full one, when it was last verified, why it is kept."""
    shown = _STATUS.get(line.status, cell(line.status))
    if line.status == "completed" and line.suspicious:
        shown = "⚠ suspicious"
    facts = [shown]
    if line.backup_type != "full":
        facts.append(cell(_short(line.backup_type.replace("_", "-"))))
    if line.unverifiable:
        facts.append("⚠ not restorable")
    elif line.verified_at:
        facts += ["✓ verified", moment(line.verified_at)]
    if line.kept is not None:
        facts += ["★ kept", *([cell(_short(line.kept))] if line.kept else [])]
    return "<br>".join(map(whole, facts))


def _contents(line: BackupLine) -> str:
    facts = [
        human_bytes(line.size) if line.size is not None else "",
        f"{line.rows:,} rows" if line.rows is not None else "",
        f"{line.tables:,} tables" if line.tables is not None else "",
    ]
    left_out = [cell(_short(line.left_out))] if line.left_out else []
    return "<br>".join([*(whole(fact) for fact in facts if fact), *left_out]) or NONE


def _backup_actions(line: BackupLine, view: PlanView, links: Links) -> str:
    """Links for a backup that is there; a narrow window breaks the line between them."""
    if line.status != "completed" or not view.configured:
        return ""
    every = [
        links.form(text, deployment, backup=line.filename, plan=view.name, **more)
        for text, deployment, more in (*_ACTIONS, _KEEP if line.kept is None else _LET_GO)
    ]
    return f"{_NO_BREAK}· ".join(link for link in every if link)


def kept_table(view: PlanView, links: Links) -> str:
    """The databases that restores replaced, and until when undo-restore can bring each back; and unfinished ones."""
    if not view.kept:
        return ""
    lines = [
        [
            "<br>".join(filter(None, (cell(kept.name), _kept_action(view, links, kept) if number == 0 else ""))),
            _HOLDS.get(kept.replaced_by, cell(kept.replaced_by)),
            whole(moment(kept.at)),
            whole(human_bytes(kept.size)),
            whole(moment(kept.at + _stays(view, kept))),
        ]
        for number, kept in enumerate(view.kept)
    ]
    headers = ["Database", "What it holds", f"Replaced at{_PAD * 5}", "Size", f"Kept until{_PAD * 6}"]
    align = ["right" if header == "Size" else "left" for header in headers]
    return f"### Kept databases\n\n{table([*map(whole, headers)], lines, align, _KEPT)}"


def _stays(view: PlanView, kept: Kept) -> timedelta:
    return UNFINISHED_STAYS if kept.replaced_by == UNFINISHED else timedelta(days=view.kept_days)


def _kept_action(view: PlanView, links: Links, kept: Kept) -> str:
    return "" if kept.replaced_by == UNFINISHED else links.form(_UNDO, _FORMS[_UNDO], plan=view.name)


def _filename(name: str) -> str:
    return f"`{name}`" if is_backup_filename(name) else cell(_short(name, 80))


def _short(name: str, longest: int = _LONGEST_NAME) -> str:
    return name if len(name) <= longest else name[: longest - 1] + "…"


def whole(text: str) -> str:
    """`text` so that no line is broken at its spaces."""
    return text.replace(" ", _NO_BREAK)
