"""The machine that makes backups: free space for the spool, and whether its clock agrees with those of the servers."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from datetime import timedelta

from tasks.backup.preflight import spool_problems
from tasks.health.lines import Line, span
from tasks.plans.plan import Plan
from tasks.runs.markdown import human_bytes
from tasks.storage.s3 import SMALLEST_PART

MOST_APART = timedelta(minutes=5)


def spool_line(plan: Plan, expected_size: int | None) -> Line:
    """Whether the spool has room for a backup of about `expected_size` bytes; None: of the largest allowed size."""
    needed = plan.spool_limit if expected_size is None else min(plan.spool_limit, expected_size + SMALLEST_PART)
    problems = spool_problems(plan.spool_directory, needed)
    if problems and expected_size is None:
        return Line(
            "Spool",
            "warning",
            " ".join(problems),
            "This is what the largest backup needs; the size of this database is not known.",
        )
    if problems:
        return Line("Spool", "failed", " ".join(problems), "Until then every backup is refused.")
    try:
        free = human_bytes(shutil.disk_usage(plan.spool_directory).free)
    except OSError as error:
        return Line("Spool", "failed", f"The disk of {plan.spool_directory} cannot be looked at ({error.strerror}).")
    return Line("Spool", "ok", f"{plan.spool_directory} has {free} free; a backup needs {human_bytes(needed)}.")


def clock_line(ahead: Mapping[str, timedelta]) -> Line:
    """Whether the clocks of servers, given how far each is ahead of ours, are right enough. Pure."""
    apart = {server: by for server, by in ahead.items() if abs(by) > MOST_APART}
    if apart:
        clocks = ", ".join(
            f"{server} is {span(abs(by))} {'ahead' if by > timedelta() else 'behind'}" for server, by in apart.items()
        )
        return Line(
            "Clocks",
            "warning",
            f"Compared with the clock of this machine, that of {clocks}.",
            "Set the clocks (NTP): stores refuse requests that are 15 minutes off, and the catalogue's times come "
            "from these clocks.",
        )
    if not ahead:
        return Line(
            "Clocks",
            "warning",
            "The time is not known: neither the database nor the store answered.",
            "Solve what keeps them from answering.",
        )
    return Line("Clocks", "ok", f"This machine and {' and '.join(ahead)} agree.")
