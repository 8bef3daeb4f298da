"""Alarms as code: what the Prefect server does by itself is created on it, and kept as declared.

Its notification blocks send to NOTIFY_URL, any address that Apprise knows: a block for each type of message, because
chats show the type by a colour or a sign. The server can only load blocks of Prefect's own; its Slack Webhook gives
every address to Apprise, whichever service that is for.
"""

from __future__ import annotations

import time
from typing import Any
from uuid import UUID

from apprise import Apprise
from prefect.blocks.notifications import SlackWebhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.events.schemas.automations import AutomationCore
from prefect.exceptions import ObjectNotFound
from pydantic import SecretStr

from tasks.alarms.automations import TYPES, Kind, block_name, declared
from tasks.alarms.event_names import (
    TELLS_END,
    TELLS_PROBLEM,
    TELLS_SUSPICIOUS,
    TELLS_UNBEGUN,
    TELLS_UNCHECKED,
    common_names,
    names_of_plan,
)
from tasks.alarms.watch import arm, arm_new, note, standing, watch_deployments
from tasks.errors import BadSetting
from tasks.plans.find_plan import plan_names
from tasks.plans.settings import Settings
from tasks.prefect_client import refused

#: So long the server may take until an automation that was just made sees events.
SETTLE_SECONDS = 2.0
_SLUG = "slack-webhook"
#: Stands for a block that is still to be made, where nothing may be written.
_FUTURE = UUID(int=0)


def apply_automations(client: SyncPrefectClient, settings: Settings, *, check: bool) -> list[str]:
    """The automations are as declared, and watch every plan; returns a line for each difference.

    An automation that is switched off stays off, with a line that says so. With `check`, nothing is written. Raises
    BadSetting when NOTIFY_URL is no address that Apprise knows, and httpx.HTTPError.
    """
    channel, lines = apply_channel(client, settings.notify_url, check=check)
    written: dict[str, str] = {}
    for automation in declared(channel):
        change, more = _apply(client, automation, check)
        lines += more
        if change:
            written[automation.name] = change
    if not check:
        _watch(client, written)
    return lines


def _apply(client: SyncPrefectClient, wanted: AutomationCore, check: bool) -> tuple[str, list[str]]:
    """What was done, `created` or `changed` or nothing, and the lines about it."""
    stored = next(iter(client.read_automations_by_name(wanted.name)), None)
    lines = []
    if stored is not None and not stored.enabled:
        lines = [f"Automation {wanted.name!r} is switched off, and stays so: switch it on in the Prefect UI."]
    if stored is not None and content(stored) == content(wanted):
        return "", lines
    if check:
        return "", [f"Automation {wanted.name!r} {'differs' if stored else 'is missing'}.", *lines]
    with refused(f"the automation {wanted.name!r}"):
        if stored is None:
            client.create_automation(wanted)
            return "created", [f"Automation {wanted.name!r} was created."]
        client.update_automation(stored.id, _whole(wanted, stored.enabled))
    return "changed", [f"Automation {wanted.name!r} was changed.", *lines]


def content(automation: AutomationCore) -> Any:
    """What an automation does, without what the server adds to it, and in one order. Pure."""
    fields = automation.model_dump(mode="json", exclude={"id", "enabled", "owner_resource", "tags"})
    for part, value in fields["trigger"].items():
        if isinstance(value, list):
            fields["trigger"][part] = sorted(value, key=str)
    fields["trigger"].pop("id", None)
    actions = [{key: value for key, value in action.items() if value is not None} for action in fields["actions"]]
    return {**fields, "actions": actions}


def _whole(wanted: AutomationCore, enabled: bool) -> AutomationCore:
    """Every field is set, because an update sends only these; but for the owner, which the server refuses."""
    return AutomationCore.model_validate({**wanted.model_dump(exclude={"owner_resource"}), "enabled": enabled})


def _watch(client: SyncPrefectClient, written: dict[str, str]) -> None:
    """Every plan and every deployment is watched.

    An automation that was created or changed has seen nothing: it gets an event for every name, which says whether a
    problem that was reported goes on. For the other automations only new names get one, because a problem must not be
    reported twice.
    """
    if written:
        time.sleep(SETTLE_SECONDS)
    plans = plan_names()
    watched = [name for plan in plans for name in names_of_plan(plan)] + common_names()
    if written.get(TELLS_PROBLEM) == "created":
        arm(client, watched)
    elif {TELLS_PROBLEM, TELLS_SUSPICIOUS, TELLS_END, TELLS_UNCHECKED} & set(written):
        runs = [name for name in watched if name.startswith(("backup-", "verify-"))]
        troubled = {name for name in runs if standing(client, name) == "failed"}
        arm(client, [name for name in watched if name not in troubled])
        note(client, sorted(troubled))
    else:
        arm_new(client, plans)
    watch_deployments(client, everyone=TELLS_UNBEGUN in written)


def apply_channel(client: SyncPrefectClient, notify_url: str, *, check: bool) -> tuple[dict[Kind, UUID], list[str]]:
    """The ids of the blocks that send to `notify_url`, and what was changed. None when nothing is to be sent.

    Raises BadSetting when Apprise does not know such an address, and httpx.HTTPError.
    """
    if not notify_url:
        return {}, []
    checked_notify_url(notify_url)
    applied = {kind: _apply_block(client, kind, notify_url, check) for kind in TYPES}
    return {kind: block for kind, (block, _) in applied.items()}, [line for _, line in applied.values() if line]


def checked_notify_url(url: str) -> str:
    """`url` unchanged. Raises BadSetting, which does not repeat it, when Apprise cannot send to it."""
    if not Apprise().add(url):
        raise BadSetting(
            "NOTIFY_URL is no address that Apprise knows: write it as in its list of services, such as slack://…, "
            "mailtos://user:password@host or, for a webhook of your own, jsons://host/path."
        )
    return url


def _apply_block(client: SyncPrefectClient, kind: Kind, url: str, check: bool) -> tuple[UUID, str]:
    """The id of the block, and a line when it was changed, or would be with `check`."""
    name, wanted = block_name(kind), {"url": url, "notify_type": TYPES[kind]}
    try:
        stored = client.read_block_document_by_name(name, _SLUG, include_secrets=True)
    except ObjectNotFound:
        stored = None
    if stored is not None and wanted.items() <= stored.data.items():
        return stored.id, ""
    if check:
        return stored.id if stored else _FUTURE, f"Block {_SLUG}/{name} differs."
    made = SlackWebhook(url=SecretStr(url), notify_type=TYPES[kind]).save(name, overwrite=True)
    assert isinstance(made, UUID)  # called from synchronous code, so not a coroutine
    return made, f"Block {_SLUG}/{name} was {'changed' if stored else 'created'}."
