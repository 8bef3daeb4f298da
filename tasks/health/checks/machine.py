"""The machine that backs up: room in the spool, and whether its clock goes with those of the others."""

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
    """Whether what a backup of about `expected_size` bytes keeps waiting has room; None: whatever it may take."""
    needed = plan.spool_limit if expected_size is None else min(plan.spool_limit, expected_size + SMALLEST_PART)
    problems = spool_problems(plan.spool_directory, needed)
    if problems and expected_size is None:
        return Line(
            "Spool",
            "warning",
            " ".join(problems),
            "This is for the largest backup; how large this database is, is not known.",
        )
    if problems:
        return Line("Spool", "failed", " ".join(problems), "Until then every backup is refused.")
    try:
        free = human_bytes(shutil.disk_usage(plan.spool_directory).free)
    except OSError as error:
        return Line("Spool", "failed", f"The disk of {plan.spool_directory} cannot be looked at ({error.strerror}).")
    return Line("Spool", "ok", f"{plan.spool_directory} has {free} free; a backup needs {human_bytes(needed)}.")


def clock_line(ahead: Mapping[str, timedelta]) -> Line:
    """Whether the clocks of others, which are so far before ours, are right enough. Pure."""
    apart = {who: by for who, by in ahead.items() if abs(by) > MOST_APART}
    if apart:
        told = ", ".join(
            f"{who} is {span(abs(by))} {'ahead' if by > timedelta() else 'behind'}" for who, by in apart.items()
        )
        return Line(
            "Clocks",
            "warning",
            f"Against the clock of this machine, that of {told}.",
            "Set the clocks (NTP): stores refuse signatures that are 15 minutes off, and times in the "
            "catalogue go by these clocks.",
        )
    if not ahead:
        return Line(
            "Clocks",
            "warning",
            "Neither the database nor the store has told its time.",
            "Solve what keeps them from answering.",
        )
    return Line("Clocks", "ok", f"This machine and {' and '.join(ahead)} agree.")
