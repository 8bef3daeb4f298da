"""The preflight of a restore tells everything that stands in the way at once, and changes nothing."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg2
import pyrage
import pytest
from psycopg2 import sql
from psycopg2.extensions import connection as Connection

from deployments.quick_start.postgres import PostgresCluster
from tasks.catalogue.catalogue import Catalogue
from tasks.errors import PreflightFailed, ToolMissing, Unreachable
from tasks.plans.plan import Plan, Policy
from tasks.postgres.dsn import parse
from tasks.postgres.tools import Tool, chosen_psql, needs_restrict
from tasks.restore.preflight import target_server as preflight_server
from tasks.restore.preflight.local import (
    disk_problems,
    identity_problems,
    name_problems,
    outcome,
    request_problems,
)
from tasks.restore.preflight.survey import Ground, survey
from tasks.restore.values import RestoreRequest
from tasks.storage.backup_values import (
    DatabaseProperties,
    Extension,
    Grant,
    Part,
    RoleSettings,
    StoredBackup,
    TableData,
)
from tasks.storage.s3 import Storage
from tests.conftest import BIN_DIRECTORIES, DatabaseFactory
from tests.support import eventually, whole_story

NUMBERS = itertools.count(1)
ODD_NAMES = ("blank space", 'quo"te', "ümlaut", "💾", "-dash", "per%cent$", "it's", "x" * 63)
PASSWORD = "geheim"


@contextmanager
def opened(url: str) -> Iterator[Connection]:
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        yield connection


def run(url: str, statement: str, **names: str) -> None:
    with opened(url) as connection, connection.cursor() as cursor:
        cursor.execute(sql.SQL(statement).format(**{key: sql.Identifier(name) for key, name in names.items()}))


class House:
    """A live database, a backup of it, and roles that come and go with the test."""

    def __init__(self, server: PostgresCluster, url: str, spool: Path) -> None:
        self.server, self.url, self.dbname = server, url, parse(url).dbname
        self.admin = server.url()
        self.roles: list[str] = []
        self.databases = [self.dbname]
        self.plan = Plan(
            "shop",
            parse(url),
            Catalogue(parse(url)),
            Storage(None, "bucket"),
            "",
            Policy(),
            spool_directory=spool,
            tools_directory=str(server.bin_directory),
        )
        number = server.major * 10_000 + 1
        self.backup = StoredBackup(
            "shop",
            "backup_2026-03-01_02-00-00_9f2c41ab.sql",
            "bucket",
            "shop/backup.sql",
            1,
            "full",
            datetime(2026, 3, 1, 2, tzinfo=UTC),
            100,
            "a" * 64,
            (Part(1, 100, "a" * 64),),
            "none",
            False,
            (),
            100,
            "a" * 64,
            (),
            0,
            DatabaseProperties(
                self.dbname,
                "postgres",
                "UTF8",
                "C",
                "C",
                "libc",
                None,
                None,
                None,
                None,
                "pg_default",
                -1,
                False,
                None,
                None,
                (),
                8_000_000,
                f"{server.major}.1",
                number,
            ),
            (Extension("plpgsql", "1.0", "pg_catalog"),),
            ("postgres",),
            (),
            f"{server.major}.1",
            ("A doubt.",),
        )

    def role(self, name: str, options: str = "") -> str:
        """A new role that may log in."""
        run(self.admin, f"CREATE ROLE {{r}} LOGIN {options} PASSWORD '{PASSWORD}'", r=name)
        self.roles.append(name)
        return name

    def database(self, name: str) -> str:
        self.databases.append(name)
        run(self.admin, "CREATE DATABASE {d} TEMPLATE template0", d=name)
        return name

    def as_role(self, name: str) -> Plan:
        return replace(self.plan, database=parse(self.server.url(self.dbname, user=name, password=PASSWORD)))

    def own(self, role: str) -> None:
        run(self.admin, "ALTER DATABASE {d} OWNER TO {r}", d=self.dbname, r=role)
        self.backup = replace(self.backup, roles=(role,))

    def survey(self, plan: Plan | None = None, **request: Any) -> Ground:
        backup = request.pop("backup", self.backup)
        return survey(plan or self.plan, RestoreRequest(**request), backup)

    def problems(self, plan: Plan | None = None, **request: Any) -> tuple[str, ...]:
        with pytest.raises(PreflightFailed) as caught:
            self.survey(plan, **request)
        assert all(problem.endswith(".") for problem in caught.value.problems)
        return caught.value.problems

    def like(self, **changes: Any) -> StoredBackup:
        return replace(self.backup, database=replace(self.backup.database, **changes))

    def drop(self) -> None:
        for name in self.databases:
            run(self.admin, "DROP DATABASE IF EXISTS {d} WITH (FORCE)", d=name)
        for name in self.roles:
            run(self.admin, "DROP OWNED BY {r}", r=name)
            run(self.admin, "DROP ROLE {r}", r=name)


@pytest.fixture
def house(postgres_server: PostgresCluster, fresh_database: DatabaseFactory, tmp_path: Path) -> Iterator[House]:
    made = House(postgres_server, fresh_database(postgres_server, f"live_{next(NUMBERS)}"), tmp_path)
    yield made
    made.drop()


# --- all is well


def test_a_superuser_may_swap(house: House) -> None:
    run(house.url, "ALTER DATABASE {d} SET work_mem = '8MB'; COMMENT ON DATABASE {d} IS 'mine'", d=house.dbname)
    ground = house.survey()
    assert (ground.database, ground.live_exists, ground.create_roles) == (house.dbname, True, ())
    assert ground.server_version // 10_000 == house.server.major
    assert ground.psql.major >= house.server.major
    assert (ground.like.comment, ground.like.settings) == ("mine", (RoleSettings(None, ("work_mem=8MB",)),))
    assert "A doubt." not in ground.warnings  # which the backup has already


@pytest.mark.parametrize("mode", ["swap", "new_database", "in_place"])
def test_an_owner_without_superuser_may_restore(house: House, mode: Any) -> None:
    house.own(house.role("owner", "CREATEDB"))
    target = {"target": "brand_new"} if mode == "new_database" else {"confirm": house.dbname}
    ground = house.survey(house.as_role("owner"), mode=mode, **target)
    assert ground.like.owner == "owner" and ground.live_exists is (mode != "new_database")


def test_nothing_is_changed(house: House) -> None:
    query = "SELECT count(*), sum(oid::bigint), (SELECT count(*) FROM pg_roles) FROM pg_database"
    with opened(house.admin) as connection, connection.cursor() as cursor:
        cursor.execute(query)
        before = cursor.fetchone()
        house.survey()
        run(house.admin, "DROP DATABASE {d} WITH (FORCE)", d=house.dbname)
        house.survey(backup=house.like(owner="gone"), create_missing_roles=True)
        run(house.admin, "CREATE DATABASE {d}", d=house.dbname)
        cursor.execute(query)
        assert cursor.fetchone()[::2] == before[::2]
        cursor.execute("SELECT count(*) FROM pg_collation WHERE collname = 'trial'")
        assert cursor.fetchone() == (0,)


def test_a_database_that_is_gone_is_made_like_the_one_that_was_backed_up(house: House) -> None:
    run(house.admin, "DROP DATABASE {d} WITH (FORCE)", d=house.dbname)
    ground = house.survey()
    assert (ground.live_exists, ground.database, ground.like) == (False, house.dbname, house.backup.database)


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_of_databases_and_roles_are_no_hindrance(house: House, name: str) -> None:
    house.role(name, "CREATEDB")
    house.database(name)
    run(house.admin, "ALTER DATABASE {d} OWNER TO {d}", d=name)
    house.backup = replace(house.backup, roles=(name,))
    assert house.survey(house.as_role(name), target=name).database == name
    [problem] = house.problems(mode="new_database", target=name)
    assert "There is a database " in problem and " already: " in problem
    own = house.as_role(name)
    own = replace(own, database=own.database.with_dbname(name))
    said = house.problems(own, mode="in_place", target=name, confirm="wrong")
    assert len(said) == 1 and f"write its name, {name}, into confirm" in said[0]


# --- the request


def test_every_problem_is_told_at_once(house: House) -> None:
    house.role("nobody")
    said = house.problems(
        house.as_role("nobody"),
        backup=replace(
            house.like(server_version_number=990_000),
            roles=("nobody", "missing one"),
            extensions=(Extension("no_such", "1.2", "public"),),
            encrypted=True,
            recipients=("age1xyz",),
            size=1 << 60,
        ),
        tables=("public.t",),
    )
    for words in (
        "takes no tables",
        "has no key",
        "to version 99",
        "CREATEDB",
        "does not own database",
        '"missing one"',
        "no_such 1.2",
        "to their owner postgres",
    ):
        assert [one for one in said if words in one], (words, said)


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"mode": "sideways"}, "There is no mode 'sideways'"),
        ({"mode": "new_database"}, "needs a name"),
        ({"mode": "new_database", "target": "x" * 64}, "longer than 63 bytes"),
        ({"mode": "new_database", "target": "ü" * 32}, "longer than 63 bytes"),
        ({"mode": "new_database", "target": "a\0b"}, "character that no"),
        ({"mode": "new_database", "target": "\ud800"}, "character that no"),
        ({"mode": "new_database", "target": "postgres"}, "There is a database postgres already"),
        ({"mode": "new_database", "target": "template0"}, "There is a database template0 already"),
        ({"tables": ("public.t",)}, "takes no tables"),
        ({"mode": "in_place"}, "into confirm"),
        ({"mode": "in_place", "confirm": "no_such_db", "target": "no_such_db"}, "There is no database no_such_db"),
        ({"analyze": "never"}, "analyze cannot be 'never'"),
        ({"target": "template1"}, "is a template"),
        ({"mode": "in_place", "target": "template0", "confirm": "template0"}, "takes no connections"),
        (
            {"mode": "in_place", "target": "template1", "confirm": "template1"},
            "of which it makes a safety backup first",
        ),
    ],
)
def test_parameters_that_cannot_be_are_refused(house: House, request_: dict[str, Any], words: str) -> None:
    said = house.problems(**request_)
    assert [one for one in said if words in one], said
    " ".join(said).encode()


def test_what_a_request_means_is_known_without_a_server() -> None:
    assert outcome(RestoreRequest(), "own") == "own" and outcome(RestoreRequest(target="x"), "own") == "x"
    assert outcome(RestoreRequest(mode="new_database"), "own") == ""
    assert name_problems("x" * 63) == [] and name_problems(" ") == []
    assert request_problems(RestoreRequest(mode="in_place", confirm="own", tables=("t",)), "own", "own") == []


# --- the server


def test_an_older_server_is_refused_and_a_newer_pg_dump_is_warned_of(house: House) -> None:
    [said] = house.problems(backup=house.like(server_version_number=990_001, server_version="99.1"))
    assert "comes from PostgreSQL 99.1" in said and "restore to version 99 or newer" in said
    assert house.survey(backup=house.like(server_version_number=130_001)).live_exists
    warnings = house.survey(backup=replace(house.backup, pg_dump_version="99.1")).warnings
    assert [one for one in warnings if "pg_dump 99.1 wrote the backup" in one]


def test_too_few_connections_may_pass(house: House) -> None:
    house.own(house.role("few", "CREATEDB CONNECTION LIMIT 5"))
    with pytest.raises(Unreachable, match="5 connections left for role few, and a restore needs up to 6"):
        house.survey(house.as_role("few"))
    run(house.admin, "ALTER ROLE few CONNECTION LIMIT 6")
    assert eventually(lambda: house.survey(house.as_role("few")).live_exists)
    with closing(psycopg2.connect(house.server.url(house.dbname, "few", PASSWORD))), pytest.raises(Unreachable):
        house.survey(house.as_role("few"))


def test_a_server_that_does_not_answer_may_pass(house: House) -> None:
    away = replace(house.plan, database=parse(f"postgresql://u:{PASSWORD}@127.0.0.1:1/shop"))
    with pytest.raises(Unreachable, match="cannot be restored: Nobody answers") as caught:
        house.survey(away)
    assert PASSWORD not in whole_story(caught.value)


def test_a_wrong_password_is_told(house: House) -> None:
    house.role("someone")
    wrong = replace(house.plan, database=parse(house.server.url(house.dbname, "someone", "wrong")))
    assert "the password is wrong" in house.problems(wrong)[0]


# --- extensions


def test_extensions_that_are_not_there_are_refused_and_other_versions_warned_of(house: House) -> None:
    backup = replace(house.backup, extensions=(Extension("no such", "1.2", "x"), Extension("citext", "0.9", "x")))
    [said] = house.problems(backup=backup)
    assert "does not have the extension no such 1.2: install its package" in said
    warnings = house.survey(backup=replace(backup, extensions=backup.extensions[1:])).warnings
    assert [one for one in warnings if "another version of the extension citext 1." in one and "(was 0.9)" in one]


def test_a_role_that_cannot_create_an_extension_is_told_unless_it_is_there_in_place(house: House) -> None:
    house.own(house.role("owner", "CREATEDB"))
    backup = replace(house.backup, extensions=(Extension("pageinspect", "1.0", "x"), Extension("citext", "1.6", "x")))
    owner = house.as_role("owner")
    in_place = {"mode": "in_place", "confirm": house.dbname, "backup": backup}
    for request in ({"backup": backup}, in_place):
        [said] = house.problems(owner, **request)
        assert "owner is no superuser and cannot create the extension pageinspect 1.0" in said and "citext" not in said
    run(house.url, "CREATE EXTENSION pageinspect")
    assert house.survey(owner, **in_place).live_exists
    assert house.problems(owner, backup=backup)
    house.role("rds_superuser")
    run(house.admin, "GRANT rds_superuser TO owner")
    assert [one for one in house.survey(owner, backup=backup).warnings if "if the provider does not allow it" in one]


# --- roles


def test_missing_roles_are_listed_or_created(house: House) -> None:
    run(house.admin, "DROP DATABASE {d} WITH (FORCE)", d=house.dbname)
    backup = replace(
        house.like(
            owner="my owner",
            grants=(Grant("PUBLIC", "CONNECT", False), Grant("grantee", "CONNECT", False)),
            settings=(RoleSettings(None, ("a=b",)), RoleSettings("Setter", ("a=b",))),
        ),
        roles=("postgres", "reader"),
    )
    [said] = house.problems(backup=backup)
    assert 'needs the role "Setter", grantee, "my owner", reader: create it' in said
    ground = house.survey(backup=backup, create_missing_roles=True)
    assert ground.create_roles == ("Setter", "grantee", "my owner", "reader")


def test_in_place_the_roles_of_the_database_itself_are_not_needed(house: House) -> None:
    backup = house.like(owner="nobody there")
    assert house.survey(mode="in_place", confirm=house.dbname, backup=backup).create_roles == ()
    assert house.survey(backup=backup).create_roles == ()  # the live database's own owner counts


def test_a_predefined_role_is_never_created(house: House) -> None:
    backup = replace(house.backup, roles=("pg_of_the_future",))
    for create in (False, True):
        [said] = house.problems(backup=backup, create_missing_roles=create)
        assert "predefined role pg_of_the_future" in said


def test_creating_roles_takes_createrole(house: House) -> None:
    house.own(house.role("owner", "CREATEDB"))
    request = {"backup": replace(house.backup, roles=("owner", "missing")), "create_missing_roles": True}
    [said] = house.problems(house.as_role("owner"), **request)
    assert "owner has no CREATEROLE and cannot create the role missing" in said
    run(house.admin, "ALTER ROLE owner CREATEROLE")
    assert house.survey(house.as_role("owner"), **request).create_roles == ("missing",)


@pytest.mark.parametrize(
    "makes",
    ["CREATE TABLE t ()", "CREATE SCHEMA s", "CREATE FUNCTION f() RETURNS int RETURN 1", "CREATE TYPE e AS ENUM ()"],
)
def test_owners_that_the_role_cannot_act_as_are_named(house: House, makes: str) -> None:
    house.own(house.role("owner", "CREATEDB"))
    house.role("Other")
    kind, name = makes.split(" ")[1], makes.split(" ")[2].removesuffix("()")
    run(house.url, f"{makes}; ALTER {kind} {name} OWNER TO {{r}}", r="Other")
    request = {"backup": replace(house.backup, roles=("Other", "owner"))}
    [said] = house.problems(house.as_role("owner"), **request)
    assert 'Role owner cannot give objects to their owner "Other": run GRANT' in said
    run(house.admin, "GRANT {r} TO owner", r="Other")
    assert house.survey(house.as_role("owner"), **request).live_exists


def test_what_the_superuser_owns_is_out_of_reach_of_others(house: House) -> None:
    house.own(house.role("owner", "CREATEDB"))
    run(house.url, "CREATE EXTENSION citext")
    backup = replace(house.backup, roles=("owner", "postgres"))
    assert house.survey(house.as_role("owner"), backup=backup).live_exists  # members of extensions do not count
    run(house.url, "CREATE TABLE t ()")
    [said] = house.problems(house.as_role("owner"), backup=backup)
    assert "to their owner postgres" in said


def test_a_mere_grantee_is_no_problem(house: House) -> None:
    house.own(house.role("owner", "CREATEDB"))
    house.role("reader")
    backup = replace(house.backup, roles=("owner", "reader"))
    assert not [one for one in house.survey(house.as_role("owner"), backup=backup).warnings if "reader" in one]
    run(house.admin, "DROP DATABASE {d} WITH (FORCE)", d=house.dbname)
    backup = replace(backup, database=replace(backup.database, owner="owner"))
    assert [one for one in house.survey(house.as_role("owner"), backup=backup).warnings if "act as role reader" in one]


def test_a_role_without_createdb_is_sent_to_in_place(house: House) -> None:
    house.own(house.role("owner"))
    for request in ({}, {"mode": "new_database", "target": "brand_new"}):
        [said] = house.problems(house.as_role("owner"), **request)
        assert "Role owner may not create databases" in said and "in_place" in said
    assert house.survey(house.as_role("owner"), mode="in_place", confirm=house.dbname).live_exists


def test_who_does_not_own_the_live_database_cannot_swap_it(house: House) -> None:
    house.role("owner")
    house.own("owner")
    house.role("Other", "CREATEDB")
    said = house.problems(house.as_role("Other"))
    assert [
        one
        for one in said
        if f'"Other" does not own database {house.dbname}' in one and 'GRANT owner TO "Other"' in one
    ]
    run(house.admin, "GRANT owner TO {r}", r="Other")
    assert house.survey(house.as_role("Other")).live_exists


# --- the place of a new database


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"encoding": "KLINGON"}, "encoding KLINGON"),
        ({"collate": "tlh_QO.UTF-8", "ctype": "C"}, "locale tlh_QO.UTF-8 / C"),
        ({"collate": "C", "ctype": "it's"}, "locale C / it's"),
        ({"tablespace": "fast disk"}, "no tablespace fast disk"),
    ],
)
def test_what_the_server_does_not_know_is_refused(house: House, changes: dict[str, Any], words: str) -> None:
    run(house.admin, "DROP DATABASE {d} WITH (FORCE)", d=house.dbname)
    [said] = house.problems(backup=house.like(**changes))
    assert words in said


@pytest.mark.parametrize(
    "changes",
    [
        {"collate": "POSIX", "ctype": "POSIX"},
        {"collate": "C.UTF-8", "ctype": "C.UTF-8"},
        {"encoding": "LATIN1"},
        {"locale_provider": "icu", "icu_locale": "de-DE"},
    ],
)
def test_what_the_server_knows_is_accepted(house: House, changes: dict[str, Any]) -> None:
    run(house.admin, "DROP DATABASE {d} WITH (FORCE)", d=house.dbname)
    try:
        assert house.survey(backup=house.like(**changes)).like.encoding
    except PreflightFailed as error:
        assert "ICU is not supported" in str(error) and changes.get("icu_locale")


def test_a_tablespace_takes_a_privilege(house: House) -> None:
    house.own(house.role("owner", "CREATEDB"))
    with opened(house.admin) as connection, connection.cursor() as cursor:
        cursor.execute("SET allow_in_place_tablespaces = on")
        cursor.execute("CREATE TABLESPACE fast LOCATION ''")
    try:
        run(house.admin, "DROP DATABASE {d} WITH (FORCE)", d=house.dbname)
        backup = house.like(tablespace="fast", owner="owner")
        [said] = house.problems(house.as_role("owner"), backup=backup)
        assert "Role owner may create nothing in tablespace fast" in said
        run(house.admin, "GRANT CREATE ON TABLESPACE fast TO owner")
        assert house.survey(house.as_role("owner"), backup=backup).like.tablespace == "fast"
    finally:
        run(house.admin, "DROP TABLESPACE fast")


# --- the live database


def test_a_template_is_not_replaced(house: House) -> None:
    run(house.admin, "ALTER DATABASE {d} IS_TEMPLATE true", d=house.dbname)
    try:
        for request in ({}, {"mode": "in_place", "confirm": house.dbname}):
            assert "is a template" in house.problems(**request)[0]
        assert house.survey(mode="new_database", target="brand_new").database == "brand_new"
    finally:
        run(house.admin, "ALTER DATABASE {d} IS_TEMPLATE false", d=house.dbname)


def test_a_database_that_takes_no_connections_is_told(house: House) -> None:
    run(house.admin, "ALTER DATABASE {d} ALLOW_CONNECTIONS false", d=house.dbname)
    said = house.problems()
    assert f"run ALTER DATABASE {house.dbname} ALLOW_CONNECTIONS true." in said[0]
    run(house.admin, f"UPDATE pg_database SET datallowconn = true, datconnlimit = -2 WHERE datname = '{house.dbname}'")
    assert "is invalid" in house.problems()[0]
    run(house.admin, f"UPDATE pg_database SET datconnlimit = -1 WHERE datname = '{house.dbname}'")


def test_sessions_that_may_not_be_ended_may_pass(house: House) -> None:
    house.own(house.role("owner", "CREATEDB"))
    house.role("Guest")
    with closing(psycopg2.connect(house.server.url(house.dbname, "Guest", PASSWORD))):
        with pytest.raises(Unreachable, match='Role owner may not end the sessions of "Guest"'):
            house.survey(house.as_role("owner"))
        assert house.survey().live_exists
        assert house.survey(house.as_role("owner"), mode="in_place", confirm=house.dbname).live_exists
        run(house.admin, "GRANT pg_signal_backend TO owner")
        assert house.survey(house.as_role("owner")).live_exists
        with opened(house.url), pytest.raises(Unreachable, match="sessions of postgres"):
            house.survey(house.as_role("owner"))


def test_a_subscription_is_warned_of(house: House) -> None:
    run(
        house.url,
        "CREATE SUBSCRIPTION {s} CONNECTION 'host=none' PUBLICATION p WITH (connect = false, slot_name = NONE)",
        s="News letter",
    )
    try:
        assert [one for one in house.survey().warnings if 'stays the subscription "News letter"' in one]
        assert len(house.survey(mode="in_place", confirm=house.dbname).warnings) < len(house.survey().warnings)
    finally:
        run(house.url, "DROP SUBSCRIPTION {s}", s="News letter")


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
    house = House(generous_server, generous_server.url("li ve"), tmp_path)
    run(house.url, "SELECT pg_create_logical_replication_slot('news_letter', 'pgoutput')")
    assert [one for one in house.survey().warnings if "replication slot news_letter: its readers" in one]
    run(house.url, "BEGIN; CREATE TABLE t (); PREPARE TRANSACTION 'it''s open'")
    for request in ({}, {"mode": "in_place", "confirm": "li ve"}):
        [said] = house.problems(**request)
        assert "Database \"li ve\" has the prepared transaction 'it''s open': run COMMIT PREPARED" in said
    assert house.survey(mode="new_database", target="n").database == "n"
    run(house.url, "ROLLBACK PREPARED 'it''s open'")
    run(house.url, "SELECT pg_drop_replication_slot('news_letter')")
    assert house.survey().live_exists


def test_a_standby_is_refused(generous_server: PostgresCluster, tmp_path: Path) -> None:
    house = House(generous_server, generous_server.url("postgres"), tmp_path)
    generous_server.stop()
    (generous_server.data_directory / "standby.signal").write_text("")
    generous_server.start()
    try:
        [said] = house.problems(target="not there")
        assert "The server is a standby" in said
    finally:
        generous_server.stop()
        (generous_server.data_directory / "standby.signal").unlink()
        generous_server.start()


# --- this machine


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


def test_an_encrypted_backup_needs_a_key_that_fits(house: House) -> None:
    ours, other = pyrage.x25519.Identity.generate(), pyrage.x25519.Identity.generate()
    backup = replace(house.backup, encrypted=True, recipients=(str(other.to_public()), str(ours.to_public())))
    with_ours = replace(house.plan, identities=(str(pyrage.x25519.Identity.generate()), str(ours)))
    assert identity_problems(with_ours, backup) == []
    assert identity_problems(house.plan, house.backup) == []
    for keys, words in (
        ((), "has no key for it"),
        ((str(pyrage.x25519.Identity.generate()),), "no key of the plan fits"),
        (("AGE-SECRET-KEY-1BROKEN",), "is unknown"),
    ):
        [said] = identity_problems(replace(house.plan, identities=keys), backup)
        assert words in said and str(ours.to_public()) in said and "SECRET" not in said
    [said] = identity_problems(with_ours, replace(backup, recipients=("nonsense",)))
    assert "is unknown" in said


def test_a_key_of_ssh_fits_too(house: House, tmp_path: Path) -> None:
    keygen = shutil.which("ssh-keygen")
    if keygen is None:
        pytest.skip("ssh-keygen is not installed")
    key = str(tmp_path / "key")
    subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    recipient = " ".join((tmp_path / "key.pub").read_text().split()[:2])
    backup = replace(house.backup, encrypted=True, recipients=(recipient,))
    assert identity_problems(replace(house.plan, identities=((tmp_path / "key").read_text(),)), backup) == []
    assert identity_problems(replace(house.plan, identities=(str(pyrage.x25519.Identity.generate()),)), backup)


def test_a_full_disk_of_the_server_is_told_where_it_can_be_known(house: House, tmp_path: Path) -> None:
    [said] = house.problems(backup=house.like(size=1 << 60))
    assert "The database had 1,099,511,627,776 MiB" in said and str(house.server.data_directory) in said
    one_table = replace(house.like(size=1 << 60), tables=(TableData("public.t", 0, 0, 0),))
    assert house.survey(mode="new_database", target="n", tables=("t",), backup=one_table)
    for host, directory in (
        ("db.example", str(tmp_path)),
        ("localhost", ""),
        ("localhost", "."),
        ("127.0.0.1", "/no/such/directory"),
    ):
        assert disk_problems(host, directory, 1 << 60) == []
    assert disk_problems("/run/postgresql", str(tmp_path), 1) == []


def test_a_role_that_is_not_told_the_server_s_directory_is_not_refused(house: House) -> None:
    house.own(house.role("owner", "CREATEDB"))
    backup = house.like(size=1 << 60)
    with opened(house.server.url(house.dbname, "owner", PASSWORD)) as connection:
        assert preflight_server.directory_of(connection, "pg_default") == ""
    assert house.survey(house.as_role("owner"), backup=backup).live_exists


def test_a_spool_without_room_is_told(house: House, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    [said] = house.problems(replace(house.plan, spool_directory=tmp_path / "file"))
    assert "spool directory" in said
