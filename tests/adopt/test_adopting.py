"""Whole adoptions, by the flow, against real servers: what is adopted is restored as any backup is."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta

import pyrage
import pytest

from deployments.quick_start.postgres import PostgresCluster
from flows.adopt_backup import adopt_backup
from flows.backup import backup
from flows.cleanup import cleanup
from flows.delete_backup import delete_backup
from flows.rebuild_catalogue import rebuild_catalogue
from flows.restore import restore
from flows.verify_backup import verify_backup
from tasks.errors import AdoptionRefused, BackupNotFound, BackupUnverifiable, BadSetting
from tasks.names import manifest_key
from tasks.plans.find_plan import plan_named
from tasks.plans.plan import Policy
from tasks.retention.policy import decide
from tests.adopt.dumps import CUSTOM, PLAIN, dumped, fill, psql
from tests.support.flow_fixtures import WorldFactory
from tests.support.installation import Installation
from tests.support.signing import new_key
from tests.support.world import World, plain_dump

pytestmark = pytest.mark.usefixtures("impatient")
KEY = "old/shop.dump"


@pytest.fixture
def world(make_world: WorldFactory, any_postgres: PostgresCluster) -> World:
    """A world with the small database, of which somebody made a dump."""
    made = make_world(any_postgres, mebibytes=0)
    fill(any_postgres, made.database_url)
    return made


def put(world: World, content: bytes, key: str = KEY) -> bytes:
    world.s3.client.put_object(Bucket=world.bucket, Key=key, Body=content)
    return content


def spoilt(world: World) -> None:
    """What a bad day does."""
    world.sql("DROP SCHEMA shop CASCADE")
    world.sql("CREATE TABLE precious AS SELECT 1 AS one")


def test_a_custom_format_archive_is_adopted_and_restores_the_same_database(world: World) -> None:
    content = put(world, dumped(world.cluster, world.database_url, CUSTOM))
    before = plain_dump(world.cluster, world.database_url)
    adopted = adopt_backup(KEY, requested_by="Ada")
    row = world.rows()[0]
    assert (row.filename, row.status, row.backup_type) == (adopted.filename, "unproved", "adopted")
    assert row.metadata["adopted"]["key"] == KEY and row.verified_at is None
    assert verify_backup(adopted.filename).by_content
    spoilt(world)
    done = restore(adopted.filename)
    assert plain_dump(world.cluster, world.database_url) == before
    assert any("was adopted" in warning for warning in done.warnings)
    assert world.download(KEY) == content
    assert [event for event in world.events() if event[0] == "adopt-backup"] == [("adopt-backup", "completed")]


def test_a_plain_dump_of_somebodys_script_is_adopted(world: World) -> None:
    put(world, gzip.compress(b"-- made by nightly.sh\n" + dumped(world.cluster, world.database_url, PLAIN)))
    before = plain_dump(world.cluster, world.database_url)
    name = adopt_backup(KEY).filename
    verify_backup(name)
    spoilt(world)
    restore(name)
    assert plain_dump(world.cluster, world.database_url) == before
    world.check_completed_are_intact()


def test_one_that_was_cut_leaves_nothing_but_a_failed_row(world: World) -> None:
    whole = dumped(world.cluster, world.database_url, CUSTOM)
    content = put(world, whole[: len(whole) - 9])
    with pytest.raises(AdoptionRefused, match="pg_restore cannot read all of it"):
        adopt_backup(KEY)
    assert world.statuses() == ["failed"] and world.spools() == [] and world.uploads() == []
    assert world.objects() == {KEY: len(content)}
    assert world.events()[-1] == ("adopt-backup", "failed")


def test_adopted_is_unproved_until_drilled(world: World) -> None:
    put(world, dumped(world.cluster, world.database_url, PLAIN))
    name = adopt_backup(KEY).filename
    with pytest.raises(BackupNotFound, match="was adopted, and no drill has proved it: run verify-backup"):
        restore(name)
    with pytest.raises(BackupNotFound):
        restore("latest")
    verify_backup(name)
    row = world.rows()[0]
    assert row.status == "completed" and row.verified_at is not None and row.is_adopted
    with pytest.raises(BackupNotFound):  # old data never becomes the newest backup
        restore("latest")
    assert restore(name).filename == name


def test_a_drill_that_fails_proves_nothing(world: World) -> None:
    text = dumped(world.cluster, world.database_url, PLAIN)
    put(world, text.replace(b"\n2\tZo", b"\n1\tZo"))
    name = adopt_backup(KEY).filename
    with pytest.raises(BackupUnverifiable):
        verify_backup(name)
    assert world.statuses() == ["unproved"]


def test_the_original_object_stays_and_the_backup_can_be_deleted(world: World) -> None:
    content = put(world, dumped(world.cluster, world.database_url, PLAIN))
    name = adopt_backup(KEY).filename
    verify_backup(name)
    delete_backup(name, confirm=name)
    assert world.objects() == {KEY: len(content)}


def test_neither_retention_nor_alarms_take_it_for_a_backup_of_today(world: World) -> None:
    saved = backup()
    put(world, dumped(world.cluster, world.database_url, PLAIN))
    name = adopt_backup(KEY).filename
    verify_backup(name)
    cleanup()
    assert sorted(world.statuses()) == ["completed", "completed"]
    assert restore().filename == saved.filename
    rows, policy = world.catalogue.completed(world.plan), Policy(days=7)
    soon, late = datetime.now(UTC) + timedelta(days=6), datetime.now(UTC) + timedelta(days=8)
    kept = {moment: {one.backup.filename: one.keep for one in decide(rows, policy, moment)} for moment in (soon, late)}
    assert kept[soon][name] and not kept[late][name]


def test_a_signature_does_not_make_it_trusted_where_the_catalogue_is_lost(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SIGNING_KEY", new_key())
    put(world, dumped(world.cluster, world.database_url, PLAIN))
    name = adopt_backup(KEY).filename
    world.sql("DELETE FROM database_backups", url=world.catalogue_url)
    rebuild_catalogue()
    assert world.statuses() == ["unproved"] and not world.rows()[0].is_adopted
    with pytest.raises(BackupNotFound, match="trust"):  # what the bucket alone says opens no way around that
        verify_backup(name)
    rebuild_catalogue(trust=[name])
    assert world.statuses() == ["completed"]


def test_a_backup_and_a_missing_object_are_refused_before_there_is_a_row(world: World) -> None:
    saved = backup()
    for key, words in (
        (saved.key, "rebuild-catalogue"),
        (manifest_key(saved.key), "is, by its name"),
        ("x", "no object"),
    ):
        with pytest.raises(BadSetting, match=words):
            adopt_backup(key)
    assert len(world.rows()) == 1
    assert world.events()[-1] == ("adopt-backup", "refused")


def test_it_is_encrypted_and_compressed_as_the_plan_says(
    make_world: WorldFactory, any_postgres: PostgresCluster
) -> None:
    identity = pyrage.x25519.Identity.generate()
    keys = {"AGE_RECIPIENTS": str(identity.to_public()), "AGE_IDENTITY": str(identity), "COMPRESSION": "zstd"}
    world = make_world(any_postgres, mebibytes=0, settings=keys)
    fill(any_postgres, world.database_url)
    put(world, dumped(world.cluster, world.database_url, CUSTOM))
    name = adopt_backup(KEY).filename
    assert name.endswith(".sql.zst.age") and b"customers" not in world.newest()[1]
    verify_backup(name)


def test_it_needs_neither_the_database_nor_its_server(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    put(world, dumped(world.cluster, world.database_url, CUSTOM))
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody:n0body@127.0.0.1:1/gone")
    assert adopt_backup(KEY).key == KEY


def test_into_an_empty_server_it_comes_back_as_a_database_of_the_role_that_restores(world: World) -> None:
    put(world, dumped(world.cluster, world.database_url, PLAIN))
    before = plain_dump(world.cluster, world.database_url)
    name = adopt_backup(KEY).filename
    verify_backup(name)
    world.sql(f'DROP DATABASE "{world.databases()[0]}" WITH (FORCE)', url=world.catalogue_url)
    restore(name)
    assert plain_dump(world.cluster, world.database_url) == before


def test_the_row_says_what_the_dump_says(world: World) -> None:
    assert plan_named(world.plan).name == world.plan
    psql(world.cluster, world.database_url, b"CREATE TABLE empty_one ();")
    put(world, dumped(world.cluster, world.database_url, PLAIN))
    adopt_backup(KEY)
    _, _, manifest = world.newest()
    assert manifest["database"]["owner"] == manifest["database"]["collate"] == "unknown"
    assert manifest["database"]["server_version"] and manifest["rows"] == 500


@pytest.mark.slow
def test_the_deployment_adopts_what_was_put_into_the_bucket_and_the_page_says_so(installation: Installation) -> None:
    world = installation.world
    put(world, dumped(world.cluster, world.database_url, CUSTOM), "old/by-hand")
    run = installation.deployment_run("adopt-backup/take-over-dump", key="old/by-hand", requested_by="Ada")
    assert run["state"]["type"] == "COMPLETED", run["state"]["message"]
    row = next(row for row in world.rows() if row.backup_type == "adopted")
    assert (row.status, row.created_by) == ("unproved", "Ada")
    drilled = installation.deployment_run("verify-backup/verify-backup", backup=row.filename)
    assert drilled["state"]["type"] == "COMPLETED", drilled["state"]["message"]
    assert world.catalogue.named([row.filename])[row.filename].status == "completed"
    deleted = installation.deployment_run("delete-backup/delete-backup", backup=row.filename, confirm=row.filename)
    assert deleted["state"]["type"] == "COMPLETED", deleted["state"]["message"]
    world.s3.client.delete_object(Bucket=world.bucket, Key="old/by-hand")
