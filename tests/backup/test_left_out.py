"""What a plan leaves out is what pg_dump would leave out, by the same patterns, and the manifest names all of it."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.backup.left_out import Resolved, left_out
from tasks.backup.open_backup import open_backup
from tasks.errors import BadSetting, PreflightFailed
from tasks.postgres.dump_patterns import checked_patterns, checked_schemas
from tasks.postgres.server import source_session
from tasks.storage.backup_values import NOTHING_LEFT_OUT, LeftOut
from tasks.storage.manifest_text import read_manifest
from tests.support.scene import Scene, SceneFactory, now

#: Names that a pattern could mistake.
NAMES = """
    CREATE SCHEMA shop; CREATE SCHEMA "Shop"; CREATE SCHEMA "a.b";
    CREATE TABLE log (i int); CREATE TABLE log_1 (i int); CREATE TABLE log_22 (i int); CREATE TABLE "Log" (i int);
    CREATE TABLE "lo*" (i int); CREATE TABLE "a""b" (i int); CREATE TABLE "a.b" (i int); CREATE TABLE "cost$" (i int);
    CREATE TABLE "Zürich" (i int); CREATE TABLE "x[]" (i int); CREATE TABLE "a b" (i int);
    CREATE TABLE shop.log (i int); CREATE TABLE "Shop".log (i int); CREATE TABLE "a.b".log (i int);
    CREATE VIEW log_view AS SELECT 1 AS i; CREATE SEQUENCE log_seq; CREATE MATERIALIZED VIEW log_mv AS SELECT 1 AS i;
"""
PATTERNS = (
    "log",
    "LOG",
    '"Log"',
    "log*",
    "log_?",
    "log_[0-9]+",
    "log|a",
    '"lo*"',
    "lo?",
    '"a""b"',
    '"a.b"',
    "a?b",
    "cost$",
    "Zürich",
    "Z?rich",
    "x[]",
    "*.log",
    "shop.log",
    "SHOP.*",
    '"Shop".log',
    "sh*.l*",
    '"a.b".log',
    '"a"*',
    '""log',
    "*",
    "nothing",
)


def resolved(one: Scene, **fields: Any) -> Resolved:
    patterns = {name: checked_patterns(name, texts) for name, texts in fields.items()}
    with source_session(one.plan.database, "test") as connection:
        return left_out(connection, one.with_plan(**patterns).plan)


def part_of(one: Scene, **fields: Any) -> Scene:
    """The scene whose plan leaves something out."""
    return one.with_plan(**{name: checked_patterns(name, texts) for name, texts in fields.items()})


def entries_of_pg_dump(one: Scene, *options: str) -> set[str]:
    """The relations of which pg_dump writes the definition, and those of which it writes the rows."""
    text = one.dumped("", *options).decode()
    kinds = ("TABLE", "VIEW", "MATERIALIZED VIEW", "SEQUENCE", "TABLE DATA")
    found = set()
    for line in text.splitlines():
        name, _, rest = line.removeprefix("-- Data for Name: ").removeprefix("-- Name: ").partition("; Type: ")
        kind, _, rest = rest.partition("; Schema: ")
        if kind in kinds and line.startswith("-- "):
            found.add(f"{kind} {rest.partition('; Owner: ')[0]}.{name}")
    return found


def test_a_pattern_names_what_it_names_for_pg_dump(scene: SceneFactory) -> None:
    one = scene()
    one.sql(NAMES)
    every = entries_of_pg_dump(one)
    for field, option in (("exclude_tables", "--exclude-table"), ("exclude_rows", "--exclude-table-data")):
        for pattern in PATTERNS:
            by_pg_dump = every - entries_of_pg_dump(one, f"{option}={pattern}")
            named = resolved(one, **{field: [pattern]})
            names = named.left_out.tables if field == "exclude_tables" else named.left_out.rows
            ours = every - entries_of_pg_dump(one, *(f"{option}={name}" for name in names))
            assert ours == by_pg_dump, (option, pattern)
            assert bool(named.unmatched) is not bool(by_pg_dump), (option, pattern)


def test_a_pattern_that_cannot_be_one_is_refused_in_a_sentence(scene: SceneFactory) -> None:
    for text, said in (('"log', "quote that is not closed"), ("a.b.c", "names no table"), ("shop.", "names no table")):
        with pytest.raises(BadSetting, match=f"^exclude_rows: .*{said}"):
            checked_patterns("exclude_rows", [text])
    assert checked_patterns("exclude_rows", ["", "  "]) == ()
    one = scene()
    one.sql("CREATE TABLE log (i int)")
    with pytest.raises(BadSetting, match=r"exclude_tables has '\(log', which is no pattern"):
        resolved(one, exclude_tables=["(log"])
    with pytest.raises(PreflightFailed, match="Of exclude_tables of plan shop, no table is left to back up"):
        part_of(one, exclude_tables=["*.*"]).back_up()


#: A log with partitions at two depths, a table with a child, sequences that are owned, shared and free.
FAMILIES = """
    CREATE TABLE orders (id serial PRIMARY KEY, note text); INSERT INTO orders (note) VALUES ('a'), ('b');
    CREATE TABLE log (id serial, day date) PARTITION BY RANGE (day);
    CREATE TABLE log_2025 PARTITION OF log FOR VALUES FROM ('2025-01-01') TO ('2026-01-01') PARTITION BY RANGE (day);
    CREATE TABLE "log 2025 H1" PARTITION OF log_2025 FOR VALUES FROM ('2025-01-01') TO ('2025-07-01');
    CREATE TABLE log_2026 PARTITION OF log FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
    INSERT INTO log (day) VALUES ('2025-02-01'), ('2026-02-01'), ('2026-03-01');
    CREATE TABLE parent (i int); CREATE TABLE child (j int) INHERITS (parent); INSERT INTO child VALUES (1, 2);
    CREATE TABLE numbered (id serial); CREATE TABLE other (id int DEFAULT nextval('numbered_id_seq'));
    INSERT INTO numbered DEFAULT VALUES; INSERT INTO other DEFAULT VALUES;
