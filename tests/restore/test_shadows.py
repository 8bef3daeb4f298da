"""A database whose users shadow PostgreSQL's own types, functions and operators: no session of a superuser uses theirs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import Any

import psycopg2
import pytest

from tasks.backup import large_tables
from tasks.errors import DumpFailed
from tests.restore.test_loader import Log, mallory
from tests.support.scene import Scene, SceneFactory
from tests.verify.test_verify import proved

assert mallory  # a fixture
#: What sessions use, once more in the schema of an ordinary role: each function and operator, and what types are called.
SHADOWS = """
CREATE FUNCTION mallory.seize(how text) RETURNS boolean LANGUAGE plpgsql SET search_path = pg_catalog AS $f$
BEGIN
    RAISE LOG 'seize: % as % of %, superuser %', how, current_user, session_user, current_setting('is_superuser');
    RETURN true;
END $f$;
DO $do$
DECLARE
    one record; number int := 0; plain oid[] := ARRAY['text', 'name', 'oid', 'int4', 'int8', 'bool', 'char', '"char"', 'regclass',
        'text[]', 'name[]', 'oid[]', 'timestamptz', 'interval', 'json', 'xid', 'pg_lsn']::regtype[];
BEGIN
    FOR one IN SELECT o.oprname, format_type(oprleft, NULL) AS l, format_type(oprright, NULL) AS r, format_type(oprresult, NULL) AS result
                 FROM pg_operator o WHERE o.oid < 16384 AND oprleft = ANY (plain) AND oprright = ANY (plain) AND oprresult <> 0 LOOP
        number := number + 1;
        EXECUTE format('CREATE FUNCTION mallory.op%s(%s, %s) RETURNS %s LANGUAGE plpgsql AS %L', number, one.l, one.r, one.result,
            format('BEGIN PERFORM mallory.seize(%L); RETURN $1 OPERATOR(pg_catalog.%s) $2; END', 'operator ' || one.oprname, one.oprname));
        EXECUTE format('CREATE OPERATOR mallory.%s (LEFTARG = %s, RIGHTARG = %s, FUNCTION = mallory.op%s)', one.oprname, one.l, one.r, number);
    END LOOP;
    FOR one IN SELECT p.proname, pg_get_function_identity_arguments(p.oid) AS args, format_type(prorettype, NULL) AS result, pronargs AS n
                 FROM pg_proc p WHERE p.oid < 16384 AND prokind = 'f' AND NOT proretset AND proallargtypes IS NULL AND provariadic = 0
                  AND prorettype = ANY (plain) AND proargtypes::oid[] <@ plain AND has_function_privilege(p.oid, 'EXECUTE')
                  AND pronamespace = 'pg_catalog'::regnamespace LOOP
        BEGIN
            EXECUTE format('CREATE FUNCTION mallory.%I(%s) RETURNS %s LANGUAGE plpgsql AS %L', one.proname, one.args, one.result,
                format('BEGIN PERFORM mallory.seize(%L); RETURN pg_catalog.%I(%s); END', 'function ' || one.proname, one.proname,
                       (SELECT string_agg('$' || i, ', ') FROM generate_series(1, one.n) i)));
        EXCEPTION WHEN OTHERS THEN NULL;
        END;
    END LOOP;
    CREATE DOMAIN mallory.text AS pg_catalog.text CHECK (mallory.seize('type text'));
    CREATE DOMAIN mallory.name AS pg_catalog.name CHECK (mallory.seize('type name'));
    CREATE DOMAIN mallory.oid AS pg_catalog.oid CHECK (mallory.seize('type oid'));
    CREATE DOMAIN mallory.regclass AS pg_catalog.regclass CHECK (mallory.seize('type regclass'));
    CREATE VIEW mallory.pg_class AS SELECT mallory.seize('view') AS seized, * FROM pg_catalog.pg_class;
    CREATE VIEW mallory.pg_database AS SELECT mallory.seize('view') AS seized, * FROM pg_catalog.pg_database;
