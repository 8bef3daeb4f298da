"""Indexes and keys that several sessions make at once: none is lost, doubled or made in the wrong order."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tasks.errors import EntriesFailed, RestoreFailed, RestoreRefused
from tasks.postgres.server import source_session
from tasks.restore import builds, load_in_stages
from tasks.restore.builds import Build, Sizes, build_of, next_of
from tasks.restore.crew import Psqls
from tasks.restore.dump_reader import Entry
from tasks.restore.loader_role import PREFIX
from tasks.restore.tables.patterns import TableName
from tasks.storage.backup_values import TableData
from tests.restore import test_loader, test_stages
from tests.restore.test_loader import mallory  # noqa: F401 - a fixture
from tests.support.every_kind import OWNER
from tests.support.scene import SceneFactory

JOBS = 3
#: Keys and indexes of every sort, on tables that refer to each other in circles and to themselves.
EVERY_SORT = """
CREATE SCHEMA "Odd "" one";
CREATE TABLE a (i int PRIMARY KEY, b int, t text, r int4range, UNIQUE (b) INCLUDE (t));
CREATE TABLE "Odd "" one"."b;" (i int, a int REFERENCES a, "C'" int, PRIMARY KEY (i), CHECK (i > 0));
ALTER TABLE a ADD FOREIGN KEY (b) REFERENCES "Odd "" one"."b;" DEFERRABLE INITIALLY DEFERRED;
CREATE TABLE tree (i int PRIMARY KEY, up int REFERENCES tree);
ALTER TABLE a ADD CONSTRAINT apart EXCLUDE USING gist (r WITH &&);
CREATE INDEX by_text ON a (lower(t)) WHERE t <> 'it''s; "x"';
CREATE UNIQUE INDEX clustered ON a (i, b); ALTER TABLE a CLUSTER ON clustered;
CREATE TABLE replicated (i int NOT NULL); CREATE UNIQUE INDEX identity ON replicated (i);
ALTER TABLE replicated REPLICA IDENTITY USING INDEX identity; CREATE INDEX beside ON replicated (i DESC);
CREATE INDEX "by "" C'" ON "Odd "" one"."b;" ("C'"); CREATE INDEX ON "Odd "" one"."b;" USING hash (a);
COMMENT ON INDEX by_text IS 'an index'; COMMENT ON CONSTRAINT apart ON a IS 'a constraint';
COMMENT ON CONSTRAINT tree_up_fkey ON tree IS 'a foreign key'; COMMENT ON INDEX clustered IS 'clustered';
CREATE TABLE parts (k int, v int, PRIMARY KEY (k, v)) PARTITION BY RANGE (k);
CREATE TABLE p1 PARTITION OF parts FOR VALUES FROM (0) TO (50);
CREATE TABLE p2 PARTITION OF parts FOR VALUES FROM (50) TO (100) PARTITION BY LIST (v);
CREATE TABLE p20 PARTITION OF p2 DEFAULT; CREATE INDEX ON parts (v);
CREATE TABLE of_parts (k int, v int, FOREIGN KEY (k, v) REFERENCES parts);
CREATE FUNCTION twice(i int) RETURNS int LANGUAGE sql IMMUTABLE AS 'SELECT i * 2'; CREATE INDEX ON tree (twice(i));
CREATE MATERIALIZED VIEW seen AS SELECT i, t FROM a; CREATE UNIQUE INDEX ON seen (i);
CREATE VIEW grouped AS SELECT a.i, a.t, count(*) FROM a GROUP BY a.i;
CREATE STATISTICS together ON i, b FROM a;
INSERT INTO a SELECT i, NULL, 'text ' || i, int4range(i, i + 1) FROM generate_series(1, 300) i;
INSERT INTO "Odd "" one"."b;" SELECT i, i, i FROM generate_series(1, 300) i; UPDATE a SET b = 301 - i;
INSERT INTO tree SELECT i, nullif(i / 2, 0) FROM generate_series(1, 300) i;
INSERT INTO replicated SELECT i FROM generate_series(1, 300) i;
INSERT INTO parts SELECT i % 100, i FROM generate_series(1, 300) i; INSERT INTO of_parts TABLE parts;
"""
#: Two keys whose expressions each look into the other's table, which its session has locked.
EMBRACE = """
CREATE TABLE one (i int, r int4range); INSERT INTO one VALUES (1, '[1,2)');
CREATE TABLE two (i int, r int4range); INSERT INTO two VALUES (1, '[1,2)');
CREATE FUNCTION looks_into_two(r int4range) RETURNS int4range LANGUAGE plpgsql IMMUTABLE AS
  'BEGIN PERFORM pg_sleep(1); PERFORM FROM public.two; RETURN r; END';
