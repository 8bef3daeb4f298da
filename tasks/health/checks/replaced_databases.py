"""The databases that restores have replaced: how many there are, how large, and which should be gone."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from tasks.health.checks.database import NAME
from tasks.health.lines import Line
from tasks.plans.plan import Plan
from tasks.postgres.server import maintenance
from tasks.restore.kept_databases import Kept, due, of_plan
from tasks.runs.at_once import Answer
from tasks.runs.markdown import human_bytes

CHECK = "Replaced databases"


def ask_kept(plan: Plan) -> list[Kept]:
    """The kept databases of the plan, newest first. Raises AccessRefused, BadSetting or Unreachable."""
    with maintenance(plan.database).session(NAME) as server:
        return of_plan(server, plan.name, plan.database.dbname)


def kept_line(answer: Answer[list[Kept]], now: datetime, days: int) -> Line:
    """Whether databases are still there that cleanup should have dropped. Pure."""
    if answer.value is None:
        return Line(CHECK, "warning", f"They could not be looked for: {answer.problem}", "Solve that first.")
    if not answer.value:
        return Line(CHECK, "ok", "None.")
    overdue = due(answer.value, now, days)
    if overdue:
        return Line(
            CHECK,
            "warning",
            f"{len(overdue)} of {len(answer.value)} {_are(overdue)} older than {days} days and "
            f"still there ({_size(overdue)}): {', '.join(database.name for database in overdue[:5])}.",
            "The next backup drops them; cleanup/clean-up-now does so now.",
        )
    return Line(
        CHECK, "ok", f"{len(answer.value)} kept for undo-restore ({_size(answer.value)}); each goes after {days} days."
    )


def _are(databases: Sequence[Kept]) -> str:
    return "is" if len(databases) == 1 else "are"


def _size(databases: Sequence[Kept]) -> str:
    known = [database.size for database in databases if database.size is not None]
    size = human_bytes(sum(known))
    return size if len(known) == len(databases) else f"at least {size}"
