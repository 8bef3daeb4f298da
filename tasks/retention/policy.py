"""Which backups stay and which are due for removal, and why: policy alone, no clock and no storage.

Every rule only ever adds to what is kept, so that switching a rule on never removes a backup.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tasks.catalogue.rows import Record
from tasks.names import ADOPTED, FULL
from tasks.plans.plan import Policy

_Period = Callable[[datetime], Hashable]
_PERIODS: tuple[tuple[str, str, _Period], ...] = (
    ("daily", "day", lambda at: at.date()),
    ("weekly", "week", lambda at: at.isocalendar()[:2]),
    ("monthly", "month", lambda at: (at.year, at.month)),
    ("yearly", "year", lambda at: at.year),
)


@dataclass(frozen=True)
class Decision:
    """What becomes of a backup, with at least one reason that a person can read."""

    backup: Record
    keep: bool
    reasons: tuple[str, ...]


def decide(backups: Iterable[Record], policy: Policy, now: datetime) -> tuple[Decision, ...]:
    """A decision for each completed backup, newest first, those of one moment by file name.

    The newest backup, the newest verified and the newest that is not suspicious always stay. While the newest is
    suspicious, everything stays. Raises ValueError for a time without time zone.
    """
    given = tuple(backups)
    for moment in (now, *(backup.created_at for backup in given)):
        if moment.utcoffset() is None:
            raise ValueError(f"{moment} has no time zone")
    ordered = sorted(sorted(given, key=lambda b: b.filename), key=lambda b: b.created_at.astimezone(UTC), reverse=True)
    full = [backup for backup in ordered if backup.backup_type == FULL]
    halted = _halted(full, policy.collapse_percent)
    if halted:
        return tuple(Decision(backup, True, (halted,)) for backup in ordered)
    kept: dict[Record, list[str]] = {backup: [] for backup in ordered}
    for backup, reason in (*_by_hand(ordered), *_by_rank(full, policy), *_by_period(full, policy)):
        kept[backup].append(reason)
    return tuple(_decision(backup, kept[backup], policy, now) for backup in ordered)


def _halted(full: Sequence[Record], percent: int) -> str:
    if not full or not full[0].suspicious or percent == 0:
        return ""
    newest = full[0]
    return f"Removal is halted because the newest backup, {newest.filename}, is suspicious. {newest.suspicious}"


def _by_hand(backups: Sequence[Record]) -> Iterable[tuple[Record, str]]:
    """What a person keeps for ever. It counts for the other rules as any backup does."""
    return ((backup, f"kept for ever {backup.kept}") for backup in backups if backup.kept)


def _by_rank(full: Sequence[Record], policy: Policy) -> Iterable[tuple[Record, str]]:
    yield from ((backup, "the newest backup") for backup in full[:1])
    yield from ((backup, "the newest verified backup") for backup in [b for b in full if b.verified_at][:1])
    good = [backup for backup in full if not backup.suspicious]
    yield from ((backup, "the newest backup that is not suspicious") for backup in good[:1])
    yield from ((backup, f"one of the last {policy.keep_last}") for backup in full[: policy.keep_last])


def _by_period(full: Sequence[Record], policy: Policy) -> Iterable[tuple[Record, str]]:
    for rule, noun, period in _PERIODS:
        newest_of: dict[Hashable, Record] = {}
        for backup in full:
            newest_of.setdefault(period(backup.created_at.astimezone(UTC)), backup)
        for backup in tuple(newest_of.values())[: getattr(policy, rule)]:
            yield backup, f"the newest of its {noun} ({rule}: {getattr(policy, rule)})"


def _decision(backup: Record, reasons: Sequence[str], policy: Policy, now: datetime) -> Decision:
    as_full = backup.backup_type in (FULL, ADOPTED)
    limit = timedelta(days=policy.days if as_full else policy.other_days)
    age = now.astimezone(UTC) - backup.created_at.astimezone(UTC)
    span = f"{limit.days} day{'s' if limit.days > 1 else ''}"
    kind = "" if as_full else f", as {backup.backup_type} backups may be"
    if age < timedelta(0):
        reasons = (*reasons, "dated in the future")
    elif age <= limit:
        reasons = (*reasons, f"not older than {span}{kind}")
    if reasons:
        return Decision(backup, True, tuple(reasons))
    return Decision(backup, False, (f"older than {span}{kind}, and no other rule keeps it",))
