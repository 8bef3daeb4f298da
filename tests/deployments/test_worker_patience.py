"""How long the worker of `make up` goes on without its Prefect server, by the rule of the Prefect that is locked."""

from __future__ import annotations

import asyncio
import subprocess
import sys

import httpx
import pytest
from prefect.utilities import services


def test_the_worker_outlasts_a_server_that_is_away_for_more_than_three_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `prefect.workers.base` calls the loop; without its jitter of 30 per cent either way."""
    asked = "from deployments.quick_start.prefect_services import QUERY_SECONDS; print(QUERY_SECONDS)"
    seconds = float(subprocess.run([sys.executable, "-c", asked], capture_output=True, check=True).stdout)
    slept: list[float] = []

    async def sleep(length: float) -> None:
        slept.append(length)

    async def away() -> None:
        raise httpx.ConnectError("nobody answers")

    monkeypatch.setattr(services.anyio, "sleep", sleep)
    with pytest.raises(RuntimeError, match="exceeded error threshold"):
        asyncio.run(services.critical_service_loop(away, seconds, backoff=4, printer=lambda *_: None))
    assert sum(slept) == pytest.approx(44 * seconds)
    assert sum(slept) > 180
