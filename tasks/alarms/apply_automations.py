"""Automations as code: what the Prefect server does by itself, put there and kept as declared."""

from __future__ import annotations

import time
from typing import Any

from prefect.client.orchestration import SyncPrefectClient
from prefect.events.schemas.automations import AutomationCore

from tasks.alarms import event_names as alarms
from tasks.alarms.automations import declared
from tasks.alarms.channel import apply_channel
from tasks.alarms.tell import arm, arm_new, note, standing, watch_deployments
from tasks.plans.find_plan import plan_names
from tasks.plans.refusals import refused
from tasks.plans.settings import Settings

#: So long the server may take until an automation that was just made sees events.
SETTLE_SECONDS = 2.0


def apply_automations(client: SyncPrefectClient, settings: Settings, *, check: bool) -> list[str]:
    """The automations are as declared, and watch every plan; returns a line for each thing that differed.

    An automation that is switched off stays so, which is said. With `check`, nothing is written. Raises BadSetting
    when NOTIFY_URL is no address that Apprise knows, and httpx.HTTPError.
    """
    channel, lines = apply_channel(settings.notify_url, check=check)
    written: dict[str, str] = {}
    for one in declared(channel):
        change, told = _apply(client, one, check)
        lines += told
        if change:
            written[one.name] = change
    if not check:
        _watch(client, written)
    return lines


def _apply(client: SyncPrefectClient, wanted: AutomationCore, check: bool) -> tuple[str, list[str]]:
    """What was done, `created` or `changed` or nothing, and what to say."""
    found = next(iter(client.read_automations_by_name(wanted.name)), None)
    lines = []
    if found is not None and not found.enabled:
        lines = [f"Automation {wanted.name!r} is switched off, and stays so: switch it on in the Prefect UI."]
    if found is not None and content(found) == content(wanted):
        return "", lines
    if check:
        return "", [f"Automation {wanted.name!r} {'differs' if found else 'is missing'}.", *lines]
    with refused(f"the automation {wanted.name!r}"):
        if found is None:
            client.create_automation(wanted)
            return "created", [f"Automation {wanted.name!r} was created."]
        client.update_automation(found.id, _whole(wanted, found.enabled))
    return "changed", [f"Automation {wanted.name!r} was changed.", *lines]


def content(automation: AutomationCore) -> Any:
    """What an automation does, without what the server adds to it, and in one order. Pure."""
    said = automation.model_dump(mode="json", exclude={"id", "enabled", "owner_resource", "tags"})
    for part, value in said["trigger"].items():
        if isinstance(value, list):
            said["trigger"][part] = sorted(value, key=str)
    said["trigger"].pop("id", None)
    said["actions"] = [{key: value for key, value in one.items() if value is not None} for one in said["actions"]]
    return said


def _whole(wanted: AutomationCore, enabled: bool) -> AutomationCore:
    """Every field is given, as an update sends only those that are; but for the owner, which the server refuses."""
    return AutomationCore.model_validate({**wanted.model_dump(exclude={"owner_resource"}), "enabled": enabled})


def _watch(client: SyncPrefectClient, written: dict[str, str]) -> None:
    """Every plan and every deployment is watched.

    An automation that is made or changed has seen nothing: it is told of every name whether a problem lasts of which
    somebody has heard. The other names are told only of what is new, as an incident must not be told twice.
    """
    if written:
        time.sleep(SETTLE_SECONDS)
    plans = plan_names()
    kept = [name for plan in plans for name in alarms.names_of_plan(plan)] + alarms.common_names()
    if written.get(alarms.TELLS_PROBLEM) == "created":
        arm(client, kept)
    elif {alarms.TELLS_PROBLEM, alarms.TELLS_END, alarms.TELLS_UNCHECKED} & set(written):
        runs = [name for name in kept if name.startswith(("backup-", "verify-"))]
        troubled = {name for name in runs if standing(client, name) == "failed"}
        arm(client, [name for name in kept if name not in troubled])
        note(client, sorted(troubled))
    else:
        arm_new(client, plans)
    watch_deployments(client, everyone=alarms.TELLS_UNBEGUN in written)
