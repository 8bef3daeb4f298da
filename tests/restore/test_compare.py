"""What was restored is counted, table by table, and compared with what the manifest says."""

from __future__ import annotations

import dataclasses
import threading
from datetime import UTC, datetime

import pytest

from deployments.quick_start.postgres import PostgresCluster
from tasks.errors import AccessRefused, BackupSystemError, RowsDiffer, Unreachable
from tasks.postgres.dsn import Dsn, parse
from tasks.restore import compare as module
from tasks.restore.compare import MISSING, Expected, analyze, compare, count_rows, difference
from tasks.restore.values import TableCount
from tasks.storage.backup_values import StoredBackup, TableData
from tests.conftest import DatabaseFactory
from tests.support.server_side import address, drop, properties, role, run, session, value

AT = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture
def dsn(postgres_server: PostgresCluster, fresh_database: DatabaseFactory) -> Dsn:
    return parse(fresh_database(postgres_server))


def _table(name: str, rows: int, size: int = 10) -> Expected:
    return Expected(name, rows, size)


def _stored(table: Expected) -> TableData:
    return TableData(table.name, table.rows, 100, 100 + table.size)


def _backup(cluster: PostgresCluster, dsn: Dsn, *tables: Expected, large_objects: int = 0) -> StoredBackup:
    return StoredBackup(
        plan="p",
        filename="backup_x.sql",
        bucket="b",
        key="k",
        backup_id=None,
        backup_type="full",
        created_at=AT,
        size=1,
        sha256="",
        parts=(),
        codec="none",
        encrypted=False,
        recipients=(),
        plain_size=1,
        plain_sha256="",
        tables=tuple(map(_stored, tables)),
        large_objects=large_objects,
        database=properties(cluster, dsn.dbname),
        extensions=(),
        roles=(),
        excluded_tables=(),
        pg_dump_version="18.0",
    )


def test_every_table_is_counted_by_itself_in_the_order_given(postgres_server: PostgresCluster, dsn: Dsn) -> None:
    with session(postgres_server, dsn.dbname) as inside:
        run(inside, 'CREATE SCHEMA "S c.h"; CREATE TABLE "S c.h"."t ""ü"" 100%" AS SELECT generate_series(1, 7) i')
        run(inside, "CREATE TABLE parent (i int); INSERT INTO parent VALUES (1)")
        run(inside, "CREATE TABLE child () INHERITS (parent); INSERT INTO child SELECT generate_series(1, 5)")
        run(inside, 'CREATE TABLE "user" (i int); CREATE TABLE parts (i int) PARTITION BY RANGE (i)')
        run(inside, "CREATE TABLE part PARTITION OF parts DEFAULT; INSERT INTO parts SELECT generate_series(1, 9)")
        run(inside, "ALTER DATABASE {d} SET default_transaction_read_only = on", d=dsn.dbname)
    tables = [
        _table("public.child", 5, 1),
        _table('"S c.h"."t ""ü"" 100%"', 7, 900),
        _table("public.parent", 1, 50),
        _table('public."user"', 0),
        _table("public.part", 9, 3),
        _table("public.gone", 0),
    ]
    found = count_rows(dsn, tables)
    assert [one.name for one in found] == [table.name for table in tables]
    assert [one.found for one in found] == [5, 7, 1, 0, 9, MISSING]
    assert [one.differs for one in found] == [False] * 5 + [True]
    assert count_rows(dsn, []) == ()


