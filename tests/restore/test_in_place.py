"""A restore in place: whatever became of the database since, it is afterwards what the backup says, or untouched."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg2
import pytest

from deployments.quick_start.postgres import PostgresCluster
from tasks.catalogue.catalogue import Catalogue
from tasks.postgres.dsn import parse
from tasks.postgres.server import source_session
from tasks.restore.dump_reader import Entry, Piece
from tasks.restore.in_place import Standing, lock_holders, lock_problems
from tests.conftest import DatabaseFactory
from tests.support import eventually
from tests.support.every_kind import make_every_kind, make_every_kind_as_owner, make_roles, run_sections
from tests.support.original import Original, own, run_psql

VANDALISM = Path(__file__).with_name("vandalism.sql")


#: `original(statements, superuser_statements="", owner=False)`: a small database and its dump.
MakeOriginal = Callable[..., Original]


@pytest.fixture
def original(postgres_server: PostgresCluster, fresh_database: DatabaseFactory) -> MakeOriginal:
    def make(statements: str = "", by_superuser: str = "", owner: bool = False) -> Original:
        url = fresh_database(postgres_server)
        make_roles(postgres_server)
        if by_superuser:
            run_psql(postgres_server, url, by_superuser.encode())
        if owner:
            url = own(postgres_server, url)
        if statements:
            run_psql(postgres_server, url, statements.encode())
        return Original(postgres_server, url)

    return make


@pytest.mark.slow
def test_every_kind_of_object_comes_back_whatever_was_done_to_it(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    url = fresh_database(postgres_server)
    make_every_kind(url, postgres_server)
    original = Original(postgres_server, url)
    original.restore()
    assert original.dumped() == original.dump
    run_sections(url, VANDALISM, {"owner", "superuser"})
    assert original.dumped() != original.dump
    original.restore()
    assert original.dumped() == original.dump


def test_an_owner_without_superuser_gets_everything_back_too(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    url = make_every_kind_as_owner(fresh_database(postgres_server), postgres_server)
    original = Original(postgres_server, url)
    original.restore()
    assert original.dumped() == original.dump
    run_sections(url, VANDALISM, {"owner"})
    original.restore()
    assert original.dumped() == original.dump


@pytest.mark.parametrize("schema", ["public", 'the "catalogue"'])
@pytest.mark.parametrize("owner", [False, True], ids=["superuser", "owner"])
def test_the_catalogue_stays_as_it_is(original: MakeOriginal, schema: str, owner: bool) -> None:
    one, quoted = original("CREATE TABLE t (id int)", owner=owner), schema.replace('"', '""')
    one.sql(f'CREATE SCHEMA IF NOT EXISTS "{quoted}"')
    dsn = parse(one.url)
    one.sql(f'ALTER ROLE CURRENT_USER IN DATABASE "{dsn.dbname}" SET search_path = "{quoted}"')
    Catalogue(dsn).prepare()
    with closing(psycopg2.connect(one.url)) as connection:
        keep = Catalogue(dsn).own_tables_in(connection)
    one = Original(one.cluster, one.url, keep)
    one.sql(
        f'SET search_path = "{quoted}"; CREATE VIEW public.of_catalogue AS SELECT id FROM database_backups;'
        "CREATE TABLE public.refers (id integer REFERENCES database_backups);"
        "INSERT INTO backup_events (action, outcome, plan, actor, run_id) VALUES ('a', 'b', 'c', 'd', 'e')"
    )
    one.restore()
    assert one.dumped() == one.dump
    assert one.sql("SELECT count(*) FROM backup_events") == [(1,)]
    with pytest.raises(psycopg2.errors.RaiseException, match="append-only"):
        one.sql("DELETE FROM backup_events")
    one.sql("CREATE TYPE public.used AS ENUM ('a'); ALTER TABLE database_backups ADD COLUMN extra public.used")
    assert "the catalogue of backups" in one.refusal()


def test_what_a_role_cannot_remove_is_named_and_everything_stays(original: MakeOriginal) -> None:
    one = original("CREATE TABLE mine (id int); SELECT lo_create(77)", owner=True)
    one.sql('CREATE SCHEMA "of others"; CREATE TABLE "of others".t (id int)', superuser=True)
    assert "must be owner of schema of others" in one.refusal()
    one.sql('DROP SCHEMA "of others" CASCADE; CREATE CAST (macaddr AS text) WITH INOUT', superuser=True)
    assert "DROP CAST (pg_catalog.macaddr AS pg_catalog.text)" in one.refusal()
    one.sql("DROP CAST (macaddr AS text); SELECT lo_create(78)", superuser=True)
    assert "must be owner of large object 78" in one.refusal()
    one.sql("SELECT lo_unlink(78); ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC", superuser=True)
    assert "default privileges of role postgres cannot be removed" in one.refusal()


def test_what_a_superuser_set_up_stays_where_an_owner_restores(original: MakeOriginal) -> None:
    one = original(
        "CREATE TABLE t (id int); INSERT INTO t VALUES (1)",
        by_superuser="CREATE SCHEMA of_extension; CREATE EXTENSION refint SCHEMA of_extension; CREATE EXTENSION pg_trgm;"
        "COMMENT ON EXTENSION refint IS 'of the superuser';"
        "REVOKE EXECUTE ON FUNCTION of_extension.check_primary_key() FROM PUBLIC;"
        "GRANT EXECUTE ON FUNCTION similarity(text, text) TO every_kind_reader;"
        "GRANT SELECT ON pg_catalog.pg_authid TO every_kind_reader; ALTER SCHEMA public OWNER TO postgres;"
        "GRANT ALL ON SCHEMA public TO PUBLIC; COMMENT ON SCHEMA public IS 'of the superuser';"
        "CREATE TABLE settings (id int); INSERT INTO settings VALUES (1); GRANT SELECT ON settings TO every_kind_owner;"
        "ALTER EXTENSION refint ADD TABLE settings; CREATE TABLE guarded (id int); ALTER EXTENSION refint ADD TABLE guarded;"
        "UPDATE pg_extension SET extconfig = ARRAY['settings'::regclass::oid], extcondition = '{\"\"}' WHERE extname = 'refint';"
        'ALTER TABLE guarded ENABLE ROW LEVEL SECURITY; CREATE POLICY "of it" ON guarded;'
        "CREATE FUNCTION of_extension.tell() RETURNS event_trigger LANGUAGE plpgsql AS 'BEGIN END';"
        "ALTER EXTENSION refint ADD FUNCTION of_extension.tell();"
        "CREATE EVENT TRIGGER stays ON sql_drop EXECUTE FUNCTION of_extension.tell(); COMMENT ON EVENT TRIGGER stays IS 'it';",
        owner=True,
    )
    one.sql("CREATE TABLE newer (id int); TRUNCATE t")
    one.restore()
    assert one.dumped() == one.dump


def test_configuration_tables_of_extensions_hold_what_the_backup_says(original: MakeOriginal) -> None:
    made = (
        "CREATE EXTENSION hstore; CREATE TABLE settings (id int PRIMARY KEY, fixed boolean);"
        "CREATE TABLE choices (of int REFERENCES settings); INSERT INTO settings VALUES (1, true);"
        "ALTER EXTENSION hstore ADD TABLE settings; ALTER EXTENSION hstore ADD TABLE choices;"
        "UPDATE pg_extension SET extconfig = ARRAY['settings'::regclass::oid, 'choices'::regclass::oid],"
        " extcondition = ARRAY['WHERE NOT fixed', ''] WHERE extname = 'hstore';"
        "ALTER TABLE choices ENABLE ROW LEVEL SECURITY; CREATE POLICY all_of_them ON choices USING (true);"
    )
    one = original(by_superuser=made + "INSERT INTO settings VALUES (2, false); INSERT INTO choices VALUES (2)")
    assert b"COPY public.settings" in one.dump
    one.sql(
        "DELETE FROM choices; DELETE FROM settings WHERE id = 2; INSERT INTO settings VALUES (3, false), (4, true);"
        "INSERT INTO choices VALUES (3); DROP POLICY all_of_them ON choices; CREATE POLICY other ON settings;"
        "ALTER TABLE settings ENABLE ROW LEVEL SECURITY"
    )
    one.restore()
    assert one.dumped() == one.dump
    assert one.sql("SELECT id FROM settings ORDER BY id") == [(1,), (2,), (4,)]


@pytest.mark.parametrize(
    "done",
    [
        "DROP SCHEMA public CASCADE",
        "DROP SCHEMA public CASCADE; CREATE SCHEMA public",
        "DROP EXTENSION citext CASCADE",
        "ALTER EXTENSION hstore SET SCHEMA public",
        "ALTER SCHEMA ext RENAME TO ext2",
        "COMMENT ON EXTENSION citext IS 'other'",
        "DROP SCHEMA ext CASCADE; CREATE SCHEMA ext; CREATE EXTENSION hstore SCHEMA ext",
    ],
)
@pytest.mark.parametrize("owner", [False, True], ids=["superuser", "owner"])
def test_schemas_and_extensions_come_back_to_their_place(original: MakeOriginal, done: str, owner: bool) -> None:
    one = original(
        "CREATE SCHEMA ext; GRANT USAGE ON SCHEMA ext TO PUBLIC; CREATE EXTENSION hstore SCHEMA ext; CREATE EXTENSION citext;"
        "CREATE TABLE t (h ext.hstore, c citext); INSERT INTO t VALUES ('a=>1', 'B')",
        owner=owner,
    )
    one.sql(done, superuser="SET SCHEMA" in done)
    one.restore()
    assert one.dumped() == one.dump


def test_a_database_without_plpgsql_can_be_restored_too(original: MakeOriginal) -> None:
    one = original("CREATE FUNCTION f() RETURNS integer LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'")
    one.sql("DROP EXTENSION plpgsql CASCADE")
    one.restore()
    assert one.sql("SELECT f()") == [(1,)]  # pg_dump writes of plpgsql from now on, as it was not there from the start
    without = original("DROP EXTENSION plpgsql")
    without.sql(
        "CREATE EXTENSION plpgsql; CREATE FUNCTION f() RETURNS integer LANGUAGE plpgsql AS 'BEGIN RETURN 1; END'"
    )
    without.restore()
    assert without.sql("SELECT count(*) FROM pg_language WHERE lanname = 'plpgsql'") == [(0,)]


@pytest.mark.slow
def test_a_restore_that_takes_more_locks_than_a_server_has_is_refused_before_anything(original: MakeOriginal) -> None:
    one = original("CREATE TABLE t (id int); SELECT count(lo_create(0)) FROM generate_series(1, 30000)")
    with source_session(parse(one.url), "test") as connection:
        [problem] = lock_problems(connection, 1)
    assert re.search(r"max_locks_per_transaction to [0-9]+ or more, or restore with swap", problem)


def test_a_wait_for_a_lock_is_bounded_and_says_who_holds_it(original: MakeOriginal) -> None:
    one = original("CREATE TABLE held (id int)")
    with closing(psycopg2.connect(one.url, application_name="the holder")) as holder:
        holder.cursor().execute("LOCK TABLE held IN ACCESS SHARE MODE")
        said: list[str] = []
        waiting = threading.Thread(target=lambda: said.append(one.refusal(lock_wait=2)))
        waiting.start()
        with closing(psycopg2.connect(one.url)) as connection:
            connection.autocommit = True
            told = ""

            def is_told() -> bool:
                nonlocal told
                found = one.sql("SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'DO%'")
                told = lock_holders(connection, found[0][0]) if found else ""
                return bool(told)

            assert eventually(is_told)
        waiting.join()
    pid = holder.info.backend_pid if not holder.closed else 0
    assert "table held, which role postgres (the holder, process" in told, (told, pid)
    assert "lock timeout" in said[0]
    one.restore()


def test_a_schema_is_created_unless_it_stays_however_its_text_is_cut() -> None:
    first, second = (Entry(number, "SCHEMA", "-", f"CREATE SCHEMA s{number}") for number in (1, 2))
    texts = [
        (entry, f'-- Name: x\n--\n\nCREATE SCHEMA "\nCREATE SCHEMA s{entry.number}";\n\n\n'.encode())
        for entry in (first, second)
    ]
    for size in (1, 5, 100):
        standing = Standing()
        taken = [
            selected.data
            for entry, text in texts
            for at in range(0, len(text), size)
            for selected in standing.take(Piece(entry, text[at : at + size], False))
        ]
        taken += [selected.data for selected in standing.finish()]
        wanted = b"".join(text for _, text in texts).replace(b'\nCREATE SCHEMA "', b'\nCREATE SCHEMA IF NOT EXISTS "')
        assert b"".join(taken) == wanted


@pytest.mark.parametrize("owner", [False, True], ids=["superuser", "owner"])
def test_objects_beside_those_of_an_extension_are_removed_one_by_one(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory, owner: bool
) -> None:
    empty = fresh_database(postgres_server)
    url = (make_every_kind_as_owner if owner else make_every_kind)(empty, postgres_server) or empty
    beside = 'CREATE EXTENSION cube SCHEMA plain; CREATE EXTENSION pg_trgm SCHEMA "odd ""schema""; Type: TABLE";'
    run_psql(postgres_server, url, beside.encode())
    original = Original(postgres_server, url)
    original.restore()
    assert original.dumped() == original.dump
