"""Runs a flow directly, without a worker: on the Prefect server in the settings, or on a temporary one of its own."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import httpx
from prefect import tags
from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
    PREFECT_SERVER_ANALYTICS_ENABLED,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    temporary_settings,
)

from tasks.errors import BackupSystemError
from tasks.names import TAG

STARTUP_SECONDS = 180  # the first start of a temporary server makes its database


def run_directly(run: Callable[[], object]) -> int:
    """The exit status of a command that runs a flow: 0, or 1 after one sentence on stderr."""
    try:
        with some_server(), tags(TAG):
            run()
    except BackupSystemError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


@contextmanager
def some_server() -> Iterator[None]:
    """Within the block a Prefect server answers: the one in the settings, else a temporary one."""
    url = PREFECT_API_URL.value()
    if url and _answers(url):
        yield
        return
    if url:
        sys.stderr.write(f"No Prefect server answers at {url}: running without it.\n")
    temporary = {
        PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: True,
        PREFECT_SERVER_ANALYTICS_ENABLED: False,
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: STARTUP_SECONDS,
    }
    with temporary_settings(updates=temporary, restore_defaults={PREFECT_API_URL}):
        yield


def _answers(url: str) -> bool:
    try:
        httpx.get(f"{url}/health", timeout=5)
    except httpx.HTTPError:
        return False
    return True
