"""The reader of a dump on its way into psql, on texts as pg_dump writes them, cut anywhere."""

from __future__ import annotations

import pytest

from tasks.errors import BackupDamaged, DumpFailed
from tasks.restore.dump_reader import DumpReader, Piece

TEXT = rb"""--
-- PostgreSQL database dump
--

\restrict key0

-- Dumped from database version 18.6

SET statement_timeout = 0;
SET lock_timeout = 0;
SET transaction_timeout = 0;

--
-- Name: f(); Type: FUNCTION; Schema: public; Owner: o
--

CREATE FUNCTION public.f() RETURNS integer
    LANGUAGE sql
    BEGIN ATOMIC
 SELECT 1;
END;


--
-- Name: g(text, text); Type: FUNCTION; Schema: public; Owner: o
--

CREATE FUNCTION public.g() RETURNS text LANGUAGE plpgsql AS $$
BEGIN
COMMIT;
-- Name: fake; Type: TABLE; Schema: public; Owner: o
BEGIN;
END $$;


COMMENT ON FUNCTION public.g() IS '
COMMIT;
-- Name: fake; Type: TABLE; Schema: public; Owner: o
\! touch /nowhere
';


--
-- Name: a b; Type: TABLE; Schema: odd; schema; Owner: o
--

CREATE TABLE "odd; schema"."a b" (
    id integer
);


--
-- Data for Name: a b; Type: TABLE DATA; Schema: odd; schema; Owner: o
--

COPY "odd; schema"."a b" (id) FROM stdin;
1
-- Name: fake; Type: TABLE; Schema: public; Owner: o
COMMIT;
\N
\.


--
-- Data for Name: BLOBS; Type: BLOBS; Schema: -; Owner: -
--

BEGIN;

SELECT pg_catalog.lo_open('1', 131072);

COMMIT;

--
-- PostgreSQL database dump complete
--

\unrestrict key0

"""


def read(text: bytes, size: int, version: int = 180000, freeze: bool = False) -> list[Piece]:
    reader = DumpReader(version, freeze)
    pieces = [piece for at in range(0, len(text), size) for piece in reader.feed(text[at : at + size])]
    return pieces + reader.finish()


def entries(pieces: list[Piece]) -> list[tuple[int, str, str, str]]:
    return list(dict.fromkeys((p.entry.number, p.entry.kind, p.entry.schema, p.entry.tag) for p in pieces))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 100, 10_000])
def test_only_the_lines_that_psql_must_not_get_are_taken_out_wherever_chunks_end(size: int) -> None:
    text = b"".join(piece.data for piece in read(TEXT, size))
    expected = TEXT.replace(b"\\restrict key0\n", b"").replace(b"\\unrestrict key0\n\n", b"")
    expected = expected.replace(b"SET lock_timeout = 0;", b"").replace(b"\nBEGIN;\n\nSELECT", b"\n\n\nSELECT")
    assert text == expected.replace(b"131072);\n\nCOMMIT;\n", b"131072);\n\n\n")


@pytest.mark.parametrize("size", [1, 5, 10_000])
def test_entries_are_those_of_the_dump_and_no_text_that_looks_like_one(size: int) -> None:
    assert entries(read(TEXT, size)) == [
        (0, "", "-", ""),
        (1, "FUNCTION", "public", "f()"),
        (2, "FUNCTION", "public", "g(text, text)"),
        (3, "TABLE", "odd; schema", "a b"),
        (4, "TABLE DATA", "odd; schema", "a b"),
        (5, "BLOBS", "-", "BLOBS"),
    ]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 64, 10_000])
def test_rows_are_frozen_as_they_are_copied_where_that_is_asked_for_and_nothing_else_changes(size: int) -> None:
    copy = b'COPY "odd; schema"."a b" (id) FROM stdin'
    text = b"".join(piece.data for piece in read(TEXT, size))
    assert text.count(copy + b";\n") == 1
    frozen = b"".join(piece.data for piece in read(TEXT, size, freeze=True))
    assert frozen == text.replace(copy + b";\n", copy + b" WITH (FREEZE);\n")


@pytest.mark.parametrize("size", [1, 5, 10_000])
def test_rows_are_told_from_statements(size: int) -> None:
    rows = b"".join(piece.data for piece in read(TEXT, size) if piece.rows)
    assert rows == b"1\n-- Name: fake; Type: TABLE; Schema: public; Owner: o\nCOMMIT;\n\\N\n"


