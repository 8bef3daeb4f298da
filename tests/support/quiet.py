"""Schedules that start nothing while the tests run, at whatever hour that is."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tests.support.prefect_client import prefect_client

if TYPE_CHECKING:
    from tests.support.installation import Installation


def quiet(installation: Installation) -> None:
    """No run begins by itself, in the middle of a test: the health check of every hour is off, and every other schedule
    is active in a time zone where its hour is half a day away.
    """
    zone = far_off(datetime.now(UTC))
    with prefect_client(installation.server.api_url, installation.server.password) as client:
        for deployment in installation.api("/deployments/filter", {}):
            for one in deployment["schedules"]:
                hourly = " * * * *" in one["schedule"]["cron"]
                changed = {"active": False} if hourly else {"schedule": {**one["schedule"], "timezone": zone}}
                path = f"deployments/{deployment['id']}/schedules/{one['id']}"
                client.patch(path, json=changed).raise_for_status()


def far_off(now: datetime) -> str:
    """The time zone in which it is between 14:00 and 15:00 now: 02:00 and 04:00 are half a day away."""
    ahead = (14 - now.hour + 12) % 24 - 12
    return f"Etc/GMT{-ahead:+d}"
