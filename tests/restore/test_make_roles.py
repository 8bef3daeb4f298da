"""Missing roles are made as the backup says, but for every right that a backup must not give."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from deployments.quick_start.postgres import PostgresCluster
from tasks.restore.make_roles import create_roles
from tasks.storage.manifest_types import Membership, Role, RoleSettings, ServerGlobals
from tests.support.scene import Scene, SceneFactory
from tests.support.server_side import rows, run, session

OWNER, APP, TEAM, THERE = "made owner", 'made "app" %s', "made_team", "was there"
ALL = (OWNER, APP, TEAM, THERE)
EVERY_RIGHT = ("SUPERUSER", "INHERIT", "CREATEROLE", "CREATEDB", "LOGIN", "REPLICATION", "BYPASSRLS")
FACTS = """
    SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolcanlogin OR rolreplication OR rolbypassrls AS power, rolinherit,
           rolconnlimit, rolvaliduntil = '2031-05-06 07:08:09+00' AS until, shobj_description(oid, 'pg_authid') AS comment,
           ARRAY(SELECT unnest(setconfig) FROM pg_db_role_setting WHERE setrole = r.oid AND setdatabase = 0) AS settings
      FROM pg_roles r WHERE rolname = %(n)s
"""
MEMBERS = """
    SELECT pg_get_userbyid(roleid) AS role, pg_get_userbyid(member) AS member, admin_option AS admin
      FROM pg_auth_members WHERE pg_get_userbyid(member) = ANY (%(names)s) OR pg_get_userbyid(roleid) = ANY (%(names)s)
     ORDER BY 1, 2
