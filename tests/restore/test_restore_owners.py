"""A role that is no superuser restores what others own, or is told before anything is changed why it cannot."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from deployments.quick_start.postgres import PostgresCluster
from tasks.errors import PreflightFailed, RestoreRefused
from tasks.postgres.dsn import parse
from tests.conftest import DatabaseFactory
from tests.support.original import run_psql
from tests.support.scene import Scene, SceneFactory

ROLES = """
    DO $$ BEGIN
      CREATE ROLE boss; CREATE ROLE app; CREATE ROLE stranger; CREATE ROLE restorer LOGIN CREATEDB PASSWORD 'pw';
      GRANT boss, app TO restorer;
    EXCEPTION WHEN duplicate_object THEN NULL; END $$;
    REVOKE boss FROM app;
"""
TABLE = 'CREATE TABLE public."T" (i int); INSERT INTO public."T" VALUES (1); ALTER TABLE public."T" OWNER TO app;'
BOSS = "ALTER DATABASE {name} OWNER TO boss;"
#: What is in the database, the mode, and what stands in the way.
CASES = {
    "a table of a role that may not create": (
        BOSS + TABLE,
        "swap",
        'Role app could not create in schema public public."T"',
    ),
    "one that was granted to create": (
        BOSS + TABLE + "GRANT CREATE ON SCHEMA public TO app;",
        "swap",
        'Role app could not create in schema public public."T": run GRANT boss TO app',
    ),
    "a function and a type": (
        BOSS + TABLE + "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; ALTER FUNCTION f() OWNER TO app;"
        "CREATE TYPE mood AS ENUM ('a'); ALTER TYPE mood OWNER TO app;",
        "new_database",
        'Role app could not create in schema public public."T": run',
    ),
    "in place, without CREATE": (TABLE, "in_place", 'Role restorer could not create in schema public public."T"'),
    "a schema of another": (
        BOSS + "CREATE SCHEMA s AUTHORIZATION boss; CREATE TABLE s.t (); ALTER TABLE s.t OWNER TO app;",
        "swap",
        "Role app could not create in schema s s.t",
    ),
    "a member of the owner": (BOSS + TABLE + "GRANT boss TO app;", "swap", ""),
    "a schema of its own": (
        BOSS + "CREATE SCHEMA s AUTHORIZATION app; CREATE TABLE s.t (); ALTER TABLE s.t OWNER TO app;",
        "swap",
        "",
    ),
    "a table of the owner's": (BOSS + "CREATE TABLE public.t (id serial); ALTER TABLE t OWNER TO boss;", "swap", ""),
    "in place, the owner's": (BOSS + "CREATE TABLE public.t (id serial); ALTER TABLE t OWNER TO boss;", "in_place", ""),
}


@pytest.fixture
def restorer(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory, scene: SceneFactory
) -> Callable[[str], Scene]:
    """`restorer(script) -> Scene`: a database in which a superuser ran the script, backed up; restored by another role."""

    def make(script: str) -> Scene:
        run_psql(postgres_server, postgres_server.url(), ROLES.encode())
        url = fresh_database(postgres_server)
        name = parse(url).dbname
        run_psql(postgres_server, url, script.replace("{name}", name).encode())
        one = scene(url)
        one.back_up()
        return one.with_plan(database=parse(postgres_server.url(name, "restorer", "pw")).pinned())

    return make


@pytest.mark.parametrize("case", CASES)
def test_what_a_role_could_not_restore_is_named_before_anything_is_changed(
    restorer: Callable[[str], Scene], case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    script, mode, problem = CASES[case]
    one = restorer(script)
    before = one.dumped_whole()
    request: dict[str, Any] = {"mode": mode, **({"target": f"new {one.name}"} if mode == "new_database" else {})}
    if problem:
        with pytest.raises(PreflightFailed) as refused:
            one.restore(**request)
        assert problem in str(refused.value) and "or restore as a superuser" in str(refused.value)
        monkeypatch.setattr("tasks.restore.preflight.roles.schema_findings", lambda *_, **__: ([], []))
        with pytest.raises(RestoreRefused, match="permission denied for schema"):
            one.restore(**request)
    else:
        one.restore(**request)
    assert one.dumped_whole() == before