def test_a_server_that_knows_the_timeout_of_transactions_gets_it_and_an_older_one_does_not() -> None:
    assert b"SET transaction_timeout" in b"".join(piece.data for piece in read(TEXT, 100, 170000))
    assert b"SET transaction_timeout" not in b"".join(piece.data for piece in read(TEXT, 100, 160009))


@pytest.mark.parametrize(
    "line",
    [
        rb"\! touch /elsewhere",
        rb"\connect other",
        rb"\i file",
        rb"\unrestrict key0",
        rb"\restrict key1",
        rb"SELECT 1 \gexec",
        rb"SELECT 1 \g |program",
        rb"\set x 1",
        rb"\restrict a; b",
        rb"\copy t from program 'x'",
    ],
)
@pytest.mark.parametrize(
    "place", [b"-- Dumped from", b"CREATE FUNCTION public.g()", b"COMMENT ON", b"COPY ", b"COMMIT;\n\n--\n-- Pos"]
)
@pytest.mark.parametrize("size", [1, 11, 10_000])
def test_a_command_for_psql_is_refused_before_a_byte_of_it_goes_on(line: bytes, place: bytes, size: int) -> None:
    text = TEXT.replace(place, line + b"\n" + place, 1)
    reader = DumpReader(180000)
    passed = b""
    with pytest.raises(BackupDamaged, match=r"At byte [0-9]+ the dump holds (a command for psql|what pg_dump does)"):
        for at in range(0, len(text), size):
            passed += b"".join(piece.data for piece in reader.feed(text[at : at + size]))
    assert line not in passed


def test_an_entry_has_its_owner_and_names_of_any_encoding() -> None:
    text = TEXT.replace(b"Name: f()", b"Name: f\xe9()")
    owners = {piece.entry.tag: piece.entry.owner for piece in read(text, 100)}
    assert owners == {"": "", "f\ufffd()": "o", "g(text, text)": "o", "a b": "o", "BLOBS": "-"}


@pytest.mark.parametrize("at", [0, 1, 100, TEXT.index(b"fake"), TEXT.index(b"\\N")])
@pytest.mark.parametrize("size", [1, 100, 10_000])
def test_a_zero_byte_is_refused_wherever_it_stands(at: int, size: int) -> None:
    with pytest.raises(BackupDamaged, match=f"^At byte {at} the dump holds what .*; restore another backup.$"):
        read(TEXT[:at] + b"\0x\0" + TEXT[at:], size)


def test_a_carriage_return_is_refused_in_the_comment_of_an_entry_alone() -> None:
    with pytest.raises(BackupDamaged, match=f"^At byte {TEXT.index(b'-- Name: f()')} "):
        read(TEXT.replace(b"Type: FUNCTION", b"Type:\rFUNCTION", 1), 100)
    assert b"$$\r\nBEGIN" in b"".join(piece.data for piece in read(TEXT.replace(b"$$\nBEGIN", b"$$\r\nBEGIN"), 10_000))


def test_only_entries_of_privileges_change_the_session_s_role() -> None:
    role = b"SET SESSION AUTHORIZATION o;\nGRANT ALL ON TABLE t TO r;\nRESET SESSION AUTHORIZATION;\n"
    place = b"CREATE TABLE"
    with pytest.raises(BackupDamaged, match="what pg_dump does not write"):
        read(TEXT.replace(place, role + place), 100)
    for kind in (b"ACL", b"DEFAULT ACL"):
        acl = b"--\n-- Name: TABLE t; Type: %b; Schema: public; Owner: o\n--\n\n%b\n--\n-- PostgreSQL" % (kind, role)
        text = TEXT.replace(b"--\n-- PostgreSQL database dump complete", acl + b" database dump complete")
        assert role in b"".join(piece.data for piece in read(text, 100))


def test_the_reader_says_how_the_dump_is_to_be_read() -> None:
    for settings, expected in [
        (b"", "on UTF8"),
        (b"SET client_encoding = 'LATIN1';\n", "on LATIN1"),
        (b"SET standard_conforming_strings = off;\n", "off UTF8"),
    ]:
        reader = DumpReader(180000)
        reader.feed(TEXT.replace(b"SET statement_timeout", settings + b"SET statement_timeout"))
        assert reader.reads_as == expected


def test_rows_are_not_frozen_unless_that_is_asked_for() -> None:
    reader = DumpReader(180000)
    assert b"FREEZE" not in b"".join(piece.data for piece in [*reader.feed(TEXT), *reader.finish()])


@pytest.mark.parametrize("end", range(0, len(TEXT) - 1, 13))
def test_a_dump_that_was_cut_off_is_not_whole(end: int) -> None:
    with pytest.raises(DumpFailed):
        read(TEXT[:end], 100)
