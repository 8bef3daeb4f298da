"""A schedule as people write it: a cron line, `every 6 hours`, or an RRULE (RFC 5545), each in a time zone."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from prefect.server.schemas import schedules as known
from pydantic import TypeAdapter, ValidationError

from tasks.errors import BadSetting
from tasks.names import base_of

Rule = CronSchedule | IntervalSchedule | RRuleSchedule

#: Ways to say that nothing happens by itself.
NEVER = ("", "never", "off", "none")
_EVERY = re.compile(r"every\s+(?:(\d{1,4})\s+)?(minute|hour|day|week)s?", re.IGNORECASE)
_RRULE = re.compile(r"(RRULE|DTSTART|RDATE|EXDATE|EXRULE|FREQ)\b", re.IGNORECASE)
#: Intervals are counted from midnight of this day in the time zone, for ever.
_ANCHOR = datetime(2020, 1, 1)  # noqa: DTZ001 - the time zone is the plan's
_ADVICE = "use a cron line (0 2 * * *), every 6 hours, an RRULE (RRULE:FREQ=DAILY;BYHOUR=2) or never"
_KNOWN: TypeAdapter[known.SCHEDULE_TYPES] = TypeAdapter(known.SCHEDULE_TYPES)


def rule(text: str, timezone: str, whose: str) -> Rule | None:
    """The schedule that `text` means; None for one that never comes, such as an empty text.

    An interval is a length of time, as `every 24 hours` is: summer time does not change it. Raises BadSetting, which
    begins with `whose` (such as `The schedule of plan shop`), when the text, or the time zone, cannot be understood.
    """
    text = " ".join(text.split())
    zone = _zone(timezone.strip() or "UTC", whose)
    if text.lower() in NEVER:
        return None
    try:
        found = _rule(text, zone)
        comes = next(iter(dates(found, datetime(2020, 1, 1, tzinfo=UTC), 1)), None)
    except (ValidationError, ValueError, OverflowError, ArithmeticError):
        raise BadSetting(f"{whose} is {text[:80]!r}, which cannot be read: {_ADVICE}.") from None
    if comes is None:
        raise BadSetting(f"{whose} is {text[:80]!r}, which never comes: {_ADVICE}.")
    return found


def dates(schedule: Rule, start: datetime, count: int) -> list[datetime]:
    """The first `count` moments, in UTC and not before `start`, at which Prefect makes runs of a schedule."""
    same = _KNOWN.validate_python(schedule.model_dump())
    found = same._get_dates_generator(n=count, start=start)  # what get_dates() sorts
    return [datetime.fromtimestamp(one.timestamp(), UTC) for one in found]


def in_words(schedule: object) -> str:
    """A schedule in words: `cron 0 2 * * * (UTC)`."""
    match schedule:
        case CronSchedule():
            return f"cron {schedule.cron} ({schedule.timezone or 'UTC'})"
        case IntervalSchedule():
            return f"every {_length(schedule.interval)}"
        case RRuleSchedule():
            return f"{' '.join(schedule.rrule.split())} ({schedule.timezone or 'UTC'})"
        case _:
            return "no schedule"


def _rule(text: str, zone: ZoneInfo) -> Rule:
    if text.lower().startswith("every"):
        given = _EVERY.fullmatch(text)
        if given is None:
            raise ValueError(text)
        # In UTC: where days of 23 and 25 hours exist, Prefect counts from where it stands, and can come twice.
        length = timedelta(**{f"{given[2].lower()}s": int(given[1] or 1)})
        return IntervalSchedule(
            interval=length, anchor_date=_ANCHOR.replace(tzinfo=zone).astimezone(UTC), timezone="UTC"
        )
    if _RRULE.match(text):
        return RRuleSchedule(rrule="\n".join(text.split()), timezone=zone.key)
    return CronSchedule(cron=text, timezone=zone.key)


def _zone(name: str, whose: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise BadSetting(
            f"{whose} names the time zone {name[:40]!r}, which is unknown: give one such as Europe/Berlin, or UTC."
        ) from None


def _length(interval: timedelta) -> str:
    for unit, seconds in (("day", 86400), ("hour", 3600), ("minute", 60)):
        count, rest = divmod(int(interval.total_seconds()), seconds)
        if count and not rest:
            return f"{count} {unit}s" if count > 1 else unit
    return f"{interval.total_seconds():g} seconds"


def is_for(flow: str, parameters: Mapping[str, Any], plan: str) -> bool:
    """Whether a run of this flow with these parameters is for `plan`. Pure.

    `backup-all` has some plans, or all; every other flow has one, or all where its name is empty. A run for the plan of
    a server is for the plans of its databases.
    """
    if flow == "backup-all":
        several = parameters.get("plans") or [plan]
        return isinstance(several, list) and not {plan, base_of(plan)}.isdisjoint(several)
    return parameters.get("plan", "default") in (plan, base_of(plan), "")
