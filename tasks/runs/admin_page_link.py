"""The address of the admin page: one artifact, whose id does not change while it exists."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import httpx
from prefect.client.orchestration import get_client
from prefect.exceptions import PrefectException

#: The key of the artifact.
KEY = "backups"
#: What its metadata calls the path or address at which the pages of the UI begin.
UI_BASE = "ui"
_TEXT = "All backups"
_FIRST = re.compile(rf"\A\[{_TEXT}\]\([^)\s]*\)\s*")


def address_of(artifact: Mapping[str, Any]) -> str:
    """The address of the admin page; a path, on whatever host shows the UI, unless the UI has an address of its own."""
    base = (artifact.get("metadata_") or {}).get(UI_BASE, "/v2")
    return f"{base}/artifacts/artifact/{artifact['id']}"


def link_to(address: str) -> str:
    """The link to the admin page in markdown."""
    return f"[{_TEXT}]({address})"


def with_link(text: str, address: str) -> str:
    """`text` with the link to the admin page before it, once."""
    return f"{link_to(address)}\n\n{without_link(text)}".rstrip()


def without_link(text: str) -> str:
    """`text` without the link to the admin page before it."""
    return _FIRST.sub("", text)


@lru_cache(maxsize=8)
def link_for_run(run_id: str) -> str:  # noqa: ARG001 - asks the server once for each run
    """The link to the admin page for the results of a run; empty while there is no page, or no server answers."""
    asked = {"artifacts": {"key": {"any_": [KEY]}}, "sort": "CREATED_DESC", "limit": 1}
    try:
        with get_client(sync_client=True) as client:
            pages = client.request("POST", "/artifacts/filter", json=asked).json()
    except (httpx.HTTPError, PrefectException):
        return ""
    return link_to(address_of(pages[0])) if pages else ""
