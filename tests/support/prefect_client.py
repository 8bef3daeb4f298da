"""Questions to a Prefect server by a test, with the patience that Prefect's own programs have."""

from __future__ import annotations

from typing import Any

import httpx
from prefect.client.base import PrefectHttpxSyncClient

from deployments.quick_start.prefect_services import LOGIN


def prefect_client(api_url: str, password: str, **more: Any) -> httpx.Client:
    """A client of the API at this address; paths are relative to it. Every status but "busy" is returned.

    A server on SQLite answers 503 when two of its own writes meet, and has done nothing then: Prefect's client, which
    the product uses, asks again. Such a server may wait for its database for 60 seconds before it answers.
    """
    return PrefectHttpxSyncClient(
        base_url=f"{api_url}/", auth=(LOGIN, password), trust_env=False, timeout=90, raise_on_all_errors=False, **more
    )
