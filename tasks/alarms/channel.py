"""The notification block through which alarms are sent: NOTIFY_URL, any address that Apprise knows.

The server can only load a block whose class it knows itself, so the block is one of Prefect's own. Its Slack Webhook
hands every address to Apprise, whichever service that is for; Slack's own go the way they always go.
"""

from __future__ import annotations

from uuid import UUID

from apprise import Apprise
from prefect.blocks.notifications import SlackWebhook
from pydantic import SecretStr

from tasks.errors import BadSetting

BLOCK = "backup-alarms"
#: Stands for a block that is still to be made, where nothing may be written.
_FUTURE = UUID(int=0)


def apply_channel(notify_url: str, *, check: bool) -> tuple[UUID | None, list[str]]:
    """The id of the block that sends to `notify_url`, and what was changed. None when nothing is to be sent.

    Raises BadSetting when Apprise does not know such an address.
    """
    if not notify_url:
        return None, []
    checked_notify_url(notify_url)
    stored = _stored()
    if stored is not None and stored.url.get_secret_value() == notify_url:
        return stored._block_document_id, []
    if check:
        return stored._block_document_id if stored else _FUTURE, [f"Block slack-webhook/{BLOCK} differs."]
    made = SlackWebhook(url=SecretStr(notify_url)).save(BLOCK, overwrite=True)
    assert isinstance(made, UUID)  # called from synchronous code, so not a coroutine
    return made, [f"Block slack-webhook/{BLOCK} was {'changed' if stored else 'created'}."]


def checked_notify_url(url: str) -> str:
    """`url` unchanged. Raises BadSetting, which does not repeat it, when Apprise cannot send to it."""
    if not Apprise().add(url):
        raise BadSetting(
            "NOTIFY_URL is no address that Apprise knows: write it as in its list of services, such as slack://…, "
            "mailtos://user:password@host or, for a webhook of your own, jsons://host/path."
        )
    return url


def _stored() -> SlackWebhook | None:
    try:
        block = SlackWebhook.load(BLOCK)
    except ValueError:
        return None
    assert isinstance(block, SlackWebhook)
    return block
