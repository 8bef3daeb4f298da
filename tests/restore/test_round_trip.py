"""What pg_dump says of a restored database is what it said of the original: in every mode, for every kind of role."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import psycopg2
import pyrage
import pytest
from psycopg2 import sql

from deployments.sample import fill
from tasks.catalogue.rows import Event
from tests.support.every_kind import OWNER, make_every_kind, make_every_kind_as_owner, run_sections
from tests.support.scene import Scene, SceneFactory, now

VANDALISM = Path(__file__).with_name("vandalism.sql")


def make(scene: SceneFactory, kind: str, owner: bool, **plan: object) -> Scene:
    """A database of a kind, for a role of a kind, with all that it can have beside its content."""
    one = scene(owner=owner, **plan)
    if kind == "shop":
        if not one.sql("SELECT 1 FROM pg_roles WHERE rolname = 'shop_reader'"):
            one.sql("CREATE ROLE shop_reader NOLOGIN", superuser=True)
        fill(one.url, 1)
    elif owner:
        make_every_kind_as_owner(one.url, one.cluster)
        one.sql(f"ALTER ROLE {OWNER} CREATEDB", superuser=True)
    else:
        make_every_kind(one.url, one.cluster)
    furnish(one)
    return one


def furnish(scene: Scene) -> None:
    """The database gets what it can have beside its content."""
    for statement in (
        "COMMENT ON DATABASE {d} IS E'it''s\nthe \\\\ shop %s'",
        "ALTER DATABASE {d} CONNECTION LIMIT 77",
        "GRANT CREATE ON DATABASE {d} TO every_kind_reader WITH GRANT OPTION",
        "REVOKE TEMPORARY ON DATABASE {d} FROM PUBLIC",
        "ALTER DATABASE {d} SET search_path = '$user', public, \"odd, schema\"",
        "ALTER DATABASE {d} SET work_mem = '12MB'",
        "ALTER ROLE every_kind_owner IN DATABASE {d} SET vacuum_cost_limit = '777'",
    ):
        words = sql.SQL(statement).format(d=sql.Identifier(scene.name))
        with closing(psycopg2.connect(scene.cluster.url())) as connection:
            connection.autocommit = True
            connection.cursor().execute(words)


def vandalise(scene: Scene, kind: str, owner: bool) -> None:
    """Whatever a role may do to the database after its backup."""
    if kind == "every kind":
        run_sections(scene.url, VANDALISM, {"owner"} if owner else {"owner", "superuser"})
    else:
        scene.sql(
            "DELETE FROM shop.order_items; DROP TABLE shop.pulse CASCADE; CREATE TABLE shop.later AS SELECT 1 AS one;"
            "CREATE SCHEMA new_since CREATE VIEW looks AS SELECT * FROM shop.orders"
        )


@pytest.mark.slow
@pytest.mark.parametrize("owner", [False, True], ids=["superuser", "owner"])
@pytest.mark.parametrize("kind", ["shop", "every kind"])
def test_what_comes_back_in_each_mode_is_what_was_backed_up(scene: SceneFactory, kind: str, owner: bool) -> None:
    one = make(scene, kind, owner)
    before, properties = one.dumped_whole(), one.properties(one.name)
    one.back_up()
    vandalise(one, kind, owner)
    vandalised = one.dumped_whole()
    assert vandalised != before

    new = one.restore(mode="new_database", target=f"{one.name}_new")
    assert one.dumped_whole(new.database).replace(b"_new", b"") == before
    assert one.properties(new.database) == properties
    assert one.dumped_whole() == vandalised

    swapped = one.restore()
    assert one.dumped_whole() == before
    assert one.properties(one.name) == properties
    back = one.undo()
    assert one.dumped_whole() == vandalised

    in_place = one.restore(mode="in_place")
    assert one.dumped_whole() == before

    told = [warning for done in (new, swapped, in_place) for warning in done.warnings]
    assert not [warning for warning in told if "was not applied" in warning]
    assert one.left_behind() == []
    assert {name for name in one.databases() if name.startswith(one.name)} == {one.name, new.database, back.kept}
    one.discard(new.database, back.kept)


@pytest.mark.parametrize("mode", ["swap", "in_place"])
def test_a_compressed_and_encrypted_backup_comes_back(scene: SceneFactory, mode: str) -> None:
    secret = pyrage.x25519.Identity.generate()
    one = make(scene, "shop", False, codec="zstd", recipients=(str(secret.to_public()),), identities=(str(secret),))
    before = one.dumped_whole()
    assert one.back_up().filename.endswith(".sql.zst.age")
    vandalise(one, "shop", False)
    one.restore(mode=mode)
    assert one.dumped_whole() == before


@pytest.mark.slow
@pytest.mark.parametrize("owner", [False, True], ids=["superuser", "owner"])
def test_a_catalogue_in_the_database_itself_is_never_rolled_back(scene: SceneFactory, owner: bool) -> None:
    one = scene(owner=owner)
    one.sql('CREATE TABLE t AS SELECT 1 AS id; CREATE SCHEMA "the catalogue"')
    one.sql(f'ALTER DATABASE "{one.name}" SET search_path = "$user", "the catalogue", public', superuser=True)
    one = scene(one.url, owner, catalogue_url=one.url)
    before = one.dumped_without_catalogue()
    backup = one.back_up()
    one.sql("INSERT INTO t VALUES (2)")
    damaged = one.dumped_without_catalogue()
    told = [note(one), one.back_up().filename]
    for step, after in (
        (lambda: one.restore(backup.filename), before),
        (one.undo, damaged),
        (lambda: one.restore(backup.filename, mode="in_place"), before),
    ):
        step()
        assert one.dumped_without_catalogue() == after
        lines = one.sql(
            "SELECT coalesce(details ->> 'note', filename) FROM backup_events WHERE action <> 'probe-storage' ORDER BY id"
        )
        assert [line for (line,) in lines] == [backup.filename, *told]
        told.append(note(one))
        assert [row.filename for row in one.plan.catalogue.rows("shop")] == [told[1], backup.filename]
        with pytest.raises(psycopg2.errors.RaiseException, match="append-only"):
            one.sql("DELETE FROM backup_events")
    told.append(one.back_up().filename)
    assert len(one.plan.catalogue.rows("shop")) == 3


def note(scene: Scene) -> str:
    """Something that only the catalogue knows."""
    scene.plan.catalogue.note(
        Event("test", "completed", "shop", "tester", "run", details={"note": (said := str(now()))})
    )
    return said
