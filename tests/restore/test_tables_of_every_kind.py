"""Every table of a database with every kind of object, chosen alone: into the live database, and into a new one."""

from __future__ import annotations

import pytest

from deployments.quick_start.postgres import PostgresCluster
from tasks.errors import RestoreRefused
from tests.conftest import DatabaseFactory
from tests.support.chosen_tables import Backup, pg_dump, psql, tables_in, values
from tests.support.every_kind import make_every_kind

COUNT = "SELECT count(*), md5(string_agg(t::text, ';' ORDER BY t::text)) FROM ONLY {} t"


@pytest.mark.slow
def test_each_table_can_be_put_back_alone_or_is_refused_by_name(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    url = fresh_database(postgres_server)
    make_every_kind(url, postgres_server)
    # an index of some partitions alone: attached again, the others get it as well
    assert not psql(postgres_server, url, "DROP INDEX plain.not_everywhere")
    backup, before = Backup(postgres_server, url), sorted_entries(pg_dump(postgres_server, url))
    names = {table.name for table in backup.stored.tables} | set(backup.stored.parents.values())
    replaced = 0
    for name in sorted(names):
        try:
            assert backup.replace(url, name) == "", name
            replaced += 1
        except RestoreRefused as refused:
            assert "These depend on" in str(refused) or "belongs to the extension" in str(refused)
        assert sorted_entries(pg_dump(postgres_server, url)) == before, name
    assert replaced > len(names) // 2


@pytest.mark.slow
def test_each_table_goes_alone_into_a_new_database(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    url = fresh_database(postgres_server)
    make_every_kind(url, postgres_server)
    backup = Backup(postgres_server, url)
    for table in backup.stored.tables:
        new = fresh_database(postgres_server, "alone")
        assert backup.fill(new, table.name) == "", table.name
        assert values(new, COUNT.format(table.name)) == values(url, COUNT.format(table.name)), table.name
        others = tables_in(new) - {table.name}
        assert all(values(new, f"SELECT count(*) FROM {other}") == [(0,)] for other in others), table.name
        assert len(others) < 4, (table.name, others)
    assert not psql(postgres_server, postgres_server.url(), "DROP DATABASE alone")


def sorted_entries(dump: bytes) -> list[bytes]:
    """The entries of a dump without regard to their order, which follows dependencies and numbers of objects."""
    return sorted(dump.split(b"\n--\n-- "))
