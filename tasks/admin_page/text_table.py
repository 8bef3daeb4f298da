"""The newest backups as text in columns, for a terminal. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from tasks.admin_page.view import BackupLine, PlanView
from tasks.admin_page.words import NONE, duration, moment
from tasks.runs.markdown import human_bytes

HEADERS = ("plan", "backup", "status", "size", "rows", "tables", "created by", "when (UTC)", "took", "verified (UTC)")


def plain(views: Sequence[PlanView]) -> str:
    """Every line of every plan, newest first; what cannot be printed is left out."""
    table = [HEADERS, *(_cells(view, line) for view in views if view.reading for line in view.reading.lines)]
    if len(table) == 1:
        return "No backup has been made yet.\n"
    widths = [max(len(row[column]) for row in table) for column in range(len(HEADERS))]
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
    return tuple("".join(one if one.isprintable() else " " for one in text) for text in texts)


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
