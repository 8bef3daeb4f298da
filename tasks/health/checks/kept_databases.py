"""The databases that restores have replaced: how many there are, how large, and which should be gone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from tasks.health.checks.database import NAME
from tasks.health.lines import Line
from tasks.plans.plan import Plan
from tasks.postgres.server import maintenance
from tasks.restore.kept import Kept, due, of_plan
from tasks.runs.at_once import Answer
from tasks.runs.markdown import human_bytes

CHECK = "Replaced databases"


def ask_kept(plan: Plan) -> list[Kept]:
    """Every one of the plan's, newest first. Raises AccessRefused, BadSetting or Unreachable."""
    with maintenance(plan.database).session(NAME) as server:
        return of_plan(server, plan.name, plan.database.dbname)


def kept_line(told: Answer[list[Kept]], now: datetime, days: int) -> Line:
    """Pure."""
    if told.value is None:
        return Line(CHECK, "warning", f"They could not be looked for: {told.problem}", "Solve that first.")
    if not told.value:
        return Line(CHECK, "ok", "None.")
    overdue = due(told.value, now, days)
    if overdue:
        return Line(
            CHECK,
            "warning",
            f"{len(overdue)} of {len(told.value)} {_are(overdue)} older than {days} days and "
            f"still there ({_size(overdue)}): {', '.join(one.name for one in overdue[:5])}.",
            "The next backup drops them; cleanup/clean-up-now does so now.",
        )
    return Line(
        CHECK, "ok", f"{len(told.value)} kept for undo-restore ({_size(told.value)}); each goes after {days} days."
    )


def _are(found: Sequence[Kept]) -> str:
    return "is" if len(found) == 1 else "are"


def _size(found: Sequence[Kept]) -> str:
    known = [one.size for one in found if one.size is not None]
    size = human_bytes(sum(known))
    return size if len(known) == len(found) else f"at least {size}"