CREATE FUNCTION looks_into_one(r int4range) RETURNS int4range LANGUAGE plpgsql IMMUTABLE AS
  'BEGIN PERFORM pg_sleep(1); PERFORM FROM public.one; RETURN r; END';
ALTER TABLE one ADD CONSTRAINT one_apart EXCLUDE USING gist (looks_into_two(r) WITH &&);
ALTER TABLE two ADD CONSTRAINT two_apart EXCLUDE USING gist (looks_into_one(r) WITH &&);
"""


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """Three sessions make the indexes and keys of every table; which of them has begun which entry."""
    begun: list[tuple[int, str]] = []
    real = builds._begin

    def begin(psql: Psqls, build: Build) -> None:
        begun.append((id(psql), f"{build.entry.kind} {build.entry.tag}"))
        real(psql, build)

    monkeypatch.setattr("tasks.restore.stages.LARGE_TABLE", 0)
    monkeypatch.setattr(load_in_stages, "wanted_jobs", lambda *_: JOBS)
    monkeypatch.setattr(builds, "_begin", begin)
    return begun


@pytest.mark.parametrize("owner", [False, True], ids=["superuser", "owner"])
@pytest.mark.parametrize("compare", ["rows", "content"])
def test_what_several_sessions_make_is_what_one_makes(
    scene: SceneFactory, at_once: list[tuple[int, str]], owner: bool, compare: str
) -> None:
    one = scene(owner=owner)
    one.sql(EVERY_SORT)
    one.back_up()
    before = one.dumped()

    done = one.restore(compare=compare)

    assert one.dumped() == before
    assert not [warning for warning in done.warnings if "content" in warning]
    names = [name for _, name in at_once]
    assert len(names) == len(set(names)), "an entry was made twice"
    assert {"CONSTRAINT a apart", "INDEX by_text", "FK CONSTRAINT tree tree_up_fkey"} <= set(names)
    assert len({psql for psql, _ in at_once}) == JOBS
    assert one.left_behind() == []


@pytest.mark.usefixtures("at_once", "mallory")
@pytest.mark.parametrize(
    "attack",
    [
        lambda scene: test_stages.test_all_entries_that_fail_are_named_by_one_run_and_a_second_one_goes_on_without_them(
            scene, "swap"
        ),
        lambda scene: test_loader.test_code_that_runs_while_a_superuser_restores_gets_nothing(scene, "swap", "rows"),
    ],
    ids=["entries that fail", "hostile code"],
)
def test_what_holds_for_one_session_holds_for_several(
    scene: SceneFactory, attack: Callable[[SceneFactory], None]
) -> None:
    attack(scene)


def test_a_deadlock_between_sessions_costs_no_entry(scene: SceneFactory, at_once: list[tuple[int, str]]) -> None:
    one = scene()
    one.sql(EMBRACE)
    one.back_up()
    before, log = one.dumped(), test_loader.Log(one.cluster)

    one.restore()

    assert "deadlock detected" in log.text(), "the sessions did not meet: the test proves nothing"
    assert one.dumped() == before
    assert len({psql for psql, _ in at_once}) == 2


@pytest.mark.usefixtures("at_once")
def test_the_loader_cannot_log_in_while_code_of_the_database_runs(scene: SceneFactory) -> None:
    """Not even when a session that failed gets a successor: the code could give the role a password of its own."""
    one = scene()
    one.sql(
        "CREATE TABLE looks (i int); INSERT INTO looks SELECT generate_series(1, 400);"
        "CREATE FUNCTION looks_now() RETURNS void LANGUAGE plpgsql VOLATILE AS $f$ BEGIN"  # sees what was just committed
        "  PERFORM pg_sleep(0.005);"
        "  IF EXISTS (SELECT FROM pg_roles WHERE rolname = session_user AND rolcanlogin"
        f"              AND starts_with(rolname, '{PREFIX}')) THEN RAISE LOG 'can log in'; END IF; END $f$;"
        "CREATE FUNCTION looks_on(i int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $f$ BEGIN"
        "  PERFORM public.looks_now(); RETURN i; END $f$; CREATE INDEX long ON looks (looks_on(i));"
        "CREATE FUNCTION fails_later(i int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $f$ BEGIN"
        "  IF current_setting('app.quiet', true) IS NULL THEN RAISE EXCEPTION 'no'; END IF; RETURN i; END $f$;"
    )
    for number in range(6):
        one.sql(
            f"SET app.quiet = ''; CREATE TABLE t{number} AS SELECT 1 AS i; CREATE INDEX broken{number} ON t{number} (fails_later(i));"
            f"CREATE INDEX good{number} ON t{number} (i)"
        )
    one.back_up()
    log = test_loader.Log(one.cluster)

    with pytest.raises(EntriesFailed) as failed:
        one.restore()

    assert [name for name, _, _ in failed.value.entries] == [f"INDEX public.broken{number}" for number in range(6)]
    assert "can log in" not in log.text()
    one.restore(without=("INDEX public.broken*",))
    assert one.sql("SELECT count(*) FROM pg_indexes WHERE indexname LIKE 'good%'") == [(6,)]


@pytest.mark.parametrize("owner", [False, True], ids=["superuser", "owner"])
def test_sessions_that_the_server_does_not_take_are_done_without(
    scene: SceneFactory, at_once: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch, owner: bool
) -> None:
    one = scene(owner=owner)
    one.sql(EVERY_SORT)
    one.back_up()
    before = one.dumped()
    refusing = "tasks.restore.load_in_stages._started" + ("" if owner else "_as_loader")
    name = refusing.rpartition(".")[2]
    real, started = getattr(load_in_stages, name), []

    def start(*arguments: object) -> object:
        started.append(name)
        if len(started) > 1:
            raise RestoreFailed("FATAL: sorry, too many clients already")
        return real(*arguments)

    monkeypatch.setattr(refusing, start)
    one.restore()

    assert one.dumped() == before
    assert len({psql for psql, _ in at_once}) == 1 and len(started) > 1


def test_few_free_connections_lower_the_number_and_the_log_says_so(scene: SceneFactory) -> None:
    one = scene(owner=True, jobs=4)
    one.sql("CREATE TABLE t (i int)")
    one.back_up()
    run, said = one.validated(), list[str]()
    with source_session(one.plan.database, "test") as connection:
        assert load_in_stages._sessions(one.plan, run, connection, said.append) == 4
        one.sql(f'ALTER ROLE "{OWNER}" CONNECTION LIMIT 7', "postgres", superuser=True)
        try:
            assert load_in_stages._sessions(one.plan, run, connection, said.append) == 2
        finally:
            one.sql(f'ALTER ROLE "{OWNER}" CONNECTION LIMIT -1', "postgres", superuser=True)
    assert said[0].startswith("4 sessions make indexes and keys")
    assert said[1].startswith("2 in place of 4 sessions make indexes and keys: the server has 6 free connections")


@pytest.mark.parametrize("owner", [False, True], ids=["superuser", "owner"])
def test_a_session_that_is_ended_ends_the_restore_and_nothing_is_left(
    scene: SceneFactory, at_once: list[tuple[int, str]], monkeypatch: pytest.MonkeyPatch, owner: bool
) -> None:
    one = scene(owner=owner)
    one.sql(EVERY_SORT)
    one.back_up()
    before, real = one.dumped(), builds._done

    def ended(under_way: dict[Psqls, Build]) -> list[Psqls]:
        pid = next(iter(under_way)).session()._answers["pid"]
        one.sql(f"SELECT pg_terminate_backend({pid})", "postgres", superuser=True)
        return real(under_way)

    monkeypatch.setattr(builds, "_done", ended)
    with pytest.raises(RestoreFailed):
        one.restore()
    assert one.dumped() == before and one.left_behind() == []

    monkeypatch.setattr(builds, "_done", real)
    one.restore()
    assert one.dumped() == before and one.left_behind() == []


@pytest.mark.usefixtures("at_once")
def test_an_index_of_which_nothing_is_known_stops_the_restore(
    scene: SceneFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = scene()
    one.sql(EVERY_SORT)
    one.back_up()
    before = one.dumped()
    monkeypatch.setattr(builds, "_make", lambda waiting, idle, note: waiting.clear() or [])
    with pytest.raises(RestoreRefused, match="neither restored nor refused: nothing was replaced"):
        one.restore()
    assert one.dumped() == before and one.left_behind() == []


def test_hundreds_of_tables_are_restored_by_several_sessions(
    scene: SceneFactory, at_once: list[tuple[int, str]]
) -> None:
    one = scene()
    for number in range(300):
        one.sql(
            f"CREATE TABLE t{number} (i int PRIMARY KEY, j int REFERENCES t{max(0, number - 1)});"
            f"CREATE INDEX ON t{number} (j)"
        )
    one.back_up()
    before = one.dumped()
    one.restore()
    assert one.dumped() == before
    assert len(at_once) == len(set(at_once)) == 900


# --- what may be made at once


def entry(kind: str, text: str, number: int = 1) -> Build | None:
    sizes = Sizes([TableData("public.t", 10, 0, 5000), TableData('public."b;"', 10, 6000, 7000)])
    written = f"-- Name: x; Type: {kind}; Schema: public; Owner: o\n--\n\n{text}\n\n\n--\n"
    return build_of(Entry(number, kind, "public", "x"), written.encode(), sizes)


@pytest.mark.parametrize(
    ("kind", "text", "shares"),
    [
        ("INDEX", "CREATE INDEX i ON public.t USING btree (a);", True),
        ("INDEX", "CREATE UNIQUE INDEX i ON ONLY public.t USING btree (a) WHERE (b = 'x;''y'::text);", True),
        ("INDEX", "CREATE INDEX i ON public.t USING btree (a);\n\nALTER TABLE public.t CLUSTER ON i;", False),
        ("INDEX", "CREATE INDEX i ON public.t USING btree (a);\n\nALTER TABLE ONLY public.t REPLICA IDENTITY USING INDEX i;", False),
        ("CONSTRAINT", "ALTER TABLE ONLY public.t\n    ADD CONSTRAINT t_pkey PRIMARY KEY (a);", False),
        ("CONSTRAINT", "ALTER TABLE ONLY public.t\n    ADD CONSTRAINT \"u v\" UNIQUE NULLS NOT DISTINCT (a);", False),
        ("CONSTRAINT", "ALTER TABLE ONLY public.t\n    ADD CONSTRAINT e EXCLUDE USING gist (a WITH &&);", False),
    ],
)  # fmt: skip
def test_only_what_is_an_index_alone_shares_its_table(kind: str, text: str, shares: bool) -> None:
    build = entry(kind, text)
    assert build is not None and build.shares is shares
    assert (build.sort, build.tables, build.size) == ("index", {TableName("public", "t")}, 5000)


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("CONSTRAINT", "ALTER TABLE ONLY public.t\n    ADD CONSTRAINT n NOT NULL a NOT VALID;"),
        ("CHECK CONSTRAINT", "ALTER TABLE public.t\n    ADD CONSTRAINT c CHECK ((a > 0)) NOT VALID;"),
        ("INDEX ATTACH", "ALTER INDEX public.i ATTACH PARTITION public.j;"),
        ("TRIGGER", "CREATE TRIGGER t AFTER INSERT ON public.t FOR EACH ROW EXECUTE FUNCTION public.f();"),
        ("INDEX", "DROP INDEX public.i;"),
        ("STATISTICS", "CREATE STATISTICS public.s ON a, b FROM public.t;"),
    ],
)
def test_everything_else_is_made_in_its_order(kind: str, text: str) -> None:
    assert entry(kind, text) is None


def test_foreign_keys_lock_both_tables() -> None:
    text = 'ALTER TABLE ONLY public.t\n    ADD CONSTRAINT f FOREIGN KEY (a) REFERENCES public."b;"(a);'
    build = entry("FK CONSTRAINT", text)
    assert build is not None and (build.sort, build.shares, build.size) == ("foreign key", False, 6000)
    assert build.tables == {TableName("public", "t"), TableName("public", "b;")}


def waiting(*words: str) -> list[Build]:
    """`a! 5` locks table a alone, `a 5` shares it; 5 is the size."""
    made = []
    for number, word in enumerate(words):
        tables, size = word.split()
        names = frozenset(TableName("s", name) for name in tables.rstrip("!"))
        made.append(Build(Entry(number, "INDEX", "s", word), b"", "index", names, not tables.endswith("!"), int(size)))
    return made


@pytest.mark.parametrize(
    ("under_way", "waits", "chosen"),
    [
        ([], ["a! 1", "b! 9", "c! 5"], 1),  # the largest
        ([], ["a! 1", "a 9", "b 5"], 2),  # what comes before it is made first
        (["a 9"], ["a 1"], 0),  # indexes share a table
        (["a! 9"], ["a 1", "b 1"], 1),
        (["a 9"], ["a! 9", "a 5"], None),  # a key waits for the index, and the next index for the key
        (["ab! 9"], ["bc! 9", "c! 5", "d! 1"], 2),  # and nothing overtakes a foreign key that waits
        ([], [], None),
    ],
)
def test_the_largest_that_nothing_hinders_is_next(under_way: list[str], waits: list[str], chosen: int | None) -> None:
    builds_ = waiting(*waits)
    assert next_of(builds_, waiting(*under_way)) == (None if chosen is None else builds_[chosen])
