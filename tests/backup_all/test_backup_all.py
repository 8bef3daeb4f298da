"""Every plan is backed up, a few at a time, on the workers that there are; what fails, fails for itself."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.prefect_services import Worker
from deployments.quick_start.s3 import S3Server
from flows.backup_all import backup_all
from tasks.alarms.event_names import ARMED, GONE
from tasks.backup_all import backups_under_way, start_order
from tasks.names import artifact_key, database_plan
from tasks.plans.find_plan import plans_to_back_up
from tasks.postgres.locks import exclusive
from tests.conftest import DatabaseFactory
from tests.support.many import Many, many

pytestmark = pytest.mark.slow
SMALL = [f"small-{number}" for number in range(1, 5)]


@pytest.fixture(scope="module")
def scene(
    servers_directory: Path, any_postgres: PostgresCluster, s3_server: S3Server, fresh_database: DatabaseFactory
) -> Iterator[Many]:
    """Two workers in one pool, and more plans than are backed up at a time."""
    with many(servers_directory / "many", any_postgres, s3_server, fresh_database) as started:
        for plan in SMALL:
            started.add(plan)
        started.add("broken", database="nowhere")
        started.add("restorer", database="small_1", deployment="restore/restore-backup")
        started.add("lost", database="small_1", deployment="backup/nowhere")
        started.start_worker("one")
        started.start_worker("two")
        yield started


def rows(scene: Many, run_ids: list[str]) -> dict[str, list[tuple[str, str]]]:
    """Plan and status of every row that these runs made, by run."""
    found = scene.installation.world.sql(
        "SELECT run_id, plan, status FROM database_backups", url=scene.installation.world.catalogue_url
    )
    return {run_id: [(plan, status) for by, plan, status in found if by == run_id] for run_id in run_ids}


def has_worked(worker: Worker) -> bool:
    return "flow run" in worker.service.log_file.read_text()


def most_at_once(runs: list[dict[str, Any]]) -> int:
    """How many of these runs were under way at the same time at most: from when they were made until their end."""
    times = [(datetime.fromisoformat(run["created"]), datetime.fromisoformat(run["end_time"])) for run in runs]
    return max(sum(start <= moment < end for start, end in times) for moment, _ in times)


def test_every_plan_is_backed_up_once_by_two_workers_and_what_fails_is_named(scene: Many) -> None:
    """One plan names a database that is not there, one is being backed up already, one has another flow's deployment,
    and that of one is not there: the others are not touched."""
    with exclusive(scene.installation.world.catalogue.dsn, "backup", "default", "run of somebody else"):
        done = scene.installation.ended(
            scene.installation.begin("backup-all/backup-all-plans", at_once=3, requested_by="Ada")
        )
    assert done["state"]["type"] == "FAILED" and done["name"] == "all-backups"
    said = done["state"]["message"]
    assert "backup-all failed for 4 of 8 plans" in said
    for plan, reason in {
        "default": "A backup of default is under way already by run of somebody else",
        "broken": ".*nowhere",
        "restorer": "Its block names the deployment 'restore/restore-backup', which makes no backups",
        "lost": "There is no deployment backup/nowhere",
    }.items():
        assert re.search(f"Plan {plan}: {reason}", said), said

    children = scene.children(done["id"])
    assert sorted(run["name"] for run in children) == [
        f"backup-{plan}" for plan in sorted(["default", "broken", *SMALL])
    ]
    made = rows(scene, [run["id"] for run in children])
    good = [run for run in children if run["state"]["type"] == "COMPLETED"]
    assert {run["parameters"]["plan"]: made[run["id"]] for run in good} == {p: [(p, "completed")] for p in SMALL}
    assert most_at_once(children) == 3
    assert scene.installation.world.catalogue.rows("small-1")[0].created_by == "backup-all for Ada"
    for _ in range(20):  # whichever worker asks first takes a run
        if all(map(has_worked, scene.workers)):
            break
        scene.installation.ended(scene.installation.begin("list-backups/refresh-admin-page"))
    assert all(map(has_worked, scene.workers))
    assert scene.installation.api("/flow_runs/count", {"flows": {"name": {"any_": ["restore"]}}}) == 0
    check_told(scene, done["id"], children)


def check_told(scene: Many, run_id: str, children: list[dict[str, Any]]) -> None:
    """The table and the audit say of every plan what became of it."""
    table = scene.installation.artifact("summary-of-backup-all", run_id)["data"]
    assert "4 completed, 4 failed" in table
    for run in children:
        [line] = [line for line in table.splitlines() if run["id"] in line]
        assert ("✓ completed" in line) == (run["state"]["type"] == "COMPLETED")
        assert ("KiB" in line and ".sql" in line) == (run["state"]["type"] == "COMPLETED")
    told = scene.installation.world.sql(
        "SELECT plan, outcome, actor, details->>'run' FROM backup_events WHERE action = 'backup-all' AND run_id = %s",
        [run_id],
        scene.installation.world.catalogue_url,
    )
    ends = {run["parameters"]["plan"]: (run["state"]["type"].lower(), run["id"]) for run in children}
    assert {plan: (outcome, run) for plan, outcome, _, run in told} == {
        **ends,
        "restorer": ("failed", ""),
        "lost": ("failed", ""),
    }
    assert len(told) == 8 and {actor for _, _, actor, _ in told} == {"Ada"}
    page = scene.installation.artifact("backups")
    assert all(f"## {name}" in page["data"].replace("&#45;", "-") for name in scene.plans)
    assert pages_written_by(scene, [run_id]) == 1 and pages_written_by(scene, [run["id"] for run in children]) == 0


def pages_written_by(scene: Many, run_ids: list[str]) -> int:
    """How often these runs wrote the admin page at their end: any other run may have written it since."""
    asked = {"task_runs": {"name": {"like_": "publish"}}, "flow_runs": {"id": {"any_": run_ids}}}
    return int(scene.installation.api("/task_runs/count", asked))


def test_a_pool_that_has_room_for_backup_all_alone_is_refused_at_once(scene: Many) -> None:
    try:
        scene.limit_pool(1)
        refused = scene.installation.ended(
            scene.installation.begin("backup-all/backup-all-plans", plans=["small-1", "nobody"])
        )
    finally:
        scene.limit_pool(None)
    assert (
        "The work pool backups takes 1 at once, and backup-all itself holds that place" in refused["state"]["message"]
    )
    assert "There is no plan 'nobody'" in refused["state"]["message"]
    assert scene.children(refused["id"]) == []


@pytest.fixture(scope="module")
def empty(scene: Many) -> str:
    """A plan whose deployment is on a work pool that no worker serves."""
    manual = scene.installation.api("/deployments/name/backup/manual")
    scene.installation.api("/work_pools/", {"name": "empty", "type": "process"})
    kept = {name: manual[name] for name in ("flow_id", "entrypoint", "path", "parameters", "parameter_openapi_schema")}
    scene.installation.api("/deployments/", {**kept, "name": "empty", "work_pool_name": "empty"})
    for plan in ("waits-1", "waits-2"):
        scene.add(plan, database="small_1", deployment="backup/empty")
    return "empty"


def states_in(scene: Many, deployment: str) -> list[str]:
    asked = {"flows": {"name": {"any_": ["backup"]}}, "deployments": {"name": {"any_": [deployment]}}}
    return [run["state"]["type"] for run in scene.installation.api("/flow_runs/filter", asked)]


def test_a_pool_without_a_worker_is_given_up_for_all_of_its_plans(
    scene: Many, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(start_order, "PATIENCE", timedelta(seconds=4))
    with scene.in_use():
        state = backup_all(["waits-1", "waits-2"], at_once=1, return_state=True)
    said = str(state.message)
    assert state.is_failed() and "failed for 2 of 2 plans (waits-1, waits-2)" in said, said
    assert "No worker has begun anything in work pool empty" in said
    assert states_in(scene, empty) == ["CANCELLED"]
    watched = scene.installation.api("/events/filter", {"filter": {"event": {"name": [ARMED]}}, "limit": 50})["events"]
    names = {one["resource"]["prefect.resource.name"] for one in watched}
    assert {"backup-waits-1", "backup-waits-2"} <= names, "a run that dies before it begins would not be told"


class Interruption(BaseException):
    """Like the one that Prefect raises when a run is cancelled, which would then end this process as well."""


def test_when_backup_all_is_ended_the_backups_that_were_begun_go_on_and_no_other_begins(
    scene: Many, empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is told to end in the moment in which one backup goes on, one waits for a worker and one for its turn."""
    before, waits = len(states_in(scene, empty)), time.sleep

    def interrupted(seconds: float) -> None:
        if "RUNNING" in states_in(scene, "manual"):
            raise Interruption
        waits(seconds)

    monkeypatch.setattr(backups_under_way, "time", SimpleNamespace(monotonic=time.monotonic, sleep=interrupted))
    with scene.in_use(), pytest.raises(Interruption):
        backup_all(["small-3", "waits-1", "small-4"], at_once=2)
    monkeypatch.undo()
    assert states_in(scene, empty) == ["CANCELLED"] * (before + 1)
    asked = {"flow_runs": {"name": {"any_": ["backup-small-3", "backup-small-4"]}}, "sort": "EXPECTED_START_TIME_DESC"}
    newest, *older = scene.installation.api("/flow_runs/filter", asked)
    assert newest["name"] == "backup-small-3" and scene.installation.ended(newest["id"])["state"]["type"] == "COMPLETED"
    assert len(older) == 2