END $do$
"""


def shadowed(scene: SceneFactory) -> Scene:
    """A superuser's plan for a database in which an ordinary role's names are found before PostgreSQL's own."""
    one = scene(jobs=2)
    one.sql("CREATE SCHEMA mallory AUTHORIZATION mallory; CREATE TABLE t (i int PRIMARY KEY, t text)")
    one.sql("INSERT INTO t SELECT i, 'x' FROM generate_series(1, 500) i")
    with closing(psycopg2.connect(one.cluster.url(one.name, "mallory", "mallory"))) as connection:
        connection.autocommit = True
        connection.cursor().execute(SHADOWS)
    one.sql(f"ALTER DATABASE {one.name} SET search_path = mallory, pg_catalog", "postgres")
    return one


def seized_by(log: Log) -> set[str]:
    """What ran with a superuser's rights."""
    return {mark.partition(" as ")[0].strip() for mark in log.marks() if "superuser on" in mark}


@pytest.mark.usefixtures("mallory")
def test_nobody_s_names_are_found_before_those_of_postgresql(
    scene: SceneFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.backup.large_tables.LARGE", 1)
    one = shadowed(scene)
    log = Log(one.cluster)
    with closing(psycopg2.connect(one.url)) as connection:
        connection.cursor().execute("SELECT 1 + 1, 'x'::text, current_database()")
    assert len(seized_by(log)) == 3, "the trap does not work: the test proves nothing"

    log = Log(one.cluster)
    one.back_up()
    assert seized_by(log) == set()
    for restore in (
        {"mode": "swap", "compare": "content"},
        {"mode": "in_place"},
        {"mode": "in_place", "tables": ("public.t",)},
    ):
        one.restore(**restore)
        assert seized_by(log) == set(), restore
    proved(one)
    one.undo()
    assert seized_by(log) == set()
    [(superuser,)] = one.sql("SELECT rolname FROM pg_roles WHERE rolsuper", "postgres")
    assert superuser != "mallory"


@pytest.mark.usefixtures("mallory")
def test_a_view_in_the_place_of_a_table_that_sessions_read_runs_nothing(
    scene: SceneFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A lock on a table does not keep the owner of its schema from renaming the schema."""
    monkeypatch.setattr("tasks.backup.large_tables.LARGE", 1)
    one = scene(jobs=2)
    one.sql(f"CREATE SCHEMA mallory AUTHORIZATION mallory; GRANT CREATE ON DATABASE {one.name} TO mallory")
    mallory_s = one.cluster.url(one.name, "mallory", "mallory")
    log, units_of = Log(one.cluster), large_tables.units_of

    def run(statements: str) -> None:
        with closing(psycopg2.connect(mallory_s)) as connection, connection, connection.cursor() as cursor:
            cursor.execute(statements)

    def replaced(*given: Any) -> Iterator[large_tables.Unit]:
        run(
            "ALTER SCHEMA mallory RENAME TO aside; CREATE SCHEMA mallory; CREATE VIEW mallory.t AS"
            " SELECT 1 AS i, '(0,1)'::tid AS ctid WHERE aside.seize('view')"
        )
        return units_of(*given)

    run("CREATE TABLE mallory.t (i int); INSERT INTO mallory.t SELECT generate_series(1, 1000)")
    run(
        "CREATE FUNCTION mallory.seize(how text) RETURNS boolean LANGUAGE plpgsql AS $f$ BEGIN RAISE LOG"
        " 'seize: % as % of %, superuser %', how, current_user, session_user, current_setting('is_superuser');"
        " RETURN true; END $f$"
    )
    monkeypatch.setattr("tasks.backup.dump.units_of", replaced)
    with pytest.raises(DumpFailed, match="access to non-system view"):
        one.back_up()
    assert seized_by(log) == set()