"""


@pytest.fixture
def shop(scene: SceneFactory, postgres_server: PostgresCluster) -> Iterator[Scene]:
    """A backed-up database whose roles are gone, but for one that has changed since."""
    one = scene()
    with session(postgres_server) as server:
        run(
            server,
            *(f"CREATE ROLE {{r{n}}} NOLOGIN" for n in range(4)),
            **{f"r{n}": name for n, name in enumerate(ALL)},
        )
        run(
            server,
            "ALTER ROLE {o} NOINHERIT CREATEROLE CREATEDB LOGIN PASSWORD 'x' CONNECTION LIMIT 3"
            " VALID UNTIL '2031-05-06 07:08:09+00'",
            "COMMENT ON ROLE {o} IS 'owns; it''s'",
            'ALTER ROLE {o} SET search_path = "$user", "odd, one"',
            "ALTER ROLE {o} SET log_min_messages = 'debug1'",
            "ALTER ROLE {o} SET app.secret = 'marker of a value'",
            "GRANT {t} TO {o} WITH ADMIN OPTION",
            "GRANT {w} TO {a}",
            "GRANT {t} TO {w}",
            "GRANT pg_monitor TO {a}",
            o=OWNER,
            a=APP,
            t=TEAM,
            w=THERE,
        )
    with session(postgres_server, one.name) as connection:
        run(
            connection,
            "CREATE TABLE t (a int)",
            "ALTER TABLE t OWNER TO {o}",
            "GRANT SELECT ON t TO {a}, {t}, {w}",
            o=OWNER,
            a=APP,
            t=TEAM,
            w=THERE,
        )
    one.back_up()
    forget(one)
    with session(postgres_server) as server:
        run(server, "CREATE ROLE {w} NOLOGIN NOINHERIT CONNECTION LIMIT 1", w=THERE)
    yield one
    forget(one)


def forget(one: Scene) -> None:
    """Drops the databases and the roles."""
    with session(one.cluster) as server:
        for name in [row["datname"] for row in rows(server, "SELECT datname FROM pg_database")]:
            if name.startswith(one.name):
                run(server, "DROP DATABASE {d} WITH (FORCE)", d=name)
        for name in ALL:
            run(server, "DROP ROLE IF EXISTS {r}", r=name)


def facts(one: Scene, name: str) -> dict[str, Any]:
    with session(one.cluster) as server:
        [row] = rows(server, FACTS, n=name)
        return row


def memberships(one: Scene) -> list[tuple[str, str, bool]]:
    with session(one.cluster) as server:
        return [(it["role"], it["member"], it["admin"]) for it in rows(server, MEMBERS, names=list(ALL))]


def test_missing_roles_are_made_as_they_were_and_one_that_exists_is_never_changed(shop: Scene) -> None:
    before = facts(shop, THERE)
    shop.restore(create_missing_roles=True)
    assert facts(shop, OWNER) == {
        "power": False,
        "rolinherit": False,
        "rolconnlimit": 3,
        "until": True,
        "comment": "owns; it's",
        "settings": ['search_path="$user", "odd, one"'],
    }
    assert facts(shop, APP)["power"] is False
    assert facts(shop, THERE) == before
    assert memberships(shop) == [(TEAM, OWNER, True)]


def test_what_was_not_made_again_is_said_without_any_value(shop: Scene) -> None:
    said: list[str] = []
    create_roles(shop.plan.database, shop.validated(create_missing_roles=True), said.append)
    text = " ".join(said)
    assert f"Role {OWNER} was created, unable to log in" in text and "(CREATEROLE, CREATEDB, LOGIN)" in text
    for left in (
        f"the membership of role {APP} in {THERE}",
        f"the membership of role {APP} in pg_monitor",
        f"the membership of role {THERE} in {TEAM}",
        f"the setting log_min_messages of role {OWNER}",
        f"the setting app.secret of role {OWNER}",
    ):
        assert left in said[-1]
    assert "marker" not in text
    said.clear()
    create_roles(shop.plan.database, shop.validated(create_missing_roles=True), said.append)
    assert said == []


def test_a_hostile_manifest_gives_nobody_more_rights(shop: Scene) -> None:
    """Every attribute, memberships in every direction, settings of superusers, and names that end their quotes."""
    evil = 'x"; ALTER ROLE "was there" SUPERUSER; --'
    hostile = ServerGlobals(
        roles=tuple(
            Role(name, EVERY_RIGHT, -1, "infinity", "'; DROP ROLE x; --") for name in (OWNER, APP, evil, THERE)
        ),
        memberships=(
            *(Membership("postgres", name, True, True, True, "") for name in (OWNER, evil, THERE)),
            *(Membership(THERE, name, True, True, True, "") for name in (OWNER, evil)),
            *(Membership("pg_execute_server_program", name, True, True, True, "") for name in (OWNER, THERE)),
            Membership(OWNER, THERE, True, True, True, ""),
            Membership(OWNER, "postgres", True, True, True, ""),
        ),
        settings=tuple(
            RoleSettings(name, ("session_preload_libraries=evil", "plperl.on_plperlu_init=evil", "log_statement=none"))
            for name in (OWNER, THERE, None)
        ),
        tablespaces=(),
        parameters=(),
        missing=(),
        passwords="",
        sql=("ALTER ROLE PUBLIC SUPERUSER; \\! false",),
        database_sql=(),
    )
    whole = shop.validated(create_missing_roles=True)
    ground = replace(whole.ground, create_roles=(OWNER, THERE, evil))
    before, there = facts(shop, THERE), memberships(shop)
    said: list[str] = []
    backup = replace(whole.backup, globals=hostile)
    create_roles(shop.plan.database, replace(whole, ground=ground, backup=backup), said.append)
    try:
        for name in (OWNER, evil):
            assert facts(shop, name)["power"] is False and facts(shop, name)["settings"] == []
        assert facts(shop, THERE) == before and memberships(shop) == there == []
        with session(shop.cluster) as server:
            assert not rows(server, "SELECT FROM pg_db_role_setting WHERE setrole = 0 AND setdatabase = 0")
            assert (
                rows(server, "SELECT count(*) AS n FROM pg_roles WHERE rolsuper AND rolname = %(n)s", n="x")[0]["n"]
                == 0
            )
    finally:
        with session(shop.cluster) as server:
            run(server, "DROP ROLE {r}", r=evil)
    assert "evil" not in said[-1].replace(evil, "")


def test_a_backup_of_an_earlier_release_makes_roles_that_have_nothing(shop: Scene) -> None:
    whole = shop.validated(create_missing_roles=True)
    said: list[str] = []
    create_roles(shop.plan.database, replace(whole, backup=replace(whole.backup, globals=None)), said.append)
    assert len(said) == len(whole.ground.create_roles) == 3
    assert facts(shop, OWNER)["power"] is False and facts(shop, OWNER)["comment"] is None
