"""A backup that the catalogue has not seen made counts for nothing until a person says that it is trusted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.s3 import S3Server
from tasks.catalogue.catalogue import Catalogue
from tasks.errors import BackupDamaged, BackupNotFound
from tasks.rebuild_catalogue.rebuild import Comparison, compare, write
from tasks.retention.debris import clear_orphans
from tasks.retention.delete import delete_backup
from tasks.retention.removal import retain
from tasks.stored_backups.find_backup import chosen_backup, recorded_row
from tests.conftest import DatabaseFactory
from tests.support.recorded import recorded_backup
from tests.support.stored_world import NOW, StoredWorld, files_of


@pytest.fixture
def world(
    any_postgres: PostgresCluster, s3_server: S3Server, s3_bucket: Callable[[], str], fresh_database: DatabaseFactory
) -> StoredWorld:
    made = StoredWorld.make(any_postgres, s3_server, s3_bucket(), fresh_database(any_postgres))
    made.plan.catalogue.prepare()
    return made


def rebuild(world: StoredWorld, *trust: str) -> Comparison:
    compared = compare(world.plan, trust)
    world.plan.catalogue.create_lost_tables()
    write(world.plan, compared.changes, "rebuild-run", "tester")
    return compared


def forged(world: StoredWorld, days_old: float) -> str:
    """A consistent backup that somebody has put into the bucket: no row was ever written for it."""
    name = world.back_up(days_old).filename
    world.forget(name)
    return name


def test_a_forged_newest_backup_never_becomes_latest_and_is_restored_only_once_a_person_trusts_it(
    world: StoredWorld,
) -> None:
    ours, theirs = world.back_up(2).filename, forged(world, 1)
    assert rebuild(world).unproved == 1
    assert world.statuses() == {ours: "completed", theirs: "unproved"}
    assert chosen_backup(world.plan, "latest").filename == ours
    found = recorded_row(world.plan, "latest")
    assert found and found.filename == ours
    identity = str(world.execute("SELECT id FROM database_backups WHERE filename = %s", theirs)[0]["id"])
    for wanted in (theirs, identity):
        with pytest.raises(
            BackupNotFound, match=rf"unproved .*run rebuild-catalogue with trust={theirs} first; or choose"
        ):
            chosen_backup(world.plan, wanted)
    assert rebuild(world).unproved == 1, "it is shown each time"
    assert rebuild(world, theirs).unproved == 0
    assert world.statuses() == {ours: "completed", theirs: "completed"}
    assert chosen_backup(world.plan, "latest").filename == theirs
    assert world.events("rebuild-catalogue") == [("recorded", theirs), ("trusted", theirs)]


def test_after_a_lost_catalogue_everything_is_unproved_and_one_parameter_confirms_what_is_ours(
    world: StoredWorld,
) -> None:
    names = [world.back_up(days).filename for days in (4, 3, 2)]
    theirs = forged(world, 0.5)
    world.execute("DROP TABLE database_backups")
    assert rebuild(world).unproved == 4
    assert set(world.statuses().values()) == {"unproved"}
    with pytest.raises(BackupNotFound, match="has no completed backup 'latest', and 4 from the bucket alone, such as "):
        chosen_backup(world.plan, "latest")
    rebuild(world, "backup_2026-03-1[456]_*")
    assert world.statuses() == {**dict.fromkeys(names, "completed"), theirs: "unproved"}
    assert chosen_backup(world.plan, "latest").filename == names[-1]


def test_an_unproved_backup_counts_for_no_rule_and_is_not_removed_without_a_person(world: StoredWorld) -> None:
    kept = world.back_up(20).filename
    old = world.back_up(30).filename
    theirs = [forged(world, days) for days in (100, 1)]
    rebuild(world)
    done = retain(world.plan, "run", "tester", NOW)
    assert [decision.backup.filename for decision in done.decisions if decision.keep] == [kept]
    clear_orphans(world.plan, "run", "tester", NOW, True, False)
    assert world.statuses() == {kept: "completed", old: "expired", **dict.fromkeys(theirs, "unproved")}
    assert world.files() == files_of(kept, *theirs)
    world.plan.storage.delete(world.plan.key(theirs[0]))
    clear_orphans(world.plan, "run", "tester", NOW, True, False)
    assert world.statuses()[theirs[0]] == "unproved"
    for name in theirs:
        delete_backup(world.plan, name, "", "run", "a person")
    assert world.statuses() == {kept: "completed", old: "expired", **dict.fromkeys(theirs, "deleted")}
    assert world.files() == files_of(kept)


def test_a_start_in_the_future_is_refused_by_name_whatever_is_trusted(world: StoredWorld) -> None:
    ours = world.back_up(2).filename
    theirs = recorded_backup(world.plan, datetime.now(UTC) + timedelta(days=30)).filename
    world.forget(theirs)
    [difference] = rebuild(world, "*").differences
    assert difference.kind == "report" and f"{theirs} cannot be true: the field started_at is" in difference.why
    assert world.statuses() == {ours: "completed"}
    lost = replace(world.plan, catalogue=Catalogue(world.plan.catalogue.dsn.with_dbname("lost")))
    assert chosen_backup(lost, "latest").filename == ours
    for plan in (world.plan, lost):
        with pytest.raises(BackupDamaged, match=r"cannot be true: the field started_at is .* which lies in the future"):
            chosen_backup(plan, theirs)


def test_tables_that_were_made_before_there_was_this_status_take_it(world: StoredWorld) -> None:
    world.execute(
        "ALTER TABLE database_backups DROP CONSTRAINT database_backups_status_check, ADD CONSTRAINT"
        " database_backups_status_check CHECK (status IN ('in_progress', 'completed', 'failed', 'expired', 'deleted',"
        " 'missing'))"
    )
    theirs = forged(world, 1)
    rebuild(world)
    rebuild(world)
    assert world.statuses() == {theirs: "unproved"}
