"""Decides whether a scheduled run is a duplicate: after an outage, or when a change of the clocks made two runs of one.

Pure.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

#: The name of the state in which a duplicate ends.
SKIPPED = "Skipped"
#: If runs were only skipped for this long, each starts too late for its schedule: the next run must work.
STARVING = timedelta(minutes=30)
#: Two runs of a schedule of days that are this close are the same occurrence: the clocks changed between them.
CLOSE = timedelta(hours=3)
_VAIN = ("FAILED", "CRASHED", "CANCELLED", "CANCELLING")


@dataclass(frozen=True)
class Occurrence:
    """A run of one schedule and plan, by the time at which it was due."""

    due: datetime
    state: str
    """Its state's type, such as COMPLETED."""
    name: str = ""
    """Its state's name, such as Skipped."""
    began: datetime | None = None
    ended: datetime | None = None

    @property
    def is_skipped(self) -> bool:
        return self.name == SKIPPED


def later_run(due: datetime, others: Iterable[Occurrence], now: datetime) -> Occurrence | None:
    """The newest run that is due as well and works, or will work: it does what the run that was due at `due` should do.

    A run that has failed does not count, so that a second run can do better.
    """
    fit = [other for other in others if due < other.due <= now and _counts(other)]
    return max(fit, key=lambda other: other.due, default=None)


def is_starving(lately: Iterable[Occurrence], now: datetime) -> bool:
    """Whether for a while no run has worked, because each was skipped for a later run. Then this run must work."""
    runs = list(lately)
    worked = max((run.began for run in runs if run.began and not run.is_skipped), default=None)
    skipped = [run.ended for run in runs if run.is_skipped and run.ended and (worked is None or run.ended > worked)]
    return bool(skipped) and now - min(skipped) > STARVING


def same_occurrence(due: datetime, interval: timedelta | None, others: Iterable[Occurrence]) -> Occurrence | None:
    """The run before, when both stand for the same occurrence of a schedule with an interval of days.

    Prefect counts such an interval by the local clock, so that a change of the clocks gives one day two times.
    """
    if interval is None or interval < timedelta(days=1):
        return None
    fit = [other for other in others if due - CLOSE <= other.due < due and _counts(other)]
    return max(fit, key=lambda other: other.due, default=None)


def _counts(run: Occurrence) -> bool:
    return run.state not in _VAIN and not run.is_skipped
