"""The schedules: those of prefect.yaml, and one of `backup/daily` for each plan, as its block wants it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from pydantic import ValidationError

from deployments.set_up_parts.deployment_list import full_name
from deployments.set_up_parts.deployments import read_deployment
from deployments.set_up_parts.merging import fingerprint, merged
from deployments.set_up_parts.remembered import Memory
from tasks.errors import BadSetting
from tasks.plans.find_plan import fields_of_plans
from tasks.plans.schedules import Rule, rule, told

#: The deployment whose schedules back plans up.
DAILY = "backup/daily"
#: The slug of the schedule of the plan `default`; that of any other is `plan-<name>`.
NIGHTLY = "nightly"
_FIELDS = ("schedule", "active", "parameters")


@dataclass(frozen=True)
class Wanted:
    """One schedule, as it is declared."""

    rule: Rule
    active: bool
    parameters: Mapping[str, Any]

    def fields(self, deployment: Mapping[str, Any]) -> dict[str, Any]:
        """As JSON; the parameters are those that its runs get."""
        return {
            "schedule": json.loads(self.rule.model_dump_json()),
            "active": self.active,
            "parameters": {**deployment, **self.parameters},
        }


def update_schedules(entries: Sequence[Mapping[str, Any]], memory: Memory) -> list[str]:
    """The schedules are as prefect.yaml and the plans declare them; returns a line for each that differed."""
    with get_client(sync_client=True) as client:
        lines = apply_schedules(client, wanted_schedules(entries, plan_rules()), memory, check=False)
    memory.save()
    return lines


def slug_of(plan: str) -> str:
    """The slug of a plan's schedule."""
    return NIGHTLY if plan == "default" else f"plan-{plan}"


def plan_rules() -> dict[str, Rule | None]:
    """What the block of each plan wants. Raises BadSetting, with a sentence for each that cannot be read."""
    rules, problems = {}, []
    for name, fields in fields_of_plans("schedule", "schedule_timezone").items():
        try:
            rules[name] = rule(
                str(fields["schedule"] or ""), str(fields["schedule_timezone"] or ""), f"The schedule of plan {name}"
            )
        except BadSetting as problem:
            problems.append(str(problem))
    if problems:
        raise BadSetting(" ".join(problems))
    return rules


def wanted_schedules(
    entries: Sequence[Mapping[str, Any]], rules: Mapping[str, Rule | None]
) -> dict[str, dict[str, Wanted]]:
    """By deployment and slug, every schedule: those of prefect.yaml, where plans have none of their own. Pure.

    A schedule of prefect.yaml that names a plan stands for the one in the plan's block. Raises BadSetting.
    """
    wanted = {
        full_name(entry): {one["slug"]: _listed(full_name(entry), one) for one in entry.get("schedules") or []}
        for entry in entries
    }
    if DAILY not in wanted:
        return wanted
    daily = wanted[DAILY]
    listed = {str(one.parameters["plan"]) for one in daily.values() if "plan" in one.parameters}
    for plan, found in rules.items():
        if plan not in listed:
            daily.pop(slug_of(plan), None)
            if found is not None:
                daily[slug_of(plan)] = Wanted(found, True, {"plan": plan})
    return wanted


def apply_schedules(
    client: SyncPrefectClient,
    wanted: Mapping[str, Mapping[str, Wanted]],
    memory: Memory,
    *,
    check: bool,
    overwrite: bool = False,
) -> list[str]:
    """The schedules are as declared, apart from what was set in Prefect; returns a line for each that differed."""
    lines = []
    for name, schedules in wanted.items():
        found = read_deployment(client, name)
        if found is not None:
            lines += _OfOne(client, name, found, memory, check, overwrite).apply(schedules)
        elif check:
            lines += [f"Schedule {slug} of {name} is missing." for slug in schedules]
    return lines


