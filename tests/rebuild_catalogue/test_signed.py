"""A trusted key's signature proves a backup that the catalogue does not know; without it, nothing in a bucket does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.s3 import S3Server
from tasks.catalogue.catalogue import Catalogue
from tasks.errors import BackupDamaged, BackupNotFound, NotSigned
from tasks.names import backup_filename, manifest_key
from tasks.rebuild_catalogue.rebuild import Comparison, compare, write
from tasks.storage.signatures import Keys, checked_keys
from tasks.stored_backups.find_backup import chosen_backup
from tests.conftest import DatabaseFactory
from tests.support.signing import new_key, public_of
from tests.support.stored_world import StoredWorld

PRIVATE = new_key()
KEYS = checked_keys(PRIVATE)
PUBLIC = checked_keys("", [public_of(PRIVATE)])


@pytest.fixture
def world(
    any_postgres: PostgresCluster, s3_server: S3Server, s3_bucket: Callable[[], str], fresh_database: DatabaseFactory
) -> StoredWorld:
    made = StoredWorld.make(any_postgres, s3_server, s3_bucket(), fresh_database(any_postgres))
    made.plan.catalogue.prepare()
    return with_keys(made, KEYS)


def with_keys(world: StoredWorld, keys: Keys) -> StoredWorld:
    return StoredWorld(replace(world.plan, keys=keys))


def without_catalogue(world: StoredWorld) -> StoredWorld:
    lost = Catalogue(world.plan.catalogue.dsn.with_dbname("lost"))
    return StoredWorld(replace(world.plan, catalogue=lost, keys=PUBLIC))


def forged(world: StoredWorld, days_old: float, keys: Keys | None = None) -> str:
    """A consistent backup that somebody without the key has put into the bucket."""
    name = with_keys(world, keys or Keys()).back_up(days_old).filename
    world.forget(name)
    return name


def rebuild(world: StoredWorld, *trust: str) -> Comparison:
    compared = compare(world.plan, trust)
    world.plan.catalogue.create_lost_tables()
    write(world.plan, compared.changes, "rebuild-run", "tester")
    return compared


def test_after_a_lost_catalogue_signed_backups_are_completed_and_a_forged_newest_one_is_not(
    world: StoredWorld,
) -> None:
    ours = [world.back_up(days).filename for days in (3, 2)]
    theirs = [forged(world, 1), forged(world, 0.5, checked_keys(new_key()))]
    world.execute("DROP TABLE database_backups")
    assert rebuild(world).unproved == 2
    assert world.statuses() == {**dict.fromkeys(ours, "completed"), **dict.fromkeys(theirs, "unproved")}
    assert chosen_backup(world.plan, "latest").filename == ours[-1]
    with pytest.raises(BackupNotFound, match="unproved"):
        chosen_backup(world.plan, theirs[0])
    why = {one.filename: one.why for one in compare(world.plan).differences}
    assert set(why) == set(theirs)
    rebuild(world, theirs[0])
    assert world.statuses()[theirs[0]] == "completed", "a person may still say that it is trusted"


def test_without_a_catalogue_the_newest_signed_backup_is_restored_and_what_was_passed_over_is_said(
    world: StoredWorld,
) -> None:
    ours, theirs = world.back_up(2).filename, forged(world, 1)
    lost = without_catalogue(world)
    chosen = chosen_backup(lost.plan, "latest")
    assert chosen.filename == ours
    assert "its signature proves the backup" in chosen.warnings[0]
    assert theirs in chosen.warnings[1] and len(chosen.warnings) == 2
    with pytest.raises(NotSigned, match=rf"No trusted key of plan .* has signed .*{theirs}.*trust={theirs} first"):
        chosen_backup(lost.plan, theirs)


def test_a_row_that_was_unproved_is_trusted_once_the_plan_has_the_key(world: StoredWorld) -> None:
    ours = world.back_up(2).filename
    world.forget(ours)
    rebuild(with_keys(world, Keys()))
    assert world.statuses() == {ours: "unproved"}
    assert rebuild(with_keys(world, PUBLIC)).unproved == 0
    assert world.statuses() == {ours: "completed"}


def test_backups_that_were_made_before_there_was_a_key_stay_restorable_by_their_rows_and_by_trust(
    world: StoredWorld,
) -> None:
    before = with_keys(world, Keys()).back_up(3).filename
    chosen = chosen_backup(world.plan, before)
    assert chosen.filename == before
    assert chosen.warnings == (f"No trusted key has signed the manifest of {before}: the catalogue alone proves it.",)
    signed = world.back_up(2).filename
    assert chosen_backup(world.plan, signed).warnings == ()
    world.execute("DROP TABLE database_backups")
    rebuild(world)
    assert world.statuses() == {before: "unproved", signed: "completed"}
    rebuild(world, before)
    assert chosen_backup(world.plan, before).filename == before


def test_a_recorded_backup_whose_manifest_was_replaced_is_refused_whoever_signed_the_new_one(
    world: StoredWorld,
) -> None:
    name = world.back_up(2).filename
    other = world.back_up(1).filename
    world.plan.storage.put(
        manifest_key(world.plan.key(name)), world.plan.storage.get(manifest_key(world.plan.key(other)))
    )
    with pytest.raises(BackupDamaged, match="is not the manifest_sha256 that the catalogue has"):
        chosen_backup(world.plan, name)


def test_an_old_signed_backup_that_is_copied_under_a_newer_name_or_into_another_plan_is_refused(
    world: StoredWorld,
) -> None:
    old = world.back_up(30).filename
    newer = backup_filename(world.plan.name, "replayed", datetime.now(UTC) - timedelta(hours=1))
    for name, source in ((newer, old), (manifest_key(newer), manifest_key(old))):
        world.plan.storage.put(world.plan.key(name), world.plan.storage.get(world.plan.key(source)))
    lost = without_catalogue(world)
    for wanted in ("latest", newer):
        with pytest.raises(BackupDamaged, match="the manifest of another backup"):
            chosen_backup(lost.plan, wanted)
    assert chosen_backup(lost.plan, old).filename == old
    [difference] = compare(world.plan).differences
    assert difference.filename == newer and difference.kind == "report"
    other = replace(world.plan, name="another")
    for file in (old, manifest_key(old)):
        other.storage.put(other.key(file), world.plan.storage.get(world.plan.key(file)))
    [difference] = compare(other).differences
    assert difference.kind == "report" and f"belongs to plan {world.plan.name}" in difference.why
