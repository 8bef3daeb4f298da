"""A catalogue in a database whose owner is hostile: no code of theirs runs with the rights of the catalogue's role."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import closing, suppress
from datetime import UTC, datetime

import psycopg2
import pytest

from deployments.quick_start.postgres import PostgresCluster
from tasks.catalogue.catalogue import Catalogue
from tasks.catalogue.own_tables import CatalogueCursor
from tasks.catalogue.rows import Event
from tasks.errors import BackupSystemError, BadSetting
from tasks.postgres.dsn import parse
from tasks.postgres.locks import exclusive
from tests.conftest import DatabaseFactory
from tests.restore.test_loader import Log, mallory
from tests.restore.test_shadows import SHADOWS, seized_by
from tests.support.scene import Scene, SceneFactory

assert mallory  # a fixture
START = datetime(2026, 3, 1, 2, 0, tzinfo=UTC)
EVENT = Event("backup", "completed", "p", "me", "run-1")
#: What a session of the catalogue uses, with arguments for which the hostile one fits better.
BETTER = """
DO $do$ DECLARE name text; BEGIN
    FOREACH name IN ARRAY ARRAY['->>', '->', '?', '-', '||'] LOOP
        EXECUTE format('CREATE FUNCTION mallory.%I(jsonb, jsonb) RETURNS %s LANGUAGE plpgsql AS %L', 'json ' || name,
            CASE name WHEN '?' THEN 'boolean' WHEN '->>' THEN 'text' ELSE 'jsonb' END,
            'BEGIN PERFORM mallory.seize(''json''); RETURN NULL; END');
        EXECUTE format('CREATE OPERATOR mallory.%s (LEFTARG = jsonb, RIGHTARG = jsonb, FUNCTION = mallory.%I)', name, 'json ' || name);
    END LOOP;
END $do$
"""
TRIGGER = """
CREATE FUNCTION mallory.fire() RETURNS trigger LANGUAGE plpgsql AS
$f$ BEGIN PERFORM mallory.seize('trigger'); RETURN NEW; END $f$;
"""


@pytest.fixture
def home(
    scene: SceneFactory, postgres_server: PostgresCluster, fresh_database: DatabaseFactory, mallory: None
) -> Scene:
    """A superuser's plan with a catalogue in the database itself, which an ordinary role owns."""
    url = fresh_database(postgres_server)
    one = scene(url, catalogue_url=url)
    one.sql(f"ALTER DATABASE {one.name} OWNER TO mallory; CREATE SCHEMA mallory AUTHORIZATION mallory")
    one.sql("CREATE TABLE t (i int PRIMARY KEY); INSERT INTO t SELECT generate_series(1, 100)")
    as_mallory(one, SHADOWS, BETTER, TRIGGER)
    return one


def as_mallory(one: Scene, *statements: str) -> None:
    with closing(psycopg2.connect(one.cluster.url(one.name, "mallory", "mallory"))) as connection:
        connection.autocommit = True
        for statement in statements:
            connection.cursor().execute(statement)


def use(catalogue: Catalogue) -> None:
    """Whatever a run does with its catalogue."""
    catalogue.check()
    catalogue.check_clock()
    backup = catalogue.open("a.sql", "p/a.sql", "p", "run-1", "me", START, "full")
    catalogue.claim_dead("p", "run-1", "died")
    catalogue.keep("a.sql", {"by": "me"}, EVENT)
    catalogue.begin_removal("a.sql", "deleted", "me")
    catalogue.remove("a.sql", "missing", EVENT)
    catalogue.fail(backup, "error", EVENT)
    catalogue.note(EVENT)
    assert catalogue.plan_of("a.sql") == "p"
    assert "a.sql" in [row.filename for row in catalogue.newest("", 9)]
    with exclusive(catalogue.dsn, "backup", "p", "run 1"):
        pass


