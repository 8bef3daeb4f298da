"""The step that shows the last lines of the audit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prefect import task

from tasks.catalogue.catalogue import Catalogue
from tasks.errors import BackupSystemError
from tasks.list_events.event_log import Asked, EventLine, last_events, newest
from tasks.plans.find_plan import plan_named, plan_names
from tasks.runs.markdown import cell, human_bytes
from tasks.runs.reporting import publish, say, warn
from tasks.runs.retries import RETRIED

HEADERS = ("when (UTC)", "action", "outcome", "plan", "backup", "who", "took", "size", "more", "run")


@dataclass(frozen=True)
class Listed:
    """What was asked for, and the lines that fit, newest first."""

    asked: Asked
    lines: tuple[EventLine, ...]


@task(name="list", **RETRIED)
def list_lines(asked: Asked) -> Listed:
    """The lines, also as the artifact `backup-events`. A catalogue that does not answer is left out if another does."""
    found, problems = [], []
    for catalogue in _catalogues(asked.plan.strip()):
        try:
            catalogue.check()
            found.append(last_events(catalogue, asked))
        except BackupSystemError as error:
            problems.append(error)
    if problems and not found:
        raise problems[0]
    for problem in problems:
        warn(f"Lines are missing from this list: {problem}")
    listed = Listed(asked, newest(found, asked.last))
    publish("backup-events", "The last lines of the audit", markdown(listed))
    say(f"{len(listed.lines)} lines of the audit stand in the artifact backup-events.")
    return listed


def _catalogues(plan: str) -> list[Catalogue]:
    """The catalogue of a plan; without one those of all plans, each once."""
    every = [plan_named(name).catalogue for name in ([plan] if plan else plan_names())]
    return list({(one.dsn.host, one.dsn.port, one.dsn.dbname): one for one in every}.values())


def cells(line: EventLine) -> tuple[str, ...]:
    """One line as texts, in the order of `HEADERS`. Pure."""
    return (
        f"{line.at:%Y-%m-%d %H:%M:%S}",
        line.action,
        line.outcome,
        line.plan,
        line.filename or ("" if line.backup_id is None else str(line.backup_id)),
        line.actor,
        "" if line.duration_seconds is None else f"{line.duration_seconds:.1f} s",
        "" if line.bytes is None else human_bytes(line.bytes),
        line.more,
        line.run_id,
    )


def markdown(listed: Listed) -> str:
    """The lines as a table in which nothing is taken for markup. Pure."""
    rows = "".join(f"| {' | '.join(map(cell, cells(line)))} |\n" for line in listed.lines)
    return f"# Events\n\n{cell(heading(listed))}\n\n| {' | '.join(HEADERS)} |\n|{'---|' * len(HEADERS)}\n{rows}"


def plain(listed: Listed) -> str:
    """The same as text in columns; what cannot be printed is left out. Pure."""
    table = [HEADERS, *(tuple(map(_printable, cells(line))) for line in listed.lines)]
    widths = [max(len(row[column]) for row in table) for column in range(len(HEADERS))]
    return "\n".join([heading(listed), "", *(_aligned(row, widths) for row in table), ""])


def heading(listed: Listed) -> str:
    """How many lines these are, and of which, in a sentence. Pure."""
    filters = ", ".join(f"{name} {_printable(value)}" for name, value in listed.asked.filters.items())
    count = len(listed.lines)
    some = f"The last {count} lines" if count != 1 else "One line"
    return f"{some if count else 'No line'} of the audit{f' with {filters}' if filters else ''}."


def _aligned(row: Sequence[str], widths: Sequence[int]) -> str:
    return "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()


def _printable(text: str) -> str:
    return "".join(one if one.isprintable() else " " for one in text)
