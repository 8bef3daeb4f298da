"""Why a text cannot be adopted, in one sentence that says how to make one that can."""

from __future__ import annotations

import re

from tasks.errors import AdoptionRefused, BackupSystemError

_LOAD = "load it into an empty database with psql, and back that up"
_HEADER = re.compile(
    rb"^-- Dumped from database version (?P<server>[0-9][ -~]{0,80})\n"
    rb"-- Dumped by pg_dump version (?P<pg_dump>[0-9][ -~]{0,80})\n",
    re.MULTILINE,
)
_CLUSTER = b"-- PostgreSQL database cluster dump"
#: What stands where the reader of dumps stopped, and why.
_KINDS = (
    (
        re.compile(rb"\\connect|(?:CREATE|DROP|ALTER) DATABASE|CREATE ROLE|ALTER ROLE"),
        "it makes or changes a database or roles, as pg_dump --create and pg_dumpall write: dump one database without "
        f"--create, or {_LOAD}",
    ),
    (
        re.compile(rb"INSERT INTO"),
        f"it holds its rows as INSERT statements, so nothing counts them: dump without --inserts, or {_LOAD}",
    ),
    (
        re.compile(rb"DROP |TRUNCATE |SELECT pg_catalog\.lo_unlink\("),
        f"it removes what is there before, as pg_dump --clean writes: dump without --clean, or {_LOAD}",
    ),
    (
        re.compile(rb"\\"),
        "it holds a command for psql, which pg_dump does not write: take that out, if you know what it is for",
    ),
)


def versions_of(head: bytes) -> tuple[str, str]:
    """The versions of server and pg_dump, as the head of the text says. Raises AdoptionRefused when it says none."""
    if not head:
        raise AdoptionRefused("It is empty.")
    if _CLUSTER in head[:200]:
        raise AdoptionRefused(f"It is a dump of pg_dumpall: dump one database with pg_dump, or {_LOAD}.")
    match = _HEADER.search(head)
    if match is None:
        raise AdoptionRefused(
            "It is no dump of PostgreSQL: the line '-- Dumped from database version …', with which pg_dump begins, is "
            "missing."
        )
    return match["server"].decode(), match["pg_dump"].decode().split()[0]


def unwritten(error: BackupSystemError, refused: bytes) -> AdoptionRefused:
    """The refusal of a text, where the reader of dumps has stopped at `refused` with this error."""
    where = str(error).partition(":")[0].partition("; back up again")[0].rstrip(".")
    for kind, why in _KINDS:
        if refused and kind.match(refused):
            return AdoptionRefused(f"{where}: {why}.")
    if refused or "does not write" in where or "no pg_dump writes" in where:
        return AdoptionRefused(f"{where}: it was changed, or another program made it; {_LOAD}.")
    return AdoptionRefused(f"It is not whole. {where}: upload it again, or take another.")


def without_definitions() -> AdoptionRefused:
    """The refusal of a dump that holds rows alone."""
    return AdoptionRefused(
        "It holds rows and no table for them, as pg_dump --data-only writes: dump without --data-only, or load it into "
        "the database that has the tables, and back that up."
    )


def without_schema(table: str) -> AdoptionRefused:
    """The refusal of a dump whose tables are named without their schema."""
    return AdoptionRefused(
        f"It names table {table[:80]} without its schema, as pg_dump did before 10.3, 9.6.8 and 9.5.12: {_LOAD}."
    )
