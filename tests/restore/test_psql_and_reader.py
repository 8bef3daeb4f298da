"""The reader of a dump and psql agree: what psql would take for a command, a query or the end of rows is never let through."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from deployments.quick_start.postgres import PostgresCluster
from tasks.errors import BackupDamaged, DumpFailed
from tasks.postgres.dsn import parse
from tasks.restore.dump_reader import DumpReader
from tests.conftest import BIN_DIRECTORIES, DatabaseFactory
from tests.support.chosen_tables import psql

#: Printed by psql wherever it takes one of them for a command or a query of its own.
ECHO, QUERY = b"\\echo taken\n", b"\nSELECT 'taken';\n"
FRAGMENTS = st.sampled_from(
    [
        ECHO,
        QUERY,
        b"'",
        b'"',
        b"E'",
        b"e'",
        b"B'",
        b"U&'",
        b"$$",
        b"$a$",
        b"1$a$",
        b"1E'",
        b"\\",
        b"\\'",
        b"\\.\n",
        b"\\.\r\n",
        b"\\.x\n",
        b"\n",
        b"\r",
        b"\0",
        b"\x83",
        b";",
        b";\n",
        b"(",
        b")",
        b"--",
        b"/*",
        b"*/",
        b" BEGIN ",
        b" 1begin ",
        b" CASE ",
        b" END ",
        b"begin",
        b":'x'",
        b"1",
        b"x",
        b" ",
        b"'x'",
        b"COPY public.t (a) FROM stdin;\n",
        b"copy public.t from stdin;\n",
        b"COPY public.t (a)  FROM stdin;\n",
        b"CREATE FUNCTION f() ",
        b"CREATE  FUNCTION f() ",
        b"COMMENT ON TABLE public.t IS ",
        b"COMMENT ON TABLE public.t IS 'x';\n",
        b"SET standard_conforming_strings = off;\n",
        b"SET standard_conforming_strings = on;\n",
        b"SET client_encoding = 'SJIS';\n",
        b"set standard_conforming_strings = off;\n",
        b"-- Name: t; Type: TABLE; Schema: public; Owner: o",
        b"-- Data for Name: t; Type: TABLE DATA; Schema: public; Owner: o\n",
    ]
)
BODIES = st.lists(FRAGMENTS, max_size=4).map(b"".join) | st.sampled_from([ECHO, QUERY])
CALM = st.sampled_from(
    [ECHO, QUERY, b"''", b"\\", b"\\'", b'"', b"$", b"--", b"/*", b"\\\\", b";", b"(", b"\r", b"\x83"]
)
CALM_BODIES = st.lists(CALM, max_size=4).map(b"".join)
QUOTES = st.sampled_from([b"'%b'", b"E'%b'", b"B'%b'", b"$$%b$$", b"$a$%b$a$", b'"%b"', b"(%b)", b"%b", b"E'x'\r'%b'"])
QUOTED = st.tuples(QUOTES, CALM_BODIES | BODIES).map(lambda drawn: drawn[0].replace(b"%b", drawn[1]))
STARTS = st.sampled_from(
    [
        b"COMMENT ON TABLE public.t IS ",
        b"CREATE FUNCTION f() BEGIN ATOMIC ",
        b"CREATE FUNCTION f() AS ",
        b"ALTER TABLE x ADD ",
        b"SET search_path = ",
    ]
)
STATEMENTS = st.tuples(STARTS, st.lists(QUOTED, min_size=1, max_size=3).map(b" ".join)).map(
    lambda drawn: b"%b%b;\n" % drawn
)
ROWS = st.tuples(st.sampled_from([b"COPY public.t (a) FROM stdin;\n%b\n\\.\n", b"-- %b\n"]), CALM_BODIES | BODIES).map(
    lambda drawn: drawn[0].replace(b"%b", drawn[1])
)
SETTINGS = st.sampled_from([b"SET standard_conforming_strings = off;\n", b""])
TEXTS = st.tuples(SETTINGS, st.lists(STATEMENTS | ROWS, min_size=1, max_size=4).map(b"".join)).map(b"".join)


def passed(text: bytes, size: int) -> bytes:
    """What the reader lets through to psql, up to what it refuses."""
    reader, out = DumpReader(180000), b""
    try:
        for at in range(0, len(text), size):
            out += b"".join(piece.data for piece in reader.feed(text[at : at + size]))
    except (BackupDamaged, DumpFailed):
        pass
    return out


def taken(cluster: PostgresCluster, url: str, text: bytes) -> bytes:
    """What psql, which goes on after errors here, prints when it is fed the text."""
    dsn = parse(url)
    program = str(cluster.bin_directory / "psql")
    arguments = [program, "-XqAt", f"--dbname={dsn.conninfo()}", "--file=-"]
    environment = dsn.child_environment("test")
    return subprocess.run(arguments, input=text, env=environment, capture_output=True, timeout=60, check=False).stdout


@pytest.mark.slow
@pytest.mark.parametrize("postgres_server", list(BIN_DIRECTORIES), indirect=True, ids=lambda major: f"pg{major}")
def test_psql_takes_nothing_for_a_command_in_what_the_reader_lets_through(
    postgres_server: PostgresCluster, fresh_database: DatabaseFactory
) -> None:
    url = fresh_database(postgres_server)
    assert not psql(postgres_server, url, "CREATE TABLE public.t (a text)")
    let_through = []

    @settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
    @given(TEXTS, st.sampled_from([1, 7, 1 << 20]))
    def agree(text: bytes, size: int) -> None:
        through = passed(text, size)
        if b"taken" in through:
            let_through.append(through)
            assert b"taken" not in taken(postgres_server, url, through), through

    agree()
    assert len(let_through) > 100
    assert b"taken" in taken(postgres_server, url, ECHO) and b"taken" in taken(postgres_server, url, QUERY)