@pytest.mark.parametrize("path", ["mallory, public, pg_catalog", "public, mallory, pg_catalog"])
def test_no_name_of_the_database_s_owner_is_found_by_the_catalogue_s_sessions(home: Scene, path: str) -> None:
    as_mallory(home, f"ALTER DATABASE {home.name} SET search_path = {path}")
    log = Log(home.cluster)
    with closing(psycopg2.connect(home.url)) as connection:
        connection.cursor().execute("SELECT '{}'::jsonb -> '1', 1 + 1, 'x'::text")
    assert "json" in seized_by(log), "the trap does not work: the test proves nothing"

    log = Log(home.cluster)
    use(home.plan.catalogue)
    home.back_up()
    home.restore()
    use(home.plan.catalogue)
    assert seized_by(log) == set()


def test_tables_that_are_made_in_the_owner_s_schema_have_no_types_of_the_owner(home: Scene) -> None:
    home.sql("DROP TABLE database_backups, backup_events")
    as_mallory(home, f"ALTER DATABASE {home.name} SET search_path = mallory, pg_catalog")
    log = Log(home.cluster)
    home.plan.catalogue.prepare()
    use(home.plan.catalogue)
    home.back_up()
    home.restore()
    use(home.plan.catalogue)
    assert seized_by(log) == set()
    assert home.sql("SELECT pg_catalog.to_regclass('mallory.database_backups') IS NULL") == [(False,)]


PLACES: dict[str, tuple[str, str]] = {
    "a table with a trigger": (
        "CREATE TABLE {s}.backup_events (LIKE public.backup_events INCLUDING ALL);"
        "CREATE TRIGGER t BEFORE INSERT ON {s}.backup_events EXECUTE FUNCTION mallory.fire()",
        "belongs to role mallory",
    ),
    "a view": (
        "CREATE VIEW {s}.database_backups AS SELECT mallory.seize('view') AS seized, * FROM public.database_backups",
        "not this system's",
    ),
    "a foreign table": (
        "CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE {s}.database_backups (id int) SERVER s",
        "not this system's",
    ),
    "a forged row": (
        "CREATE TABLE {s}.database_backups (LIKE public.database_backups INCLUDING ALL);"
        "COMMENT ON TABLE {s}.database_backups IS 'Database Backup System, catalogue version 1'",
        "belongs to role mallory",
    ),
}


@pytest.mark.parametrize("place", PLACES)
def test_what_the_owner_puts_before_the_catalogue_s_tables_is_refused_unused(home: Scene, place: str) -> None:
    statements, sentence = PLACES[place]
    home.sql("CREATE FOREIGN DATA WRAPPER w; GRANT ALL ON FOREIGN DATA WRAPPER w TO mallory")
    home.sql("GRANT SELECT ON database_backups, backup_events TO mallory")
    as_mallory(home, "CREATE SCHEMA postgres", statements.format(s="postgres"))  # "$user" comes first
    log = Log(home.cluster)
    with pytest.raises(BadSetting, match=sentence) as refused:
        use(home.plan.catalogue)
    assert "\n" not in str(refused.value) and "CATALOG_URL" in str(refused.value)
    with pytest.raises(BackupSystemError, match=sentence):
        home.back_up()
    assert seized_by(log) == set()


@pytest.mark.parametrize(
    "strange",
    [
        "CREATE TRIGGER t BEFORE INSERT ON {t} FOR EACH ROW EXECUTE FUNCTION mallory.fire()",
        "ALTER TABLE {t} ADD CHECK (mallory.seize('check'))",
        "ALTER TABLE {t} ADD more boolean DEFAULT mallory.seize('default')",
        "ALTER TABLE {t} ADD more mallory.text",
        "CREATE RULE r AS ON INSERT TO {t} DO ALSO SELECT mallory.seize('rule')",
        "CREATE INDEX ON {t} (mallory.sure(plan))",
        "CREATE POLICY p ON {t} USING (mallory.seize('policy'))",
    ],
    ids=lambda statement: " ".join(statement.split()[:4]),
)
def test_code_of_others_in_a_table_of_ours_is_refused_unused(home: Scene, strange: str) -> None:
    as_mallory(
        home,
        "CREATE FUNCTION mallory.sure(pg_catalog.text) RETURNS int LANGUAGE plpgsql IMMUTABLE AS"
        " $f$ BEGIN PERFORM mallory.seize('index'); RETURN 1; END $f$",
    )
    home.sql(strange.format(t="public.backup_events"))
    log = Log(home.cluster)
    with pytest.raises(BadSetting, match=r"public\.backup_events uses the .* of role mallory"):
        use(home.plan.catalogue)
    assert seized_by(log) == set()


