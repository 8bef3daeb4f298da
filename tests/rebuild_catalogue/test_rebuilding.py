"""The catalogue is written anew from the bucket alone: every column is what it was, and no more is believed than proved."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.s3 import S3Server
from tasks.catalogue.catalogue import Catalogue
from tasks.catalogue.rows import Event
from tasks.errors import BadSetting
from tasks.names import backup_filename, manifest_key
from tasks.rebuild_catalogue.rebuild import Comparison, compare, write
from tasks.retention.removal import retain
from tasks.storage.manifest_text import with_checksum
from tests.conftest import DatabaseFactory
from tests.support.recorded import CONTENT
from tests.support.stored_world import NOW, StoredWorld, damaged_manifest


@pytest.fixture
def world(
    any_postgres: PostgresCluster, s3_server: S3Server, s3_bucket: Callable[[], str], fresh_database: DatabaseFactory
) -> StoredWorld:
    """A plan with a catalogue of its own."""
    made = StoredWorld.make(any_postgres, s3_server, s3_bucket(), fresh_database(any_postgres))
    made.plan.catalogue.prepare()
    return made


def rebuild(world: StoredWorld, *trust: str) -> tuple[Comparison, frozenset[str]]:
    """Every backup is trusted unless names are given."""
    compared = compare(world.plan, trust or ("*",))
    world.plan.catalogue.create_lost_tables()
    return compared, write(world.plan, compared.changes, "rebuild-run", "tester")


def told(world: StoredWorld) -> dict[str, tuple[str, str]]:
    """Kind and reason of every difference, by file name."""
    return {one.filename: (one.kind, one.why) for one in compare(world.plan).differences}


def drop(world: StoredWorld, *tables: str) -> None:
    for table in tables or ("database_backups", "backup_events"):
        world.execute(f"DROP TABLE {table}")


def rows(world: StoredWorld) -> list[dict[str, Any]]:
    return world.execute("SELECT * FROM database_backups ORDER BY id")


# --- what is lost comes back


def test_after_both_tables_were_dropped_every_column_of_every_row_is_what_it_was(world: StoredWorld) -> None:
    gone = world.back_up(30, created_by="somebody whose backup is deleted")
    world.back_up(3, created_by="system (nightly)", content=CONTENT * 100)
    world.back_up(2, created_by="O'Hara | `x` \\ ü", kind="pre_restore")
    shrunken = world.back_up(1)
    assert "shrank" in shrunken.suspicious or shrunken.suspicious
    world.plan.storage.delete(gone.key)
    world.plan.storage.delete(manifest_key(gone.key))
    world.forget(gone.filename)
    before = rows(world)
    assert [row["id"] for row in before] == [2, 3, 4] and before[2]["suspicious"]
    drop(world)
    compared, done = rebuild(world)
    assert compared.without_tables == ("database_backups", "backup_events")
    assert len(done) == compared.whole == 3 and compared.rows == 0
    assert rows(world) == before
    assert sorted(world.events("rebuild-catalogue")) == sorted(("recorded", row["filename"]) for row in before)
    assert told(world) == {}
    assert world.back_up(0.5).backup_id == 5, "new backups get ids of their own"


@pytest.mark.parametrize("table", ["database_backups", "backup_events"])
def test_one_table_that_is_lost_is_made_anew_and_the_other_stays(world: StoredWorld, table: str) -> None:
    world.back_up(2), world.back_up(1)
    before, events = rows(world), world.events("backup")
    drop(world, table)
    assert rebuild(world)[0].without_tables == (table,)
    assert rows(world) == before
    assert world.events("backup") == (events if table == "database_backups" else [])
    world.plan.catalogue.check()
    world.back_up(0.1)
    with pytest.raises(Exception, match="P0001"):
        world.execute("DELETE FROM backup_events")


def test_what_a_drill_has_proved_comes_back_from_the_audit_if_that_is_left(world: StoredWorld) -> None:
    proved, failed = world.back_up(2), world.back_up(1)
    at = NOW - timedelta(hours=3)
    for one, outcome in ((proved, "completed"), (failed, "failed")):
        facts = {"verification": {"outcome": outcome, "at": at.isoformat()}}
        world.plan.catalogue.note(
            Event(
                "verify-backup", outcome, world.plan.name, "tester", "drill", one.backup_id, one.filename, details=facts
            )
        )
    drop(world, "database_backups")
    rebuild(world)
    first, second = rows(world)
    assert first["verified_at"] == at and first["metadata"]["verification"]["outcome"] == "completed"
    assert second["verified_at"] is None and second["metadata"]["verification"]["outcome"] == "failed"


def test_a_table_of_somebody_else_is_not_taken_for_the_catalogue(world: StoredWorld) -> None:
    world.back_up(1)
    drop(world)
    world.execute("CREATE TABLE backup_events (id integer)")
    with pytest.raises(BadSetting, match="not this system's"):
        compare(world.plan)
    drop(world, "backup_events")
    world.execute("CREATE TABLE database_backups (id integer)")
    with pytest.raises(BadSetting, match="not this system's"):
        compare(world.plan)


def test_comparing_writes_nothing_and_creates_nothing(world: StoredWorld) -> None:
    lost = world.back_up(1)
    drop(world)
    compared = compare(world.plan)
    assert [one.filename for one in compared.changes] == [lost.filename]
    assert world.execute("SELECT to_regclass('database_backups') AS t, to_regclass('backup_events') AS e") == [
        {"t": None, "e": None}
    ]


def test_a_backup_whose_old_id_somebody_else_has_gets_a_new_one(world: StoredWorld) -> None:
    first, second = world.back_up(3), world.back_up(2)
    drop(world)
    world.plan.catalogue.prepare()
    other = replace(world, plan=replace(world.plan, name="other"))
    assert other.back_up(1).backup_id == first.backup_id
    rebuild(world)
    ids = {row.filename: row.id for row in world.plan.catalogue.rows(world.plan.name)}
    assert ids == {second.filename: second.backup_id, first.filename: 3}
    assert world.back_up(0.1).backup_id == 4


def test_many_backups_are_put_back_and_each_is_listed_once(world: StoredWorld) -> None:
    names = {world.back_up(days / 10).filename for days in range(40)}
    world.forget(*names)
    assert rebuild(world)[1] == names
    assert set(world.statuses()) == names


# --- what is gone, and what is back


def test_a_row_whose_object_is_gone_becomes_missing_and_completed_once_it_is_back(world: StoredWorld) -> None:
    kept, lost = world.back_up(1), world.back_up(2)
    before, content = rows(world), world.plan.storage.get(lost.key)
    world.plan.storage.delete(lost.key)
    assert rebuild(world)[1] == {lost.filename}
    assert world.statuses() == {kept.filename: "completed", lost.filename: "missing"}
    assert told(world) == {}
    world.plan.storage.put(lost.key, content)
    rebuild(world)
    assert rows(world) == before
    assert world.events("rebuild-catalogue") == [("missing", lost.filename), ("found again", lost.filename)]


def test_a_missing_row_stays_missing_when_what_is_back_is_another_file(world: StoredWorld) -> None:
    lost, other = world.back_up(2), world.back_up(1, content=CONTENT * 2)
    world.execute("UPDATE database_backups SET status = 'missing' WHERE filename = %s", lost.filename)
    world.plan.storage.put(lost.key, world.plan.storage.get(other.key))
    assert rebuild(world)[1] == frozenset()
    assert world.statuses()[lost.filename] == "missing"
    assert "bytes" in told(world)[lost.filename][1]


def test_a_removal_that_was_killed_before_its_row_is_finished_as_such(world: StoredWorld) -> None:
    world.back_up(1)
    old = world.back_up(9)
    killed = Catalogue(world.plan.catalogue.dsn)
    killed.remove = lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        retain(replace(world.plan, catalogue=killed), "run", "tester", NOW)
    assert world.statuses()[old.filename] == "completed"
    rebuild(world)
    assert world.statuses()[old.filename] == "expired"


def test_a_backup_that_is_completed_while_the_bucket_is_compared_is_not_called_missing(
    world: StoredWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.back_up(2)
    listed = world.plan.storage.objects

    def then_backed_up(prefix: str) -> list[Any]:
        found = list(listed(prefix))
        world.back_up(1)
        return found

    monkeypatch.setattr(world.plan.storage, "objects", then_backed_up)
    assert told(world) == {}


# --- what is not believed


def test_damaged_and_lacking_manifests_are_named_and_skipped(world: StoredWorld) -> None:
    whole, damaged, bare, cut = (world.back_up(days) for days in (4, 3, 2, 1))
    damaged_manifest(world, damaged.filename)
    world.plan.storage.delete(manifest_key(bare.key))
    world.plan.storage.put(cut.key, CONTENT[:-1])
    stray = world.stray(manifest=b"{}")
    drop(world)
    compared, done = rebuild(world)
    assert done == {whole.filename}
    reasons = {one.filename: one.why for one in compared.differences if one.kind == "report"}
    assert reasons.keys() == {damaged.filename, bare.filename, cut.filename, stray}
    assert "checksum" in reasons[damaged.filename] and "no manifest" in reasons[bare.filename]
    assert "27 bytes" in reasons[cut.filename] and "28" in reasons[cut.filename]


def test_a_manifest_that_is_not_the_recorded_one_changes_no_row(world: StoredWorld) -> None:
    forged = world.back_up(1)
    key = manifest_key(forged.key)
    world.plan.storage.put(key, with_checksum({**json.loads(world.plan.storage.get(key)), "created_by": "Mallory"}))
    before = rows(world)
    assert "not the recorded one" in told(world)[forged.filename][1]
    rebuild(world)
    assert rows(world) == before
    world.execute("UPDATE database_backups SET status = 'missing'")
    rebuild(world)
    assert world.statuses() == {forged.filename: "missing"}


def test_a_row_that_was_changed_is_repaired_by_the_manifest_that_it_names(world: StoredWorld) -> None:
    world.back_up(2)
    spoilt = world.back_up(1)
    world.execute("UPDATE database_backups SET verified_at = now(), metadata = metadata || '{\"note\": 1}'")
    before = rows(world)
    world.execute(
        "UPDATE database_backups SET file_size = 5, table_count = NULL, created_at = now(), created_by = 'x',"
        " metadata = metadata - 'sha256' WHERE filename = %s",
        spoilt.filename,
    )
    kind, why = told(world)[spoilt.filename]
    assert kind == "repair" and why.endswith("file_size, created_by, created_at, table_count, metadata.sha256.")
    assert rebuild(world)[1] == {spoilt.filename}
    assert rows(world) == before


@pytest.mark.parametrize("status", ["failed", "expired", "deleted"])
def test_what_was_removed_on_purpose_does_not_rise_again(world: StoredWorld, status: str) -> None:
    back, gone = world.back_up(1), world.back_up(2)
    world.execute("UPDATE database_backups SET status = %s", status)
    world.plan.storage.delete(gone.key)
    assert set(told(world)) == {back.filename} and status in told(world)[back.filename][1]
    rebuild(world)
    assert set(world.statuses().values()) == {status}


def test_a_running_backup_is_left_alone(world: StoredWorld) -> None:
    stored = world.back_up(1)
    world.execute("UPDATE database_backups SET status = 'in_progress'")
    name = backup_filename(world.plan.name, "alive", NOW)
    world.plan.catalogue.open(name, world.plan.key(name), world.plan.name, "alive", "tester", NOW, "full")
    assert set(told(world)) == {stored.filename}
    before = rows(world)
    rebuild(world)
    assert rows(world) == before


def test_rows_of_another_bucket_and_of_another_plan_stay_as_they_are(world: StoredWorld) -> None:
    moved, theirs = world.back_up(2), world.back_up(1)
    world.execute(
        'UPDATE database_backups SET metadata = metadata || \'{"bucket": "elsewhere"}\' WHERE filename = %s',
        moved.filename,
    )
    world.execute("UPDATE database_backups SET plan = 'another' WHERE filename = %s", theirs.filename)
    for one in (moved, theirs):
        world.plan.storage.delete(one.key)
        world.plan.storage.delete(manifest_key(one.key))
    before = rows(world)
    [(kind, why)] = told(world).values()
    assert kind == "report" and "elsewhere" in why
    rebuild(world)
    assert rows(world) == before


def test_backups_that_were_moved_to_another_folder_are_found_where_they_are(world: StoredWorld) -> None:
    moved = world.back_up(1)
    elsewhere = replace(world, plan=replace(world.plan, folder="new folder"))
    for key in (moved.key, manifest_key(moved.key)):
        world.plan.storage.put(elsewhere.plan.prefix + key.rpartition("/")[2], world.plan.storage.get(key))
    assert told(elsewhere)[moved.filename][0] == "report", "both are there"
    world.plan.storage.delete(moved.key)
    rebuild(elsewhere)
    assert rows(world)[0]["s3_key"] == elsewhere.plan.key(moved.filename)


def test_a_row_that_somebody_changes_meanwhile_stays_as_they_left_it(world: StoredWorld) -> None:
    lost, added = world.back_up(2), world.back_up(1)
    world.plan.storage.delete(lost.key)
    row = world.execute("SELECT * FROM database_backups WHERE filename = %s", added.filename)
    world.forget(added.filename)
    changes = compare(world.plan).changes
    world.execute("UPDATE database_backups SET status = 'deleted'")
    other = replace(world, plan=replace(world.plan, name="other"))
    world.plan.catalogue.open(added.filename, row[0]["s3_key"], "other", "run", "somebody", NOW, "full")
    assert write(world.plan, changes, "run", "tester") == frozenset()
    assert world.statuses() == {lost.filename: "deleted"} and other.statuses() == {added.filename: "in_progress"}
    assert world.events("rebuild-catalogue") == []
