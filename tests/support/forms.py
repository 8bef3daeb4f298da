"""What the forms of the Prefect UI send."""

from __future__ import annotations

from typing import Any

from prefect.blocks.core import Block
from prefect.client.orchestration import get_client


def loaded(kind: type[Block], name: str) -> Any:
    return kind.load(name)


def save_form(kind: type[Block], name: str, **changes: Any) -> None:
    """What the form of the V2 UI sends: all that the server shows without secrets, with these changes."""
    with get_client(sync_client=True) as client:
        document = client.read_block_document_by_name(name, kind.get_block_type_slug(), include_secrets=False)
        sent = {"data": {**document.data, **changes}, "merge_existing_data": False}
        client.request("PATCH", f"/block_documents/{document.id}", json=sent)
