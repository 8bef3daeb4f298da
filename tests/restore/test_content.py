"""What was restored is compared with the backup by content: whatever was changed after loading is named."""

from __future__ import annotations

import pytest

from tasks.errors import ContentDiffers
from tasks.restore.compare import compare_run
from tasks.restore.content import ContentDigest, content_differences, in_order_of_names
from tasks.restore.dump_reader import DumpReader
from tests.support.every_kind import make_every_kind
from tests.support.scene import Scene, SceneFactory

TABLES = """
CREATE TABLE orders (id serial PRIMARY KEY, total numeric, note text);
INSERT INTO orders (total, note) SELECT i * 1.5, repeat('n', i % 50) FROM generate_series(1, 3000) i;
CREATE INDEX by_total ON orders (total);
CREATE TABLE granted (i int); GRANT SELECT ON granted TO PUBLIC;
CREATE SEQUENCE numbers; SELECT setval('numbers', 42);
CREATE MATERIALIZED VIEW sums AS SELECT id % 7 AS k, sum(total) AS s FROM orders GROUP BY 1;
CREATE MATERIALIZED VIEW moments AS SELECT now() AS at, count(*) AS n FROM orders;
CREATE FUNCTION twice(int) RETURNS int LANGUAGE sql AS 'SELECT $1 * 2';
"""
HASHED = """
CREATE TYPE m AS ENUM ('a', 'b', 'c');
CREATE TABLE p (m m, n int) PARTITION BY HASH (m);
CREATE TABLE p0 PARTITION OF p FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE p1 PARTITION OF p FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO p SELECT (ARRAY['a', 'b', 'c'])[1 + i % 3]::m, i FROM generate_series(1, 100) i;
"""


def compared(one: Scene, *changes: str) -> str:
    """Restores into a scratch, makes changes there, and compares; returns what differs."""
    run = one.validated(compare="content")
    loaded = one.load(run)
    for change in changes:
        one.sql(change.format(d=run.scratch), run.scratch)
    try:
        done = compare_run(one.plan, run, loaded)
    except ContentDiffers as error:
        return str(error)
    finally:
        one.discard(run.scratch)
    assert done.by_content and not done.warnings
    return ""


def test_each_change_after_loading_is_named(scene: SceneFactory) -> None:
    one = scene()
    one.sql(TABLES)
    one.sql(HASHED)
    one.sql(f"ALTER DATABASE {one.name} SET work_mem = '5MB'", "postgres")
    one.back_up()
    assert compared(one) == ""
    changes = {
        "UPDATE orders SET total = total + 1 WHERE id = 1700": ["rows of TABLE DATA public.orders differs"],
        "UPDATE p SET n = n + 1 WHERE n = 7": ["rows of public.p differs"],
        "DROP INDEX by_total": ["INDEX public.by_total is missing"],
        "CREATE INDEX more ON orders (note)": ["INDEX public.more was not backed up"],
        "REVOKE SELECT ON granted FROM PUBLIC": ["ACL public.TABLE granted is missing"],
        "SELECT setval('numbers', 43)": ["SEQUENCE SET public.numbers differs"],
        "CREATE OR REPLACE FUNCTION twice(int) RETURNS int LANGUAGE sql AS 'SELECT $1 * 3'": [
            "FUNCTION public.twice(integer) differs"
        ],
        "ALTER DATABASE \"{d}\" SET work_mem = '6MB'": ["setting work_mem differs"],
        'ALTER DATABASE "{d}" RESET work_mem': ["setting work_mem is missing"],
        "ALTER TABLE orders SET (fillfactor = 50)": ["TABLE public.orders differs"],
    }
    for change, names in changes.items():
        said = compared(one, change)
        assert all(name in said for name in names), (change, said)
        assert said.count(";") <= ("total" in change), said  # the view sums do not fit any more
    said = compared(one, *changes)
    assert all(name in said for name in ("public.orders", "public.p ", "by_total", "granted", "numbers"))


def test_a_materialised_view_that_holds_something_else_is_named(scene: SceneFactory) -> None:
    one = scene()
    one.sql(TABLES)
    one.back_up()
    said = compared(one, "INSERT INTO granted VALUES (1); DELETE FROM granted", CHANGED_VIEW)
    assert "rows of MATERIALIZED VIEW public.sums differ" in said and "moments" not in said


#: The view is filled while its table has another row, which then goes again.
CHANGED_VIEW = """
BEGIN; INSERT INTO orders VALUES (9999, 1, ''); REFRESH MATERIALIZED VIEW sums; DELETE FROM orders WHERE id = 9999; COMMIT
"""


@pytest.mark.parametrize("mode", ["swap", "new_database"])
def test_a_database_with_every_kind_of_object_is_the_same_by_content(scene: SceneFactory, mode: str) -> None:
    one = scene()
    make_every_kind(one.url, one.cluster)
    one.back_up()
    target = {"target": f"{one.name}_new"} if mode == "new_database" else {}
    done = one.restore(mode=mode, compare="content", **target)
    assert not [warning for warning in done.warnings if "content" in warning]
    if target:
        one.discard(target["target"])