"""


def test_partitions_children_and_sequences_go_with_their_table(scene: SceneFactory) -> None:
    one = scene()
    one.sql(FAMILIES)
    partitions = ('public."log 2025 H1"', "public.log_2025", "public.log_2026")
    found = resolved(one, exclude_tables=["log", "parent", "numbered"], exclude_rows=["orders"])
    expected = (*partitions, "public.log", "public.log_id_seq", "public.parent", "public.child", "public.numbered")
    assert set(found.left_out.tables) == set(expected), "the sequence that another table uses stays"
    assert found.left_out.rows == ("public.orders",) and found.unmatched == ()
    assert set(resolved(one, exclude_rows=["log"]).left_out.rows) == {*partitions, "public.log"}
    assert resolved(one, exclude_tables=["log_2026"]).left_out == LeftOut(("public.log_2026",), (), ())
    assert resolved(one, exclude_tables=["orders"], exclude_rows=["orders"]).left_out.rows == ()


@pytest.mark.parametrize("jobs", [1, 3])
def test_the_dump_and_its_manifest_are_without_it(
    scene: SceneFactory, monkeypatch: pytest.MonkeyPatch, jobs: int
) -> None:
    monkeypatch.setattr("tasks.backup.large_tables.LARGE", 1)
    one = part_of(scene(jobs=jobs), exclude_tables=["parent"], exclude_rows=["log", "orders"])
    one.sql(FAMILIES)
    one.sql("CREATE TABLE secret (text text); INSERT INTO secret VALUES ('kept')")
    backup = one.back_up()
    content, manifest = one.stored(backup)
    told = read_manifest(manifest, f"{backup.key}.manifest.json")
    assert told.left_out == LeftOut(
        ("public.child", "public.parent"),
        ("public.log", 'public."log 2025 H1"', "public.log_2025", "public.log_2026", "public.orders"),
        (),
    )
    assert {table.name for table in told.tables} == {"public.numbered", "public.other", "public.secret"}
    assert b"CREATE TABLE public.orders" in content and b"CREATE TABLE public.parent" not in content
    assert b"setval('public.orders_id_seq', 2, true)" in content, "numbers are not given twice"
    assert backup.left_out.startswith("without the rows of ") and "public.child, public.parent" in backup.left_out
    [row] = one.plan.catalogue.completed("shop")
    assert row.left_out == backup.left_out


def test_a_plan_that_leaves_nothing_out_writes_the_manifest_of_before(scene: SceneFactory) -> None:
    one = scene()
    one.sql("CREATE TABLE t (i int)")
    _, manifest = one.stored(part_of(one, exclude_rows=["no_such_table"]).back_up())
    assert b"left_out" not in manifest.replace(b"rows_left_out", b"")


def test_a_pattern_that_names_nothing_stops_no_backup_and_is_told(scene: SceneFactory) -> None:
    one = scene()
    one.sql("CREATE SCHEMA shop; CREATE TABLE shop.log (i int); CREATE TABLE t (i int)")
    said: list[str] = []
    plan = part_of(one, exclude_tables=["log"], exclude_rows=["dropped"]).plan
    open_backup(plan, "a run", "tester", now(), said.append)
    assert said == [
        "exclude_tables names log, and no table is found by that name: write *.log.",
        "exclude_rows names dropped, and no table is found by that name: correct the plan, if this is not meant.",
    ]


def test_a_safety_backup_leaves_nothing_out(scene: SceneFactory) -> None:
    one = part_of(scene(), exclude_tables=["log"], exclude_rows=["orders"])
    one.sql(FAMILIES)
    assert open_backup(one.plan, "a run", "tester", now(), lambda _: None, "pre_restore").left_out == NOTHING_LEFT_OUT
    assert open_backup(one.plan, "next run", "tester", now(), lambda _: None).left_out


def test_what_is_left_out_needs_no_privilege(scene: SceneFactory) -> None:
    one = scene(owner=True)
    one.sql("CREATE TABLE own (i int); CREATE TABLE hidden (i int); INSERT INTO hidden VALUES (1), (2)")
    one.sql("CREATE TABLE foreign_log (i int); CREATE TABLE t (id serial)", superuser=True)
    one.sql("ALTER TABLE hidden ENABLE ROW LEVEL SECURITY; ALTER TABLE hidden FORCE ROW LEVEL SECURITY")
    with pytest.raises(PreflightFailed, match=r"has no SELECT on .*foreign_log.*Row-level security hides rows"):
        one.back_up()
    with pytest.raises(PreflightFailed, match=r"has no SELECT on .*foreign_log"):
        part_of(one, exclude_rows=["hidden", "foreign_log", "t"]).back_up()
    backup = part_of(one, exclude_tables=["foreign_log", "t"], exclude_rows=["hidden"]).back_up()
    assert backup.tables == 1


#: Things of every kind that need `base`, and a foreign key to rows.
NEEDS = """
    CREATE TABLE base (id int PRIMARY KEY, t text); CREATE TABLE kept (id int PRIMARY KEY); INSERT INTO kept VALUES (1);
    INSERT INTO base VALUES (1, 'a');
    CREATE TABLE refers (b int REFERENCES base, k int REFERENCES kept); INSERT INTO refers VALUES (1, 1);
    CREATE TABLE parted (b int REFERENCES base, i int) PARTITION BY LIST (i);
    CREATE TABLE part PARTITION OF parted FOR VALUES IN (1); INSERT INTO parted VALUES (1, 1);
    CREATE VIEW seen AS SELECT * FROM base; COMMENT ON VIEW seen IS 'x'; GRANT SELECT ON seen TO PUBLIC;
    CREATE MATERIALIZED VIEW stored AS SELECT * FROM seen; CREATE INDEX by_id ON stored (id);
    CREATE FUNCTION of_base(b base) RETURNS int LANGUAGE sql AS 'SELECT 1';
    CREATE FUNCTION many() RETURNS base[] LANGUAGE sql AS 'SELECT NULL::base[]';
    CREATE POLICY p ON kept USING (EXISTS (SELECT FROM base));
    CREATE RULE r AS ON INSERT TO kept WHERE new.id < 0 DO ALSO INSERT INTO base VALUES (new.id);
    CREATE TABLE rows_of (b base);
    CREATE RULE own AS ON DELETE TO base DO ALSO NOTHING; CREATE INDEX ON base (t);
