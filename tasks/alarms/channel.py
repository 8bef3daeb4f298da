"""The notification blocks that send alarms to NOTIFY_URL, any address that Apprise knows: one for each type of message.

The server can only load blocks of Prefect's own. Its Slack Webhook gives every address to Apprise, whichever service
that is for. Chats show the type of a message by a colour or a sign.
"""

from __future__ import annotations

from typing import Literal
from uuid import UUID

from apprise import Apprise
from prefect.blocks.notifications import SlackWebhook
from prefect.client.orchestration import SyncPrefectClient
from prefect.exceptions import ObjectNotFound
from pydantic import SecretStr

from tasks.errors import BadSetting

Kind = Literal["problem", "recovery", "suspicious"]
#: Apprise's types of messages.
TYPES: dict[Kind, Literal["failure", "success", "warning"]] = {
    "problem": "failure",
    "recovery": "success",
    "suspicious": "warning",
}
_SLUG = "slack-webhook"
#: Stands for a block that is still to be made, where nothing may be written.
_FUTURE = UUID(int=0)


def block_name(kind: Kind) -> str:
    return f"backup-alarms-{kind}"


def apply_channel(client: SyncPrefectClient, notify_url: str, *, check: bool) -> tuple[dict[Kind, UUID], list[str]]:
    """The ids of the blocks that send to `notify_url`, and what was changed. None when nothing is to be sent.

    Raises BadSetting when Apprise does not know such an address, and httpx.HTTPError.
    """
    if not notify_url:
        return {}, []
    checked_notify_url(notify_url)
    applied = {kind: _apply(client, kind, notify_url, check) for kind in TYPES}
    return {kind: block for kind, (block, _) in applied.items()}, [line for _, line in applied.values() if line]


def checked_notify_url(url: str) -> str:
    """`url` unchanged. Raises BadSetting, which does not repeat it, when Apprise cannot send to it."""
    if not Apprise().add(url):
        raise BadSetting(
            "NOTIFY_URL is no address that Apprise knows: write it as in its list of services, such as slack://…, "
            "mailtos://user:password@host or, for a webhook of your own, jsons://host/path."
        )
    return url


def _apply(client: SyncPrefectClient, kind: Kind, url: str, check: bool) -> tuple[UUID, str]:
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
