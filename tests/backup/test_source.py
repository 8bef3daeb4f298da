"""What the manifest says of a source database, compared with real servers and real dumps."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import psycopg2
import pytest
from psycopg2 import sql
from psycopg2.extensions import connection as Connection

from deployments.quick_start.postgres import PostgresCluster
from tasks.backup import source
from tasks.postgres.dsn import parse

ODD_NAMES = (
    "blank space",
    'quo"te',
    "back\\slash",
    "ümlaut",
    "💾",
    "-dash",
    "new\nline",
    "per%cent$",
    "x" * 63,
)

#: One role for every way in which a dump can name one; `{n}` is the role that the line is about.
NAMING_STATEMENTS = {
    "schema": "CREATE SCHEMA s AUTHORIZATION {n}",
    "table": "CREATE TABLE s.t (a int PRIMARY KEY, b serial); ALTER TABLE s.t OWNER TO {n}",
    "partition": "CREATE TABLE s.p (a int) PARTITION BY LIST (a); ALTER TABLE s.p OWNER TO {n}",
    "view": "CREATE VIEW s.v AS SELECT 1 AS a; ALTER VIEW s.v OWNER TO {n}",
    "matview": "CREATE MATERIALIZED VIEW s.m AS SELECT 1 AS a; ALTER MATERIALIZED VIEW s.m OWNER TO {n}",
    "sequence": "CREATE SEQUENCE s.q; ALTER SEQUENCE s.q OWNER TO {n}",
    "composite": "CREATE TYPE s.c AS (a int); ALTER TYPE s.c OWNER TO {n}",
    "domain": "CREATE DOMAIN s.d AS int; ALTER DOMAIN s.d OWNER TO {n}",
    "range": "CREATE TYPE s.r AS RANGE (subtype = int); ALTER TYPE s.r OWNER TO {n}",
    "function": "CREATE FUNCTION s.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; ALTER FUNCTION s.f() OWNER TO {n}",
    "aggregate": "CREATE AGGREGATE s.a(int) (sfunc = int4pl, stype = int); ALTER AGGREGATE s.a(int) OWNER TO {n}",
    "operator": "CREATE OPERATOR s.=== (leftarg = int, rightarg = int, function = int4pl);"
    "ALTER OPERATOR s.=== (int, int) OWNER TO {n}",
    "collation": 'CREATE COLLATION s.co FROM "C"; ALTER COLLATION s.co OWNER TO {n}',
    "search": "CREATE TEXT SEARCH CONFIGURATION s.ts (COPY = simple);ALTER TEXT SEARCH CONFIGURATION s.ts OWNER TO {n}",
    "statistics": "CREATE STATISTICS s.st ON a, b FROM s.t; GRANT CREATE ON SCHEMA s TO {n};"
    "ALTER STATISTICS s.st OWNER TO {n}",
    "publication": "CREATE PUBLICATION pub; GRANT CREATE ON DATABASE {d} TO {n}; ALTER PUBLICATION pub OWNER TO {n}",
    "large_object": "SELECT lo_create(4711); ALTER LARGE OBJECT 4711 OWNER TO {n}",
    "large_object_grantee": "GRANT SELECT ON LARGE OBJECT 4711 TO {n}",
    "server": "CREATE FOREIGN DATA WRAPPER w; CREATE SERVER fs FOREIGN DATA WRAPPER w;"
    "GRANT USAGE ON FOREIGN DATA WRAPPER w TO {n}; ALTER SERVER fs OWNER TO {n}",
    "mapped": "CREATE USER MAPPING FOR {n} SERVER fs",
    "grantee": "GRANT SELECT ON s.t TO {n}",
    "column_grantee": "GRANT SELECT (a) ON s.t TO {n}",
    "sequence_grantee": "GRANT USAGE ON s.q TO {n}",
    "type_grantee": "GRANT USAGE ON TYPE s.d TO {n}",
    "grantor": "GRANT USAGE ON SCHEMA s TO {n}; GRANT SELECT ON s.v TO {n} WITH GRANT OPTION;"
    "SET ROLE {n}; GRANT SELECT ON s.v TO r_grantee; RESET ROLE",
    "policy": "CREATE POLICY p ON s.t TO {n} USING (true)",
    "default_privileges": "ALTER DEFAULT PRIVILEGES FOR ROLE {n} IN SCHEMA s GRANT SELECT ON TABLES TO r_grantee",
    "default_grantee": "ALTER DEFAULT PRIVILEGES FOR ROLE r_grantor REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;"
    "ALTER DEFAULT PRIVILEGES FOR ROLE r_grantor GRANT USAGE ON SEQUENCES TO {n}",
    "system_function": "GRANT EXECUTE ON FUNCTION pg_ls_dir(text) TO {n}",
    "extension_function": "CREATE EXTENSION citext; GRANT EXECUTE ON FUNCTION citext_eq(citext, citext) TO {n}",
}


@contextmanager
def _open(url: str) -> Iterator[Connection]:
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        yield connection


def _run(connection: Connection, statement: str, **names: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql.SQL(statement).format(**{key: sql.Identifier(name) for key, name in names.items()}))


def _create_roles(connection: Connection, *names: str) -> None:
    for name in names:
        _run(connection, "DROP ROLE IF EXISTS {n}", n=name)
        _run(connection, "CREATE ROLE {n} LOGIN", n=name)


def _dump(server: PostgresCluster, url: str, *options: str) -> str:
    dsn = parse(url)
    program = [str(server.bin_directory / "pg_dump"), *options, f"--dbname={dsn.conninfo()}"]
    return subprocess.run(program, capture_output=True, text=True, check=True, env=dsn.child_environment("test")).stdout


def _roles_in(dump: str) -> set[str]:
    """The roles that the text of a dump names, told by its statements."""
    name = r'("(?:[^"]|"")+"|[a-z_][a-z0-9_$]*)'
    found: set[str] = set()
    for pattern in (
        rf"^ALTER [^;]*? OWNER TO {name};$",
        rf"^(?:GRANT|REVOKE) [^;]*? (?:TO|FROM) {name}(?: WITH GRANT OPTION)?;$",
        rf"^SET SESSION AUTHORIZATION {name};$",
        rf"^CREATE POLICY [^;]*? TO {name}",
        rf"^ALTER DEFAULT PRIVILEGES FOR ROLE {name} ",
        rf"^ALTER DEFAULT PRIVILEGES [^;]*? (?:TO|FROM) {name};$",
        rf"^CREATE USER MAPPING FOR {name} ",
    ):
        found.update(re.findall(pattern, dump, re.MULTILINE))
    bare = {text[1:-1].replace('""', '"') if text.startswith('"') else text for text in found}
    return {role for role in bare if role != "PUBLIC" and not role.startswith("pg_")}


@pytest.fixture
def naming_database(postgres_server: PostgresCluster, fresh_database: Callable[..., str]) -> Iterator[str]:
    """A database whose dump names a role in every way there is, and beside them roles that it does not name."""
    url = fresh_database(postgres_server, "naming")
    with _open(url) as connection:
        _create_roles(connection, *(f"r_{way}" for way in NAMING_STATEMENTS), "r_unused", "r_database", "r_extension")
        for way, statement in NAMING_STATEMENTS.items():
            _run(connection, statement, n=f"r_{way}", d="naming")
        _run(
            connection,
            "ALTER DATABASE naming OWNER TO r_database; GRANT CREATE ON DATABASE naming TO r_extension",
        )
        _run(connection, "SET ROLE r_extension; CREATE EXTENSION hstore; RESET ROLE")
    yield url
    with _open(postgres_server.url()) as connection:
        _run(connection, "DROP DATABASE naming")
        _create_roles(connection, *(f"r_{way}" for way in NAMING_STATEMENTS), "r_unused", "r_database", "r_extension")


def test_the_roles_are_exactly_those_that_the_dump_names(
    postgres_server: PostgresCluster, naming_database: str
) -> None:
    with _open(naming_database) as connection:
        roles = source.roles_named(connection)
    assert set(roles) == _roles_in(_dump(postgres_server, naming_database))
    assert {f"r_{way}" for way in NAMING_STATEMENTS} <= set(roles)
    assert {"r_unused", "r_database", "r_extension"}.isdisjoint(roles)


def test_roles_that_only_an_excluded_table_has_are_not_named(
    postgres_server: PostgresCluster, naming_database: str
) -> None:
    with _open(naming_database) as connection:
        roles = source.roles_named(connection, ["s.t"])
    assert set(roles) == _roles_in(_dump(postgres_server, naming_database, "--exclude-table=s.t"))
    assert "r_policy" not in roles


def test_the_role_that_made_the_cluster_is_named_only_where_the_dump_names_it(
    postgres_server: PostgresCluster, fresh_database: Callable[..., str]
) -> None:
    url = fresh_database(postgres_server)
    with _open(url) as connection:
        _run(connection, "CREATE EXTENSION citext")
        assert source.roles_named(connection) == ()
        _run(connection, "CREATE TABLE t ()")
        assert set(source.roles_named(connection)) == _roles_in(_dump(postgres_server, url)) != set()


def test_roles_with_odd_names_are_found(postgres_server: PostgresCluster, fresh_database: Callable[..., str]) -> None:
    url = fresh_database(postgres_server)
    with _open(url) as connection:
        _create_roles(connection, *ODD_NAMES)
        for number, name in enumerate(ODD_NAMES):
            _run(connection, "CREATE TABLE {t} (); ALTER TABLE {t} OWNER TO {n}", t=f"t{number}", n=name)
        assert source.roles_named(connection) == tuple(sorted(ODD_NAMES, key=str.encode))
        assert set(source.roles_named(connection)) == _roles_in(_dump(postgres_server, url))
        _run(
            connection,
            "DROP OWNED BY " + ", ".join(f"{{n{i}}}" for i in range(len(ODD_NAMES))),
            **{f"n{i}": name for i, name in enumerate(ODD_NAMES)},
        )
        for name in ODD_NAMES:
            _run(connection, "DROP ROLE {n}", n=name)


def test_the_properties_of_a_database_are_told(
    postgres_server: PostgresCluster, fresh_database: Callable[..., str]
) -> None:
    name = 'Sh\'op "ü" 💾'
    url = fresh_database(postgres_server, name)
    with _open(url) as connection:
        _create_roles(connection, "app role", "own er")
        _run(
            connection,
            "COMMENT ON DATABASE {d} IS 'it''s\nours'; ALTER DATABASE {d} CONNECTION LIMIT 17",
            d=name,
        )
        _run(
            connection,
            "ALTER DATABASE {d} SET work_mem = '7MB'; ALTER DATABASE {d} SET search_path = a, 'b c'",
            d=name,
        )
        _run(connection, "ALTER ROLE {r} IN DATABASE {d} SET application_name = 'x=y'", d=name, r="app role")
        _run(connection, "ALTER DATABASE {d} OWNER TO {r}", d=name, r="own er")
        assert source.database_properties(connection).grants is None
        _run(connection, "REVOKE CONNECT ON DATABASE {d} FROM PUBLIC", d=name)
        _run(connection, "GRANT CONNECT ON DATABASE {d} TO {r} WITH GRANT OPTION", d=name, r="app role")
        found = source.database_properties(connection)
    assert (found.name, found.owner, found.encoding, found.tablespace) == (
        name,
        "own er",
        "UTF8",
        "pg_default",
    )
    assert (found.comment, found.connection_limit, found.is_template) == ("it's\nours", 17, False)
    assert found.settings == (
        source.RoleSettings(None, ("work_mem=7MB", 'search_path=a, "b c"')),
        source.RoleSettings("app role", ("application_name=x=y",)),
    )
    assert found.grants is not None
    assert source.Grant("app role", "CONNECT", True) in found.grants
    assert source.Grant("PUBLIC", "TEMPORARY", False) in found.grants
    assert source.Grant("PUBLIC", "CONNECT", False) not in found.grants
    assert found.server_version_number // 10_000 == postgres_server.major
    assert found.server_version.startswith(str(postgres_server.major)) and found.size > 1_000_000


def test_every_locale_provider_of_the_server_is_told(
    postgres_server: PostgresCluster, fresh_database: Callable[..., str]
) -> None:
    wanted: dict[str, tuple[str, str | None, str | None]] = {
        "libc": ("LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C'", None, None)
    }
    with _open(postgres_server.url()) as connection:
        if source.rows(connection, "SELECT FROM pg_collation WHERE collname = 'und-x-icu'"):  # else built without ICU
            wanted["icu"] = ("LOCALE_PROVIDER icu ICU_LOCALE 'de-AT' LOCALE 'C'", "de-AT", None)
        if postgres_server.major >= 17:
            wanted["builtin"] = (
                "LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C'",
                None,
                "C.UTF-8",
            )
        for provider, (options, icu, builtin) in wanted.items():
            name = f"locale_{provider}"
            _run(connection, "DROP DATABASE IF EXISTS {d}", d=name)
            _run(connection, f"CREATE DATABASE {{d}} TEMPLATE template0 ENCODING 'UTF8' {options}", d=name)
            with _open(postgres_server.url(name)) as other:
                found = source.database_properties(other)
            assert (found.locale_provider, found.icu_locale, found.builtin_locale) == (provider, icu, builtin)
            assert (found.collate, found.ctype) == ("C", "C")
            _run(connection, "DROP DATABASE {d}", d=name)


@pytest.mark.parametrize(
    ("version", "columns"),
    [
        (130000, ()),
        (140000, ()),
        (150000, ("daticulocale", "datcollversion")),
        (160000, ("daticulocale", "daticurules")),
        (170000, ("datlocale", "daticurules")),
        (180000, ("datlocale",)),
    ],
)
def test_a_version_is_asked_only_for_columns_that_it_has(version: int, columns: tuple[str, ...]) -> None:
    query = source._properties_query(version)
    later = {"daticulocale", "daticurules", "datlocale", "datcollversion", "datlocprovider"}
    asked = set(re.findall(r"\bd\.(dat\w+)", query)) & later
    assert set(columns) <= asked
    assert version >= 150000 or not asked
    assert ("datlocale" in asked) == (version >= 170000) != ("daticulocale" in asked) or version < 150000
    assert version >= 160000 or "daticurules" not in asked


def test_facts_are_json_and_hold_the_extensions(
    postgres_server: PostgresCluster, fresh_database: Callable[..., str]
) -> None:
    with _open(fresh_database(postgres_server)) as connection:
        _run(connection, 'CREATE SCHEMA "Ext Schema"; CREATE EXTENSION citext SCHEMA "Ext Schema"')
        facts = source.source_facts(connection)
    assert [(one.name, one.schema) for one in facts.extensions] == [
        ("citext", "Ext Schema"),
        ("plpgsql", "pg_catalog"),
    ]
    assert all(one.version for one in facts.extensions)
    assert json.loads(json.dumps(dataclasses.asdict(facts)))["database"]["name"] == facts.database.name


def test_the_estimate_is_near_the_truth_for_ordinary_rows(
    postgres_server: PostgresCluster, fresh_database: Callable[..., str]
) -> None:
    url = fresh_database(postgres_server)
    with _open(url) as connection:
        assert source.estimated_plain_size(connection) == 0
        _run(
            connection,
            """
            CREATE TABLE t AS SELECT i, 'Customer ' || i AS name, md5(i::text) AS mail, now() AS at,
                   jsonb_build_object('note', md5(i::text)) AS more FROM generate_series(1, 20000) i
        """,
        )
        _run(
            connection,
            """
            SELECT lo_from_bytea(0, decode(string_agg(md5(i::text), ''), 'hex')) FROM generate_series(1, 90000) i
        """,
        )
        guessed = source.estimated_plain_size(connection)
    real = len(_dump(postgres_server, url))
    assert 0.5 < guessed / real < 3


def test_the_estimate_does_not_wait_for_a_locked_table(
    postgres_server: PostgresCluster, fresh_database: Callable[..., str]
) -> None:
    url = fresh_database(postgres_server)
    with _open(url) as connection, closing(psycopg2.connect(url)) as holder:
        _run(connection, "CREATE TABLE t AS SELECT md5(i::text) FROM generate_series(1, 9000) i")
        _run(connection, "VACUUM t")
        _run(connection, "SET lock_timeout = '1s'")
        free = source.estimated_plain_size(connection)
        _run(holder, "LOCK TABLE t IN ACCESS EXCLUSIVE MODE")
        assert source.estimated_plain_size(connection) == free > 9000 * 32


def test_everything_can_be_asked_inside_the_transaction_that_the_dump_shares(
    postgres_server: PostgresCluster, fresh_database: Callable[..., str]
) -> None:
    url = fresh_database(postgres_server)
    with _open(url) as writer, closing(psycopg2.connect(url)) as reader:
        reader.set_session(isolation_level="REPEATABLE READ", readonly=True)
        before = source.source_facts(reader)
        _run(writer, "CREATE TABLE later (); CREATE EXTENSION citext")
        assert source.source_facts(reader).extensions == before.extensions
        assert source.estimated_plain_size(reader) == 0
