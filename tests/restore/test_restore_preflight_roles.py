"""What the role may not do is told before a restore, and which roles are missing."""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from typing import Any

import psycopg2
import pytest

from tasks.errors import Unreachable
from tasks.restore.preflight import target_server as preflight_server
from tasks.storage.backup_values import Extension
from tasks.storage.manifest_types import Grant, RoleSettings
from tests.support.live_database import PASSWORD, LiveDatabase, opened, run

ODD_NAMES = ("blank space", 'quo"te', "ümlaut", "💾", "-dash", "per%cent$", "it's", "x" * 63)


@pytest.mark.parametrize("mode", ["swap", "new_database", "in_place"])
def test_an_owner_without_superuser_may_restore(live: LiveDatabase, mode: Any) -> None:
    live.own(live.role("owner", "CREATEDB"))
    target = {"target": "brand_new"} if mode == "new_database" else {"confirm": live.dbname}
    ground = live.survey(live.as_role("owner"), mode=mode, **target)
    assert ground.like.owner == "owner" and ground.live_exists is (mode != "new_database")


@pytest.mark.parametrize("name", ODD_NAMES)
def test_odd_names_of_databases_and_roles_are_no_hindrance(live: LiveDatabase, name: str) -> None:
    live.role(name, "CREATEDB")
    live.database(name)
    run(live.admin, "ALTER DATABASE {d} OWNER TO {d}", d=name)
    live.backup = replace(live.backup, roles=(name,))
    assert live.survey(live.as_role(name), target=name).database == name
    [problem] = live.problems(mode="new_database", target=name)
    assert "There is a database " in problem and " already: " in problem
    own = live.as_role(name)
    own = replace(own, database=own.database.with_dbname(name))
    said = live.problems(own, mode="in_place", target=name, confirm="wrong")
    assert len(said) == 1 and f"write its name, {name}, into confirm" in said[0]


def test_a_role_that_cannot_create_an_extension_is_told_unless_it_is_there_in_place(live: LiveDatabase) -> None:
    live.own(live.role("owner", "CREATEDB"))
    backup = replace(live.backup, extensions=(Extension("pageinspect", "1.0", "x"), Extension("citext", "1.6", "x")))
    owner = live.as_role("owner")
    in_place = {"mode": "in_place", "confirm": live.dbname, "backup": backup}
    for request in ({"backup": backup}, in_place):
        [said] = live.problems(owner, **request)
        assert "owner is no superuser and cannot create the extension pageinspect 1.0" in said and "citext" not in said
    run(live.url, "CREATE EXTENSION pageinspect")
    assert live.survey(owner, **in_place).live_exists
    assert live.problems(owner, backup=backup)
    live.role("rds_superuser")
    run(live.admin, "GRANT rds_superuser TO owner")
    assert [one for one in live.survey(owner, backup=backup).warnings if "if the provider does not allow it" in one]


def test_missing_roles_are_listed_or_created(live: LiveDatabase) -> None:
    run(live.admin, "DROP DATABASE {d} WITH (FORCE)", d=live.dbname)
    backup = replace(
        live.like(
            owner="my owner",
            grants=(Grant("PUBLIC", "CONNECT", False), Grant("grantee", "CONNECT", False)),
            settings=(RoleSettings(None, ("a=b",)), RoleSettings("Setter", ("a=b",))),
        ),
        roles=("postgres", "reader"),
    )
    [said] = live.problems(backup=backup)
    assert 'needs the role "Setter", grantee, "my owner", reader: create it' in said
    ground = live.survey(backup=backup, create_missing_roles=True)
    assert ground.create_roles == ("Setter", "grantee", "my owner", "reader")


def test_in_place_the_roles_of_the_database_itself_are_not_needed(live: LiveDatabase) -> None:
    backup = live.like(owner="nobody there")
    assert live.survey(mode="in_place", confirm=live.dbname, backup=backup).create_roles == ()
    assert live.survey(backup=backup).create_roles == ()  # the live database's own owner counts


def test_a_predefined_role_is_never_created(live: LiveDatabase) -> None:
    backup = replace(live.backup, roles=("pg_of_the_future",))
    for create in (False, True):
        [said] = live.problems(backup=backup, create_missing_roles=create)
        assert "predefined role pg_of_the_future" in said


def test_creating_roles_takes_createrole(live: LiveDatabase) -> None:
    live.own(live.role("owner", "CREATEDB"))
    request = {"backup": replace(live.backup, roles=("owner", "missing")), "create_missing_roles": True}
    [said] = live.problems(live.as_role("owner"), **request)
    assert "owner has no CREATEROLE and cannot create the role missing" in said
    run(live.admin, "ALTER ROLE owner CREATEROLE")
    assert live.survey(live.as_role("owner"), **request).create_roles == ("missing",)