def test_the_largest_tables_are_counted_first_and_several_at_once(
    postgres_server: PostgresCluster, dsn: Dsn, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    together = threading.Barrier(3, timeout=20)
    real = module._count

    def counting(connection: object, table: TableData) -> TableCount:
        begun.append(table.name)
        if len(begun) <= 3:
            together.wait()
        return real(connection, table)

    monkeypatch.setattr(module, "_count", counting)
    with session(postgres_server, dsn.dbname) as inside:
        for number in range(8):
            run(inside, f"CREATE TABLE t{number} ()")
    count_rows(dsn, [_table(f"public.t{number}", 0, number) for number in range(8)])
    assert set(begun[:3]) == {"public.t7", "public.t6", "public.t5"} and len(begun) == 8


def test_a_table_of_an_extension_may_hold_more_than_the_dump(postgres_server: PostgresCluster, dsn: Dsn) -> None:
    with session(postgres_server, dsn.dbname) as inside:
        run(inside, "CREATE EXTENSION citext; CREATE TABLE config AS SELECT generate_series(1, 5) i")
        run(inside, "ALTER EXTENSION citext ADD TABLE config")
    [more], [fewer] = count_rows(dsn, [_table("public.config", 3)]), count_rows(dsn, [_table("public.config", 6)])
    assert (more.at_least, more.differs, fewer.differs) == (True, False, True)


def test_policies_that_bind_the_owner_too_hide_no_row_from_the_count(
    postgres_server: PostgresCluster, dsn: Dsn
) -> None:
    role(postgres_server, "counter")
    with session(postgres_server, dsn.dbname) as inside:
        run(inside, "CREATE TABLE hidden AS SELECT generate_series(1, 5) i; ALTER TABLE hidden OWNER TO counter")
        run(inside, "CREATE POLICY p ON hidden USING (i < 3); ALTER TABLE hidden ENABLE ROW LEVEL SECURITY")
        run(inside, "ALTER TABLE hidden FORCE ROW LEVEL SECURITY; CREATE TABLE closed ()")
    theirs = address(postgres_server, dsn.dbname, "counter")
    assert [one.found for one in count_rows(theirs, [_table("public.hidden", 5)])] == [5]
    with session(postgres_server, dsn.dbname) as inside:
        assert value(inside, "SELECT relforcerowsecurity FROM pg_class WHERE relname = 'hidden'")
    with pytest.raises(AccessRefused, match="permission denied for table closed"):
        count_rows(theirs, [_table("public.hidden", 5), _table("public.closed", 0)])


def test_equal_databases_pass_and_tell_their_rows(postgres_server: PostgresCluster, dsn: Dsn) -> None:
    with session(postgres_server, dsn.dbname) as inside:
        run(inside, "CREATE TABLE a AS SELECT generate_series(1, 5); CREATE TABLE b AS SELECT generate_series(1, 2)")
        run(inside, "SELECT lo_create(0), lo_create(0)")
    backup = _backup(postgres_server, dsn, _table("public.a", 5), _table("public.b", 2), large_objects=2)
    assert [one.found for one in compare(dsn, backup).counts] == [5, 2, 2]
    assert [one.name for one in compare(dsn, backup, ("public.b",)).tables] == ["public.b"]
    with pytest.raises(RowsDiffer, match="large objects has 2 rows, expected 3"):
        compare(dsn, dataclasses.replace(backup, large_objects=3))


def test_differences_are_named_with_what_was_expected_and_found(postgres_server: PostgresCluster, dsn: Dsn) -> None:
    with session(postgres_server, dsn.dbname) as inside:
        run(inside, "CREATE TABLE a AS SELECT generate_series(1, 1234)")
    with pytest.raises(RowsDiffer) as refused:
        compare(dsn, _backup(postgres_server, dsn, _table("public.a", 1233), _table("public.gone", 0)))
    said = str(refused.value)
    assert "public.a has 1,234 rows, expected 1,233; public.gone is missing, expected 0" in said and "\n" not in said


def test_no_more_than_ten_tables_are_named() -> None:
    said = difference("shop", "backup_x.sql", [TableCount(f"t{n}", 2, 1) for n in range(13)])
    assert "t9 has" in said and "t10" not in said and "and 3 more" in said


def test_a_server_with_one_connection_to_spare_is_counted_on_one(postgres_server: PostgresCluster, dsn: Dsn) -> None:
    role(postgres_server, "single", "CONNECTION LIMIT 1")
    with session(postgres_server, dsn.dbname) as inside:
        run(inside, "CREATE TABLE a (); CREATE TABLE b (); GRANT SELECT ON a, b TO single")
    theirs = address(postgres_server, dsn.dbname, "single")
    assert [one.found for one in count_rows(theirs, [_table("public.a", 0), _table("public.b", 0)])] == [0, 0]
    with session(postgres_server, dsn.dbname, "single"), pytest.raises(Unreachable):
        count_rows(theirs, [_table("public.a", 0)])


def test_a_broken_connection_is_told_as_such(
    postgres_server: PostgresCluster, dsn: Dsn, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ended(connection: object, table: TableData) -> TableCount:
        run(connection, "SELECT pg_terminate_backend(pg_backend_pid())")  # type: ignore[arg-type]
        raise AssertionError

    monkeypatch.setattr(module, "_count", ended)
    with pytest.raises(BackupSystemError, match="broke"):
        count_rows(dsn, [_table(f"public.t{n}", 0) for n in range(9)])


def test_analyze_gives_the_planner_every_table_and_tells_what_failed(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    role(postgres_server, "analyst")
    fresh_database(postgres_server, "analysed")
    with session(postgres_server, "analysed") as inside:
        run(inside, "ALTER DATABASE analysed OWNER TO analyst; CREATE TABLE theirs AS SELECT 1 AS i")
        run(inside, 'CREATE TABLE "Mi ne" AS SELECT generate_series(1, 9) i; ALTER TABLE "Mi ne" OWNER TO analyst')
        run(inside, "CREATE TABLE parts (i int) PARTITION BY RANGE (i); CREATE TABLE part PARTITION OF parts DEFAULT")
        run(inside, "INSERT INTO parts SELECT generate_series(1, 9); ALTER TABLE parts OWNER TO analyst")
        run(inside, "ALTER TABLE part OWNER TO analyst; CREATE MATERIALIZED VIEW seen AS SELECT 1 AS i")
        run(
            inside,
            "CREATE FUNCTION odd(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS"
            " $$ BEGIN IF current_setting('my.odd', true) = 'on' THEN RAISE 'odd'; END IF; RETURN i; END $$",
        )
        run(inside, "CREATE TABLE bad AS SELECT 1 AS i; CREATE INDEX ON bad (odd(i))")
    analysed = (
        "SELECT array_agg(DISTINCT tablename::text ORDER BY tablename::text) FROM pg_stats WHERE schemaname = 'public'"
    )
    assert analyze(address(postgres_server, "analysed", "analyst")) == []
    with session(postgres_server, "analysed") as inside:
        assert value(inside, analysed) == ["Mi ne", "part", "parts"]
        assert value(inside, "SELECT reltuples FROM pg_class WHERE relname = 'theirs'") == -1
        run(inside, "ALTER DATABASE analysed SET my.odd = 'on'")
    told = analyze(address(postgres_server, "analysed"))
    assert len(told) == 1 and "ANALYZE of public.bad failed (raise exception (SQLSTATE P0001))" in told[0]
    with session(postgres_server, "analysed") as inside:
        assert {"Mi ne", "part", "parts", "seen", "theirs"} <= set(value(inside, analysed))  # type: ignore[call-overload]
        assert value(inside, "SELECT count(*) > 0 FROM pg_stats WHERE tablename = 'pg_class'")
    drop(postgres_server, "analysed")
