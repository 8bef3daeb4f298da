"""What a run of backup-all shows and records at its end: a table, lines of the audit, and whether it failed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from tasks.backup_all.start_order import COMPLETED, Ended
from tasks.catalogue.catalogue import Catalogue
from tasks.catalogue.rows import Event, append_event
from tasks.errors import PlansFailed
from tasks.runs.audit import run_event
from tasks.runs.markdown import NONE, cell, duration, human_bytes, table

ACTION = "backup-all"


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

    @property
    def completed(self) -> bool:
        return self.ended.outcome == COMPLETED


def record(catalogue: Catalogue, ended: Sequence[Ended], requested_by: str) -> dict[str, Stored]:
    """What is stored of these plans, by the id of the run; the audit gets a line for each of them, all or none.

    Raises CatalogueUnavailable when the catalogue does not answer.
    """
    with catalogue.cursor() as cursor:
        cursor.execute(
            "SELECT DISTINCT ON (run_id) run_id, id, filename, status, file_size FROM database_backups"
            " WHERE run_id = ANY (%s) ORDER BY run_id, id DESC",
            [[plan.run_id for plan in ended if plan.run_id]],
        )
        stored = {
            row["run_id"]: Stored(row["id"], row["filename"], row["status"], row["file_size"])
            for row in cursor.fetchall()
        }
        for plan in ended:
            event = run_event(ACTION, "failed", plan.plan, requested_by)
            append_event(cursor, with_outcome(event, Outcome(plan, stored.get(plan.run_id))))
    return stored


def with_outcome(event: Event, outcome: Outcome) -> Event:
    """The line of the audit that says what a run of backup-all did for a plan. Pure."""
    ended, stored = outcome.ended, outcome.stored
    return replace(
        event,
        outcome="completed" if outcome.completed else "failed",
        backup_id=stored.backup_id if stored else None,
        filename=stored.filename if stored else None,
        duration_seconds=ended.seconds,
        bytes=stored.size if stored else None,
        error=ended.reason or None,
        details={"run": ended.run_id, "state": ended.outcome},
    )


def markdown(outcomes: Sequence[Outcome], seconds: float, link: Callable[[str, str], str]) -> str:
    """A row for every plan, those that failed first. `link` makes a link of a text and a run's id. Pure."""
    done = sum(outcome.completed for outcome in outcomes)
    size = sum(outcome.stored.size or 0 for outcome in outcomes if outcome.stored)
    rows = [_row(outcome, link) for outcome in sorted(outcomes, key=lambda outcome: outcome.completed)]
    return (
        f"# Backup of {len(outcomes):,} plan{'' if len(outcomes) == 1 else 's'}\n\n"
        f"**{done:,} completed, {len(outcomes) - done:,} failed** · "
        f"{human_bytes(size)} stored · {duration(seconds)}\n\n"
        f"{table(('plan', 'outcome', 'size', 'took', 'backup', 'run'), rows)}"
    )


def check_all(outcomes: Sequence[Outcome]) -> None:
    """Raises PlansFailed, which names the plans that failed and why, when any did."""
    failed = {outcome.ended.plan: outcome.ended.reason for outcome in outcomes if not outcome.completed}
    if failed:
        raise PlansFailed(ACTION, failed, len(outcomes))


def _row(outcome: Outcome, link: Callable[[str, str], str]) -> tuple[str, ...]:
    ended, stored = outcome.ended, outcome.stored
    file = f"`{stored.filename}`" if stored else NONE
    return (
        cell(ended.plan),
        "✓ completed" if outcome.completed else f"✗ {cell(ended.outcome)}: {cell(ended.reason)}",
        human_bytes(stored.size if stored else None),
        duration(ended.seconds),
        f"{file} ({stored.status})" if stored and stored.status != COMPLETED else file,
        link("run", ended.run_id) if ended.run_id else NONE,
    )
