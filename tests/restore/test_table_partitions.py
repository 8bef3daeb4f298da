"""Partitions and partitioned tables among the chosen tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from deployments.quick_start.postgres import PostgresCluster
from tasks.errors import BadSetting, RestoreRefused
from tasks.restore.tables.table_scripts import new_database_tables
from tests.support.chosen_tables import Backup, pg_dump, psql, table_dump, tables_in, values


def attached(dump: bytes) -> set[bytes]:
    return {line for line in dump.splitlines() if b" ATTACH PARTITION " in line or b"DISABLE TRIGGER" in line}


PARTITIONS = """
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
CREATE TABLE region (id integer PRIMARY KEY); INSERT INTO region VALUES (1), (2);
CREATE TABLE m (id integer, at integer, region integer REFERENCES region, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE first PARTITION OF m FOR VALUES FROM (0) TO (10);
CREATE TABLE second PARTITION OF m FOR VALUES FROM (10) TO (20) PARTITION BY LIST (id);
CREATE TABLE "second, odd" PARTITION OF second FOR VALUES IN (11, 13); CREATE TABLE rest PARTITION OF second DEFAULT;
CREATE INDEX by_region ON m (region); CREATE TRIGGER told AFTER INSERT ON m FOR EACH ROW EXECUTE FUNCTION tell();
ALTER TABLE first DISABLE TRIGGER told; CREATE INDEX own ON first (at);
INSERT INTO m SELECT i, i, 1 + i / 2 % 2 FROM generate_series(0, 19) i;
CREATE TABLE points (id integer, at integer, FOREIGN KEY (id, at) REFERENCES m); INSERT INTO points VALUES (5, 5), (13, 13);
CREATE TABLE own_key (id integer, at integer, FOREIGN KEY (id, at) REFERENCES m); INSERT INTO own_key VALUES (5, 5);
"""


@pytest.mark.parametrize(
    "pattern", ["first", '"second, odd"', "second", "rest", "m", "m|points", "first|own_key|region", "*"]
)
def test_partitions_are_replaced_with_or_without_what_they_are_partitions_of(
    postgres_server: PostgresCluster, database: Callable[..., str], pattern: str
) -> None:
    url = database(PARTITIONS)
    backup, before = Backup(postgres_server, url), pg_dump(postgres_server, url)
    assert not psql(postgres_server, url, "UPDATE m SET region = 2; UPDATE own_key SET id = 6, at = 6")
    if "own_key" not in pattern and pattern != "*":
        assert not psql(postgres_server, url, "UPDATE own_key SET id = 5, at = 5")
    assert backup.replace(url, *pattern.split("|")) == ""
    other = {"first": "first", "rest": "rest", '"second, odd"': '"second, odd"'}.get(pattern)
    if pattern in ("m", "m|points", "*"):
        assert pg_dump(postgres_server, url) == before
    elif other:
        [left] = values(url, "SELECT count(*) FROM public.m WHERE region = 1")
        assert left == values(url, f"SELECT count(*) FROM {'public.' + other} WHERE region = 1")[0] and left[0]
    assert attached(pg_dump(postgres_server, url)) == attached(before)


def test_a_partition_that_came_after_the_backup_is_refused(
    postgres_server: PostgresCluster, database: Callable[..., str]
) -> None:
    url = database(PARTITIONS)
    backup = Backup(postgres_server, url)
    assert not psql(postgres_server, url, "CREATE TABLE third PARTITION OF m FOR VALUES FROM (20) TO (30)")
    with pytest.raises(RestoreRefused, match=r"table public\.third"):
        backup.replace(url, "m")
    assert backup.replace(url, "m", drop_dependents=True) == ""
    assert "public.third" not in tables_in(url)


def test_a_partition_whose_parent_is_gone_is_refused(
    postgres_server: PostgresCluster, database: Callable[..., str]
) -> None:
    url = database(PARTITIONS)
    backup = Backup(postgres_server, url)
    assert not psql(postgres_server, url, "DROP TABLE points, own_key, m")
    assert "partitions of public.m, which is not there" in backup.replace(url, "first")
    assert backup.replace(url, "m") == ""


@pytest.mark.parametrize("pattern", ["first", "second", "m", "points", "m|points|region"])
def test_partitions_go_alone_into_a_new_database(
    postgres_server: PostgresCluster, database: Callable[..., str], pattern: str
) -> None:
    url, new = database(PARTITIONS), database()
    backup = Backup(postgres_server, url)
    assert backup.fill(new, *pattern.split("|")) == ""
    whole = {"public.m", "public.first", "public.second", 'public."second, odd"', "public.rest"}
    second = {"public.second", 'public."second, odd"', "public.rest"}
    expected = {"first": {"public.first"}, "second": second, "m": whole, "points": {"public.points"}}
    assert tables_in(new) == expected.get(pattern, whole | {"public.points", "public.region"})
    for name in tables_in(new):
        assert values(new, f"SELECT count(*) FROM {name}") == values(url, f"SELECT count(*) FROM {name}")
    if "region" in pattern:
        names = [name.removeprefix("public.") for name in tables_in(new)]
        assert table_dump(postgres_server, new, *names) == table_dump(postgres_server, url, *names)


def test_partitions_that_the_manifest_does_not_list_are_asked_for_by_name(
    postgres_server: PostgresCluster, database: Callable[..., str]
) -> None:
    url = database(PARTITIONS, "CREATE TABLE mm (id integer)")
    backup = Backup(postgres_server, url)
    backup.stored = replace(backup.stored, partitions=())
    with pytest.raises(BadSetting, match="no table 'm'"):
        new_database_tables(backup.stored, ["m"])
    with pytest.raises(BadSetting, match=r'name them as well: public\."second, odd", public\.first, public\.rest\.'):
        backup.statements(new_database_tables(backup.stored, ["m*"]))
