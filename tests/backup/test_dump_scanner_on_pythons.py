"""The scanner leans on regular expressions, which early releases of Python 3.11 match wrongly in places."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.backup.scanner import DumpScanner

CHECKOUT = Path(__file__).parents[2]
DUMP = (
    b"--\n-- PostgreSQL database dump\n--\n\nSET standard_conforming_strings = on;\n\n"
    + b"".join(
        b"COMMENT ON COLUMN shop.orders.c%d IS 'it''s \"quoted\" (%d) -- not a comment; $x$';\n\n"
        b"CREATE TABLE shop.t%d (id integer, price numeric(10,2) DEFAULT (1 + (2)), CONSTRAINT c CHECK ((id > 0)));\n\n"
        b"CREATE FUNCTION shop.f%d() RETURNS text LANGUAGE plpgsql AS $_$ BEGIN RETURN E'\\'COPY x (a) FROM stdin;\n"
        b"\\.\n'; END $_$;\n\n"
        b"COPY shop.t%d (id, price) FROM stdin;\n1\t2.00\n2\t\\N\n\\.\n\n" % ((n,) * 5)
        for n in range(8)
    )
    + b"--\n-- PostgreSQL database dump complete\n--\n\n"
)
#: An interpreter of the system has no pydantic, which only the reader of manifests needs.
PROGRAM = """
import importlib.util, sys, types
if importlib.util.find_spec("pydantic") is None:
    sys.modules["pydantic"] = types.SimpleNamespace(Field=lambda **_: None)
from tasks.backup.scanner import DumpScanner
text = sys.stdin.buffer.read()
for size in (1, 7, 100, 4096, len(text)):
    scanner = DumpScanner()
    for at in range(0, len(text), size):
        scanner.feed(text[at:at + size])
    print([(t.name, t.rows, t.start, t.end) for t in scanner.finish()])
"""


def pythons() -> list[str]:
    """One interpreter of each installed release from 3.11 on; the one that runs the tests among them."""
    places = [sys.executable, "/usr/bin/python3", *filter(None, (shutil.which(f"python3.{n}") for n in range(11, 16)))]
    found: dict[str, str] = {}
    for place in places:
        asked = subprocess.run([place, "--version"], capture_output=True, text=True, check=False) if place else None
        release = asked.stdout.split()[-1] if asked and asked.returncode == 0 else ""
        if release and tuple(map(int, release.split(".")[:2])) >= (3, 11):
            found.setdefault(release, place)
    return list(found.values())


@pytest.mark.parametrize("python", pythons())
def test_every_installed_python_finds_the_same_tables(python: str) -> None:
    scanner = DumpScanner()
    scanner.feed(DUMP)
    expected = [(table.name, table.rows, table.start, table.end) for table in scanner.finish()]
    assert [name for name, *_ in expected] == [f"shop.t{n}" for n in range(8)]
    done = subprocess.run([python, "-c", PROGRAM], input=DUMP, cwd=CHECKOUT, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
    assert done.stdout.decode().splitlines() == [str(expected)] * 5