"""
#: All of them, as the messages of a restore name them.
NEEDY = {
    "COMMENT public.VIEW seen",
    "ACL public.TABLE seen",
    "VIEW public.seen",
    "MATERIALIZED VIEW public.stored",
    "MATERIALIZED VIEW DATA public.stored",
    "INDEX public.by_id",
    "FUNCTION public.of_base(public.base)",
    "FUNCTION public.many()",
    "POLICY public.kept p",
    "RULE public.kept r",
    "TABLE public.rows_of",
    "TABLE DATA public.rows_of",
    "FK CONSTRAINT public.refers refers_b_fkey",
    "FK CONSTRAINT public.parted parted_b_fkey",
}


def test_what_needs_what_is_left_out_is_named_when_it_is_backed_up(scene: SceneFactory) -> None:
    one = scene()
    one.sql(NEEDS)
    backup = part_of(one, exclude_tables=["base"]).back_up()
    told = read_manifest(one.stored(backup)[1], f"{backup.key}.manifest.json")
    [hindrance] = told.conditions.hindrances
    assert (hindrance.kind, hindrance.needs, hindrance.here) == ("left_out", "public.base", True)
    assert set(hindrance.entries) == NEEDY
    [sentence] = backup.attention
    assert sentence.startswith("The plan leaves public.base out of its backups, so a restore cannot load ")
    rows = part_of(one, exclude_rows=["base", "parted"]).back_up()
    told = read_manifest(one.stored(rows)[1], f"{rows.key}.manifest.json")
    assert [h.entries for h in told.conditions.hindrances] == [("FK CONSTRAINT public.refers refers_b_fkey",)]


def test_a_plan_that_begins_to_leave_something_out_is_not_suspicious_and_an_emptied_database_is(
    scene: SceneFactory,
) -> None:
    one = scene()
    one.sql("CREATE TABLE log AS SELECT i, repeat('x', 100) AS t FROM generate_series(1, 3000) i")
    one.sql("CREATE TABLE orders AS SELECT i, repeat('y', 100) AS t FROM generate_series(1, 1000) i")
    assert one.back_up().suspicious == ""
    smaller = part_of(one, exclude_rows=["log"])
    one.sql("DELETE FROM orders WHERE i > 100")
    assert "its size shrank" in smaller.back_up().suspicious, "more went than what the plan leaves out"
    one.sql("INSERT INTO orders SELECT i, repeat('y', 100) FROM generate_series(101, 1000) i")
    assert smaller.back_up().suspicious == ""
    assert part_of(one, exclude_tables=["log"]).back_up().suspicious == ""
    one.sql("TRUNCATE orders")
    assert "its size shrank" in smaller.back_up().suspicious


# --- schemas

#: Schemas with odd names, and one with everything; `public` holds an extension.
SCHEMAS = """
    CREATE EXTENSION cube; CREATE TABLE rest (i int); INSERT INTO rest VALUES (1);
    CREATE SCHEMA shop; CREATE SCHEMA "Shop"; CREATE SCHEMA "a.b"; CREATE SCHEMA tenant_1; CREATE SCHEMA tenant_22;
    CREATE TABLE shop.orders (id serial PRIMARY KEY, at cube); INSERT INTO shop.orders (at) VALUES ('(1,2)'), (NULL);
    CREATE TABLE "Shop".t (i int); CREATE TABLE "a.b".t (i int); CREATE VIEW "a.b".v AS SELECT * FROM "a.b".t;
    CREATE TABLE tenant_1.t (i int); INSERT INTO tenant_1.t VALUES (1);
    CREATE TABLE tenant_22.t (i int); CREATE FUNCTION tenant_22.f() RETURNS int LANGUAGE sql AS 'SELECT 1';
    SELECT lo_from_bytea(0, 'large');
