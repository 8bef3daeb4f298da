"""Kept databases: listed, and dropped when they are due; a person's own are never touched."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from deployments.quick_start.postgres import PostgresCluster
from tasks.restore import databases
from tasks.restore.apply_properties import apply_properties
from tasks.restore.kept_databases import drop_due, kept
from tasks.restore.labels import kept_name, scratch_name
from tasks.restore.put_into_place import swap_back as undo
from tasks.restore.swap import swap
from tests.conftest import DatabaseFactory
from tests.support.server_side import address, drop, names, properties, role, run, session, value

AT = datetime(2026, 3, 1, 2, 3, 4, tzinfo=UTC)
DAY = timedelta(days=1)


def _swap(cluster: PostgresCluster, name: str, at: datetime) -> str:
    """The name of the database that a swap has replaced."""
    scratch = scratch_name(name, at)
    with session(cluster) as server:
        databases.create_like(server, scratch, properties(cluster, name))
        apply_properties(server, scratch, properties(cluster, name))
    return swap(address(cluster, name), name, scratch, at, f"run of {at.day}").kept


@pytest.mark.parametrize("name", ["stock", "S t\"o'ck 100% ü", "ü" * 31])
def test_kept_ones_are_listed_newest_first_and_dropped_when_due(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory, name: str
) -> None:
    fresh_database(postgres_server, name)
    fresh_database(postgres_server, "stock_2")
    with session(postgres_server) as server:
        run(server, "COMMENT ON DATABASE {d} IS 'our ''stock'''", d=name)
        run(server, "ALTER DATABASE {d} IS_TEMPLATE true", d=name)
    made = [_swap(postgres_server, name, AT + day * DAY) for day in range(3)]
    other = _swap(postgres_server, "stock_2", AT)
    with session(postgres_server) as server:
        found = kept(server, name)
        assert [(one.name, one.database, one.at) for one in found] == [
            (made[day], name, AT + day * DAY) for day in (2, 1, 0)
        ]
        assert {one.run_id for one in found} == {"run of 1", "run of 2", "run of 3"}
        assert all((one.size or 0) > 10**6 and one.comment == "our 'stock'" for one in found)
        assert other in {one.name for one in kept(server)} >= set(made)
    dsn = address(postgres_server, name)
    assert drop_due(dsn, name, AT + 3 * DAY - timedelta(seconds=1), 3) == ((), ())
    assert drop_due(dsn, name, AT + 4 * DAY, 3) == ((made[1], made[0]), ())
    assert {made[2], other, name} <= names(postgres_server) and not {made[0], made[1]} & names(postgres_server)
    assert drop_due(dsn, name, AT + 9 * DAY, 3) == ((made[2],), ())
    assert drop_due(dsn, name, AT + 9 * DAY, 3) == ((), ())
    drop(postgres_server, name, other, "stock_2")


@pytest.mark.slow
def test_one_that_is_in_use_stays_with_a_sentence_and_goes_the_next_time(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    fresh_database(postgres_server, "looked at")
    name = _swap(postgres_server, "looked at", AT)
    dsn = address(postgres_server, "looked at")
    with session(postgres_server, name) as guest:
        dropped, problems = drop_due(dsn, "looked at", AT + 9 * DAY, 3)
        assert dropped == () and len(problems) == 1 and "could not be dropped and stays" in problems[0]
        assert "being accessed by other users" in problems[0] and value(guest, "SELECT 1") == 1
    assert drop_due(dsn, "looked at", AT + 9 * DAY, 3) == ((name,), ())
    drop(postgres_server, "looked at")


def test_a_persons_database_is_never_dropped_whatever_it_is_called_or_copied_from(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    fresh_database(postgres_server, "firm")
    theirs = kept_name("firm", AT)
    fresh_database(postgres_server, theirs)
    ours = _swap(postgres_server, "firm", AT)
    assert ours == f"{theirs}_2"
    with session(postgres_server) as server:  # somebody renames a kept one: it is theirs from then on
        run(server, "ALTER DATABASE {a} RENAME TO {b}", a=ours, b="firm of old")
        assert kept(server, "firm") == []
    dsn = address(postgres_server, "firm")
    assert drop_due(dsn, "firm", AT + 99 * DAY, 0) == ((), ())
    assert {theirs, "firm of old"} <= names(postgres_server)
    drop(postgres_server, "firm", theirs, "firm of old")


def test_a_database_that_came_back_is_no_longer_due(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    fresh_database(postgres_server, "returned")
    _swap(postgres_server, "returned", AT)
    back = undo(address(postgres_server, "returned"), "returned", AT + 5 * DAY, "run")
    dsn = address(postgres_server, "returned")
    assert drop_due(dsn, "returned", AT + 6 * DAY, 3) == ((), ())
    assert drop_due(dsn, "returned", AT + 8 * DAY, 3) == ((back.kept,), ())
    drop(postgres_server, "returned")


def test_an_owner_lists_and_drops_its_own_and_another_role_gets_a_sentence(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    role(postgres_server, "keeper", "CREATEDB")
    role(postgres_server, "passer-by")
    fresh_database(postgres_server, "lent")
    with session(postgres_server) as server:
        run(server, "ALTER DATABASE lent OWNER TO keeper; REVOKE ALL ON DATABASE lent FROM PUBLIC")
    name = _swap(postgres_server, "lent", AT)
    with session(postgres_server, "postgres", "passer-by") as server:
        assert [(one.name, one.size) for one in kept(server, "lent")] == [(name, None)]
    dropped, problems = drop_due(address(postgres_server, "lent", "passer-by"), "lent", AT + 9 * DAY, 3)
    assert dropped == () and "must be owner" in problems[0]
    assert drop_due(address(postgres_server, "lent", "keeper"), "lent", AT + 9 * DAY, 3) == ((name,), ())
    drop(postgres_server, "lent")
