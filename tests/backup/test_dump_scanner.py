"""What the dump scanner finds, and what cannot fool it."""

from __future__ import annotations

from contextlib import suppress
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.backup.scanner import DumpScanner
from tasks.errors import DumpFailed
from tasks.storage.backup_values import TableData

TRAILER = b"--\n-- PostgreSQL database dump complete\n--\n\n"
# What would be found if the text around it were not understood.
BAIT = b"\nCOPY public.fake (a) FROM stdin;\n1\n2\n\\.\n\n" + TRAILER
REAL = b'COPY public.real (a, "b c") FROM stdin;\n1\tx\n2\ty\n3\tz\n\\.\n\n\n'


def scan(text: bytes, *cuts: int) -> tuple[TableData, ...]:
    scanner = DumpScanner()
    for start, end in pairwise((0, *sorted(cuts), len(text))):
        scanner.feed(memoryview(text)[start:end])
    assert scanner.size == len(text)
    return scanner.finish()


def rows(text: bytes, *cuts: int) -> dict[str, int]:
    return {table.name: table.rows for table in scan(text, *cuts)}


SURROUNDINGS = {
    "a dollar-quoted string": b"CREATE FUNCTION f() RETURNS text LANGUAGE sql AS $$%b$$;\n",
    "a tagged dollar-quoted string": b"DO $_a1\xc3\xa4$ $$ $_a $_a1$%b$_a1\xc3\xa4$;\n",
    "a dollar-quoted string directly behind another": b"SELECT $$x$$$y$%b$y$;\n",
    "a string": b"COMMENT ON TABLE t IS 'it''s $$ \" -- /* \\' || '%b';\n",
    "an escape string": b"SELECT E'\\'%b\\\\\\'', e'''%b\\'';\n",
    "a string with standard_conforming_strings off": b"SET standard_conforming_strings = off;\nSELECT '\\'%b';\n"
    b"SET standard_conforming_strings = on;\n",
    "a string behind a word that ends in e": b"SELECT value'\\', '%b';\n",
    "a quoted identifier": b'CREATE TABLE "x""\'y$$%b" (a integer);\n',
    "a block comment": b"/* it's \" $$ %b */\n",
    "a nested block comment": b"/* /* */ %b /*/ */ **/\n",
    "a block comment in a statement": b"SELECT 1 /* ' %b */ + 1;\n",
    "a statement": b"SELECT (1%b\n);\n",
    "a function body of the standard's form": b"CREATE FUNCTION f() RETURNS integer LANGUAGE sql BEGIN ATOMIC\n"
    b" SELECT CASE WHEN true THEN 1 END;%b END;\n",
    "a procedure body with a nested case": b"CREATE OR REPLACE PROCEDURE p(a integer DEFAULT (1)) LANGUAGE sql\n"
    b"begin atomic SELECT case when a = 1 then case when true then 1 end end; %b end;\n",
    "parentheses": b"CREATE RULE r AS ON INSERT TO t DO ALSO (SELECT 1;%b SELECT 2);\n",
    "deep parentheses": b"SELECT ((((((((1;%b))))))));\n",
}


@pytest.mark.parametrize("surrounding", SURROUNDINGS.values(), ids=SURROUNDINGS.keys())
def test_what_looks_like_a_dump_is_not_taken_for_one_inside(surrounding: bytes) -> None:
    fooling = surrounding.replace(b"%b", BAIT)
    text = fooling + REAL + TRAILER
    whole = scan(text)
    assert [(table.name, table.rows) for table in whole] == [("public.real", 3)]
    assert text[whole[0].start : whole[0].end] == b"1\tx\n2\ty\n3\tz\n"
    for cut in range(len(text)):
        assert scan(text, cut) == whole
    assert scan(text, *range(1, len(text))) == whole


@pytest.mark.parametrize("surrounding", SURROUNDINGS.values(), ids=SURROUNDINGS.keys())
def test_a_dump_that_ends_behind_something_like_a_trailer_is_refused(surrounding: bytes) -> None:
    opened = surrounding.partition(b"%b")[0]
    with pytest.raises(DumpFailed):
        scan(opened + b"\n" + TRAILER)


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        (b"COPY public.t (a) FROM stdin;\n", "public.t"),
        (b"COPY public.t  FROM stdin;\n", "public.t"),
        (b'COPY "S ""x""."."T (1) FROM stdin;\n" ("a;b", ")", "c\n\\.\n", d) FROM stdin;\n', None),
        ('COPY "schön"."Tisch 🐘" ("Größe (cm)") FROM stdin;\n'.encode(), '"schön"."Tisch 🐘"'),
        (b'COPY public.t ("x"") FROM stdin;\n") FROM stdin;\n', "public.t"),
        (
            b"COPY public.t (" + b", ".join(b'"%s"' % (b'""' * 63) for _ in range(1600)) + b") FROM stdin;\n",
            "public.t",
        ),
    ],
)
def test_the_name_is_the_one_in_the_copy_line(statement: bytes, name: str | None) -> None:
    expected = name or '"S ""x""."."T (1) FROM stdin;\n"'
    text = statement + b"\n\n\\.\n\n\n" + TRAILER
    assert scan(text) == (TableData(expected, 2, len(statement), len(statement) + 2),)
    for cut in range(1, min(len(text), 200)):
        assert rows(text, cut) == {expected: 2}


