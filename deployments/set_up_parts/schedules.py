"""The schedules: those of prefect.yaml, and one of `backup/daily` for each plan, as its block wants it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import CronSchedule, IntervalSchedule, RRuleSchedule
from pydantic import TypeAdapter

from deployments.set_up_parts.deployments import Deployments, deployments_there
from deployments.set_up_parts.merging import SetUp, Thing, follow
from deployments.set_up_parts.prefect_yaml import ListedDeployment, ListedSchedule, listed_deployments
from deployments.set_up_parts.remembered import Memory, fingerprint
from tasks.errors import BadSetting
from tasks.plans.find_plan import fields_of_plans
from tasks.plans.schedules import Rule, in_words, rule
from tasks.prefect_client import refused

#: The deployment whose schedules back plans up.
DAILY = "backup/daily"
#: The slug of the schedule of the plan `default`; that of any other is `plan-<name>`.
NIGHTLY = "nightly"
_FIELDS = ("schedule", "active", "parameters")
_RULE: TypeAdapter[Rule] = TypeAdapter(Rule)


@dataclass(frozen=True)
class Wanted:
    """One schedule, as it is declared."""

    rule: Rule
    active: bool
    parameters: Mapping[str, Any]


def slug_of(plan: str) -> str:
    """The slug of a plan's schedule."""
    return NIGHTLY if plan == "default" else f"plan-{plan}"


def update_schedules(memory: Memory) -> Iterator[str]:
    """The schedules are as prefect.yaml and the plans declare them; yields a line for each that differed."""
    wanted = wanted_schedules(listed_deployments(), plan_rules())
    with get_client(sync_client=True) as client:
        yield from apply_schedules(client, deployments_there(client), wanted, SetUp(memory))
    memory.save()


def plan_rules() -> dict[str, Rule | None]:
    """What the block of each plan wants. Raises BadSetting, with a sentence for each that cannot be read."""
    rules, problems = {}, []
    for name, fields in fields_of_plans("schedule", "schedule_timezone", "restore_only").items():
        text, zone = (str(fields[field] or "") for field in ("schedule", "schedule_timezone"))
        try:
            wanted = rule(text, zone, f"The schedule of plan {name}")
            rules[name] = None if fields["restore_only"] else wanted
        except BadSetting as problem:
            problems.append(str(problem))
    if problems:
        raise BadSetting(" ".join(problems))
    return rules


def wanted_schedules(
    listed: Sequence[ListedDeployment], rules: Mapping[str, Rule | None]
) -> dict[str, dict[str, Wanted]]:
    """By deployment and slug, every schedule: those of prefect.yaml, where plans have none of their own. Pure.

    A schedule of prefect.yaml that names a plan stands for the one in the plan's block. Raises BadSetting.
    """
    wanted = {entry.full_name: {one.slug: _listed(entry.full_name, one) for one in entry.schedules} for entry in listed}
    if DAILY not in wanted:
        return wanted
    daily = wanted[DAILY]
    named = {str(one.parameters["plan"]) for one in daily.values() if "plan" in one.parameters}
    for plan, found in rules.items():
        if plan not in named:
            daily.pop(slug_of(plan), None)
            if found is not None:
                daily[slug_of(plan)] = Wanted(found, True, {"plan": plan})
    return wanted


def apply_schedules(
    client: SyncPrefectClient, there: Deployments, wanted: Mapping[str, Mapping[str, Wanted]], run: SetUp
) -> Iterator[str]:
    """The schedules are as declared, apart from what was set in Prefect; yields a line for each that differed."""
    for name, schedules in wanted.items():
        if found := there.get(name):
            with refused(f"a schedule of {name}"):
                yield from _OfOne(client, name, found, run).apply(schedules)
        elif run.check:
            yield from (f"Schedule {slug} of {name} is missing." for slug in schedules)


