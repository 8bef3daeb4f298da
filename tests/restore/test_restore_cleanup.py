"""What clean-up does about databases that restores replaced, backups made ahead of a restore, and spools of the dead."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import psycopg2
import pytest
from prefect.client.orchestration import get_client

from flows.backup import backup
from flows.cleanup import cleanup
from flows.restore import restore
from tasks.errors import CleanUpFailed
from tasks.postgres.dsn import parse
from tasks.restore.labels import Label, kept_name
from tasks.storage.spool import open_spool
from tests.support.flow_fixtures import WorldFactory
from tests.support.world import World

pytestmark = pytest.mark.usefixtures("impatient")
DAY = timedelta(days=1)


@pytest.fixture
def world(make_world: WorldFactory) -> World:
    return make_world(mebibytes=1)


def later(monkeypatch: pytest.MonkeyPatch, days: float) -> None:
    """Clean-up works as if it were this many days later."""
    monkeypatch.setattr("tasks.retention.steps.now", lambda: datetime.now(UTC) + days * DAY)


def databases(world: World) -> set[str]:
    return {name for (name,) in world.sql("SELECT datname FROM pg_database")}


def shown_after(clean_up: Callable[[], object]) -> str:
    """What a clean-up shows as its result, with the names of databases as they are."""
    clean_up()
    with get_client(sync_client=True) as client:
        answer = client._client.get("/artifacts/retention-default/latest")
    return html.unescape(str(answer.raise_for_status().json()["data"]))


def test_replaced_databases_are_listed_with_their_size_and_dropped_when_due(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup()
    kept = restore().kept
    assert re.search(rf"\| {kept} \| .* UTC \| [\d.]+ MiB \| stays for undo-restore \|", shown_after(cleanup))
    later(monkeypatch, 2.9)
    cleanup()
    assert kept in databases(world)
    later(monkeypatch, 3.1)
    assert re.search(rf"\| {kept} \| .* MiB \| would be dropped \|", shown_after(lambda: cleanup(dry_run=True)))
    assert kept in databases(world)
    assert re.search(rf"\| {kept} \| .* MiB \| dropped \|", shown_after(cleanup))
    assert kept not in databases(world)
    assert "Replaced databases" not in shown_after(cleanup)
    assert parse(world.database_url).dbname in databases(world)


def test_how_long_a_replaced_database_stays_is_the_plans_to_say(
    make_world: WorldFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(mebibytes=1, settings={"KEPT_DATABASE_DAYS": "10"})
    backup()
    kept = restore().kept
    later(monkeypatch, 9.9)
    cleanup()
    assert kept in databases(world)
    later(monkeypatch, 10.1)
    cleanup()
    assert kept not in databases(world)


def test_what_another_plan_replaced_and_what_a_person_made_stays(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    name, at = parse(world.database_url).dbname, datetime(2026, 3, 1, tzinfo=UTC)
    theirs, own = kept_name(f"{name}_theirs", at), kept_name(name, at)
    world.sql(f'CREATE DATABASE "{theirs}"')
    world.sql(f'COMMENT ON DATABASE "{theirs}" IS %s', [Label("kept", theirs, name, at, "run", None, "shop").text()])
    world.sql(f'CREATE DATABASE "{own}"')
    backup()
    later(monkeypatch, 365)
    cleanup()
    assert {theirs, own} <= databases(world)


def test_a_replaced_database_that_somebody_uses_stays_and_is_named(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup()
    kept = restore().kept
    later(monkeypatch, 4)
    looking = psycopg2.connect(world.cluster.url(kept))
    with pytest.raises(CleanUpFailed, match=kept):
        cleanup()
    assert kept in databases(world)
    looking.close()
    cleanup()
    assert kept not in databases(world)


def test_a_safety_backup_stays_as_long_as_a_replaced_database_whatever_retention_says(
    make_world: WorldFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(mebibytes=1, settings={"RETENTION_DAYS": "1"})
    first = backup()
    restore(mode="in_place", confirm=parse(world.database_url).dbname)
    safety = world.rows()[0]
    assert safety.backup_type == "pre_restore"
    later(monkeypatch, 2.9)
    cleanup()
    assert world.statuses() == ["completed", "completed"]
    later(monkeypatch, 3.1)
    cleanup()
    assert {row.filename: row.status for row in world.rows()} == {
        safety.filename: "expired",
        first.filename: "completed",
    }


def test_the_spools_of_dead_runs_are_listed_and_removed_and_one_in_use_stays(world: World) -> None:
    world.spool.mkdir(mode=0o700, exist_ok=True)
    (world.spool / "dead-run.spool").mkdir()
    (world.spool / "dead-run.spool.lock").touch()
    before = world.spools()
    assert re.search(r"would be removed\s+- dead-run", shown_after(lambda: cleanup(dry_run=True)))
    assert world.spools() == before
    with open_spool(world.spool, "live-run", 10, 30) as alive:
        assert re.search(r"now removed\s+- dead-run", shown_after(cleanup))
        alive.check_stopped()
    assert world.spools() == []