@dataclass(frozen=True)
class _OfOne:
    """The schedules of one deployment."""

    client: SyncPrefectClient
    name: str
    deployment: DeploymentResponse
    memory: Memory
    check: bool
    overwrite: bool

    def apply(self, wanted: Mapping[str, Wanted]) -> list[str]:
        there = {one.slug: one for one in self.deployment.schedules if one.slug}
        lines = []
        for slug, one in wanted.items():
            if slug in there:
                lines += self._compare(slug, one, there[slug])
            else:
                lines += self._missing(slug, one)
        for slug in self.memory.things(f"schedule {self.name} "):
            if slug not in wanted:
                lines += self._undeclared(slug, there.get(slug))
        return lines

    def _missing(self, slug: str, one: Wanted) -> list[str]:
        what, fields = f"Schedule {slug} of {self.name}", one.fields(self.deployment.parameters)
        last = self.memory.of(self._thing(slug)).get("schedule")
        if last and last.declared == fingerprint(fields["schedule"]) and not self.overwrite:
            return [
                f"{what} was deleted in Prefect, and stays so. Say never in the schedule of its plan, or run the "
                "set-up with --overwrite to have it again."
            ]
        if other := self._made_by_hand(one):
            return [
                f"Plan {one.parameters['plan']} has a schedule of its own in Prefect ({told(other.schedule)}), so "
                f"{slug} ({told(one.rule)}) was not added."
            ]
        if self.check:
            return [f"{what} is missing: {told(one.rule)}."]
        new = DeploymentScheduleCreate(schedule=one.rule, active=one.active, parameters=dict(one.parameters), slug=slug)
        [made] = self.client.create_deployment_schedules(self.deployment.id, [new])
        self.memory.note(self._thing(slug), _FIELDS, fields, self._found(made))
        return [f"{what} was created: {told(one.rule)}."]

    def _compare(self, slug: str, one: Wanted, found: DeploymentSchedule) -> list[str]:
        thing, what = self._thing(slug), f"Schedule {slug} of {self.name}"
        fields, there = one.fields(self.deployment.parameters), self._found(found)
        result = merged(fields, there, self.memory.of(thing), overwrite=self.overwrite)
        lines = [self._kept(what, field, one, found) for field in result.kept]
        if result.write:
            lines.append(f"{what} {'differs' if self.check else 'was changed'}: {_now(result.write, one, found)}.")
        if self.check:
            return lines
        if result.write:
            new: dict[str, Any] = {"schedule": one.rule, "active": one.active, "parameters": dict(one.parameters)}
            self.client.update_deployment_schedule(
                self.deployment.id, found.id, **{field: new[field] for field in result.write}
            )
            every = self.client.read_deployment_schedules(self.deployment.id)
            there = self._found(next(each for each in every if each.id == found.id))
        self.memory.note(thing, [*result.write, *result.same], fields, there)
        return lines

    def _undeclared(self, slug: str, found: DeploymentSchedule | None) -> list[str]:
        """One that the set-up has made, and that nobody wants any more: its plan is gone, or is to have none."""
        thing, what = self._thing(slug), f"Schedule {slug} of {self.name}"
        lines = []
        if found is not None:
            last, there = self.memory.of(thing), self._found(found)
            touched = any(last[field].found != fingerprint(there[field]) for field in last)
            if touched and not self.overwrite:
                return [f"{what} is not wanted any more, but was changed in Prefect, and stays: delete it there."]
            lines = [f"{what} {'is not wanted any more' if self.check else 'was removed'}: no plan wants it."]
            if not self.check:
                self.client.delete_deployment_schedule(self.deployment.id, found.id)
        if not self.check:
            self.memory.forget(thing)
        return lines

    def _made_by_hand(self, one: Wanted) -> DeploymentSchedule | None:
        """A schedule for the same plan that the set-up does not know."""
        known = {*self.memory.things(f"schedule {self.name} "), NIGHTLY}
        plan = one.parameters.get("plan")
        return next(
            (
                each
                for each in self.deployment.schedules
                if plan and each.slug not in known and (each.parameters or {}).get("plan") == plan
            ),
            None,
        )

    def _kept(self, what: str, field: str, one: Wanted, found: DeploymentSchedule) -> str:
        if field == "active":
            how = "switched on" if found.active else "switched off"
            return f"{what} was {how} in Prefect, and stays so."
        if field == "schedule":
            return (
                f"{what} was changed in Prefect to {told(found.schedule)}, and stays so; declared is {told(one.rule)}."
            )
        return f"{what} was given other parameters in Prefect, and keeps them."

    def _thing(self, slug: str) -> str:
        return f"schedule {self.name} {slug}"

    def _found(self, one: DeploymentSchedule) -> dict[str, Any]:
        return {
            "schedule": json.loads(one.schedule.model_dump_json()),
            "active": bool(one.active),
            "parameters": {**self.deployment.parameters, **(one.parameters or {})},
        }


def _now(fields: Sequence[str], one: Wanted, found: DeploymentSchedule) -> str:
    said = {
        "schedule": f"{told(one.rule)} instead of {told(found.schedule)}",
        "active": "switched on" if one.active else "switched off",
        "parameters": "its parameters",
    }
    return ", ".join(said[field] for field in fields)


def _listed(deployment: str, given: Mapping[str, Any]) -> Wanted:
    """A schedule of prefect.yaml. Raises BadSetting when it cannot be read."""
    whose = f"The schedule {given['slug']} of {deployment} in prefect.yaml"
    zone = str(given.get("timezone") or "UTC")
    if "interval" in given:
        found: Rule = _interval(whose, given)
    else:
        text = str(given.get("cron") or given.get("rrule"))
        read = rule(text, zone, whose)
        if not isinstance(read, CronSchedule if "cron" in given else RRuleSchedule):
            raise BadSetting(f"{whose} is {text[:80]!r}, which is no {'cron line' if 'cron' in given else 'RRULE'}.")
        found = read.model_copy(update={"day_or": given["day_or"]}) if "day_or" in given else read
    return Wanted(found, bool(given.get("active", True)), dict(given.get("parameters") or {}))


def _interval(whose: str, given: Mapping[str, Any]) -> IntervalSchedule:
    """An interval in seconds, as `prefect deploy` takes it; from midnight UTC unless it has an anchor."""
    try:
        length = timedelta(seconds=given["interval"])
        anchor = given.get("anchor_date") or "2020-01-01T00:00:00+00:00"
        return IntervalSchedule.model_validate({"interval": length, "anchor_date": str(anchor), "timezone": "UTC"})
    except (TypeError, OverflowError, ValidationError):
        raise BadSetting(f"{whose} has the interval {given['interval']!r}: give a number of seconds.") from None
