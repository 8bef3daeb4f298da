"""What prefect.yaml lists: the one place that names the deployments.

Prefect itself passes over keys that it does not know; here they are refused.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import yaml

from tasks.errors import BadSetting

DEPLOYMENT_FILE = Path(__file__).parents[2] / "prefect.yaml"

_TOP = ("name", "prefect-version", "definitions", "deployments", "pull")
_DEPLOYMENT = (
    "name",
    "entrypoint",
    "flow_name",
    "description",
    "tags",
    "version",
    "parameters",
    "schedules",
    "paused",
    "concurrency_limit",
    "enforce_parameter_schema",
    "pull",
    "work_pool",
)
_NEEDED = ("name", "entrypoint", "work_pool")
_POOL = ("name", "work_queue_name", "job_variables")
_SCHEDULE = ("cron", "interval", "rrule", "timezone", "anchor_date", "day_or", "active", "parameters", "slug")
#: What `prefect deploy` takes and the set-up does not.
_FOREIGN = ("build", "push", "triggers", "sla", "schedule", "version_type", "replaces")


def deployment_entries() -> list[dict[str, Any]]:
    """The entries of prefect.yaml, as they stand there."""
    entries: list[dict[str, Any]] = yaml.safe_load(DEPLOYMENT_FILE.read_text())["deployments"]
    return entries


def listed_deployments() -> list[str]:
    """`<flow>/<deployment>` of every entry; the flow is named like its function."""
    return [full_name(entry) for entry in deployment_entries()]


def full_name(entry: Mapping[str, Any]) -> str:
    """`<flow>/<deployment>` of an entry."""
    return f"{str(entry['entrypoint']).rpartition(':')[2].replace('_', '-')}/{entry['name']}"


def checked_entries(text: str | None = None) -> list[dict[str, Any]]:
    """The entries of prefect.yaml (or of `text`), each with the steps of the whole file that it lacks.

    Raises BadSetting, with a sentence for each, when it has keys that nobody reads or lacks some that are needed.
    """
    try:
        content = yaml.safe_load(DEPLOYMENT_FILE.read_text(encoding="utf-8") if text is None else text)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        raise BadSetting(f"prefect.yaml is no YAML{f', in line {where.line + 1}' if where else ''}.") from None
    if not isinstance(content, dict) or not isinstance(content.get("deployments"), list):
        raise BadSetting("prefect.yaml lists no deployments.")
    entries = content["deployments"]
    problems = _unknown("prefect.yaml", content, _TOP)
    for number, entry in enumerate(entries, 1):
        problems += _problems_of(entry, number)
    if not problems:
        names = [full_name(entry) for entry in entries]
        problems = [
            f"prefect.yaml lists {name} more than once." for name in sorted({n for n in names if names.count(n) > 1})
        ]
    if problems:
        raise BadSetting(" ".join(problems))
    return [{**({"pull": content["pull"]} if "pull" in content else {}), **entry} for entry in entries]


def _problems_of(entry: Any, number: int) -> list[str]:
    if not isinstance(entry, dict):
        return [f"Deployment {number} of prefect.yaml is no list of keys and values."]
    where = f"prefect.yaml, deployment {number} ({entry.get('entrypoint', entry.get('name', 'without a name'))})"
    problems = _unknown(where, entry, _DEPLOYMENT)
    problems += [f"{where}: it lacks {key}." for key in _NEEDED if not entry.get(key)]
    pool, schedules = entry.get("work_pool") or {}, entry.get("schedules") or []
    if not isinstance(pool, dict) or not isinstance(schedules, list):
        return [*problems, f"{where}: work_pool needs keys and values, and schedules a list."]
    problems += _unknown(f"{where}, work_pool", pool, _POOL)
    if entry.get("work_pool") and not pool.get("name"):
        problems.append(f"{where}, work_pool: it lacks name.")
    for schedule in schedules:
        problems += _problems_of_schedule(where, schedule)
    slugs = [one.get("slug") for one in schedules if isinstance(one, dict)]
    problems += [
        f"{where}: several schedules have the slug {slug}."
        for slug in sorted({str(s) for s in slugs if slugs.count(s) > 1})
    ]
    return problems


def _problems_of_schedule(where: str, schedule: Any) -> list[str]:
    if not isinstance(schedule, dict):
        return [f"{where}: a schedule needs keys and values."]
    where = f"{where}, schedule {schedule.get('slug', 'without a slug')}"
    problems = _unknown(where, schedule, _SCHEDULE)
    if not isinstance(schedule.get("slug"), str):
        problems.append(f"{where}: give it a slug, by which it is known again.")
    if sum(key in schedule for key in ("cron", "interval", "rrule")) != 1:
        problems.append(f"{where}: give it one of cron, interval and rrule.")
    return problems


def _unknown(where: str, given: Mapping[Any, Any], known: Collection[str]) -> list[str]:
    """A sentence for each key that nobody reads."""
    problems = []
    for key in map(str, given):
        if key in known:
            continue
        close = difflib.get_close_matches(key, known, 1)
        advice = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}."
        if key in _FOREIGN:
            advice = "the set-up does not follow it; remove it, or run prefect deploy yourself."
        problems.append(f"{where}: the key {key!r} is unknown: {advice}")
    return problems
