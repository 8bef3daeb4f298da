"""A backup without some tables or rows: it restores, is proved, and replaces nothing before somebody has confirmed."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.download.offer import Link
from tasks.download.steps import instructions
from tasks.errors import PreflightFailed
from tasks.rebuild_catalogue.rebuild import compare, write
from tests.backup.test_left_out import ACROSS, FAMILIES, NEEDS, NEEDY, NEEDY_OF_SCHEMA, SCHEMAS, part_of
from tests.restore.test_conditions import verify
from tests.support.scene import Scene, SceneFactory, now
from tests.verify.test_drill_on import drill

COUNTS = "SELECT (SELECT count(*) FROM orders), (SELECT count(*) FROM log)"


@pytest.fixture
def without_log(scene: SceneFactory) -> Scene:
    one = part_of(scene(), exclude_tables=["parent"], exclude_rows=["log"])
    one.sql(FAMILIES)
    one.back_up()
    return one


def refused(one: Scene, **request: Any) -> str:
    before = one.databases()
    with pytest.raises(PreflightFailed) as error:
        one.restore(**request)
    assert one.databases() == before and one.sql(COUNTS) == [(2, 3)]
    return str(error.value)


@pytest.mark.parametrize("mode", ["swap", "in_place"])
def test_it_replaces_a_database_only_when_somebody_confirms_what_is_lost(without_log: Scene, mode: str) -> None:
    one = without_log
    for confirm in ("", "yes", "orders"):
        said = refused(one, mode=mode, confirm=confirm)
        assert (
            'The backup was made without the rows of public.log, public."log 2025 H1", public.log_2025 and 1 more '
            in said
        )
        assert f"and without public.child, public.parent, which {one.name} would no longer have" in said
        assert f"write its name, {one.name}, into confirm" in said
    done = one.restore(mode=mode, confirm=one.name, compare="content" if mode == "swap" else "rows")
    assert [warning for warning in done.warnings if "without the rows of public.log" in warning]
    assert one.sql(COUNTS) == [(2, 0)] and one.sql("SELECT to_regclass('parent')") == [(None,)]
    one.sql("INSERT INTO log (day) VALUES ('2026-05-01')")
    assert one.sql("SELECT max(id) FROM log") == [(4,)], "numbers are not given twice"
    if mode == "swap":
        one.undo()
        assert one.sql(COUNTS) == [(2, 3)] and one.sql("SELECT count(*) FROM child") == [(1,)]


def test_a_new_database_and_a_drill_need_no_confirmation(without_log: Scene) -> None:
    one, name = without_log, f"{without_log.name}_new"
    done = one.restore(mode="new_database", target=name, compare="content")
    assert one.sql(COUNTS, name) == [(2, 0)] and any("without the rows of" in warning for warning in done.warnings)
    one.discard(name)
    verify(one)
    _, verified = drill(one.with_plan(drill_on="worker"))
    assert verified.by_content and any("without the rows of public.log" in warning for warning in verified.warnings)


def test_a_database_that_is_not_there_any_more_loses_nothing(without_log: Scene) -> None:
    name = f"{without_log.name}_gone"
    without_log.restore(target=name)
    assert without_log.sql(COUNTS, name) == [(2, 0)]
    without_log.discard(name)


@pytest.mark.parametrize("chosen", ["log", "log_2026", "public.log*", "parent", "log_2025", "*"])
@pytest.mark.parametrize("mode", ["in_place", "new_database"])
def test_a_chosen_table_that_was_left_out_is_refused(without_log: Scene, chosen: str, mode: str) -> None:
    given = {"confirm": without_log.name} if mode == "in_place" else {"target": f"{without_log.name}_new"}
    said = refused(without_log, mode=mode, tables=(chosen, "orders"), **given)
    assert "The backup was made without these tables or their rows, so it cannot bring them back: public." in said


def test_a_table_beside_those_that_were_left_out_comes_back_alone(without_log: Scene) -> None:
    one = without_log
    one.sql("DELETE FROM orders")
    one.restore(mode="in_place", tables=("orders",), confirm=one.name)
    assert one.sql(COUNTS) == [(2, 3)], "the rows that no backup holds are still there"


def test_a_partition_alone_was_left_out_and_its_table_cannot_be_chosen(scene: SceneFactory) -> None:
    one = part_of(scene(), exclude_tables=["log_2026"])
    one.sql(FAMILIES)
    one.back_up()
    said = refused(one, mode="in_place", tables=("log",), confirm=one.name)
    assert "cannot bring them back: public.log_2026: choose other tables." in said
    one.restore(confirm=one.name)
    assert one.sql(COUNTS) == [(2, 1)]


def test_what_needs_what_was_left_out_is_named_and_left_out(scene: SceneFactory) -> None:
    one = part_of(scene(), exclude_tables=["base"])
    one.sql(NEEDS)
    one.back_up()
    verify(one)
    with pytest.raises(PreflightFailed) as error:
        one.restore(confirm=one.name)
    assert "The backup was made without public.base or its rows, which these need: " in str(error.value)
    assert all(name in str(error.value) for name in NEEDY)
    one.restore(confirm=one.name, without=tuple(NEEDY))
    assert one.sql("SELECT count(*) FROM refers") == [(1,)] and one.sql("SELECT to_regclass('seen')") == [(None,)]


def test_a_foreign_key_to_rows_that_were_left_out_is_named(scene: SceneFactory) -> None:
    one = part_of(scene(), exclude_rows=["base"])
    one.sql(NEEDS)
    backup = one.back_up()
    assert "FK CONSTRAINT public.refers refers_b_fkey" in backup.attention[0]
    verify(one)
    keys = ("FK CONSTRAINT public.refers refers_b_fkey", "FK CONSTRAINT public.parted parted_b_fkey")
    with pytest.raises(PreflightFailed, match=r"which these need: FK CONSTRAINT public[.]parted parted_b_fkey, "):
        one.restore(confirm=one.name)
    one.restore(confirm=one.name, without=keys)
    assert one.sql("SELECT count(*) FROM base, refers") == [(0,)]


def test_names_in_another_encoding_are_left_out_too(scene: SceneFactory, fresh_database: Any) -> None:
    one = scene()
    name = f"{one.name}_latin1"
    one.sql(f"CREATE DATABASE {name} TEMPLATE template0 ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C'", "postgres")
    latin = part_of(scene(one.cluster.url(name)), exclude_tables=["Größe"], exclude_rows=['"Übung"'])
    latin.sql('CREATE TABLE "größe" (i int); CREATE TABLE "Übung" (i int); CREATE TABLE t (i int)')
    latin.sql('INSERT INTO "größe" VALUES (1); INSERT INTO "Übung" VALUES (1); INSERT INTO t VALUES (1)')
    latin.back_up()
    verify(latin)
    latin.restore(confirm=name)
    assert latin.sql('SELECT (SELECT count(*) FROM "Übung"), (SELECT count(*) FROM t)') == [(0, 1)]
    assert latin.sql("""SELECT to_regclass('"größe"')""") == [(None,)]


def test_a_rebuilt_catalogue_and_a_download_say_the_same(without_log: Scene) -> None:
    one = without_log
    [before] = one.plan.catalogue.completed("shop")
    with one.plan.catalogue.cursor() as cursor:
        cursor.execute("UPDATE database_backups SET metadata = metadata - 'left_out'")
    assert one.plan.catalogue.completed("shop")[0].left_out == ""
    write(one.plan, compare(one.plan).changes, "run", "tester")
    assert one.plan.catalogue.completed("shop")[0].left_out == before.left_out != ""
    link = Link("https://example.org/x", now(), False)
    assert "without the rows of public.log" in instructions(
        one.plan, one.validated(mode="new_database", target=f"{one.name}_n").backup, link, "tester"
    )


@pytest.mark.parametrize("schemas", [("shop", "tenant_*"), ("public",), ("tenant_1",)])
def test_some_schemas_come_back_with_their_extensions_and_are_proved(
    scene: SceneFactory, schemas: tuple[str, ...]
) -> None:
    one = part_of(scene(), only_schemas=schemas)
    one.sql(SCHEMAS)
    one.back_up()
    verify(one)
    with pytest.raises(PreflightFailed, match=r"without the schemas .* would no longer have"):
        one.restore()
    expected = one.dumped("", *(f"--schema={name}" for name in schemas))
    one.restore(confirm=one.name, compare="content")
    assert one.dumped("", *(f"--schema={name}" for name in schemas)) == expected
    tables = "SELECT DISTINCT schemaname::text FROM pg_tables WHERE schemaname !~ '^pg_' AND schemaname <> 'information_schema'"
    assert {name for (name,) in one.sql(tables)} == {
        "shop": {"shop", "tenant_1", "tenant_22"},
        "public": {"public"},
        "tenant_1": {"tenant_1"},
    }[schemas[0]]
    one.undo()


def test_what_needs_another_schema_is_left_out(scene: SceneFactory) -> None:
    one = part_of(scene(), only_schemas=["shop"])
    one.sql(ACROSS)
    one.back_up()
    verify(one)
    one.restore(confirm=one.name, without=tuple(NEEDY_OF_SCHEMA))
    assert one.sql("SELECT * FROM shop.fine") == [(1, 1)] and one.sql("SELECT to_regclass('shop.plain')") == [
        ("shop.plain",)
    ]