"""
SCHEMA_PATTERNS = ("shop", "SHOP", '"Shop"', "tenant_*", "tenant_?", "tenant_[0-9]+", '"a.b"', "shop|tenant_1")


def test_a_pattern_names_the_schemas_that_it_names_for_pg_dump(scene: SceneFactory) -> None:
    one = scene()
    one.sql(SCHEMAS)
    for pattern in SCHEMA_PATTERNS:
        by_pg_dump = entries_of_pg_dump(one, f"--schema={pattern}")
        named = resolved(one, only_schemas=[pattern])
        left = named.left_out
        options = [f"--exclude-schema={name}" for name in left.schemas]
        ours = entries_of_pg_dump(one, *options, *(f"--exclude-table={name}" for name in left.tables))
        assert ours == by_pg_dump and named.unmatched == (), pattern
    assert resolved(one, only_schemas=["shop", "nothing"]).unmatched == (
        "only_schemas names nothing, and no schema is found by that name: correct the plan, if this is not meant.",
    )
    with pytest.raises(BadSetting, match="Of only_schemas and exclude_tables of plan shop, no table is left"):
        resolved(one, only_schemas=["nothing"])
    with pytest.raises(BadSetting, match=r"^only_schemas: 'a\.b' names no schema"):
        checked_schemas("only_schemas", ["a.b"])


def test_a_dump_of_some_schemas_names_what_it_lacks(scene: SceneFactory) -> None:
    one = part_of(scene(), only_schemas=["shop", "tenant_*"], exclude_rows=["tenant_1.t"])
    one.sql(SCHEMAS)
    backup = one.back_up()
    told = read_manifest(one.stored(backup)[1], f"{backup.key}.manifest.json")
    assert told.left_out == LeftOut(
        ('"Shop".t', '"a.b".t', '"a.b".v', "public.rest"), ("tenant_1.t",), ('"Shop"', '"a.b"')
    )
    assert (
        backup.left_out
        == 'without the rows of tenant_1.t and without public.rest and without the schemas "Shop", "a.b"'
    )
    assert {table.name for table in told.tables} == {"shop.orders", "tenant_22.t"} and told.large_objects == 1
    assert backup.attention == ()


#: What needs things of the schema `tools`, one of each kind.
ACROSS = """
    CREATE SCHEMA tools; CREATE SCHEMA shop;
    CREATE TYPE tools.mood AS ENUM ('a', 'b'); CREATE DOMAIN tools.low AS int; CREATE TABLE tools.base (id int PRIMARY KEY);
    CREATE FUNCTION tools.f(int) RETURNS int IMMUTABLE LANGUAGE sql AS 'SELECT $1'; CREATE SEQUENCE tools.numbers;
    CREATE FUNCTION tools.t() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END';
    INSERT INTO tools.base VALUES (1);
    CREATE TABLE shop.fine (i int, j int); INSERT INTO shop.fine VALUES (1, 1); CREATE INDEX plain ON shop.fine (i);
    CREATE TABLE shop.typed (m tools.mood); CREATE TABLE shop.lowest (l tools.low); CREATE DOMAIN shop.lower AS tools.low;
    CREATE TABLE shop.counted (i int DEFAULT nextval('tools.numbers')); CREATE TABLE shop.checked (i int CHECK (tools.f(i) > 0));
    CREATE INDEX by_f ON shop.fine (tools.f(i)); ALTER TABLE shop.fine ADD CONSTRAINT key FOREIGN KEY (i) REFERENCES tools.base;
    CREATE VIEW shop.seen AS SELECT * FROM tools.base; CREATE TRIGGER tr BEFORE INSERT ON shop.fine FOR EACH ROW
      EXECUTE FUNCTION tools.t();
