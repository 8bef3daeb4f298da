"""Clean-up and rebuild-catalogue as people run them: for one plan and for all, beside other runs, with all their traces."""

from __future__ import annotations

import html
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from prefect.client.orchestration import get_client

import flows.cleanup
import flows.rebuild_catalogue
from flows.backup import backup
from flows.cleanup import cleanup
from flows.rebuild_catalogue import rebuild_catalogue
from flows.restore import restore
from tasks.catalogue.rows import Record
from tasks.errors import AlreadyRunning, BadSetting, PlansFailed
from tasks.names import backup_filename, manifest_key
from tasks.postgres.dsn import parse
from tasks.postgres.locks import exclusive, restore_lock
from tests.conftest import DatabaseFactory
from tests.support.flow_fixtures import WorldFactory
from tests.support.world import FOLDER, World, go, kill

pytestmark = pytest.mark.usefixtures("impatient")
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def soon_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Both steps are tried again after moments, as often as ever."""
    for module, name in ((flows.cleanup, "clean"), (flows.rebuild_catalogue, "rebuild")):
        step = getattr(module, name)
        monkeypatch.setattr(module, name, step.with_options(retry_delay_seconds=[0.1, 0.2, 0.3]))
    monkeypatch.setattr("tasks.runs.audit.AUDIT_DELAYS", (0.1,))


def shown(key: str) -> str:
    """The newest artifact of that key, with names as they are."""
    with get_client(sync_client=True) as client:
        return html.unescape(str(client._client.get(f"/artifacts/{key}/latest").raise_for_status().json()["data"]))


def catalogue_rows(world: World) -> list[Record]:
    return sorted(world.rows(), key=lambda row: row.id)


def stray(world: World, run: str = "stray") -> str:
    """An object of the plan that has no row."""
    name = backup_filename(world.plan, run, LONG_AGO)
    world.s3.client.put_object(Bucket=world.bucket, Key=f"{FOLDER}/{world.plan}/{name}", Body=b"stray")
    return name


def test_the_catalogue_comes_back_from_real_backups_after_both_tables_were_dropped(make_world: WorldFactory) -> None:
    world = make_world(mebibytes=1, codec="zstd")
    backup(requested_by="Ada | `x`")
    world.sql("DELETE FROM big WHERE id > 100")
    assert backup().suspicious
    before = catalogue_rows(world)
    world.sql("DROP TABLE database_backups, backup_events", url=world.catalogue_url)
    rebuild_catalogue(dry_run=True)
    assert world.sql("SELECT to_regclass('database_backups')", url=world.catalogue_url) == [(None,)]
    text = shown("rebuild-default")
    assert text.count("would get a row") == 2 and "The table backup_events is lost." in text
    [done] = rebuild_catalogue(trust=["*"], requested_by="Bob")
    assert done.changed == {row.filename for row in before}
    assert catalogue_rows(world) == before
    assert shown("rebuild-default").count("got a row") == 2
    assert sorted(world.events()) == [("rebuild-catalogue", "completed"), *[("rebuild-catalogue", "recorded")] * 2]
    assert restore().filename == before[-1].filename
    assert "Nothing differs" in (rebuild_catalogue() and shown("rebuild-default"))


@pytest.mark.slow
def test_every_plan_is_rebuilt_and_cleaned_up_and_one_that_fails_stops_no_other(
    make_world: WorldFactory, fresh_database: DatabaseFactory
) -> None:
    world = make_world(mebibytes=1)
    lost, last = (world.save_plan(name) for name in ("a-lost", "c-last"))
    closed = fresh_database(world.cluster, "closed catalogue")
    replace(world, catalogue_url=closed).save_plan("b-broken")
    world.sql('ALTER DATABASE "closed catalogue" ALLOW_CONNECTIONS false')
    for one in (lost, last):
        backup(one.plan)
    before = [catalogue_rows(one) for one in (lost, last)]
    world.sql("DROP TABLE database_backups, backup_events", url=world.catalogue_url)
    with pytest.raises(
        PlansFailed, match=r"rebuild-catalogue failed for 1 of \d+ plans \(b-broken\)\. Plan b-broken: "
    ):
        rebuild_catalogue("", trust=["*"])
    assert [catalogue_rows(one) for one in (lost, last)] == before
    names = [stray(one) for one in (lost, last)]
    with pytest.raises(PlansFailed, match=r"cleanup failed for 1 of \d+ plans \(b-broken\)") as failure:
        cleanup("", remove_orphans=True)
    assert "\n" not in str(failure.value)
    assert not [key for key in world.objects() if key.rpartition("/")[2] in names]
    assert all(("cleanup", "completed") in one.events() for one in (lost, last))


def test_clean_up_shows_orphans_and_removes_them_only_when_told_to(make_world: WorldFactory) -> None:
    world = make_world(mebibytes=1)
    saved, name = backup(), stray(world)
    upload = world.s3.client.create_multipart_upload(Bucket=world.bucket, Key=f"{saved.key}")
    cleanup(dry_run=True, remove_orphans=True)
    assert "would be removed" in shown("retention-default") and "which would be aborted" in shown("retention-default")
    assert len(world.objects()) == 3 and world.uploads() == [saved.key] and upload
    cleanup()
    assert f"| `{name}` | object | 5 B | stays until its removal is asked for |" in shown("retention-default")
    assert len(world.objects()) == 3 and world.uploads() == []
    cleanup(remove_orphans=True, requested_by="Ada")
    assert f"| `{name}` | object | 5 B | removed |" in shown("retention-default")
    assert sorted(world.objects()) == [saved.key, manifest_key(saved.key)]
    assert world.events()[1:] == [("cleanup", "completed")] * 2 + [
        ("cleanup", "orphan removed"),
        ("cleanup", "completed"),
    ]


def test_clean_up_leaves_a_running_backup_alone(make_world: WorldFactory) -> None:
    world = make_world(mebibytes=1)
    name = backup_filename(world.plan, "alive", LONG_AGO)
    key = f"{FOLDER}/{world.plan}/{name}"
    world.catalogue.open(name, key, world.plan, "alive", "tester", LONG_AGO, "full")
    world.s3.client.create_multipart_upload(Bucket=world.bucket, Key=key)
    with exclusive(parse(world.catalogue_url), "backup", world.plan, "run alive"):
        cleanup(remove_orphans=True)
    assert world.uploads() == [key] and world.statuses() == ["in_progress"]


def test_while_the_database_is_restored_clean_up_is_refused_and_the_audit_says_so(make_world: WorldFactory) -> None:
    world = make_world(mebibytes=0)
    with restore_lock(parse(world.database_url), "run of somebody"), pytest.raises(AlreadyRunning) as refusal:
        cleanup()
    assert str(refusal.value).startswith("Plan default cannot be cleaned up now, since its database is being restored")
    assert world.events() == [("cleanup", "refused")]


@pytest.mark.slow
def test_what_killed_restores_to_other_names_left_is_cleared_and_what_a_live_one_uses_is_not(
    make_world: WorldFactory,
) -> None:
    world = make_world(mebibytes=1)
    backup()
    name = parse(world.database_url).dbname
    target = f"{name} elsewhere"
    running = world.start_restore(
        "import os, tasks.restore.put_into_place",
        "tasks.restore.put_into_place.swap = lambda *a, **k: os.kill(os.getpid(), 9)",
        mode="new_database",
        target=target,
    )
    go(running)
    running.wait(60)
    kill(running)
    [scratch] = world.databases(" elsewhere__restoring_")
    with restore_lock(parse(world.database_url).with_dbname(target), "a live restore"):
        cleanup()
        assert world.databases(" elsewhere__restoring_") == [scratch]
    cleanup(dry_run=True)
    assert f"{scratch}, left unfinished by a restore that died, would be dropped" in shown("retention-default")
    assert world.databases(" elsewhere__restoring_") == [scratch]
    cleanup()
    assert f"{scratch}, left unfinished by a restore that died, was dropped" in shown("retention-default")
    assert world.databases(" elsewhere__restoring_") == []


@pytest.mark.parametrize("action", [cleanup, rebuild_catalogue])
def test_a_plan_that_is_not_there_is_named_in_a_sentence(
    make_world: WorldFactory, action: Callable[..., object]
) -> None:
    make_world(mebibytes=0)
    with pytest.raises(BadSetting, match="There is no plan 'nowhere'") as failure:
        action("nowhere")
    assert "\n" not in str(failure.value)