def test_a_table_without_rows_has_an_empty_range() -> None:
    head = b"COPY public.t (a) FROM stdin;\n"
    assert scan(head + b"\\.\n\n\n" + TRAILER) == (TableData("public.t", 0, len(head), len(head)),)


def test_only_a_line_of_backslash_and_dot_ends_the_data() -> None:
    data = b"\\\\.\n\\\\N\\.\n \\.\n\\N\n\n--\n-- PostgreSQL database dump complete\n--\n\n"
    data += b"COPY x (a) FROM stdin;\n'\n"
    text = b"COPY public.t (a) FROM stdin;\n" + data + b"\\.\n\n\n" + REAL + TRAILER
    assert rows(text) == {"public.t": data.count(b"\n"), "public.real": 3}


@pytest.mark.parametrize("line", [b"\\.\r\n", b"\\.x\n", b"\\..\n", b"\\. \n"])
def test_a_row_that_begins_as_the_end_of_the_data_does_is_refused(line: bytes) -> None:
    text = b"COPY public.t (a) FROM stdin;\n1\n" + line + b"2\n\\.\n\n\n" + TRAILER
    for cuts in ((), tuple(range(1, len(text)))):
        with pytest.raises(DumpFailed, match="At byte 32 the dump holds what pg_dump does not write"):
            scan(text, *cuts)


@pytest.mark.parametrize("text", [b"SELECT 1$x$;", b"SELECT 1E'\\';", b"SELECT $1$x$;", b"SELECT E'a'\r'b';"])
def test_what_versions_of_psql_read_in_different_ways_is_refused(text: bytes) -> None:
    for cuts in ((), tuple(range(1, len(text)))):
        with pytest.raises(DumpFailed, match="the dump holds what pg_dump does not write"):
            scan(text + b"\n" + TRAILER, *cuts)


def test_every_partition_has_its_own_data_and_a_name_may_come_twice() -> None:
    text = REAL + REAL + b"COPY public.p1 (a) FROM stdin;\n1\n\\.\n\n\n" + TRAILER
    assert [(table.name, table.rows) for table in scan(text)] == [
        ("public.real", 3),
        ("public.real", 3),
        ("public.p1", 1),
    ]


def test_progress_counts_the_rows_of_the_table_being_read() -> None:
    scanner = DumpScanner()
    scanner.feed(REAL + b"COPY public.t (a) FROM stdin;\n1\n2\n3333")
    assert (scanner.rows, [table.name for table in scanner.tables]) == (5, ["public.real"])
    scanner.feed(b"33\n4444")
    assert scanner.rows == 6


@pytest.mark.parametrize(
    ("text", "place"),
    [
        (b"", "without its trailer"),
        (REAL, "without its trailer"),
        (b"COPY public.t (a) FROM stdin;\n1\n", "inside the data of table public.t"),
        (b"COPY public.t (a) FROM std" + 99 * b"x", "inside a statement"),
        (
            b"CREATE TABLE public.t (\n    id integer NOT NULL,\n    name text NOT NULL\n",
            "inside a statement",
        ),
        (b"SELECT '" + 99 * b"x", "inside a quoted string"),
        (
            b"CREATE FUNCTION f() BEGIN ATOMIC SELECT 1 AS begin; END;\nSELECT 1;\n" + TRAILER,
            "inside the function body that begins at byte 0, of which psql sees no end",
        ),
        (b"DO $$" + 99 * b" x", "inside a quoted string"),
        (TRAILER + b"SELECT 1;\n", "does not end as pg_dump ends one"),
        (TRAILER + REAL, "does not end as pg_dump ends one"),
        (TRAILER + b"\\! true\n", "does not end as pg_dump ends one"),
        (TRAILER[:-1], "does not end as pg_dump ends one"),
        (b"\\restrict k1\n" + TRAILER, "does not end as pg_dump ends one"),
        (b"\\restrict k1\n" + TRAILER + b"\\unrestrict k2\n\n", "does not end as pg_dump ends one"),
        (b"\\restrict k1\n" + TRAILER + b"\\unrestrict k1\n", "does not end as pg_dump ends one"),
        (TRAILER + b"\\unrestrict k1\n\n", "does not end as pg_dump ends one"),
    ],
)
def test_a_dump_that_is_not_whole_is_refused_with_the_place_where_it_ends(text: bytes, place: str) -> None:
    with pytest.raises(DumpFailed, match=place):
        scan(text)


