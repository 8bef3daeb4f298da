"""What the server, the live database and this machine lack is told before a restore, and nothing is changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import psycopg2
import pytest

from deployments.quick_start.postgres import PostgresCluster
from tasks.errors import ToolMissing, Unreachable
from tasks.postgres.dsn import parse
from tasks.postgres.tools import Tool, chosen_psql, needs_restrict
from tasks.restore.preflight.local import (
    disk_problems,
)
from tasks.storage.backup_values import TableData
from tasks.storage.manifest_types import RoleSettings
from tests.conftest import BIN_DIRECTORIES
from tests.support import eventually, whole_story
from tests.support.live_database import PASSWORD, LiveDatabase, run


def test_a_superuser_may_swap(live: LiveDatabase) -> None:
    run(live.url, "ALTER DATABASE {d} SET work_mem = '8MB'; COMMENT ON DATABASE {d} IS 'mine'", d=live.dbname)
    ground = live.survey()
    assert (ground.database, ground.live_exists, ground.create_roles) == (live.dbname, True, ())
    assert ground.server_version // 10_000 == live.server.major
    assert ground.psql.major >= live.server.major
    assert (ground.like.comment, ground.like.settings) == ("mine", (RoleSettings(None, ("work_mem=8MB",)),))
    assert "A doubt." not in ground.warnings  # which the backup has already


def test_an_older_server_is_refused_and_a_newer_pg_dump_is_warned_of(live: LiveDatabase) -> None:
    [said] = live.problems(backup=live.like(server_version_number=990_001, server_version="99.1"))
    assert "comes from PostgreSQL 99.1" in said and "restore to version 99 or newer" in said
    assert live.survey(backup=live.like(server_version_number=130_001)).live_exists
    warnings = live.survey(backup=replace(live.backup, pg_dump_version="99.1")).warnings
    assert [one for one in warnings if "pg_dump 99.1 wrote the backup" in one]


def test_too_few_connections_may_pass(live: LiveDatabase) -> None:
    live.own(live.role("few", "CREATEDB CONNECTION LIMIT 5"))
    with pytest.raises(Unreachable, match="5 connections left for role few, and a restore needs up to 6"):
        live.survey(live.as_role("few"))
    run(live.admin, "ALTER ROLE few CONNECTION LIMIT 6")
    assert eventually(lambda: live.survey(live.as_role("few")).live_exists)
    with closing(psycopg2.connect(live.server.url(live.dbname, "few", PASSWORD))), pytest.raises(Unreachable):
        live.survey(live.as_role("few"))


def test_a_server_that_does_not_answer_may_pass(live: LiveDatabase) -> None:
    away = replace(live.plan, database=parse(f"postgresql://u:{PASSWORD}@127.0.0.1:1/shop"))
    with pytest.raises(Unreachable, match="cannot be restored: Nobody answers") as caught:
        live.survey(away)
    assert PASSWORD not in whole_story(caught.value)


def test_a_wrong_password_is_told(live: LiveDatabase) -> None:
    live.role("someone")
    wrong = replace(live.plan, database=parse(live.server.url(live.dbname, "someone", "wrong")))
    assert "the password is wrong" in live.problems(wrong)[0]


def test_a_template_is_not_replaced(live: LiveDatabase) -> None:
    run(live.admin, "ALTER DATABASE {d} IS_TEMPLATE true", d=live.dbname)
    try:
        for request in ({}, {"mode": "in_place", "confirm": live.dbname}):
            assert "is a template" in live.problems(**request)[0]
        assert live.survey(mode="new_database", target="brand_new").database == "brand_new"
    finally:
        run(live.admin, "ALTER DATABASE {d} IS_TEMPLATE false", d=live.dbname)


def test_a_database_that_takes_no_connections_is_told(live: LiveDatabase) -> None:
    run(live.admin, "ALTER DATABASE {d} ALLOW_CONNECTIONS false", d=live.dbname)
    said = live.problems()
    assert f"run ALTER DATABASE {live.dbname} ALLOW_CONNECTIONS true." in said[0]
    run(live.admin, f"UPDATE pg_database SET datallowconn = true, datconnlimit = -2 WHERE datname = '{live.dbname}'")
    assert "is invalid" in live.problems()[0]
    run(live.admin, f"UPDATE pg_database SET datconnlimit = -1 WHERE datname = '{live.dbname}'")


def test_a_subscription_is_warned_of(live: LiveDatabase) -> None:
    run(
        live.url,
        "CREATE SUBSCRIPTION {s} CONNECTION 'host=none' PUBLICATION p WITH (connect = false, slot_name = NONE)",
        s="News letter",
    )
    try:
        assert [one for one in live.survey().warnings if 'stays the subscription "News letter"' in one]
        assert len(live.survey(mode="in_place", confirm=live.dbname).warnings) < len(live.survey().warnings)
    finally:
        run(live.url, "DROP SUBSCRIPTION {s}", s="News letter")


@pytest.fixture(scope="module")
def generous_server(servers_directory: Path) -> Iterator[PostgresCluster]:
    """A server of its own, with prepared transactions and logical replication."""
    cluster = PostgresCluster(
        servers_directory / "generous", next(iter(BIN_DIRECTORIES.values())), durable=False, owned=True
    )
    cluster.start()
    run(cluster.url(), "ALTER SYSTEM SET max_prepared_transactions = 5")
    run(cluster.url(), "ALTER SYSTEM SET wal_level = logical")
    cluster.stop()
    cluster.start()
    yield cluster
    cluster.stop(immediate=True)


def test_prepared_transactions_are_refused_and_replication_slots_warned_of(
    generous_server: PostgresCluster, tmp_path: Path
) -> None:
    run(generous_server.url(), "CREATE DATABASE {d}", d="li ve")
    live = LiveDatabase(generous_server, generous_server.url("li ve"), tmp_path)
    run(live.url, "SELECT pg_create_logical_replication_slot('news_letter', 'pgoutput')")
    assert [one for one in live.survey().warnings if "replication slot news_letter: its readers" in one]
    run(live.url, "BEGIN; CREATE TABLE t (); PREPARE TRANSACTION 'it''s open'")
    for request in ({}, {"mode": "in_place", "confirm": "li ve"}):
        [said] = live.problems(**request)
        assert "Database \"li ve\" has the prepared transaction 'it''s open': run COMMIT PREPARED" in said
    assert live.survey(mode="new_database", target="n").database == "n"
    run(live.url, "ROLLBACK PREPARED 'it''s open'")
    run(live.url, "SELECT pg_drop_replication_slot('news_letter')")
    assert live.survey().live_exists


def test_a_standby_is_refused(generous_server: PostgresCluster, tmp_path: Path) -> None:
    live = LiveDatabase(generous_server, generous_server.url("postgres"), tmp_path)
    generous_server.stop()
    (generous_server.data_directory / "standby.signal").write_text("")
    generous_server.start()
    try:
        [said] = live.problems(target="not there")
        assert "The server is a standby" in said
    finally:
        generous_server.stop()
        (generous_server.data_directory / "standby.signal").unlink()
        generous_server.start()


PSQLS = {
    "16.9": (16, 9),
    "16.10": (16, 10),
    "16.15": (16, 15),
    "17.11": (17, 11),
    "18.0": (18, 0),
    "18.6": (18, 6),
    "13.22": (13, 22),
    "19.0": (19, 0),
    "18": (18,),
}


@pytest.mark.parametrize(
    ("at_hand", "wrote", "taken", "warned"),
    [
        (["16.10"], "16.10", "16.10", True),
        (["16.10", "16.15"], "16.10", "16.15", False),
        (["16.10", "17.11"], "16.10", "17.11", False),
        (["16.9"], "16.9", "16.9", True),
        (["16.9", "18.0"], "16.10", "18.0", True),
        (["16.15", "18.6"], "16.10", "16.15", False),
        (["18"], "18.1", "18", True),
        (["19.0"], "18.1", "19.0", False),
        (["16.9"], "16.10", "", False),
        (["16.9"], "odd", "", False),
        (["13.22"], "13.22", "", False),
        ([], "16.9", "", False),
    ],
)
def test_psql_is_new_enough_and_a_safe_one_comes_first(
    at_hand: list[str], wrote: str, taken: str, warned: bool
) -> None:
    tools = [Tool(f"/{name}", PSQLS[name]) for name in at_hand]
    if not taken:
        with pytest.raises(ToolMissing, match="nstall"):
            chosen_psql(tools, 16, "16.10", wrote)
        return
    tool, warnings = chosen_psql(tools, 16, "16.10", wrote)
    assert tool.path == f"/{taken}"
    assert [("CVE-2026-18408" in one) for one in warnings] == ([True] if warned else [])


def test_which_pg_dump_writes_restrict_is_known() -> None:
    for version in ("13.22", "14.19", "15.14", "15.18", "16.10", "17.6", "18.0", "18beta1", "19.1", "", "unknown", "٣"):
        assert needs_restrict(version), version
    for version in ("12.22", "13.21", "14.18", "15.13", "16.9", "17.5", "9.6.24"):
        assert not needs_restrict(version), version


def test_a_full_disk_of_the_server_is_told_where_it_can_be_known(live: LiveDatabase, tmp_path: Path) -> None:
    [said] = live.problems(backup=live.like(size=1 << 60))
    assert "The database had 1,099,511,627,776 MiB" in said and str(live.server.data_directory) in said
    one_table = replace(live.like(size=1 << 60), tables=(TableData("public.t", 0, 0, 0),))
    assert live.survey(mode="new_database", target="n", tables=("t",), backup=one_table)
    for host, directory in (
        ("db.example", str(tmp_path)),
        ("localhost", ""),
        ("localhost", "."),
        ("127.0.0.1", "/no/such/directory"),
    ):
        assert disk_problems(host, directory, 1 << 60) == []
    assert disk_problems("/run/postgresql", str(tmp_path), 1) == []


def test_a_spool_without_room_is_told(live: LiveDatabase, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    [said] = live.problems(replace(live.plan, spool_directory=tmp_path / "file"))
    assert "spool directory" in said
