"""Files that belong to no backup: which are removed when that is asked for, and which nobody can make us remove."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.s3 import S3Server
from tasks.backup.dead_runs import stale_uploads
from tasks.errors import AccessRefused, AlreadyRunning
from tasks.names import backup_filename, manifest_key
from tasks.postgres.locks import exclusive, removal_lock
from tasks.retention.debris import Orphan, Orphans, clear_orphans, find_orphans
from tasks.storage.s3 import WRITE_CHECK, Storage
from tests.support.stored_world import NOW, StoredWorld, damaged_manifest, files_of


@pytest.fixture
def world(
    any_postgres: PostgresCluster, s3_server: S3Server, s3_bucket: Callable[[], str], catalogue_url: str
) -> StoredWorld:
    """A new plan; its catalogue is that of the other tests of the module."""
    return StoredWorld.make(any_postgres, s3_server, s3_bucket(), catalogue_url)


def clear(world: StoredWorld, remove: bool = True, dry_run: bool = False) -> Orphans:
    return clear_orphans(world.plan, "clean-up-run", "tester", NOW, remove, dry_run)


def found(world: StoredWorld) -> dict[str, Orphan]:
    return {one.filename: one for one in find_orphans(world.plan, NOW)}


# --- what goes, when told to


def test_an_object_without_a_row_goes_when_told_to_and_not_before(world: StoredWorld) -> None:
    kept, stray = world.back_up().filename, world.stray()
    for hunt in (clear(world, remove=False), clear(world, dry_run=True)):
        assert [(one.filename, one.what, one.goes, one.removed) for one in hunt.files] == [
            (stray, "object", True, False)
        ]
        assert world.files() == {*files_of(kept), stray}
    [gone] = clear(world).files
    assert gone.removed and gone.bytes == 5
    assert world.files() == files_of(kept)
    assert world.events("cleanup") == [("orphan removed", stray)]
    assert clear(world) == Orphans()


@pytest.mark.parametrize("manifest", [b"", b"{}", b"\xff", b'{"format": 1}'])
def test_an_object_with_a_manifest_that_proves_nothing_goes_with_it(world: StoredWorld, manifest: bytes) -> None:
    kept, stray = world.back_up().filename, world.stray(manifest=manifest)
    assert found(world)[stray].what == "object and manifest"
    clear(world)
    assert world.files() == files_of(kept)


def test_a_manifest_without_an_object_and_without_a_row_goes(world: StoredWorld) -> None:
    kept, stray = world.back_up().filename, world.stray(manifest=b"{}", content=None)
    assert found(world)[stray].what == "manifest"
    clear(world)
    assert world.files() == files_of(kept)


def test_a_manifest_whose_object_is_gone_goes_and_its_row_is_missing(world: StoredWorld) -> None:
    kept, lost = world.back_up(1).filename, world.back_up(2)
    world.plan.storage.delete(lost.key)
    clear(world, remove=False)
    assert world.statuses()[lost.filename] == "completed" and manifest_key(lost.filename) in world.files()
    clear(world)
    assert world.statuses() == {kept: "completed", lost.filename: "missing"}
    assert world.files() == files_of(kept)
    assert world.events("cleanup") == [("missing", lost.filename), ("orphan removed", lost.filename)]


@pytest.mark.parametrize("status", ["failed", "expired", "deleted"])
def test_a_file_that_its_row_says_is_gone_goes(world: StoredWorld, status: str) -> None:
    kept, back = world.back_up(1).filename, world.back_up(2).filename
    world.execute("UPDATE database_backups SET status = %s WHERE filename = %s", status, back)
    assert status in found(world)[back].why
    clear(world)
    assert world.files() == files_of(kept)
    assert world.statuses()[back] == status


# --- what stays, whatever is asked for


def test_a_whole_backup_that_the_catalogue_has_lost_is_never_removed(world: StoredWorld) -> None:
    kept, lost = world.back_up(1).filename, world.back_up(40).filename
    world.forget(lost)
    [orphan] = clear(world).files
    assert not orphan.goes and "rebuild-catalogue" in orphan.why
    assert world.files() == files_of(kept, lost)


def test_with_a_catalogue_that_knows_nothing_nothing_is_removed(world: StoredWorld) -> None:
    names = [world.back_up(days).filename for days in (1, 9, 40)]
    damaged_manifest(world, names[1])
    world.plan.storage.delete(manifest_key(world.plan.key(names[2])))
    world.forget(*names)
    stray = world.stray()
    before = world.files()
    hunt = clear(world)
    assert {one.filename for one in hunt.files} == {*names, stray}
    assert all("rebuild-catalogue" in one.why and not one.goes for one in hunt.files)
    assert world.files() == before


def test_what_may_still_be_in_the_making_elsewhere_stays_for_a_day(world: StoredWorld) -> None:
    world.back_up(2)
    young, old = world.stray(days_old=0.99), world.stray(days_old=1.01)
    clear(world)
    assert young in world.files() and old not in world.files()


def test_a_running_backup_has_no_orphans(world: StoredWorld) -> None:
    kept = world.back_up(5).filename
    at = NOW - timedelta(days=3)
    name = backup_filename(world.plan.name, "alive", at)
    key = world.plan.key(name)
    world.plan.catalogue.open(name, key, world.plan.name, "alive", "tester", at, "full")
    world.plan.storage.put(key, b"half recorded")
    assert clear(world) == Orphans()
    world.plan.storage.put(manifest_key(key), b"{}")
    assert clear(world) == Orphans()
    assert world.files() == files_of(kept, name)


def test_what_other_plans_and_people_have_stored_is_no_business_of_ours(world: StoredWorld) -> None:
    world.back_up()
    name = world.stray()
    world.plan.storage.delete(world.plan.key(name))
    theirs = {
        f"folder/{world.plan.name}-prod/{name}",
        f"folder/{name}",
        f"{world.plan.prefix}deeper/{name}",
        f"{world.plan.prefix}notes.txt",
        f"{world.plan.prefix}{name}.part",
        f"{world.plan.prefix}my-{name}",
        f"{world.plan.prefix}.manifest.json",
    }
    for key in theirs:
        world.plan.storage.put(key, b"theirs")
    assert clear(world) == Orphans()
    assert theirs <= {one.key for one in world.plan.storage.objects("")}


def test_a_backup_of_another_plan_s_row_and_one_of_another_plan_s_manifest_stay(world: StoredWorld) -> None:
    world.back_up(1)
    moved, copied = world.back_up(20).filename, world.back_up(30).filename
    world.execute("UPDATE database_backups SET plan = 'renamed' WHERE filename = %s", moved)
    other = replace(world, plan=replace(world.plan, name="other"))
    name = other.back_up(25).filename
    for key in (other.plan.key(name), manifest_key(other.plan.key(name))):
        world.plan.storage.put(world.plan.prefix + key.rpartition("/")[2], world.plan.storage.get(key))
    world.execute("DELETE FROM database_backups WHERE filename = %s", name)
    orphans = found(world)
    assert set(orphans) == {moved, name}
    assert not orphans[moved].goes and "plan renamed" in orphans[moved].why
    assert not orphans[name].goes and "plan other" in orphans[name].why
    clear(world)
    assert files_of(moved, copied, name) <= world.files()


def test_a_missing_backup_that_is_back_and_one_without_its_manifest_stay(world: StoredWorld) -> None:
    back, bare = world.back_up(2).filename, world.back_up(3).filename
    world.execute("UPDATE database_backups SET status = 'missing' WHERE filename = %s", back)
    world.plan.storage.delete(manifest_key(world.plan.key(bare)))
    orphans = found(world)
    assert "rebuild-catalogue" in orphans[back].why and "psql alone" in orphans[bare].why
    clear(world)
    assert files_of(back) | {bare} <= world.files()


def test_a_manifest_of_a_newer_program_stays_with_its_object(world: StoredWorld) -> None:
    world.back_up(1)
    stray = world.stray(manifest=b'{"format": 99}')
    clear(world)
    assert files_of(stray) <= world.files()


# --- faults


class Refusing(Storage):
    """A real store that refuses to delete one object."""

    key: str

    def delete(self, key: str) -> bool:
        if key == self.key:
            raise AccessRefused("The store refused DeleteObject.")
        return super().delete(key)


def test_one_that_cannot_be_removed_does_not_keep_the_others(world: StoredWorld) -> None:
    world.back_up(1)
    stuck, other = world.stray(), world.stray()
    refusing = Refusing(world.plan.storage._client, world.plan.storage.bucket)
    refusing.key = world.plan.key(stuck)
    hunt = clear(replace(world, plan=replace(world.plan, storage=refusing)))
    [problem] = hunt.problems
    assert stuck in problem and "refused" in problem
    assert stuck in world.files() and other not in world.files()


def test_nothing_is_removed_while_somebody_else_removes(world: StoredWorld, monkeypatch: pytest.MonkeyPatch) -> None:
    world.back_up(1)
    stray = world.stray()
    monkeypatch.setattr("tasks.retention.debris.removal_lock", lambda *told: removal_lock(*told, patience=0.1))
    with removal_lock(world.plan.catalogue.dsn, world.plan.name, "somebody"), pytest.raises(AlreadyRunning):
        clear(world)
    assert stray in world.files()


# --- open uploads


@pytest.fixture
def begin(world: StoredWorld) -> Callable[[str], str]:
    def begun(name: str) -> str:
        world.plan.storage.begin(world.plan.prefix + name)
        return world.plan.prefix + name

    return begun


def stale(world: StoredWorld) -> set[str]:
    return {key for key, _ in stale_uploads(world.plan, NOW)}


def test_uploads_of_dead_runs_are_stale_and_those_of_others_are_not_ours(
    world: StoredWorld, begin: Callable[[str], str]
) -> None:
    dead, check = begin(backup_filename(world.plan.name, "dead", NOW)), begin(WRITE_CHECK)
    begin("somebody's.iso")
    world.plan.storage.begin(f"folder/{world.plan.name}-prod/{backup_filename('x', 'x', NOW)}")
    assert stale(world) == {dead, check}


def test_the_upload_of_a_live_backup_is_left_alone_and_a_stale_one_beside_it_is_not(
    world: StoredWorld, begin: Callable[[str], str]
) -> None:
    names = {
        run: backup_filename(world.plan.name, run, NOW - timedelta(days=days))
        for run, days in (("alive", 2), ("failed", 0.1), ("unknown", 3), ("elsewhere", 0.1))
    }
    keys = {run: begin(name) for run, name in names.items()}
    begin(WRITE_CHECK)
    for run in ("alive", "failed"):
        world.plan.catalogue.open(names[run], keys[run], world.plan.name, run, "tester", NOW, "full")
    world.execute("UPDATE database_backups SET status = 'failed' WHERE filename = %s", names["failed"])
    with contextlib.ExitStack() as running:
        running.enter_context(exclusive(world.plan.catalogue.dsn, "backup", world.plan.name, "run alive"))
        assert stale(world) == {keys["failed"], keys["unknown"]}
    assert stale(world) == {*keys.values(), world.plan.prefix + WRITE_CHECK}