@pytest.mark.parametrize(
    "makes",
    ["CREATE TABLE t ()", "CREATE SCHEMA s", "CREATE FUNCTION f() RETURNS int RETURN 1", "CREATE TYPE e AS ENUM ()"],
)
def test_owners_that_the_role_cannot_act_as_are_named(live: LiveDatabase, makes: str) -> None:
    live.own(live.role("owner", "CREATEDB"))
    live.role("Other")
    kind, name = makes.split(" ")[1], makes.split(" ")[2].removesuffix("()")
    run(live.url, f"{makes}; ALTER {kind} {name} OWNER TO {{r}}", r="Other")
    request = {"backup": replace(live.backup, roles=("Other", "owner"))}
    [said] = live.problems(live.as_role("owner"), **request)
    assert 'Role owner cannot give objects to their owner "Other": run GRANT' in said
    run(live.admin, "GRANT {r} TO owner", r="Other")
    assert live.survey(live.as_role("owner"), **request).live_exists


def test_what_the_superuser_owns_is_out_of_reach_of_others(live: LiveDatabase) -> None:
    live.own(live.role("owner", "CREATEDB"))
    run(live.url, "CREATE EXTENSION citext")
    backup = replace(live.backup, roles=("owner", "postgres"))
    assert live.survey(live.as_role("owner"), backup=backup).live_exists  # members of extensions do not count
    run(live.url, "CREATE TABLE t ()")
    [said] = live.problems(live.as_role("owner"), backup=backup)
    assert "to their owner postgres" in said


def test_a_mere_grantee_is_no_problem(live: LiveDatabase) -> None:
    live.own(live.role("owner", "CREATEDB"))
    live.role("reader")
    backup = replace(live.backup, roles=("owner", "reader"))
    assert not [one for one in live.survey(live.as_role("owner"), backup=backup).warnings if "reader" in one]
    run(live.admin, "DROP DATABASE {d} WITH (FORCE)", d=live.dbname)
    backup = replace(backup, database=replace(backup.database, owner="owner"))
    assert [one for one in live.survey(live.as_role("owner"), backup=backup).warnings if "act as role reader" in one]


def test_a_role_without_createdb_is_sent_to_in_place(live: LiveDatabase) -> None:
    live.own(live.role("owner"))
    for request in ({}, {"mode": "new_database", "target": "brand_new"}):
        [said] = live.problems(live.as_role("owner"), **request)
        assert "Role owner may not create databases" in said and "in_place" in said
    assert live.survey(live.as_role("owner"), mode="in_place", confirm=live.dbname).live_exists


def test_who_does_not_own_the_live_database_cannot_swap_it(live: LiveDatabase) -> None:
    live.role("owner")
    live.own("owner")
    live.role("Other", "CREATEDB")
    said = live.problems(live.as_role("Other"))
    assert [
        one for one in said if f'"Other" does not own database {live.dbname}' in one and 'GRANT owner TO "Other"' in one
    ]
    run(live.admin, "GRANT owner TO {r}", r="Other")
    assert live.survey(live.as_role("Other")).live_exists


def test_a_tablespace_takes_a_privilege(live: LiveDatabase) -> None:
    live.own(live.role("owner", "CREATEDB"))
    with opened(live.admin) as connection, connection.cursor() as cursor:
        cursor.execute("SET allow_in_place_tablespaces = on")
        cursor.execute("CREATE TABLESPACE fast LOCATION ''")
    try:
        run(live.admin, "DROP DATABASE {d} WITH (FORCE)", d=live.dbname)
        backup = live.like(tablespace="fast", owner="owner")
        [said] = live.problems(live.as_role("owner"), backup=backup)
        assert "Role owner may create nothing in tablespace fast" in said
        run(live.admin, "GRANT CREATE ON TABLESPACE fast TO owner")
        assert live.survey(live.as_role("owner"), backup=backup).like.tablespace == "fast"
    finally:
        run(live.admin, "DROP TABLESPACE fast")


def test_sessions_that_may_not_be_ended_may_pass(live: LiveDatabase) -> None:
    live.own(live.role("owner", "CREATEDB"))
    live.role("Guest")
    with closing(psycopg2.connect(live.server.url(live.dbname, "Guest", PASSWORD))):
        with pytest.raises(Unreachable, match='Role owner may not end the sessions of "Guest"'):
            live.survey(live.as_role("owner"))
        assert live.survey().live_exists
        assert live.survey(live.as_role("owner"), mode="in_place", confirm=live.dbname).live_exists
        run(live.admin, "GRANT pg_signal_backend TO owner")
        assert live.survey(live.as_role("owner")).live_exists
        with opened(live.url), pytest.raises(Unreachable, match="sessions of postgres"):
            live.survey(live.as_role("owner"))


def test_a_role_that_is_not_told_the_server_s_directory_is_not_refused(live: LiveDatabase) -> None:
    live.own(live.role("owner", "CREATEDB"))
    backup = live.like(size=1 << 60)
    with opened(live.server.url(live.dbname, "owner", PASSWORD)) as connection:
        assert preflight_server.directory_of(connection, "pg_default") == ""
    assert live.survey(live.as_role("owner"), backup=backup).live_exists
