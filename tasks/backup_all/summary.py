"""What a run of backup-all has to say at its end: a table, lines of the audit, and whether it failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tasks.backup_all.start_order import Ended
from tasks.catalogue.catalogue import Catalogue
from tasks.catalogue.events import Event, append_event
from tasks.errors import PlansFailed
from tasks.runs.markdown import NONE, cell, duration, human_bytes

ACTION = "backup-all"
COMPLETED = "completed"


@dataclass(frozen=True)
class Stored:
    """What the catalogue says of the backup that a run made."""

    backup_id: int
    filename: str
    status: str
    size: int | None
    """Bytes as stored."""


@dataclass(frozen=True)
class Outcome:
    """What became of a plan; `stored` is None when the catalogue has no row of its run, or gave no answer."""

    ended: Ended
    stored: Stored | None = None


def record(catalogue: Catalogue, ended: Sequence[Ended], actor: str, run_id: str) -> dict[str, Stored]:
    """What is stored of these plans, by the id of the run; the audit gets a line for each of them, all or none.

    Raises as every question to the catalogue.
    """
    with catalogue.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT ON (run_id) run_id, id, filename, status, file_size FROM database_backups"
            " WHERE run_id = ANY (%s) ORDER BY run_id, id DESC",
            [[one.run_id for one in ended if one.run_id]],
        )
        stored = {
            row["run_id"]: Stored(row["id"], row["filename"], row["status"], row["file_size"])
            for row in cursor.fetchall()
        }
        for one in ended:
            append_event(cursor, line(Outcome(one, stored.get(one.run_id)), actor, run_id))
    return stored


def line(outcome: Outcome, actor: str, run_id: str) -> Event:
    """One line of the audit: what a run of backup-all did for a plan."""
    ended, stored = outcome.ended, outcome.stored
    return Event(
        ACTION,
        "completed" if ended.outcome == COMPLETED else "failed",
        ended.plan,
        actor,
        run_id,
        stored.backup_id if stored else None,
        stored.filename if stored else None,
        ended.seconds,
        stored.size if stored else None,
        ended.reason or None,
        {"run": ended.run_id, "state": ended.outcome},
    )


def markdown(outcomes: Sequence[Outcome], seconds: float, link: Callable[[str, str], str]) -> str:
    """Every plan with what became of it, those that failed first. `link` makes a link of a text and a run's id."""
    done = sum(one.ended.outcome == COMPLETED for one in outcomes)
    size = sum(one.stored.size or 0 for one in outcomes if one.stored)
    rows = "".join(_row(one, link) for one in sorted(outcomes, key=lambda one: one.ended.outcome == COMPLETED))
    return (
        f"# Backup of {len(outcomes):,} plan{'' if len(outcomes) == 1 else 's'}\n\n"
        f"**{done:,} completed, {len(outcomes) - done:,} failed** · "
        f"{human_bytes(size)} stored · {duration(seconds)}\n\n"
        f"| plan | outcome | size | took | backup | run |\n|---|---|---|---|---|---|\n{rows}"
    )


def _row(outcome: Outcome, link: Callable[[str, str], str]) -> str:
    ended, stored = outcome.ended, outcome.stored
    shown = "✓ completed" if ended.outcome == COMPLETED else f"✗ {cell(ended.outcome)}: {cell(ended.reason)}"
    file = (
        f"`{stored.filename}` ({stored.status})"
        if stored and stored.status != COMPLETED
        else (f"`{stored.filename}`" if stored else NONE)
    )
    size = human_bytes(stored.size) if stored and stored.size is not None else NONE
    run = link("run", ended.run_id) if ended.run_id else NONE
    return f"| {cell(ended.plan)} | {shown} | {size} | {duration(ended.seconds)} | {file} | {run} |\n"


def check_all(outcomes: Sequence[Outcome]) -> None:
    """Raises PlansFailed, which names those that failed and why, when any did."""
    failed = {one.ended.plan: one.ended.reason for one in outcomes if one.ended.outcome != COMPLETED}
    if failed:
        raise PlansFailed(ACTION, failed, len(outcomes))
