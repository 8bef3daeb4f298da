"""Databases of a restore: named, created with the properties of another database, cleared away."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime

import psycopg2
import pytest

from deployments.quick_start.postgres import PostgresCluster
from tasks.errors import AccessRefused, RestoreRefused
from tasks.postgres.dsn import parse
from tasks.postgres.server import rows
from tasks.restore import databases
from tasks.restore.apply_properties import apply_properties
from tasks.restore.labels import Label, is_scratch_name, kept_name, label_of, own_comment, scratch_name
from tasks.storage.backup_values import DatabaseProperties
from tasks.storage.globals_sql import split_names
from tasks.storage.manifest_types import Grant, RoleSettings
from tests.conftest import DatabaseFactory
from tests.support.server_side import drop, properties, role, run, session

AT = datetime(2026, 3, 1, 2, 3, 4, tzinfo=UTC)
NAMES = ("shop", 'Sh\'op "x" 100% ü', "-lead {d}", "ü" * 31 + "x", "💾" * 15 + "abc")


# --- names


@pytest.mark.parametrize("database", [*NAMES, "a" * 63, "a" * 35, "a" * 36, "x" * 38, "x" * 39])
def test_names_fit_into_63_bytes_and_say_when(database: str) -> None:
    for name, middle in ((scratch_name(database, AT), "__restoring_"), (kept_name(database, AT), "__before_")):
        assert name.endswith(f"{middle}20260301T020304Z") and len(name.encode()) <= 63
        fits = len(database.encode() + middle.encode()) + 16 <= 63
        assert (name == f"{database}{middle}20260301T020304Z") == fits
        assert name.encode().decode() == name


def test_a_scratch_is_known_by_its_database_even_when_names_are_cut() -> None:
    twins = ("a" * 62 + "x", "a" * 62 + "y", "a" * 26, "shop", "shop_2")
    for one in twins:
        assert [other for other in twins if is_scratch_name(scratch_name(one, AT), other)] == [one]
    for no in (
        "shop",
        "shop__restoring_",
        "shop__restoring_20260301T02030Z",
        "shop__before_20260301T020304Z",
        "shop__restoring_20260301T020304Z_2",
        "shop__restoring_٢0260301T020304Z",
    ):
        assert not is_scratch_name(no, "shop")


def test_a_second_one_kept_in_the_same_second_gets_another_name() -> None:
    for database in ("shop", "ü" * 31):
        taken: list[str] = []
        for _ in range(12):
            taken.append(kept_name(database, AT, taken))
        assert len(set(taken)) == 12 and all(len(name.encode()) <= 63 for name in taken)


@pytest.mark.parametrize("comment", [None, "", 'it\'s {"ours"}\nü \\ %s', "Database Backup System: x. {}"])
def test_a_label_holds_what_it_was_given_and_belongs_to_one_name(comment: str | None) -> None:
    for label in (Label("kept", "n ü", "d", AT, "run", comment), Label("scratch", "n ü", comment=comment)):
        assert label_of("n ü", label.text()) == label and label.text().isascii()
        assert label_of("other", label.text()) is None
        assert own_comment("n ü", label.text()) == comment and own_comment("other", comment) == comment
        for cut in range(len(label.text())):
            assert label_of("n ü", label.text()[:cut]) is None


@pytest.mark.parametrize(
    ("value", "names"),
    [
        ('"$user", "odd,name"', ["$user", "odd,name"]),
        ("a, b", ["a", "b"]),
        ('""', [""]),
        ("", []),
        ('"a""b",c', ['a"b', "c"]),
        ("a b", ["a b"]),
        ("a,", []),
        (",a", []),
        ('"a', []),
        ('"a"b', []),
    ],
)
def test_lists_of_names_are_read_as_the_server_wrote_them(value: str, names: list[str]) -> None:
    assert split_names(value) == names


# --- creating and applying properties


def _without_size(properties: DatabaseProperties, **more: object) -> DatabaseProperties:
    return dataclasses.replace(properties, size=0, **more)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def roles(postgres_server: PostgresCluster) -> None:
    for name, options in (("own er", ""), ("app role", ""), ("maker", "CREATEDB"), ("poor", "")):
        role(postgres_server, name, options)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("limit", [-1, 0, 3])
def test_a_database_is_created_with_the_properties_of_another_one(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory, roles: None, name: str, limit: int
) -> None:
    fresh_database(postgres_server, name)
    with session(postgres_server) as server:
        run(server, "ALTER DATABASE {d} OWNER TO {o}", d=name, o="own er")
        run(server, "COMMENT ON DATABASE {d} IS 'it''s \\ \"ours\"\n100%'", d=name)
        run(server, "ALTER DATABASE {d} SET search_path = '$user', 'odd,name', 'q\"q', ''", d=name)
        run(
            server,
            "ALTER DATABASE {d} SET work_mem = '7MB'; ALTER DATABASE {d} SET \"my.thing\" = 'it''s \\ x=y'",
            d=name,
        )
        run(server, "ALTER ROLE {r} IN DATABASE {d} SET temp_tablespaces = ''", d=name, r="app role")
        run(server, "ALTER ROLE {r} IN DATABASE {d} SET application_name = 'a, \"b\"'", d=name, r="app role")
        run(server, "ALTER ROLE {r} IN DATABASE {d} SET search_path = 'a, b'", d=name, r="own er")
        run(server, "ALTER DATABASE {d} SET default_transaction_read_only = on", d=name)
        run(
            server,
            "REVOKE ALL ON DATABASE {d} FROM PUBLIC, {o}; GRANT CREATE ON DATABASE {d} TO {o}",
            d=name,
            o="own er",
        )
        run(server, "GRANT CONNECT ON DATABASE {d} TO {r} WITH GRANT OPTION", d=name, r="app role")
        run(server, f"ALTER DATABASE {{d}} CONNECTION LIMIT {limit} IS_TEMPLATE {'true' if limit else 'false'}", d=name)
        like = properties(postgres_server, name)
        scratch = scratch_name(name, AT)
        databases.create_like(server, scratch, like)
        assert apply_properties(server, scratch, like) == []
        assert apply_properties(server, scratch, like) == []
    made = properties(postgres_server, scratch)
    assert own_comment(scratch, made.comment) == like.comment
    assert _without_size(made, name=name, comment=like.comment) == _without_size(like)
    drop(postgres_server, scratch, name)


def test_grants_that_nobody_changed_come_out_as_the_default(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    fresh_database(postgres_server, "untouched")
    like = properties(postgres_server, "untouched")
    assert like.grants is None
    with session(postgres_server) as server:
        databases.create_like(server, "untouched 2", like)
        assert apply_properties(server, "untouched 2", like) == []
        [row] = rows(
            server,
            """
            SELECT ARRAY(SELECT a::text FROM aclexplode(datacl) a ORDER BY 1)
                   = ARRAY(SELECT a::text FROM aclexplode(acldefault('d', datdba)) a ORDER BY 1) AS same
              FROM pg_database WHERE datname = 'untouched 2'
        """,
        )
        assert row["same"]
    drop(postgres_server, "untouched", "untouched 2")


def test_nobody_looks_into_a_database_that_is_not_finished(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory, roles: None
) -> None:
    fresh_database(postgres_server, "open house")
    like = properties(postgres_server, "open house")
    with session(postgres_server) as server:
        databases.create_like(server, "closed house", like)
        with pytest.raises(AccessRefused, match="CONNECT"):
            parse(postgres_server.url("closed house", "app role", "pw")).connect("test")
        apply_properties(server, "closed house", like)
        parse(postgres_server.url("closed house", "app role", "pw")).connect("test").close()
    drop(postgres_server, "open house", "closed house")


def test_every_locale_provider_is_kept(postgres_server: PostgresCluster) -> None:
    wanted = [
        "LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C'",
        "LOCALE_PROVIDER libc LC_COLLATE 'C' LC_CTYPE 'C' ENCODING 'LATIN1'",
    ]
    with session(postgres_server) as server:
        if rows(server, "SELECT FROM pg_collation WHERE collname = 'und-x-icu'"):
            wanted.append("LOCALE_PROVIDER icu ICU_LOCALE 'de-AT' LOCALE 'C' ENCODING 'UTF8'")
            if postgres_server.major >= 16:
                wanted.append(
                    "LOCALE_PROVIDER icu ICU_LOCALE 'de' ICU_RULES '&V << w <<< W' LOCALE 'C' ENCODING 'UTF8'"
                )
        if postgres_server.major >= 17:
            wanted.append("LOCALE_PROVIDER builtin BUILTIN_LOCALE 'C.UTF-8' LOCALE 'C' ENCODING 'UTF8'")
        for options in wanted:
            run(server, f"CREATE DATABASE loc TEMPLATE template0 {options}")
            like = properties(postgres_server, "loc")
            databases.create_like(server, "loc 2", like)
            apply_properties(server, "loc 2", like)
            made = properties(postgres_server, "loc 2")
            assert _without_size(made, name="loc", comment=None, grants=None) == _without_size(like)
            drop(postgres_server, "loc", "loc 2")


def test_a_locale_that_the_server_does_not_know_is_refused_before_anything_is_made(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    like = properties(postgres_server, parse(fresh_database(postgres_server)).dbname)
    builtin = dataclasses.replace(like, locale_provider="builtin", builtin_locale="C.UTF-8")
    with pytest.raises(RestoreRefused, match="PostgreSQL 17 or newer"):
        databases.create_statement("x", builtin, 150004, "pg_default")
    with session(postgres_server) as server:
        for wrong in (
            dataclasses.replace(like, collate="xx_YY.nowhere", locale_provider="libc"),
            dataclasses.replace(like, owner="no such role"),
            dataclasses.replace(like, tablespace="no such place"),
        ):
            with pytest.raises(RestoreRefused, match="cannot create a database like"):
                databases.create_like(server, "never made", wrong)
        databases.create_like(server, "made once", like)
        with pytest.raises(RestoreRefused, match="already"):
            databases.create_like(server, "made once", like)
        assert not rows(server, "SELECT FROM pg_database WHERE datname = 'never made'")
    drop(postgres_server, "made once")


def test_an_owner_with_createdb_can_do_it_and_one_without_is_refused_clearly(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory, roles: None
) -> None:
    fresh_database(postgres_server, "owned")
    with session(postgres_server) as server:
        run(server, "ALTER DATABASE owned SET log_statement = 'all'; ALTER DATABASE owned SET \"my.key\" = 'mArKeR'")
        run(server, "ALTER DATABASE owned SET search_path = 'a b', public")
        run(server, "ALTER ROLE {r} IN DATABASE owned SET work_mem = '9MB'", r="app role")
        run(server, "GRANT CONNECT ON DATABASE owned TO {r}", r="app role")
        run(server, "ALTER DATABASE owned OWNER TO poor")
    like = properties(postgres_server, "owned")
    with session(postgres_server, user="poor") as server:
        with pytest.raises(AccessRefused, match=r"poor may not create .*CREATEDB.*in_place"):
            databases.create_like(server, "owned 2", like)
    with session(postgres_server) as server:
        run(server, "ALTER DATABASE owned OWNER TO maker")
    like = properties(postgres_server, "owned")
    with session(postgres_server, user="maker") as server:
        with pytest.raises(AccessRefused, match="membership in the owner's role"):
            databases.create_like(server, "owned 2", dataclasses.replace(like, owner="own er"))
        assert not rows(server, "SELECT FROM pg_database WHERE datname = 'owned 2'")
        databases.create_like(server, "owned 2", like)
        told = apply_properties(server, "owned 2", like)
    assert len(told) == 3 and not any("mArKeR" in one for one in told)  # none but a superuser may set unknown ones
    assert "The setting log_statement of database owned was not applied" in told[0]
    assert "The setting my.key of database owned was not applied" in told[1]
    assert "The setting work_mem of role app role of database owned" in told[2]
    made = properties(postgres_server, "owned 2")
    assert made.grants == like.grants and made.owner == "maker"
    assert made.settings == (RoleSettings(None, ('search_path="a b", public',)),)
    drop(postgres_server, "owned", "owned 2")


def test_a_grant_by_another_role_than_the_owner_stays_that_of_the_role_or_is_told(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory, roles: None
) -> None:
    fresh_database(postgres_server, "granted")
    with session(postgres_server) as server:
        run(server, "ALTER DATABASE granted OWNER TO maker; GRANT CREATE ON DATABASE granted TO poor WITH GRANT OPTION")
        run(server, "SET ROLE poor; GRANT CREATE ON DATABASE granted TO {r}; RESET ROLE", r="app role")
    like = properties(postgres_server, "granted")
    assert [grant.grantor for grant in like.grants or ()][-1] == "poor"
    with session(postgres_server) as server:
        databases.create_like(server, "granted 2", like)
        assert apply_properties(server, "granted 2", like) == []
    assert properties(postgres_server, "granted 2").grants == like.grants
    with session(postgres_server, user="maker") as server:
        databases.create_like(server, "granted 3", like)
        [told] = apply_properties(server, "granted 3", like)
    assert "CREATE to app role by poor of database granted was made by its owner" in told and "poor" in told
    kept = [dataclasses.replace(grant, grantor="") for grant in like.grants or ()]
    assert sorted(properties(postgres_server, "granted 3").grants or (), key=str) == sorted(kept, key=str)
    drop(postgres_server, "granted", "granted 2", "granted 3")


def test_what_names_a_role_that_is_missing_is_told_and_hinders_nothing_else(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    fresh_database(postgres_server, "half")
    like = properties(postgres_server, "half")
    like = dataclasses.replace(
        like,
        grants=(Grant("nobody", "CONNECT", False), Grant("PUBLIC", "CONNECT", False)),
        settings=(RoleSettings("nobody", ("a=b",)), RoleSettings(None, ("work_mem=secret-value", "work_mem=5MB"))),
    )
    with session(postgres_server) as server:
        databases.create_like(server, "half 2", like)
        told = apply_properties(server, "half 2", like)
    assert len(told) == 3 and 'role "nobody" does not exist' in told[0] and "secret-value" not in "".join(told)
    made = properties(postgres_server, "half 2")
    assert made.grants == (Grant("PUBLIC", "CONNECT", False),) and made.settings[0].settings == ("work_mem=5MB",)
    drop(postgres_server, "half", "half 2")


# --- clearing away


def test_scratches_of_dead_restores_are_dropped_with_the_sessions_in_them_and_no_others(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    long = "ä" * 31
    like = properties(postgres_server, parse(fresh_database(postgres_server, long)).dbname)
    mine, bare = scratch_name(long, AT), scratch_name(long, AT.replace(year=2025))
    theirs, foreign = scratch_name("ä" * 30 + "ö", AT), scratch_name(long, AT.replace(year=2024))
    with session(postgres_server) as server:
        for name in (mine, theirs):
            databases.create_like(server, name, dataclasses.replace(like, is_template=True))
            apply_properties(server, name, dataclasses.replace(like, is_template=True))
        run(server, "CREATE DATABASE {b} TEMPLATE template0", b=bare)
        run(server, "CREATE DATABASE {f} TEMPLATE template0", f=foreign)
        with session(postgres_server, foreign) as inside:
            run(inside, "CREATE TABLE precious ()")
        with session(postgres_server, mine) as busy:
            told = databases.drop_scratches(server, long)
            with pytest.raises(psycopg2.OperationalError):
                run(busy, "SELECT 1")
        assert [mine in one or bare in one or foreign in one for one in told] == [True] * 3
        assert "it stays" in next(one for one in told if foreign in one)
        left = {row["datname"] for row in rows(server, "SELECT datname FROM pg_database")}
        assert {theirs, foreign, long} <= left and not {mine, bare} & left
    drop(postgres_server, theirs, foreign, long)
