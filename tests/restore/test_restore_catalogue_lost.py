"""A restore needs no catalogue: the bucket alone says what is there, and a replica has what the bucket has lost."""

from __future__ import annotations

from collections.abc import Callable

import boto3
import pytest
from psycopg2 import sql

from deployments.quick_start.s3 import S3Server
from deployments.sample import fill
from flows.backup import backup
from flows.restore import restore
from flows.undo_restore import undo_restore
from tasks.errors import BackupNotFound, PreflightFailed
from tasks.names import manifest_key
from tasks.plans.plan import Replica
from tasks.postgres.dsn import parse
from tasks.storage.s3 import Storage
from tasks.storage.s3_client import make_client
from tests.support.flow_fixtures import WorldFactory
from tests.support.world import Heard, World, plain_dump

pytestmark = pytest.mark.usefixtures("impatient")

#: Where nothing listens.
NOBODY = "postgresql://nobody@127.0.0.1:1/catalogue"
DOUBT = "nothing proves that its manifest is the one that was recorded"
Loss = Callable[[World, pytest.MonkeyPatch], None]


def execute(world: World, statement: str, name: str) -> None:
    """Runs a statement about a database, from another one."""
    with_name = sql.SQL(statement).format(sql.Identifier(name))
    world.sql(with_name, url=world.cluster.url())


def dropped(world: World, _: pytest.MonkeyPatch) -> None:
    """The catalogue's database is gone, and its server answers."""
    execute(world, "DROP DATABASE {} WITH (FORCE)", parse(world.catalogue_url).dbname)


def without_tables(world: World, _: pytest.MonkeyPatch) -> None:
    """The catalogue's database is a new one, without its tables."""
    dropped(world, _)
    execute(world, "CREATE DATABASE {}", parse(world.catalogue_url).dbname)


