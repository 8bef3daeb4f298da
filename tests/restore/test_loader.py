"""Code of the database's users that runs while a superuser restores gets nothing by it, and leaves nothing behind."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from deployments.quick_start.postgres import PostgresCluster
from tasks.errors import EntriesFailed, PreflightFailed, RestoreFailed
from tasks.postgres.child_processes import child
from tasks.restore.hands import Hands
from tasks.restore.labels import is_scratch_name
from tasks.restore.loader_role import PREFIX, Loader, create_role
from tasks.restore.tables.patterns import TableName
from tasks.retention.debris import clear_databases
from tasks.verify.checks import run_checks
from tests.restore.test_stages import broken_once
from tests.support.scene import Scene, SceneFactory, in_words, now
from tests.verify.test_verify import examined, lock, no_scratch_left, proved, subject_of

SECRET = "Marker-of-a-password-4711"
MARK = "seize:"
#: What an ordinary role can do to whoever runs its code. Each run writes to the server's log what it got.
SEIZE = """
CREATE FUNCTION mallory.try(what text) RETURNS text LANGUAGE plpgsql AS $f$
BEGIN EXECUTE what; RETURN what; EXCEPTION WHEN OTHERS THEN RETURN ''; END $f$;
CREATE FUNCTION mallory.seize(how text) RETURNS boolean LANGUAGE plpgsql AS $f$
DECLARE
    statement text; got text := '';
BEGIN
    FOREACH statement IN ARRAY ARRAY[
        'ALTER ROLE mallory SUPERUSER', 'GRANT pg_execute_server_program TO mallory',
        'SET SESSION AUTHORIZATION DEFAULT', 'RESET SESSION AUTHORIZATION', 'SET ROLE NONE', 'SET ROLE postgres',
        'SET ROLE victim', 'SET SESSION AUTHORIZATION victim', 'ALTER ROLE mallory SUPERUSER',
        'SET event_triggers = off', 'SET session_replication_role = replica',
        'CREATE OR REPLACE FUNCTION admin.trusted() RETURNS void LANGUAGE sql SECURITY DEFINER AS ''ALTER ROLE mallory SUPERUSER''',
        'CREATE FUNCTION mallory.left_over() RETURNS void LANGUAGE sql SECURITY DEFINER AS ''ALTER ROLE mallory SUPERUSER''',
        'CREATE TRIGGER t BEFORE INSERT ON admin.secret EXECUTE FUNCTION mallory.trigger()',
        'ALTER TABLE admin.secret ALTER COLUMN i SET DEFAULT mallory.number(1)',
        'GRANT ALL ON ALL TABLES IN SCHEMA admin TO mallory',
        'ALTER SCHEMA admin OWNER TO mallory', 'DROP TABLE admin.secret CASCADE', 'CREATE TEMP TABLE x (i int)',
        'COMMENT ON DATABASE ' || quote_ident(current_database()) || ' IS ''mine''',
        'ALTER DATABASE ' || quote_ident(current_database()) || ' SET search_path = mallory, pg_catalog',
        'SELECT ' || session_user || '.note(''mine'')'
    ] LOOP
        EXIT WHEN session_user = 'mallory' OR current_user = 'mallory' AND statement LIKE 'CREATE %'; -- that is its right
        IF mallory.try(statement) = '' THEN CONTINUE; END IF;
        IF statement NOT IN ('SET SESSION AUTHORIZATION DEFAULT', 'RESET SESSION AUTHORIZATION', 'SET ROLE NONE') THEN
            got := got || statement || ';';
        END IF;
    END LOOP;
    IF session_user <> 'mallory' THEN
        RAISE LOG 'seize: % as % of %, superuser %, got <%>', how, current_user, session_user,
            current_setting('is_superuser'), got;
    END IF;
    RETURN true;