def test_comments_and_blank_lines_may_follow_the_trailer() -> None:
    assert rows(b"\\restrict k1\n" + REAL + TRAILER + b"\\unrestrict k1\n\n-- done\n\n") == {"public.real": 3}
    assert rows(REAL + TRAILER + b"\n-- done\n") == {"public.real": 3}


def test_every_truncation_of_a_dump_is_refused() -> None:
    surroundings = b"".join(s.replace(b"%b", BAIT) for s in SURROUNDINGS.values())
    text = b"\\restrict k1\n\n" + surroundings + REAL + TRAILER + b"\\unrestrict k1\n\n"
    assert rows(text) == {"public.real": 3}
    for end in range(len(text)):
        with pytest.raises(DumpFailed):
            scan(text[:end])


def test_text_that_goes_on_for_long_after_the_trailer_is_refused_at_once() -> None:
    scanner = DumpScanner()
    scanner.feed(TRAILER)
    with pytest.raises(DumpFailed, match="goes on"):
        scanner.feed(b"-" * 100_000)


def test_a_copy_statement_without_end_is_refused_at_once() -> None:
    scanner = DumpScanner()
    with pytest.raises(DumpFailed, match="COPY statement"):
        for _ in range(40):
            scanner.feed(b"COPY public.t (" + b"x" * 65_536)


@pytest.mark.parametrize(
    "opening",
    [
        b"COPY public.t (a) FROM stdin;\n",
        b"SELECT pg_catalog.lowrite(0, '",
        b"SELECT E'",
        b"DO $$",
        b'CREATE TABLE "',
        b"-- ",
        b"/* ",
        b"SELECT (",
    ],
)
def test_no_more_than_a_few_bytes_wait_for_the_next_chunk(opening: bytes) -> None:
    scanner = DumpScanner()
    scanner.feed(opening)
    for _ in range(50):
        scanner.feed(b"0123456789 abcdef\t" * 1000)
        assert len(scanner._text) < 200


fragments = st.sampled_from(
    [
        REAL,
        BAIT,
        TRAILER,
        b"'",
        b'"',
        b"$$",
        b"$a$",
        b"a$b$",
        b"E'",
        b"\\",
        b"\\.\n",
        b"\n",
        b";",
        b"(",
        b")",
        b"--",
        b"/*",
        b"*/",
        b"x",
        b" ",
        b"CREATE FUNCTION f() ",
        b"BEGIN ",
        b"CASE ",
        b"END ",
        b"COPY ",
        b"COPY public.z (a) FROM stdin;\n",
        b"SET standard_conforming_strings = off;",
        b"SET standard_conforming_strings = on;\n",
        b"1",
        b"\xc3\xa4",
        b"\r",
        b"\\restrict k\n",
        b"\\unrestrict k\n\n",
        b"SELECT 'a', E'\\'', \"b\", (1);\n",
    ]
)


@given(st.lists(fragments, max_size=40).map(b"".join), st.data())
def test_the_answer_does_not_depend_on_where_the_text_is_cut(text: bytes, data: st.DataObject) -> None:
    def outcome(*cuts: int) -> tuple[TableData, ...] | str:
        try:
            return scan(text, *cuts)
        except DumpFailed as error:
            return str(error)

    def found(*cuts: int) -> tuple[TableData, ...]:
        scanner = DumpScanner()
        with suppress(DumpFailed):
            for start, end in pairwise((0, *sorted(cuts), len(text))):
                scanner.feed(text[start:end])
        return scanner.tables

    cuts = data.draw(st.lists(st.integers(0, len(text)), max_size=12))
    assert outcome(*cuts) == outcome() == outcome(*range(1, len(text)))
    assert found(*cuts) == found() == found(*range(1, len(text)))


@pytest.mark.parametrize(
    "statement", [b"1\r\nCOPY public.t (a) FROM stdin;\n1\n", b"SELECT 1\r;\n", b"SELECT 1b'0';\n"]
)
def test_what_pg_dump_does_not_write_is_refused_wherever_the_text_is_cut(statement: bytes) -> None:
    text = statement + TRAILER
    for cuts in ((), range(1, len(text))):
        with pytest.raises(DumpFailed, match="holds what pg_dump does not write"):
            scan(text, *cuts)


@pytest.mark.parametrize("backslashes", [0, 1, 1499, 1500, 1501, 5000])
def test_the_end_of_data_is_found_behind_any_number_of_backslashes(backslashes: int) -> None:
    data = b"".join(b"\\N\t\\\\.\n" for _ in range(backslashes // 3)) + b"\\N\n" * (backslashes % 3)
    expected = backslashes // 3 + backslashes % 3
    text = b"COPY public.t (a) FROM stdin;\n" + data + b"\\.\n\n\n" + REAL + TRAILER
    assert rows(text) == {"public.t": expected, "public.real": 3}
    assert rows(text, *range(7, len(text), 1001)) == {"public.t": expected, "public.real": 3}
