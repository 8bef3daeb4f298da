"""Whole restores, by the flow, against real servers."""

from __future__ import annotations

import pytest

from deployments.quick_start.postgres import PostgresCluster
from deployments.sample import fill
from flows.backup import backup
from flows.restore import restore
from flows.undo_restore import undo_restore
from tasks.errors import BackupNotFound, PreflightFailed
from tasks.postgres.dsn import parse
from tests.support.flow_fixtures import WorldFactory
from tests.support.world import World, plain_dump

pytestmark = pytest.mark.usefixtures("impatient")


@pytest.fixture
def shop(make_world: WorldFactory, any_postgres: PostgresCluster) -> World:
    """A world with the sample shop, a MiB or two. test_round_trip and test_tables run on every version of the server."""
    world = make_world(any_postgres, mebibytes=0)
    fill(world.database_url, 2)
    return world


def name_of(world: World) -> str:
    return parse(world.database_url).dbname


def vandalise(world: World) -> None:
    """What a bad day does to a shop."""
    world.sql("DELETE FROM shop.order_items")
    world.sql("CREATE TABLE shop.written_after_the_backup AS SELECT 'precious' AS what")
    world.sql("CREATE SCHEMA new_since CREATE VIEW looks AS SELECT * FROM shop.orders")


def test_a_swap_brings_back_what_was_backed_up_and_undo_takes_it_back(
    make_world: WorldFactory, postgres_server: PostgresCluster
) -> None:
    shop = make_world(postgres_server, mebibytes=0)
    fill(shop.database_url, 2)
    before = plain_dump(shop.cluster, shop.database_url)
    saved = backup()
    vandalise(shop)
    damaged = plain_dump(shop.cluster, shop.database_url)
    done = restore(requested_by="Ada")
    assert (done.filename, done.mode, done.database) == (saved.filename, "swap", name_of(shop))
    assert done.rows >= saved.rows
    assert plain_dump(shop.cluster, shop.database_url) == before
    assert plain_dump(shop.cluster, shop.cluster.url(done.kept)) == damaged
    back = undo_restore(requested_by="Ada")
    assert plain_dump(shop.cluster, shop.database_url) == damaged
    assert plain_dump(shop.cluster, shop.cluster.url(back.kept)) == before
    assert shop.events()[-2:] == [("restore", "completed"), ("undo-restore", "completed")]


@pytest.mark.parametrize("codec", ["zstd", "gzip"])
def test_compressed_backups_come_back(make_world: WorldFactory, codec: str) -> None:
    world = make_world(mebibytes=3, settings={"COMPRESSION": codec})
    before = plain_dump(world.cluster, world.database_url)
    backup()
    world.sql("DROP TABLE big")
    restore()
    assert plain_dump(world.cluster, world.database_url) == before


def test_a_new_database_appears_beside_the_live_one_and_is_never_overwritten(shop: World) -> None:
    before = plain_dump(shop.cluster, shop.database_url)
    backup()
    vandalise(shop)
    damaged = plain_dump(shop.cluster, shop.database_url)
    done = restore(mode="new_database", target='look "first" ü')
    assert plain_dump(shop.cluster, shop.cluster.url(done.database)) == before
    assert plain_dump(shop.cluster, shop.database_url) == damaged
    with pytest.raises(PreflightFailed, match="There is a database"):
        restore(mode="new_database", target='look "first" ü')


def test_in_place_everything_is_as_backed_up_after_a_safety_backup_of_what_was(shop: World) -> None:
    before = plain_dump(shop.cluster, shop.database_url)
    backup()
    vandalise(shop)
    damaged = plain_dump(shop.cluster, shop.database_url)
    with pytest.raises(PreflightFailed, match=name_of(shop)):
        restore(mode="in_place", confirm="shop")
    assert plain_dump(shop.cluster, shop.database_url) == damaged
    restore(mode="in_place", confirm=name_of(shop))
    assert plain_dump(shop.cluster, shop.database_url) == before
    safety = shop.rows()[0]
    assert (safety.backup_type, safety.status) == ("pre_restore", "completed")
    restore(backup=safety.filename)
    assert plain_dump(shop.cluster, shop.database_url) == damaged


