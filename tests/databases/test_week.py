"""A server with 20 databases for a week of nights: some are made, one is dropped, one refuses its role for a night."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg2
import pytest
from psycopg2 import sql

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.s3 import S3Server
from tasks.catalogue.rows import Event
from tasks.databases.gone import ACTION, note_gone
from tasks.databases.on_server import databases_of
from tasks.errors import BackupSystemError
from tasks.health.database import meant_line
from tasks.names import database_plan, parted
from tasks.plans.database_patterns import checked_databases
from tasks.plans.plan import Plan, Policy, database_of
from tasks.postgres.dsn import parse
from tasks.restore.labels import Label
from tasks.retention.removal import retain
from tasks.runs.at_once import Answer
from tests.conftest import DatabaseFactory
from tests.support.recorded import recorded_backup
from tests.support.scene import Scene, make_scene

pytestmark = pytest.mark.slow
ROLE = "family_reader"
SMALL = [f"fam_{number:02}" for number in range(20)]
ODD = "fam \"Ü\" 100% /\n'x'"
#: This database refuses the role in this night. It is then dumped for real, and so is ODD every night; the others get
#: backups of the same kind without a dump, which takes long.
SHUT = ("fam_11", 3)
NIGHTS, DAYS = 7, 4


@dataclass
class Street:
    """The plan of a server, and what has become of it so far."""

    cluster: PostgresCluster
    plan: Plan
    messages: list[str] = field(default_factory=list)
    failures: list[tuple[int, str]] = field(default_factory=list)

    def admin(self, statement: str, *names: str, database: str = "postgres") -> None:
        with closing(psycopg2.connect(self.cluster.url(database))) as connection, connection.cursor() as cursor:
            connection.autocommit = True
            cursor.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))

    def somebody_waits_for_a_lock(self) -> bool:
        with closing(psycopg2.connect(self.cluster.url("postgres"))) as connection, connection.cursor() as cursor:
            cursor.execute("SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)")
            return bool(cursor.fetchone()[0])

    def make(self, database: str) -> None:
        self.admin("CREATE DATABASE {} TEMPLATE fam_template", database)

    def night(self, number: int, at: datetime) -> None:
        """What a run does: asks the server, tells what is gone, backs each database up; then the clean-up of all."""
        names = databases_of(self.plan).meant_by(self.plan)
        meant = [database_plan(self.plan.name, name) for name in names]
        told = note_gone(self.plan.catalogue, self.plan.name, meant, lambda name: _line(name))
        self.messages += told
        for name in names:
            try:
                own = database_of(self.plan, name)
                if name == ODD or (name, number) == SHUT:
                    Scene(self.cluster, self.cluster.url(name), own).back_up(at)
                else:
                    recorded_backup(own, at)
            except BackupSystemError as error:
                self.failures.append((number, str(error)))
        for name in self.plan.catalogue.plans_of_server(self.plan.name) if number >= DAYS else ():
            retain(database_of(self.plan, parted(name)[1]), str(uuid.uuid4()), "system", at + timedelta(minutes=30))

    def nights_of(self, database: str, first: datetime) -> list[int]:
        """The nights whose backups of a database are there."""
        own = database_of(self.plan, database)
        found = self.plan.catalogue.completed(own.name)
        stored = {one.key for one in own.storage.objects(own.prefix) if one.key.endswith(".sql")}
        assert stored == {row.s3_key for row in found}
        return sorted((row.created_at - first).days for row in found)


def _line(plan: str) -> Event:
    return Event(ACTION, "completed", plan, "system", "a run")


@pytest.fixture
def street(
    any_postgres: PostgresCluster, fresh_database: DatabaseFactory, s3_server: S3Server, tmp_path: Path
) -> Iterator[Street]:
    """A server whose plan has a role that may read everything, and databases that nobody is to back up."""
    s3_server.create_bucket("family")
    scene = make_scene(
        any_postgres,
        fresh_database(any_postgres, "fam_template"),
        fresh_database(any_postgres, "fam_catalogue"),
        s3_server,
        "family",
        tmp_path / "spool",
    )
    address = any_postgres.url("postgres", ROLE, "pw")
    patterns = checked_databases(["fam*", "!*_test", "!fam_template"])
    plan = replace(scene.plan, name="server", database=parse(address), databases=patterns, policy=Policy(days=DAYS))
    street = Street(any_postgres, plan)
    street.admin(f"CREATE ROLE {ROLE} LOGIN PASSWORD 'pw' IN ROLE pg_read_all_data")
    street.admin("CREATE TABLE t AS SELECT 1 AS i", database="fam_template")
    yield street
    for name in databases_of(replace(plan, databases=checked_databases(["fam*"]))).names:
        if name.startswith("fam"):
            street.admin("DROP DATABASE {} WITH (FORCE)", name)
    street.admin("DROP OWNED BY {}", ROLE)
    street.admin("DROP ROLE {}", ROLE)


def test_a_week_of_nights_ends_with_the_right_backups_and_one_message_for_the_dropped_database(street: Street) -> None:
    for name in (*SMALL, "fam_test", "fam_shut", "fam_kept"):
        street.make(name)
    street.admin("ALTER DATABASE fam_shut ALLOW_CONNECTIONS false")
    kept = Label("kept", "fam_kept", "fam_00", datetime.now(UTC), "a run").text().replace("{", "{{").replace("}", "}}")
    street.admin(f"COMMENT ON DATABASE fam_kept IS '{kept}'")
    first = datetime.now(UTC).replace(microsecond=0) - timedelta(days=NIGHTS)
    for night in range(NIGHTS):
        if night == 2:
            street.make(ODD)
            street.make("fam_new")
        if night == 3:
            street.admin("DROP DATABASE fam_07")
            street.make("fam_late")
            street.admin("REVOKE CONNECT ON DATABASE fam_11 FROM PUBLIC")
        if night == 4:
            street.admin("GRANT CONNECT ON DATABASE fam_11 TO PUBLIC")
        street.night(night, first + timedelta(days=night))

    last = list(range(NIGHTS - DAYS, NIGHTS))
    for name in SMALL:
        expected = {"fam_07": [2], "fam_11": last[1:]}.get(name, last)
        assert street.nights_of(name, first) == expected, name
    assert [street.nights_of(name, first) for name in (ODD, "fam_new", "fam_late")] == [last] * 3
    assert street.plan.catalogue.plans_of_server("server") == sorted(
        database_plan("server", name) for name in (*SMALL, ODD, "fam_new", "fam_late")
    )
    assert street.messages == ["server.fam_07"]
    known = street.plan.catalogue.plans_of_server("server")
    found = databases_of(street.plan)
    assert meant_line(Answer(found), street.plan, known).status == "ok"
    assert meant_line(Answer(found), street.plan, known[1:]).what.endswith(
        "1 of them never backed up so far: server.fam_00."
    )
    [(night, reason)] = street.failures
    assert night == 3 and "permission denied for database" in reason and "\n" not in reason
    assert "leave the database out: add !fam_11 to databases of plan server" in reason


def test_a_database_that_comes_back_and_goes_again_is_told_again(street: Street) -> None:
    at = datetime.now(UTC) - timedelta(days=1)
    for number, there in enumerate([True, False, False, True, False, False]):
        street.make("fam_a") if number == 0 or number == 3 else None
        if not there and number in (1, 4):
            street.admin("DROP DATABASE fam_a")
        street.night(number, at + timedelta(minutes=number))
        assert street.messages == ["server.fam_a"] * (number > 0) + ["server.fam_a"] * (number > 3)
    assert street.messages == ["server.fam_a"] * 2


def test_databases_of_the_system_and_of_providers_are_backed_up_only_by_their_exact_names(street: Street) -> None:
    street.make("rdsadmin")
    try:
        catalogue = street.plan.catalogue.dsn.dbname

        def meant(*patterns: str) -> tuple[str, ...]:
            found = databases_of(street.plan)
            return found.meant_by(replace(street.plan, databases=checked_databases(patterns)))

        assert not {"rdsadmin", catalogue, "template0", "template1"} & {*meant("*"), *meant("rds*", "fam_cat*")}
        assert meant("rdsadmin", catalogue) == (catalogue, "rdsadmin")
    finally:
        street.admin("DROP DATABASE rdsadmin")


NAMES = ["fam.dots", "fam~53", "F" * 63, "fam😀", "fam\nline", "!fam", " fam", "host=fam port=1", "postgresql://fam/x"]
NAMES += [
    "--fam",
    "fam'q\"d",
    "fam\\b",
    "faÄÖ" * 10,
    "fam{x}",
    "fam%s",
    "fam$(x)",
    "FAM",
    "Fam",
    "fam/..",
    "..",
    "fam?",
    "fam*",
]


def test_databases_of_any_name_are_backed_up_and_restored_each_under_a_name_of_its_own(street: Street) -> None:
    plan = replace(street.plan, databases=checked_databases(["*", "!postgres", "!fam_*", "!test*"]))
    before = databases_of(plan)
    for name in NAMES:
        street.make(name)
    try:
        assert set(databases_of(plan).meant_by(plan)) - set(before.names) == set(NAMES)
        assert len({database_plan("server", name).lower() for name in NAMES}) == len(NAMES)
        for name in NAMES:
            address = parse(street.cluster.url()).with_dbname(name)
            one = Scene(street.cluster, street.cluster.url(name), replace(database_of(plan, name), database=address))
            one.back_up()
            street.admin("INSERT INTO t VALUES (2)", database=name)
            one.restore(mode="swap", confirm=name)
            assert one.sql("SELECT i FROM t", name) == [(1,)]
    finally:
        kept = set(databases_of(plan).others) - set(before.others)
        for name in (*NAMES, *kept):
            street.admin("DROP DATABASE {} WITH (FORCE)", name)


@pytest.fixture
def no_utf8(street: Street) -> Iterator[str]:
    """A database whose name is no UTF-8 is there during the test: what its name is to this program."""
    street.admin("CREATE DATABASE fam_c TEMPLATE template0 ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C'")
    with closing(psycopg2.connect(street.cluster.url("fam_c"))) as there, there.cursor() as cursor:
        there.autocommit = True
        cursor.execute("SET client_encoding = SQL_ASCII")
        cursor.execute(b'CREATE DATABASE "fam_caf\xe9" TEMPLATE fam_template')
        try:
            yield "fam_caf\udce9"
        finally:
            cursor.execute(b'DROP DATABASE "fam_caf\xe9"')


def test_a_database_whose_name_is_no_utf8_fails_in_one_sentence_and_stops_no_other(
    street: Street, no_utf8: str
) -> None:
    assert databases_of(street.plan).meant_by(street.plan) == ("fam_c", no_utf8)
    street.night(0, datetime.now(UTC))
    [(_, reason)] = street.failures
    assert "fam_caf\\xe9 is no UTF-8" in reason and "such as !fam_caf? in databases of plan server" in reason
    assert checked_databases(["fam_caf?"]).mean(no_utf8)
    assert street.plan.catalogue.plans_of_server("server") == ["server.fam_c"]


def test_what_is_told_of_a_database_whose_name_is_no_utf8_can_be_sent(street: Street) -> None:
    odd = replace(database_of(street.plan, "fam_a"), name="server.fam_caf~e9")
    recorded_backup(odd, datetime.now(UTC))
    [sentence] = note_gone(street.plan.catalogue, "server", [], _line).values()
    assert sentence.encode().startswith(b"The database fam_caf\\xe9 is not backed up any more")


def test_the_catalogues_database_is_somebodys_data_when_an_application_has_tables_in_it(street: Street) -> None:
    catalogue = street.plan.catalogue.dsn.dbname
    plan = replace(street.plan, databases=checked_databases(["fam_cat*"]))
    assert catalogue in databases_of(plan).others and databases_of(plan).meant_by(plan) == ()
    for made, dropped in (
        ("CREATE TABLE orders (i int)", "DROP TABLE orders"),
        ("SELECT lo_create(7)", "SELECT lo_unlink(7)"),
    ):
        street.admin(made, database=catalogue)
        assert databases_of(plan).meant_by(plan) == (catalogue,)
        street.admin(dropped, database=catalogue)
        assert databases_of(plan).meant_by(plan) == ()


def test_of_a_database_that_is_closed_nobody_says_that_it_is_not_there(street: Street) -> None:
    for name in ("fam_a", "fam_b", "fam_c"):
        street.make(name)
    street.night(0, datetime.now(UTC))
    street.admin("ALTER DATABASE fam_a IS_TEMPLATE true")
    street.admin("ALTER DATABASE fam_b ALLOW_CONNECTIONS false")
    there = [database_plan("server", name) for name in databases_of(street.plan).meant_by(street.plan)]
    told = note_gone(street.plan.catalogue, "server", there, _line)
    street.admin("ALTER DATABASE fam_a IS_TEMPLATE false")
    street.admin("ALTER DATABASE fam_b ALLOW_CONNECTIONS true")
    assert set(told) == {"server.fam_a", "server.fam_b"}
    assert all("it is a template or takes no connections" in sentence for sentence in told.values())


def test_two_runs_at_the_same_time_tell_of_a_database_once(street: Street) -> None:
    street.make("fam_a")
    street.night(0, datetime.now(UTC))
    first_is_telling, second_waits = threading.Event(), threading.Event()

    def line(plan: str) -> Event:
        first_is_telling.set()
        second_waits.wait(60)
        return _line(plan)

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(note_gone, street.plan.catalogue, "server", [], line)
        assert first_is_telling.wait(60)
        second = pool.submit(note_gone, street.plan.catalogue, "server", [], _line)
        while not second.done() and not street.somebody_waits_for_a_lock():
            time.sleep(0.05)
        second_waits.set()
        assert list(first.result()) == ["server.fam_a"] and second.result() == {}


def test_a_server_that_does_not_answer_has_lost_no_database(street: Street) -> None:
    street.make("fam_a")
    street.night(0, datetime.now(UTC))
    for address in (
        "postgresql://fam:x@127.0.0.1:1/postgres",
        street.cluster.url("postgres", ROLE, "not this"),
    ):
        with pytest.raises(BackupSystemError):
            replace(street, plan=replace(street.plan, database=parse(address))).night(1, datetime.now(UTC))
    replace(street, plan=replace(street.plan, database=street.plan.database.with_dbname("not there"))).night(
        2, datetime.now(UTC)
    )
    assert street.messages == []


def test_a_database_whose_backups_have_all_failed_is_not_said_to_have_been_backed_up(street: Street) -> None:
    street.make("fam_a")
    own = database_of(street.plan, "fam_a")
    recorded_backup(own, datetime.now(UTC))
    with street.plan.catalogue.cursor() as cursor:
        cursor.execute("UPDATE database_backups SET status = 'failed', completed_at = NULL, error = 'It broke.'")
    assert street.plan.catalogue.plans_of_server("server") == [own.name]
    known = street.plan.catalogue.plans_of_server("server", backed_up=True)
    line = meant_line(Answer(databases_of(street.plan)), street.plan, known)
    assert line.status == "warning" and "1 of them never backed up so far: server.fam_a." in line.what
