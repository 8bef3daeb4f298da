"""The lines of the health check, one for each check, and a sentence for all that failed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal

from tasks.runs.markdown import printable

Status = Literal["ok", "warning", "failed"]
_ORDER: tuple[Status, ...] = ("failed", "warning", "ok")
#: The state of the run has this many failures in full; of the others it has the names.
_IN_FULL = 4
_LONGEST = 600  # characters of one failure in the run's state


@dataclass(frozen=True)
class Line:
    """The result of a check, and what to do about it."""

    check: str
    status: Status
    what: str
    """One or more sentences; the text of an error says itself what to do."""
    to_do: str = ""
    is_overdue: bool = False
    """Whether a backup is missing after its deadline; that has an alarm of its own."""

    def text(self) -> str:
        """All of it on one line."""
        return printable(f"{self.status:<7}  {self.check}: {self.what} {self.to_do}".rstrip())


def worst_first(lines: Iterable[Line]) -> tuple[Line, ...]:
    """Failures, then warnings, then the rest, each in the order of the checks."""
    return tuple(sorted(lines, key=lambda line: _ORDER.index(line.status)))


def with_status(lines: Iterable[Line], status: Status) -> list[Line]:
    """The lines of one status."""
    return [line for line in lines if line.status == status]


def verdict(plan: str, lines: Sequence[Line]) -> str:
    """What failed, for the state of the run; empty when nothing did."""
    failed = with_status(lines, "failed")
    if not failed:
        return ""
    sentences = " ".join(f"{line.check}: {_short(printable(line.what))}" for line in failed[:_IN_FULL])
    more = f" And: {', '.join(line.check for line in failed[_IN_FULL:])}." if failed[_IN_FULL:] else ""
    return f"Plan {plan} is not healthy, {len(failed)} of {len(lines)} checks failed: {sentences}{more}"


def summary(lines: Sequence[Line]) -> str:
    """`14 checks: 1 failed, 2 warnings, 11 ok.`"""
    failed, warnings, fine = (len(with_status(lines, status)) for status in _ORDER)
    return f"{len(lines)} checks: {failed} failed, {warnings} warning{'s' * (warnings != 1)}, {fine} ok."


def utc(moment: datetime) -> str:
    """`2026-03-01 02:00 UTC` of an aware time in UTC."""
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def span(length: timedelta) -> str:
    """`3 d 4 h`, `5 h 12 min`, `4 min` or `17 s`."""
    seconds = max(0, int(length.total_seconds()))
    days, hours, minutes = seconds // 86_400, seconds // 3600 % 24, seconds // 60 % 60
    if days:
        return f"{days} d {hours} h"
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min" if minutes else f"{seconds} s"


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