def unreachable(_: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The catalogue's server is gone."""
    monkeypatch.setenv("CATALOG_URL", NOBODY)


def empty(world: World, _: pytest.MonkeyPatch) -> None:
    """The catalogue was set up anew, and knows nothing."""
    without_tables(world, _)
    world.catalogue.prepare()


@pytest.fixture
def shop(make_world: WorldFactory) -> World:
    """A world with the sample shop, about a MiB, that has been backed up and then suffered."""
    world = make_world(mebibytes=0)
    fill(world.database_url, 1)
    return world


def name_of(world: World) -> str:
    return parse(world.database_url).dbname


def suffer(world: World) -> None:
    world.sql("DELETE FROM shop.order_items")
    world.sql("DROP TABLE shop.pulse CASCADE")


@pytest.mark.parametrize("lose", [dropped, unreachable, empty])
def test_latest_comes_back_from_the_bucket_alone_with_a_warning_and_can_be_undone(
    shop: World, lose: Loss, monkeypatch: pytest.MonkeyPatch, heard: Heard
) -> None:
    before = plain_dump(shop.cluster, shop.database_url)
    saved = backup()
    suffer(shop)
    damaged = plain_dump(shop.cluster, shop.database_url)
    lose(shop, monkeypatch)
    done = restore()
    assert done.filename == saved.filename
    assert [one for one in done.warnings if DOUBT in one], done.warnings
    assert plain_dump(shop.cluster, shop.database_url) == before
    assert ("The audit could not be written" in heard.text) == (lose is not empty)
    undo_restore()
    assert plain_dump(shop.cluster, shop.database_url) == damaged


def test_a_file_name_is_found_in_the_bucket_alone_and_an_id_is_refused_with_file_names(
    shop: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = plain_dump(shop.cluster, shop.database_url)
    saved = backup()
    suffer(shop)
    later = backup()
    without_tables(shop, monkeypatch)
    with pytest.raises(BackupNotFound) as refusal:
        restore(backup=str(saved.backup_id))
    assert f"which backup has the id {saved.backup_id} (" in str(refusal.value)
    assert f"give a file name, such as {later.filename}, {saved.filename}." in str(refusal.value)
    done = restore(backup=saved.filename, mode="new_database", target=f"{name_of(shop)} from the bucket")
    assert [one for one in done.warnings if DOUBT in one]
    assert plain_dump(shop.cluster, shop.cluster.url(done.database)) == before
    with pytest.raises(BackupNotFound, match=rf"such as {later.filename}"):
        restore(backup="backup_2001-01-01_00-00-00_00000000.sql")


def test_with_an_empty_catalogue_an_id_is_unknown(shop: World, monkeypatch: pytest.MonkeyPatch) -> None:
    saved = backup()
    empty(shop, monkeypatch)
    with pytest.raises(BackupNotFound, match=f"has no backup '77': give latest, .* such as {saved.filename}"):
        restore(backup="77")


@pytest.mark.parametrize("lose", [without_tables, unreachable])
def test_in_place_there_is_no_safety_backup_without_a_catalogue_so_nothing_is_touched(
    shop: World, lose: Loss, monkeypatch: pytest.MonkeyPatch
) -> None:
    backup()
    suffer(shop)
    damaged = plain_dump(shop.cluster, shop.database_url)
    lose(shop, monkeypatch)
    with pytest.raises(PreflightFailed, match=r"since no safety backup of .* could be made first: ") as refusal:
        restore(mode="in_place", confirm=name_of(shop))
    assert "\n" not in str(refusal.value)
    assert plain_dump(shop.cluster, shop.database_url) == damaged


@pytest.mark.parametrize("tables", [[], ["shop.order_items"]])
def test_in_place_works_with_a_catalogue_that_was_set_up_anew(
    shop: World, tables: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = plain_dump(shop.cluster, shop.database_url)
    backup()
    shop.sql("DELETE FROM shop.order_items")
    empty(shop, monkeypatch)
    done = restore(mode="in_place", confirm=name_of(shop), tables=tables)
    assert [one for one in done.warnings if DOUBT in one]
    assert plain_dump(shop.cluster, shop.database_url) == before
    assert shop.rows()[0].backup_type == "pre_restore"
    assert restore().filename == done.filename, "the safety backup is not the latest"


# --- the bucket


@pytest.fixture
def copied(make_world: WorldFactory, s3_server: S3Server, s3_bucket: Callable[[], str]) -> tuple[World, Replica]:
    """The shop with a backup that has a replica in another bucket, in another folder; then it suffered."""
    session = boto3.Session(s3_server.access_key_id, s3_server.secret_access_key, region_name="us-east-1")
    replica = Replica(Storage(make_client(session, s3_server.endpoint_url), s3_bucket()), "copies")
    world = make_world(mebibytes=0, replicas=(replica,))
    fill(world.database_url, 1)
    return world, replica


def remove(world: World, *keys: str) -> None:
    for key in keys:
        world.s3.client.delete_object(Bucket=world.bucket, Key=key)


@pytest.mark.parametrize("knows", [True, False], ids=["catalogue there", "catalogue lost"])
def test_what_the_bucket_has_lost_is_read_from_the_replica_with_a_warning(
    copied: tuple[World, Replica], knows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, replica = copied
    before = plain_dump(world.cluster, world.database_url)
    saved = backup()
    suffer(world)
    remove(world, saved.key, *([] if knows else [manifest_key(saved.key)]))
    if not knows:
        unreachable(world, monkeypatch)
    done = restore()
    assert done.filename == saved.filename
    [taken] = [one for one in done.warnings if "is read from the replica" in one]
    place = f"It is read from the replica in bucket {replica.storage.bucket}."
    assert taken == f"{saved.filename} is missing from bucket {world.bucket}. {place}"
    assert plain_dump(world.cluster, world.database_url) == before


def test_when_the_whole_bucket_is_gone_the_replica_and_the_catalogue_say_what_there_is(
    copied: tuple[World, Replica], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, replica = copied
    before = plain_dump(world.cluster, world.database_url)
    saved = backup()
    suffer(world)
    remove(world, *world.objects())
    world.s3.client.delete_bucket(Bucket=world.bucket)
    done = restore(mode="new_database", target=f"{name_of(world)} from the replica")
    assert plain_dump(world.cluster, world.cluster.url(done.database)) == before
    dropped(world, monkeypatch)
    done = restore()
    assert done.filename == saved.filename
    assert [one for one in done.warnings if replica.storage.bucket in one]
    assert plain_dump(world.cluster, world.database_url) == before


def test_what_is_nowhere_is_refused_in_one_sentence(copied: tuple[World, Replica]) -> None:
    world, replica = copied
    saved = backup()
    damaged = plain_dump(world.cluster, world.database_url)
    remove(world, saved.key)
    replica.storage.delete(f"copies/{world.plan}/{saved.filename}")
    with pytest.raises(BackupNotFound, match=f"{saved.filename} is missing from bucket {world.bucket}") as refusal:
        restore()
    assert "\n" not in str(refusal.value)
    assert plain_dump(world.cluster, world.database_url) == damaged