@dataclass(frozen=True)
class _OfOne:
    """The schedules of one deployment."""

    client: SyncPrefectClient
    name: str
    deployment: DeploymentResponse
    run: SetUp

    def apply(self, wanted: Mapping[str, Wanted]) -> Iterator[str]:
        there = {one.slug: one for one in self.deployment.schedules if one.slug}
        for slug, one in wanted.items():
            if slug in there:
                yield from self._follow(slug, one, there[slug])
            else:
                yield self._missing(slug, one)
        for slug in self.run.memory.things(f"schedule {self.name} "):
            if slug not in wanted:
                yield from self._unwanted(slug, there.get(slug))

    def _follow(self, slug: str, one: Wanted, found: DeploymentSchedule) -> Iterator[str]:
        def write(fields: Sequence[str]) -> Mapping[str, Any]:
            new: dict[str, Any] = {"schedule": one.rule, "active": one.active, "parameters": dict(one.parameters)}
            self.client.update_deployment_schedule(
                self.deployment.id, found.id, **{field: new[field] for field in fields}
            )
            schedules = self.client.read_deployment_schedules(self.deployment.id)
            return self._fields(next(each for each in schedules if each.id == found.id))

        declared = self._declared(one)
        yield from follow(self._thing(slug), declared, self._fields(found), write, self.run)

    def _missing(self, slug: str, one: Wanted) -> str:
        thing, declared = self._thing(slug), self._declared(one)
        last = self.run.memory.of(thing.key).get("schedule")
        if last and last.declared == fingerprint(declared["schedule"]) and not self.run.overwrite:
            return (
                f"{thing.title} was deleted in Prefect, and stays so. Write never in the schedule of its plan, or run "
                "the set-up with --overwrite to have it again."
            )
        if other := self._made_by_hand(one):
            return (
                f"Plan {one.parameters['plan']} has a schedule of its own in Prefect ({in_words(other.schedule)}), so "
                f"{slug} ({in_words(one.rule)}) was not added."
            )
        if not self.run.check:
            new = DeploymentScheduleCreate(
                schedule=one.rule, active=one.active, parameters=dict(one.parameters), slug=slug
            )
            [made] = self.client.create_deployment_schedules(self.deployment.id, [new])
            self.run.memory.note(thing.key, _FIELDS, declared, self._fields(made))
        return f"{thing.title} {'is missing' if self.run.check else 'was created'}: {in_words(one.rule)}."

    def _unwanted(self, slug: str, found: DeploymentSchedule | None) -> Iterator[str]:
        """A schedule that the set-up has made, and that nothing declares: its plan is gone, or is to have none."""
        thing = self._thing(slug)
        if found is not None:
            last, there = self.run.memory.of(thing.key), self._fields(found)
            if any(last[field].found != fingerprint(there[field]) for field in last) and not self.run.overwrite:
                yield f"{thing.title} is not declared any more, but was changed in Prefect, and stays: delete it there."
                return
            if not self.run.check:
                self.client.delete_deployment_schedule(self.deployment.id, found.id)
            yield f"{thing.title} {'is to be' if self.run.check else 'was'} removed: no plan wants it."
        if not self.run.check:
            self.run.memory.forget(thing.key)

    def _made_by_hand(self, one: Wanted) -> DeploymentSchedule | None:
        """A schedule for the same plan that the set-up does not know."""
        plan = one.parameters.get("plan")
        known = {*self.run.memory.things(f"schedule {self.name} "), NIGHTLY}
        others = (each for each in self.deployment.schedules if each.slug not in known)
        return next((each for each in others if plan and (each.parameters or {}).get("plan") == plan), None)

    def _thing(self, slug: str) -> Thing:
        title = f"Schedule {slug} of {self.name}"
        return Thing(f"schedule {self.name} {slug}", title, "its declaration", _shown)

    def _declared(self, one: Wanted) -> dict[str, Any]:
        """As JSON; the parameters are those that the runs get."""
        return {
            "schedule": json.loads(one.rule.model_dump_json()),
            "active": one.active,
            "parameters": {**self.deployment.parameters, **one.parameters},
        }

    def _fields(self, one: DeploymentSchedule) -> dict[str, Any]:
        return {
            "schedule": json.loads(one.schedule.model_dump_json()),
            "active": bool(one.active),
            "parameters": {**self.deployment.parameters, **(one.parameters or {})},
        }


def _shown(field: str, value: Any) -> str:
    if field == "schedule":
        return in_words(_RULE.validate_python(value))
    if field == "active":
        return "on" if value else "off"
    return json.dumps(value)


def _listed(deployment: str, given: ListedSchedule) -> Wanted:
    """A schedule of prefect.yaml. Raises BadSetting when it cannot be read."""
    whose = f"The schedule {given.slug} of {deployment} in prefect.yaml"
    if given.interval is not None:
        found: Rule = IntervalSchedule(interval=given.interval, anchor_date=given.anchor_date, timezone="UTC")
        return Wanted(found, given.active, given.parameters)
    text, kind, wants = (
        (given.cron, CronSchedule, "cron line") if given.cron is not None else (given.rrule, RRuleSchedule, "RRULE")
    )
    read = rule(str(text), given.timezone, whose)
    if not isinstance(read, kind):
        raise BadSetting(f"{whose} is {str(text)[:80]!r}, which is no {wants}.")
    found = read.model_copy(update={"day_or": given.day_or}) if given.day_or is not None else read
    return Wanted(found, given.active, given.parameters)
