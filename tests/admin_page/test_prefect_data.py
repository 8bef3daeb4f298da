"""What the admin page asks of Prefect's API, where there is more than one answer holds."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tasks.admin_page.prefect_data import AdminPageApi, Deployment

NOW = datetime(2026, 3, 1, tzinfo=UTC)
DAILY = Deployment("id", "backup", "daily", {}, True)


class Server:
    """A Prefect server that has planned these runs, and gives so many at once as it is asked for."""

    def __init__(self, runs: list[tuple[str, datetime]]) -> None:
        self.runs = [
            {"deployment_id": "id", "parameters": {"plan": plan}, "expected_start_time": at.isoformat()}
            for plan, at in runs
        ]

    def request(self, _method: str, _path: str, json: dict[str, Any]) -> Any:
        offset, limit = json["offset"], json["limit"]
        return type("Answer", (), {"json": lambda _: self.runs[offset : offset + limit]})()


@pytest.mark.parametrize("busy", [1, 199, 200, 500])
def test_a_plan_that_many_others_are_before_has_a_next_run_too(busy: int) -> None:
    """One plan is backed up every minute, the other once a day; both by schedules of one deployment."""
    often = [("often", NOW + timedelta(minutes=minute)) for minute in range(busy)]
    server = Server([*reversed(often), ("daily", NOW + timedelta(days=1))])
    found = AdminPageApi(server).next_runs([DAILY], ["often", "daily", "never"], NOW)  # type: ignore[arg-type]
    assert found == {"often": NOW, "daily": NOW + timedelta(days=1)}


def test_a_deployment_that_makes_no_runs_is_not_asked_about() -> None:
    idle = Deployment("id", "backup", "manual", {}, False)
    assert AdminPageApi(Server([("a", NOW)])).next_runs([idle], ["a"], NOW) == {}  # type: ignore[arg-type]