def test_somebody_who_asks_for_no_backup_at_a_time_is_told_so(scene: Many) -> None:
    with scene.in_use():
        for given, said in ({"at_once": 0}, "set at_once to 1 or more"), ({"plans": [" "]}, "has no name"):
            state = backup_all(**given, return_state=True)
            assert state.is_failed() and said in str(state.message)


def of_server(scene: Many, run: dict[str, Any], *databases: str) -> dict[str, str]:
    """How the runs ended that this run has started, by their plans."""
    return {
        child["parameters"]["plan"]: child["state"]["type"]
        for child in scene.children(run["id"], [f"server.{database}" for database in databases])
    }


def named_in(scene: Many, event: str) -> list[str]:
    """What the newest events of this kind are about."""
    asked = {"filter": {"event": {"name": [event]}}, "limit": 50}
    found = scene.installation.api("/events/filter", asked)["events"]
    return [one["resource"]["prefect.resource.name"] for one in found]


def test_the_plan_of_a_server_backs_up_each_database_in_a_run_of_its_own_and_tells_once_of_one_that_is_gone(
    scene: Many,
) -> None:
    """One is being backed up already, one is dropped, and one comes; backup-all with that plan does the same."""
    world, databases = scene.installation.world, ("fam_a", "fam_b", "fam_c")
    for database in databases:
        scene.copy(database)
    scene.add("server", database="fam_a", databases=["fam_*", "!fam_test"], schedule="never")
    with exclusive(world.catalogue.dsn, "backup", "server.fam_c", "run of somebody else"):
        first = scene.installation.ended(scene.installation.begin("backup/manual", plan="server"))
    assert {"backups-of-server", "backup-server.fam_a", "health-server.fam_c"} <= set(named_in(scene, ARMED))
    assert first["name"] == "all-backups-of-server" and first["state"]["type"] == "FAILED"
    assert "The backup of plan server failed for 1 of 3 plans (server.fam_c)" in first["state"]["message"]
    assert of_server(scene, first, *databases) == {
        "server.fam_a": "COMPLETED",
        "server.fam_b": "COMPLETED",
        "server.fam_c": "FAILED",
    }
    table = scene.installation.artifact("databases-of-server", first["id"])["data"]
    assert "2 completed, 1 failed" in table
    assert scene.installation.artifact(artifact_key("backup-server.fam_a"))["type"] == "markdown"
    assert world.catalogue.newest("server.fam_a", 1)[0].created_by == "all-backups-of-server for unnamed"

    world.sql("DROP DATABASE fam_b WITH (FORCE)")
    scene.copy("fam_test")
    scene.copy("fam_Ü")
    new = database_plan("server", "fam_Ü")
    second = scene.installation.ended(scene.installation.begin("backup/manual", plan="server"))
    assert second["state"]["type"] == "COMPLETED", second["state"]
    every = ("fam_a", "fam_b", "fam_c", "fam_test", new.removeprefix("server."))
    done = {"server.fam_a": "COMPLETED", "server.fam_c": "COMPLETED", new: "COMPLETED"}
    assert of_server(scene, second, *every) == done
    third = scene.installation.ended(scene.installation.begin("backup-all/backup-all-plans", plans=["server"]))
    assert of_server(scene, third, *every) == done

    rows = [(row.plan, row.status) for name in ("server", new) for row in world.catalogue.newest(name, 99)]
    assert {plan for plan, _ in rows} == {"server.fam_a", "server.fam_b", "server.fam_c", new}
    assert rows.count(("server.fam_b", "completed")) == 1
    assert named_in(scene, GONE) == ["gone-server.fam_b"]
    assert f"backup-{new}" in named_in(scene, ARMED)
    told = world.sql("SELECT plan FROM backup_events WHERE action = 'database-gone'", url=world.catalogue_url)
    assert told == [("server.fam_b",)]


def test_a_plan_that_is_only_restored_into_is_passed_over_unless_it_is_named(scene: Many) -> None:
    scene.add("receiver", database="small_1", restore_only=True)
    with scene.in_use():
        assert "receiver" not in plans_to_back_up() and "small-1" in plans_to_back_up()
    named = scene.installation.ended(scene.installation.begin("backup-all/backup-all-plans", plans=["receiver"]))
    assert named["state"]["type"] == "FAILED"
    assert "Plan receiver is only restored into, so no backup of it is made" in named["state"]["message"]
    assert scene.installation.world.catalogue.newest("receiver", 1) == []