END $f$;
CREATE FUNCTION mallory.number(i int, how text DEFAULT 'default') RETURNS int LANGUAGE plpgsql IMMUTABLE AS
$f$ BEGIN PERFORM mallory.seize(how); RETURN i; END $f$;
CREATE FUNCTION mallory.trigger() RETURNS trigger LANGUAGE plpgsql AS
$f$ BEGIN PERFORM mallory.seize('trigger'); RETURN NEW; END $f$;
"""
#: The ways in which code runs while a database is loaded, or looked at afterwards.
WAYS = """
CREATE TABLE mallory.checked (i int CHECK (mallory.seize('check'))); INSERT INTO mallory.checked VALUES (1);
CREATE TABLE mallory.later (i int); INSERT INTO mallory.later VALUES (1);
CREATE TABLE mallory.generated (i int, g int GENERATED ALWAYS AS (mallory.number(i, 'generated')) STORED);
INSERT INTO mallory.generated VALUES (1);
CREATE DOMAIN mallory.positive AS int CHECK (mallory.seize('domain'));
CREATE TYPE mallory.pair AS (p mallory.positive);
CREATE TABLE mallory.constant (i int, c mallory.pair DEFAULT '(5)'); INSERT INTO mallory.constant VALUES (1);
CREATE TABLE mallory.parts (p mallory.positive) PARTITION BY LIST (p);
CREATE TABLE mallory.part PARTITION OF mallory.parts FOR VALUES IN (1); INSERT INTO mallory.parts VALUES (1);
CREATE INDEX ON mallory.later (mallory.number(i, 'index'));
CREATE STATISTICS mallory.stats ON (mallory.number(i, 'statistics')) FROM mallory.later;
CREATE FUNCTION mallory.plus(int, int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS
$f$ BEGIN PERFORM mallory.seize('operator'); RETURN $1; END $f$;
CREATE OPERATOR mallory.<-> (LEFTARG = int, RIGHTARG = int, FUNCTION = mallory.plus);
CREATE TABLE mallory.operated (i int CHECK (i OPERATOR(mallory.<->) 1 = i)); INSERT INTO mallory.operated VALUES (1);
CREATE MATERIALIZED VIEW mallory.seen AS SELECT mallory.number(i, 'view') AS n FROM mallory.later;
CREATE FUNCTION mallory.texted(mallory.seen) RETURNS text LANGUAGE plpgsql AS
$f$ BEGIN PERFORM mallory.seize('cast'); RETURN 'text'; END $f$;
CREATE CAST (mallory.seen AS text) WITH FUNCTION mallory.texted(mallory.seen);
CREATE AGGREGATE mallory.total(int) (SFUNC = mallory.plus, STYPE = int, INITCOND = '0');
CREATE TRIGGER t BEFORE INSERT ON mallory.later FOR EACH ROW EXECUTE FUNCTION mallory.trigger();
CREATE TABLE mallory.ruled (i int); INSERT INTO mallory.ruled VALUES (1);
CREATE RULE r AS ON INSERT TO mallory.ruled DO ALSO SELECT mallory.seize('rule');
CREATE SCHEMA "x; Type: EXTENSION; Schema: y";
CREATE TABLE "x; Type: EXTENSION; Schema: y".t (i int, c mallory.pair DEFAULT '(6)', CHECK (mallory.seize('schema')));
INSERT INTO "x; Type: EXTENSION; Schema: y".t VALUES (1);
ALTER TABLE mallory.ruled ENABLE ROW LEVEL SECURITY; ALTER TABLE mallory.ruled FORCE ROW LEVEL SECURITY;
CREATE POLICY p ON mallory.ruled USING (mallory.seize('policy'));
CREATE VIEW mallory.counted AS SELECT mallory.number(i, 'plain view') FROM mallory.later;
CREATE FUNCTION mallory.on_definition() RETURNS event_trigger LANGUAGE plpgsql AS
$f$ BEGIN PERFORM mallory.seize('event trigger'); END $f$;
"""
#: An event trigger is a superuser's, and its function may be anybody's. Made last: it would fire in the source too.
EVENT_TRIGGERS = """
CREATE EVENT TRIGGER on_start ON ddl_command_start EXECUTE FUNCTION mallory.on_definition();
CREATE EVENT TRIGGER on_end ON ddl_command_end EXECUTE FUNCTION mallory.on_definition();
CREATE EVENT TRIGGER on_drop ON sql_drop EXECUTE FUNCTION mallory.on_definition();
ALTER EVENT TRIGGER on_drop ENABLE ALWAYS;
"""
ADMIN = """
CREATE SCHEMA admin; CREATE TABLE admin.secret (i int); INSERT INTO admin.secret VALUES (42);
CREATE FUNCTION admin.trusted() RETURNS void LANGUAGE sql SECURITY DEFINER AS 'SELECT';
"""
ROLES = "SELECT rolname FROM pg_roles WHERE rolsuper OR rolname LIKE 'backup_loader_%' ORDER BY 1"


@pytest.fixture
def mallory(postgres_server: PostgresCluster) -> Iterator[None]:
    """An ordinary role, which is no superuser afterwards either."""
    with closing(psycopg2.connect(postgres_server.url())) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        for role in ("mallory", "victim"):
            cursor.execute("SELECT FROM pg_roles WHERE rolname = %s", [role])
            if cursor.rowcount == 0:
                cursor.execute(f"CREATE ROLE {role} LOGIN PASSWORD 'mallory'")
        yield
        cursor.execute("ALTER ROLE mallory NOSUPERUSER")


def seized(scene: SceneFactory, more: str = "") -> Scene:
    """A superuser's plan for a database in which an ordinary role waits for whoever loads it."""
    one = scene()
    one.sql(f'{ADMIN} CREATE SCHEMA mallory AUTHORIZATION mallory; GRANT CREATE ON DATABASE "{one.name}" TO mallory;')
    with closing(psycopg2.connect(one.cluster.url(one.name, "mallory", "mallory"))) as connection:
        connection.autocommit = True
        for statements in (SEIZE, WAYS):
            connection.cursor().execute(statements)
    if more:
        one.sql(more)
    return one


class Log:
    """What the server's log says from now on."""

    def __init__(self, cluster: PostgresCluster) -> None:
        self._file = Path(cluster.service.log_file)
        self._from = self._file.stat().st_size

    def text(self) -> str:
        return self._file.read_bytes()[self._from :].decode("utf-8", "replace")

    def marks(self) -> list[str]:
        """What code of the ordinary role has written."""
        return [line.partition(MARK)[2] for line in self.text().splitlines() if MARK in line and "LOG:" in line]


def nothing_was_got(one: Scene, log: Log, ways: set[str]) -> None:
    marks = log.marks()
    ran = {mark.partition(" as ")[0].strip() for mark in marks}
    assert ran >= ways, "some code did not run: the test proves nothing"
    assert ran <= {*RAN, "plan", "statistics"}, "triggers, rules, policies, casts, defaults, views: PostgreSQL ran one"
    assert not [mark for mark in marks if "got <>" not in mark]
    assert not [mark for mark in marks if "superuser on" in mark and "as mallory of" not in mark]
    [(superuser,)] = one.sql("SELECT rolname FROM pg_roles WHERE rolsuper", "postgres")
    assert superuser != "mallory"
    assert no_loader(one)


def no_loader(one: Scene) -> bool:
    return one.sql(f"SELECT rolname FROM pg_roles WHERE starts_with(rolname, '{PREFIX}')", "postgres") == []


#: What PostgreSQL runs; ANALYZE and the checks of a plan run more.
RAN = {"check", "generated", "domain", "index", "operator", "view", "schema"}


@pytest.mark.usefixtures("mallory")
@pytest.mark.parametrize("mode", ["swap", "new_database"])
@pytest.mark.parametrize("compare", ["rows", "content"])
def test_code_that_runs_while_a_superuser_restores_gets_nothing(scene: SceneFactory, mode: str, compare: str) -> None:
    one = seized(scene, EVENT_TRIGGERS)
    one.back_up()
    before, log = one.dumped_whole(), Log(one.cluster)

    done = one.restore(mode=mode, compare=compare, target=f"{one.name}_new" if mode == "new_database" else "")

    nothing_was_got(one, log, RAN)
    assert one.dumped_whole(done.database).replace(b"_new", b"") == before
    assert one.left_behind() == []


@pytest.mark.usefixtures("mallory")
def test_a_drill_gives_nothing_to_code_in_the_backup(scene: SceneFactory) -> None:
    one = seized(scene, EVENT_TRIGGERS)
    one.back_up()
    log = Log(one.cluster)

    proved(one)

    nothing_was_got(one, log, RAN)


@pytest.mark.usefixtures("mallory")
def test_the_checks_of_a_plan_give_nothing_to_code_in_the_backup(scene: SceneFactory) -> None:
    one = seized(scene).with_plan(checks=("mallory.seize('plan')", "SELECT i = 42 FROM admin.secret"))
    one.back_up()
    log, subject = Log(one.cluster), subject_of(one)
    with lock(one, subject):
        run = examined(one, subject)
        with no_scratch_left(one.plan, run, pytest.fail):
            one.load(run)
            assert run_checks(one.plan, run) == 2
    nothing_was_got(one, log, {"plan"})


@pytest.mark.usefixtures("mallory")
@pytest.mark.parametrize("clear", ["restore", "clean-up"])
def test_what_a_run_that_died_leaves_of_its_loader_is_dropped_by_the_next(scene: SceneFactory, clear: str) -> None:
    one = seized(scene)
    one.back_up()
    before, run = one.dumped_whole(), one.validated()

    def die(_: Loader) -> None:
        raise RestoreFailed("dead")

    with pytest.MonkeyPatch.context() as patch, pytest.raises(RestoreFailed):
        patch.setattr(Loader, "remove", die)
        one.load(run)  # without what clears up after an error
    [(login,)] = one.sql(f"SELECT rolcanlogin FROM pg_roles WHERE starts_with(rolname, '{PREFIX}')", "postgres")
    assert not login and run.scratch in one.databases()

    if clear == "restore":
        one.restore()
        assert one.dumped_whole() == before
    else:
        assert not clear_databases(one.plan, now()).problems

    assert run.scratch not in one.databases() and no_loader(one)


@pytest.mark.usefixtures("mallory")
def test_a_restore_that_goes_on_gives_everything_its_owner(scene: SceneFactory) -> None:
    one = seized(scene)
    one.sql(
        "CREATE TABLE admin.words (w text); INSERT INTO admin.words VALUES ('b'); CREATE INDEX by_w ON admin.words (w)"
    )
    one.back_up()
    before, log = one.dumped_whole(), Log(one.cluster)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tasks.restore.stages.Stages._add", broken_once("INDEX admin.by_w", "TABLE DATA mallory.checked"))
        with pytest.raises(EntriesFailed):
            one.restore()
    assert no_loader(one)
    [scratch] = [name for name in one.databases() if is_scratch_name(name, one.name)]
    owned = "SELECT DISTINCT pg_get_userbyid(relowner)::text FROM pg_class ORDER BY 1"
    assert one.sql(owned, scratch) == [("mallory",), ("postgres",)]

    one.restore(compare="content")

    nothing_was_got(one, log, RAN)
    assert one.dumped_whole() == before


@pytest.mark.usefixtures("mallory")
def test_the_password_of_a_loader_is_in_no_argument_and_in_no_statement(scene: SceneFactory) -> None:
    one = seized(scene)
    one.back_up()
    one.sql("ALTER ROLE postgres SET log_statement = 'all'", "postgres")
    log, arguments = Log(one.cluster), []

    def spied(words: list[str], *more: Any, **named: Any) -> Any:
        arguments.append(" ".join(words))
        return child(words, *more, **named)

    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("tasks.restore.loader_role.secrets.token_urlsafe", lambda _: SECRET)
            patch.setattr("tasks.restore.load_in_stages.child", spied)
            one.restore()
    finally:
        one.sql("ALTER ROLE postgres RESET log_statement", "postgres")
    said = log.text()
    assert PREFIX in said and "SCRAM-SHA-256$" in said and SECRET not in said
    assert any(PREFIX in words for words in arguments) and not any(SECRET in words for words in arguments)


def test_where_no_loader_can_log_in_nothing_is_begun(scene: SceneFactory) -> None:
    one = scene()
    one.sql("CREATE TABLE t (i int)")
    one.back_up()
    rules = one.cluster.data_directory / "pg_hba.conf"
    usual, roles = rules.read_text(), one.sql(ROLES, "postgres")
    try:
        rules.write_text(f"host all postgres 127.0.0.1/32 scram-sha-256\nhost all all 127.0.0.1/32 reject\n{usual}")
        one.sql("SELECT pg_reload_conf()", "postgres")
        with pytest.raises(PreflightFailed) as refused:
            eventually_refused(one)
        in_words(r"cannot log in: .*pg_hba\.conf.*or restore with the mode in_place", refused.value)
        with pytest.raises(PreflightFailed) as refused:
            examined(one, subject_of(one))
        in_words(r"cannot log in: .*pg_hba\.conf", refused.value)
        one.restore(mode="in_place")
    finally:
        rules.write_text(usual)
        one.sql("SELECT pg_reload_conf()", "postgres")
    assert one.sql(ROLES, "postgres") == roles


def eventually_refused(one: Scene) -> None:
    """The server reads its rules again a moment after it was told to."""
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up:
        one.validated()
        time.sleep(0.1)


@pytest.mark.usefixtures("mallory")
def test_a_restore_in_place_names_whose_code_has_a_superusers_rights(scene: SceneFactory) -> None:
    one = seized(scene)
    one.back_up()
    for request in ({"mode": "in_place"}, {"mode": "new_database", "target": "t", "tables": ("admin.*",)}):
        [warning] = [line for line in one.validated(**request).warnings if "as superuser" in line]
        in_words("functions of role mallory: where you do not trust them, restore with the mode swap", warning)
    assert not [line for line in one.validated().warnings if "as superuser" in line]


# --- who runs an entry


class Asked:
    """A server with one extension."""

    def trusts(self, language: str) -> bool:
        return language == "plperl"

    def frees(self, setting: str) -> bool:
        return setting in ("search_path", "work_mem")

    def made_by_extension(self, relation: TableName) -> bool:
        return relation == TableName("cron", "job")


BODY = "\n    LANGUAGE {} IMMUTABLE\n    AS $$x$$;\n\n\nALTER FUNCTION a.f() OWNER TO x;\n\n"


@pytest.mark.parametrize(
    ("kind", "text", "turn"),
    [
        ("EXTENSION", "CREATE EXTENSION IF NOT EXISTS hstore WITH SCHEMA public;\n", "superuser"),
        ("EXTENSION", "CREATE TABLE x.t (i integer);\n\n\nALTER TABLE x.t OWNER TO mallory;\n\n", "loader"),
        ("ACL", "CREATE VIEW x.v AS SELECT mallory.f() AS f;\n", "loader"),
        ("FUNCTION", "CREATE FUNCTION a.f() RETURNS integer" + BODY.format("plpgsql"), "loader"),
        ("FUNCTION", "CREATE FUNCTION a.f() RETURNS integer" + BODY.format("c"), "superuser"),
        ("FUNCTION", "CREATE FUNCTION a.f() RETURNS integer" + BODY.format("plperl"), "loader"),
        ("FUNCTION", "CREATE FUNCTION a.f() RETURNS integer" + BODY.format("plperlu"), "superuser"),
        ("FUNCTION", "CREATE FUNCTION a.f() RETURNS integer" + BODY.format("sql LEAKPROOF"), "superuser"),
        ("FUNCTION", "CREATE FUNCTION a.f() RETURNS integer" + BODY.format("sql\n    SET work_mem TO '1'"), "loader"),
        ("FUNCTION", "CREATE FUNCTION a.f() RETURNS integer" + BODY.format("sql\n    SET log_x TO '1'"), "superuser"),
        (
            "FUNCTION",
            "CREATE FUNCTION a.f(i text DEFAULT '\n    LANGUAGE c') RETURNS integer" + BODY.format("sql"),
            "loader",
        ),
        ("FUNCTION", 'CREATE FUNCTION a.f("x LEAKPROOF y" text) RETURNS integer' + BODY.format("sql"), "loader"),
        (
            "FUNCTION",
            'CREATE FUNCTION a."it\'s"(i "\'\n    LANGUAGE c") RETURNS integer' + BODY.format("sql"),
            "loader",
        ),
        ("TABLE DATA", "COPY cron.job (i) FROM stdin;\n1\n\\.\n", "superuser"),
        ("TABLE DATA", "COPY mallory.job (i) FROM stdin;\n1\n\\.\n", "loader"),
        ("TYPE", "CREATE TYPE a.t (\n    INPUT = a.f\n);\n", "superuser"),
        ("TYPE", "CREATE TYPE a.t AS ENUM (\n    'x'\n);\n", "loader"),
        (
            "AGGREGATE",
            "CREATE AGGREGATE a.s(integer) (\n    SFUNC = a.f,\n    STYPE = internal,\n    X = '1'\n);\n",
            "superuser",
        ),
        (
            "AGGREGATE",
            "CREATE AGGREGATE a.s(integer) (\n    SFUNC = a.f,\n    INITCOND = '\n    STYPE = internal,'\n);\n",
            "loader",
        ),
        ("ACL", "GRANT SELECT ON TABLE a.t TO x;\n", "last"),
        ("COMMENT", "COMMENT ON TABLE a.t IS 'x';\n", "later"),
        ("BLOBS", "SELECT pg_catalog.lo_open('1', 131072);\n", "superuser"),
        ("SEQUENCE SET", "SELECT pg_catalog.setval('a.s', 1, true);\n", "loader"),
    ],
)
def test_the_statement_says_who_runs_an_entry(kind: str, text: str, turn: str) -> None:
    assert Hands("backup_loader_0", Asked()).share(kind, f"-- Name: x\n--\n\n{text}\n\n--\n".encode()).turn == turn


@pytest.mark.parametrize(
    ("text", "owner"),
    [
        ("CREATE TABLE a.t ();\n\n\nALTER TABLE a.t OWNER TO x;\n\n--\n", "ALTER TABLE a.t OWNER TO x;\n"),
        (
            'CREATE TABLE a."T ;" ();\n\n\nALTER TABLE a."T ;" OWNER TO "X ""y""";\n\n',
            'ALTER TABLE a."T ;" OWNER TO "X ""y""";\n',
        ),
        ("CREATE VIEW a.v AS\n SELECT '\n\nALTER TABLE a.t OWNER TO mallory;\n\n--\n';\n\n--\n", ""),
        ('CREATE VIEW a.v AS\n SELECT 1 AS "\n\nALTER TABLE a.t OWNER TO mallory;\n\n";\n\n--\n', ""),
        ('CREATE VIEW a.v AS\n SELECT 1 AS "\n\nALTER TABLE a.t OWNER TO ""mallory""";\n\n--\n', ""),
        (
            "CREATE FUNCTION a.f() AS $$\nALTER TABLE a.t OWNER TO m;\n$$;\n\nALTER FUNCTION a.f() OWNER TO x;\n",
            "ALTER FUNCTION a.f() OWNER TO x;\n",
        ),
        (
            'CREATE FUNCTION a."f"() AS $$\nALTER TABLE " $$;\n\nALTER FUNCTION a."f"() OWNER TO x;\n',
            'ALTER FUNCTION a."f"() OWNER TO x;\n',
        ),
    ],
)
def test_only_the_last_statement_gives_an_owner(text: str, owner: str) -> None:
    share = Hands("backup_loader_0", Asked()).without_owner(text.encode())
    assert share.owner.decode() == owner
    assert (
        share.text.decode().rstrip() == text.removesuffix("--\n").rstrip().removesuffix(owner.rstrip()).rstrip()
        or not owner
    )


def test_a_role_by_which_a_dead_run_tried_to_log_in_is_gone_after_the_next_restore(scene: SceneFactory) -> None:
    one = scene()
    one.back_up()
    with closing(psycopg2.connect(one.cluster.url())) as connection:
        connection.autocommit = True
        create_role(connection, f"{PREFIX}dead", "")
    assert not no_loader(one)
    one.restore()
    assert no_loader(one)
