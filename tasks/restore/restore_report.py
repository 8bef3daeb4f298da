"""The result of a restore, and of an undone one, as markdown for people. Pure."""

from __future__ import annotations

from tasks.restore.values import Comparison, Restored, RestoreRun, TableCount, Undone
from tasks.runs.markdown import cell, facts, table

_ROWS_SHOWN = 1000


def restore_report(run: RestoreRun, compared: Comparison, done: Restored) -> str:
    """A restore: what, from where, and the rows of every table, expected and found."""
    values = {
        "Database": cell(done.database),
        "Backup": f"`{run.backup.filename}` of {run.backup.created_at:%Y-%m-%d %H:%M:%S} UTC",
        "Mode": done.mode,
        **({"From": f"plan {cell(run.plan)}, into {cell(run.request.into)}"} if run.request.into else {}),
        "Rows": f"{compared.rows:,} in {len(compared.tables):,} tables, all as backed up",
        "Duration": f"{done.seconds:.1f} s",
    }
    if done.kept:
        values["Kept"] = f"{cell(done.kept)}: the replaced database; undo-restore brings it back"
        values["No connections for"] = f"{done.swap_seconds * 1000:.0f} ms"
    return f"# Restored\n\n{facts(values)}{notes(done.warnings)}\n{count_table(compared.tables)}"


def undo_report(done: Undone) -> str:
    """An undone restore."""
    return (
        f"# Restore undone\n\n{cell(done.database)} is what it was before the restore. It took no connections for "
        f"{done.seconds * 1000:.0f} ms. The restored database is kept as {cell(done.kept)}.\n"
    )


def notes(warnings: tuple[str, ...]) -> str:
    """The warnings as a list with a heading; empty when there are none."""
    return "".join(["\nWhat to know:\n\n", *(f"- {cell(warning)}\n" for warning in warnings)]) if warnings else ""


def count_table(counts: tuple[TableCount, ...]) -> str:
    """The rows of every table, expected and found, the largest tables first; of 1,000 tables at most."""
    largest_first = sorted(counts, key=lambda count: (-count.expected, count.name))
    lines = [(cell(count.name), f"{count.expected:,}", f"{count.found:,}") for count in largest_first]
    return table(("table", "rows expected", "rows found"), lines, ("left", "right", "right"), _ROWS_SHOWN)
