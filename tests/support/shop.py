"""The sample shop seen from outside: what pg_dump says of it, and a plain restore of that."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from contextlib import closing
from typing import Any

import psycopg2

from deployments.quick_start.postgres import PostgresCluster

#: What a reader of dumps may stumble over: all of it is in the data.
AWKWARD = {
    "tab\there",
    "line\nbreak",
    "carriage\rreturn\r\n",
    "back\\slash",
    "ends with \\",
    "\\.",
    "\\N",
    "\n\\.\n",
    "",
    " ",
    "NULL",
    "it's",
    'say "hi"',
    "emoji 🎁👩\u200d🚀",
    "Grüße aus Österreich",
    "e\u0301 ≠ é",
    "right-to-left שלום",
    "\u2028\ufeff",
    "\x01\x08\x0b\x0c\x7f",
    "$1 %s %(x)s {}",
    "'; DROP TABLE x; --",
    "\\unrestrict abc",
    "COPY shop.x (id) FROM stdin;\n1\n\\.\n",
    "--\n-- PostgreSQL database dump complete\n--\n",
}


def query(url: str, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """All rows of one statement."""
    with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
        cursor.execute(statement, values)
        return list(cursor.fetchall())


def plain_dump(server: PostgresCluster, url: str) -> bytes:
    """What pg_dump says of a database, its random keys masked."""
    done = subprocess.run([server.bin_directory / "pg_dump", "-d", url], check=True, capture_output=True)
    return re.sub(rb"(?m)^\\(un)?restrict .*$", rb"\\restrict", done.stdout)


def restore(server: PostgresCluster, url: str, copy: str, *options: str) -> None:
    """The plain dump of the database at `url`, played by psql into the empty one at `copy`."""
    psql = [str(server.bin_directory / "psql"), *["-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", os.devnull], *options]
    with tempfile.NamedTemporaryFile(suffix=".sql") as file:
        subprocess.run([server.bin_directory / "pg_dump", "-d", url, "-f", file.name], check=True)
        subprocess.run([*psql, "-f", file.name, "-d", copy], check=True, capture_output=True)