def test_one_table_comes_back_and_the_rest_stays_as_it_is(shop: World) -> None:
    backup()
    lost = shop.sql("SELECT count(*), sum(quantity) FROM shop.order_items")
    vandalise(shop)
    restore(mode="in_place", confirm=name_of(shop), tables=["shop.order_items"])
    assert shop.sql("SELECT count(*), sum(quantity) FROM shop.order_items") == lost
    assert shop.sql("SELECT what FROM shop.written_after_the_backup") == [("precious",)]
    restore(mode="new_database", target=f"{name_of(shop)}_part", tables=["order_*"])
    tables = shop.sql(
        "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'shop'::regnamespace",
        url=shop.cluster.url(f"{name_of(shop)}_part"),
    )
    assert tables == [("order_items",)]


WRONG: list[tuple[dict[str, object], type[Exception]]] = [
    ({"backup": "backup_2001-01-01_00-00-00_00000000.sql"}, BackupNotFound),
    ({"backup": "yesterday's"}, BackupNotFound),
    ({"backup": "999999"}, BackupNotFound),
    ({"mode": "in_place", "confirm": "typo"}, PreflightFailed),
    ({"mode": "in_place", "confirm": "", "tables": ["shop.order"]}, PreflightFailed),
    ({"mode": "new_database", "target": ""}, PreflightFailed),
    ({"tables": ["shop.orders"]}, PreflightFailed),
]


def test_a_wrong_parameter_gives_one_sentence_and_changes_nothing(make_world: WorldFactory) -> None:
    world = make_world(mebibytes=0)
    fill(world.database_url, 1)
    backup()
    before = plain_dump(world.cluster, world.database_url)
    for number, (given, error) in enumerate(WRONG, 1):
        with pytest.raises(error) as refusal:
            restore(**given)  # type: ignore[arg-type]
        assert "\n" not in str(refusal.value), given
        assert [event for event in world.events() if event[0] == "restore"] == [("restore", "refused")] * number, given
    assert plain_dump(world.cluster, world.database_url) == before


def test_nothing_to_undo_is_said_in_one_sentence(make_world: WorldFactory) -> None:
    world = make_world(mebibytes=0)
    with pytest.raises(BackupNotFound, match="No database is kept"):
        undo_restore()
    assert world.events()[-1] == ("undo-restore", "refused")


@pytest.mark.parametrize(
    ("mode", "when"), [("swap", "compared"), ("swap", "live"), ("new_database", "live"), ("in_place", "compared")]
)
def test_a_run_that_is_interrupted_is_told_as_completed_only_if_the_restored_data_was_live(
    make_world: WorldFactory, monkeypatch: pytest.MonkeyPatch, mode: str, when: str
) -> None:
    def interrupted(*_: object) -> None:
        raise RuntimeError("somebody broke it off")

    world = make_world(mebibytes=1)
    backup()
    old = plain_dump(world.cluster, world.database_url)
    world.sql("DELETE FROM big WHERE id % 2 = 0")
    monkeypatch.setattr(f"flows.restore.{'record_restore' if when == 'live' else 'compare_with_backup'}", interrupted)
    target = f"{name_of(world)} new" if mode == "new_database" else name_of(world)
    given = {"target": target} if mode == "new_database" else {"confirm": target if mode == "in_place" else ""}
    with pytest.raises(RuntimeError):
        restore(mode=mode, **given)
    live = when == "live" or mode == "in_place"
    assert world.events()[-1] == ("restore", "completed" if live else "failed")
    assert [one for one in world.events() if one[0] == "restore"][:-1] == [("restore", "started")]
    if live:
        assert plain_dump(world.cluster, world.cluster.url(target)) == old
    else:
        assert world.databases("__restoring_") == []