"""
NEEDY_OF_SCHEMA = {
    "TABLE shop.typed",
    "TABLE DATA shop.typed",
    "TABLE shop.lowest",
    "TABLE DATA shop.lowest",
    "DOMAIN shop.lower",
    "TABLE shop.counted",
    "TABLE DATA shop.counted",
    "TABLE shop.checked",
    "TABLE DATA shop.checked",
    "INDEX shop.by_f",
    "FK CONSTRAINT shop.fine key",
    "VIEW shop.seen",
    "TRIGGER shop.fine tr",
}


def test_what_needs_another_schema_is_named_when_it_is_backed_up(scene: SceneFactory) -> None:
    one = part_of(scene(), only_schemas=["shop"])
    one.sql(ACROSS)
    backup = one.back_up()
    told = read_manifest(one.stored(backup)[1], f"{backup.key}.manifest.json")
    assert {h.needs for h in told.conditions.hindrances} == {"tools"}
    assert {entry for h in told.conditions.hindrances for entry in h.entries} == NEEDY_OF_SCHEMA


def test_a_role_that_only_another_schema_has_is_not_needed(scene: SceneFactory) -> None:
    one = scene()
    one.sql(
        "CREATE TABLE t (i int); CREATE SCHEMA other AUTHORIZATION every_kind_reader;"
        "CREATE FUNCTION other.f() RETURNS int LANGUAGE sql AS 'SELECT 1'; ALTER FUNCTION other.f() OWNER TO every_kind_reader;"
        "ALTER DEFAULT PRIVILEGES IN SCHEMA other GRANT SELECT ON TABLES TO every_kind_reader"
    )
    for plan, expected in ((one, True), (part_of(one, only_schemas=["public"]), False)):
        backup = plan.back_up()
        told = read_manifest(one.stored(backup)[1], f"{backup.key}.manifest.json")
        assert ("every_kind_reader" in told.roles) is expected


def test_a_name_without_a_schema_goes_by_the_search_path_and_nothing_of_it_runs(scene: SceneFactory) -> None:
    one = scene()
    one.sql(
        "CREATE TABLE log (i int); CREATE SCHEMA shop; CREATE TABLE shop.log (i int); CREATE SCHEMA evil;"
        "CREATE SEQUENCE evil.ran; CREATE FUNCTION evil.pg_table_is_visible(oid) RETURNS bool LANGUAGE sql"
        " AS 'SELECT nextval(''evil.ran'') > 0';"
        "CREATE FUNCTION evil.same(name, text) RETURNS bool LANGUAGE sql AS 'SELECT nextval(''evil.ran'') > 0';"
        "CREATE OPERATOR evil.~ (LEFTARG = name, RIGHTARG = text, FUNCTION = evil.same);"
        f"ALTER DATABASE {one.name} SET search_path = evil, shop, pg_catalog"
    )
    assert part_of(one, exclude_tables=["log"]).back_up().left_out == "without shop.log"
    assert one.sql("SELECT is_called FROM evil.ran") == [(False,)]
