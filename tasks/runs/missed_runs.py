"""Decides whether a scheduled run is one too many: after an outage, or where summer time has made two of one. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

#: The name of the state in which a run ends that was one too many.
SKIPPED = "Skipped"
#: Where runs have only been skipped for so long, starting takes longer than the schedule leaves: one has to work.
STARVING = timedelta(minutes=30)
#: Two runs of a schedule of days or more that are so close stand for one: the clocks were changed between them.
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


def later_one(due: datetime, others: Iterable[Occurrence], now: datetime) -> Occurrence | None:
    """The newest run that is due as well and works, or will: it does what the run that was due at `due` was to do.

    One that has failed does not count, so that a second run can do better.
    """
    fit = [one for one in others if due < one.due <= now and one.state not in _VAIN and not one.is_skipped]
    return max(fit, key=lambda one: one.due, default=None)


def is_starving(lately: Iterable[Occurrence], now: datetime) -> bool:
    """Whether for a while no run has worked, as each found a later one that was due: then this one is to work."""
    runs = list(lately)
    worked = max((one.began for one in runs if one.began and not one.is_skipped), default=None)
    skipped = [one.ended for one in runs if one.is_skipped and one.ended and (worked is None or one.ended > worked)]
    return bool(skipped) and now - min(skipped) > STARVING


def same_one(due: datetime, interval: timedelta | None, others: Iterable[Occurrence]) -> Occurrence | None:
    """The run before, when both stand for one occurrence of a schedule of days.

    Prefect counts such an interval from where the clocks stand, so that a change of them gives one day two times.
    """
    if interval is None or interval < timedelta(days=1):
        return None
    fit = [one for one in others if due - CLOSE <= one.due < due and one.state not in _VAIN and not one.is_skipped]
    return max(fit, key=lambda one: one.due, default=None)