class Meddling(CatalogueCursor):
    """Whoever waits for the moment between the check and the statement."""

    meddle: Callable[[], None]

    def begin(self, lock: bool = True) -> None:
        super().begin(lock)
        self.meddle()


@pytest.mark.parametrize(
    "meanwhile",
    [
        "CREATE TRIGGER t BEFORE INSERT ON public.backup_events FOR EACH ROW EXECUTE FUNCTION mallory.fire()",
        "ALTER SCHEMA public RENAME TO aside; CREATE SCHEMA public;"
        "CREATE TABLE public.backup_events (LIKE aside.backup_events INCLUDING DEFAULTS);"
        "CREATE TRIGGER t BEFORE INSERT ON public.backup_events FOR EACH ROW EXECUTE FUNCTION mallory.fire()",
    ],
    ids=["a trigger", "another schema of the name"],
)
def test_nothing_is_put_in_place_between_the_check_and_the_statement(
    home: Scene, meanwhile: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.sql("GRANT ALL ON database_backups, backup_events TO mallory")

    def meddle(cursor: CatalogueCursor) -> None:
        with suppress(psycopg2.errors.LockNotAvailable):
            as_mallory(home, f"SET lock_timeout = '300ms'; {meanwhile}")

    monkeypatch.setattr(Meddling, "meddle", meddle, raising=False)
    monkeypatch.setattr("tasks.catalogue.catalogue.CatalogueCursor", Meddling)
    log = Log(home.cluster)
    with suppress(BadSetting):
        home.plan.catalogue.note(EVENT)
    assert seized_by(log) == set()


def test_a_swap_copies_the_catalogue_into_no_table_of_others(home: Scene) -> None:
    """The backup is of a day when a table of the owner's had the name."""
    one = home.with_plan(catalogue=Catalogue(parse(home.cluster.ensure_database("elsewhere"))))
    one.plan.catalogue.prepare()
    one.sql("DROP TABLE database_backups; ALTER TABLE backup_events OWNER TO mallory")
    as_mallory(one, "ALTER TABLE public.backup_events ADD CHECK (mallory.seize('check'))")
    one.back_up()
    one.sql("DROP TABLE public.backup_events")
    home.plan.catalogue.prepare()
    home.plan.catalogue.note(EVENT)
    log = Log(home.cluster)
    run = home.without_catalogue().validated()
    with pytest.raises(BackupSystemError, match="belongs to role mallory"):
        home.finish(run)
    assert seized_by(log) == set()


def test_a_completed_row_waits_for_the_disk_whatever_the_database_says(home: Scene) -> None:
    as_mallory(home, f"ALTER DATABASE {home.name} SET synchronous_commit = off")
    with home.plan.catalogue.cursor() as cursor:
        cursor.execute("SHOW synchronous_commit")
        assert cursor.fetchone() == {"synchronous_commit": "local"}


@pytest.mark.parametrize("schema", ["it's 100%s", 'a "b" {c}', "Ünï"])
def test_the_catalogue_may_lie_in_a_schema_with_any_name(home: Scene, schema: str) -> None:
    quoted = '"' + schema.replace('"', '""') + '"'
    home.sql(f"DROP TABLE database_backups, backup_events; CREATE SCHEMA {quoted}")
    home.sql(f"ALTER DATABASE {home.name} SET search_path = {quoted}")
    home.plan.catalogue.prepare()
    use(home.plan.catalogue)
    assert home.plan.catalogue.lost_tables() == ()
    with home.plan.catalogue.cursor() as cursor:
        cursor.execute("SELECT to_regclass('database_backups') IS NOT NULL AS there, %s AS text", ["database_backups"])
        assert json.dumps(cursor.fetchone()) == '{"there": true, "text": "database_backups"}'