#: A child whose own columns came first, and odd names; a table in which short rows fill the gaps that long ones left.
REORDERED = r"""
CREATE TABLE parent (id int, "b, (c)" text);
CREATE TABLE child (own int DEFAULT 7, a text DEFAULT E'x\n)\nINHERITS (', "q""q" int) INHERITS (parent);
CREATE UNLOGGED TABLE "grand (child" ("Z" int) INHERITS (child);
ALTER TABLE parent ADD COLUMN aa int, ADD COLUMN zz text DEFAULT E'tab\tend\n';
INSERT INTO child (id, own, a, "q""q", aa) SELECT i, i + 1, 'a' || i, i + 2, i + 3 FROM generate_series(1, 40) i;
INSERT INTO "grand (child" (id, zz, a) SELECT id, zz, a FROM ONLY child;
CREATE TABLE gaps WITH (fillfactor = 10) AS
SELECT i AS n, CASE WHEN i <= 60 THEN repeat('w', 700) END AS t FROM generate_series(1, 120) i;
"""


def test_what_pg_dump_and_copy_give_back_in_another_order_is_the_same(scene: SceneFactory) -> None:
    one = scene()
    one.sql(REORDERED)
    one.back_up()
    before = one.dumped()
    assert compared(one) == ""
    changes = {
        "UPDATE child SET own = aa, aa = own WHERE id = 9": "rows of TABLE DATA public.child differs",
        'UPDATE "grand (child" SET zz = zz || zz WHERE id = 9': "rows of TABLE DATA public.grand (child differs",
        "UPDATE gaps SET t = 'x' WHERE n = 7": "rows of TABLE DATA public.gaps differs",
        "ALTER TABLE child ALTER own SET DEFAULT 8": "TABLE public.child differs",
        'ALTER TABLE "grand (child" RENAME "Z" TO y': "TABLE DATA public.grand (child differs",
    }
    said = compared(one, *changes)
    assert [name for name in changes.values() if name not in said] == []
    one.restore()
    after = one.dumped()
    assert before != after and sorted(before) == sorted(after), "only the order is another one"


def test_columns_are_put_in_the_order_of_their_names() -> None:
    head = b'COPY s.t (zz, "a, (b)", "q""q", a) FROM stdin;\n'
    assert in_order_of_names(head) == (b'COPY s.t ("a, (b)", "q""q", a, zz) FROM stdin;\n', [1, 2, 3, 0])
    assert in_order_of_names(b"COPY s.t FROM stdin;\n") == (b"COPY s.t FROM stdin;\n", [])


def test_a_swap_does_not_happen_when_the_content_differs(scene: SceneFactory) -> None:
    one = scene()
    one.sql("CREATE TABLE t (i int); INSERT INTO t VALUES (1)")
    one.sql(
        "CREATE FUNCTION adds() RETURNS event_trigger LANGUAGE plpgsql AS"
        " 'BEGIN UPDATE public.t SET i = i + 1; END'; CREATE TABLE keys (i int PRIMARY KEY)"
    )
    one.back_up()
    before = one.dumped_whole()
    run = one.validated(compare="content")
    loaded = one.load(run)
    one.sql("UPDATE t SET i = 2", run.scratch)
    with pytest.raises(ContentDiffers, match=r"rows of TABLE DATA public\.t differs"):
        compare_run(one.plan, run, loaded)
    assert one.dumped_whole() == before


def test_names_of_left_out_entries_are_no_difference() -> None:
    text = (
        b"--\n-- PostgreSQL database dump\n--\n\nSET row_security = off;\n\n--\n-- Name: t; Type: TABLE; Schema: s; Owner: o\n--\n\n"
        b"CREATE TABLE s.t (\n    i integer\n);\n\n\n--\n-- Data for Name: t; Type: TABLE DATA; Schema: s; Owner: o\n--\n\n"
        b"COPY s.t (i) FROM stdin;\n1\n2\n\\.\n\n\n--\n-- PostgreSQL database dump complete\n--\n\n"
    )
    digests = []
    for size in (1, 7, len(text)):
        reader, digest = DumpReader(180000), ContentDigest()
        for start in range(0, len(text), size):
            for piece in reader.feed(text[start : start + size]):
                digest.take(piece)
        for piece in reader.finish():
            digest.take(piece)
        digests.append(digest.content())
    assert digests[0] == digests[1] == digests[2]
    assert set(digests[0]) == {"TABLE s.t", "TABLE DATA s.t", "rows of TABLE DATA s.t"}
    without = {name: counted for name, counted in digests[0].items() if "DATA" not in name}
    assert content_differences(digests[0], without, ["TABLE DATA s.t"]) == []
    assert content_differences(digests[0], without, []) == [
        "TABLE DATA s.t is missing",
        "rows of TABLE DATA s.t is missing",
    ]
