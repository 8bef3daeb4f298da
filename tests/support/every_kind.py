"""A database that holds every kind of object that pg_dump knows: what a restore must bring back, all of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2
from psycopg2 import sql
from psycopg2.extensions import cursor as Cursor

from deployments.quick_start.postgres import PostgresCluster
from tasks.postgres.dsn import parse

SCRIPT = Path(__file__).with_name("every_kind.sql")
OWNER = "every_kind_owner"
ROLES = (OWNER, "every_kind_reader", 'every kind: Größe "x"')
_PASSWORD = "every kind"


def make_every_kind(url: str, cluster: PostgresCluster) -> None:
    """Fills an empty database of the superuser's with every kind of object; creates the roles that it takes."""
    make_roles(cluster)
    run_sections(url, SCRIPT, {"owner", "superuser"})


def make_every_kind_as_owner(url: str, cluster: PostgresCluster) -> str:
    """The same with what a role can make that is no superuser but owns the database; returns the role's URL of it."""
    make_roles(cluster)
    name = parse(url).dbname
    with _cursor(url) as cursor:
        cursor.execute(sql.SQL("ALTER DATABASE {} OWNER TO {}").format(sql.Identifier(name), sql.Identifier(OWNER)))
    as_owner = owner_url(cluster, name)
    run_sections(as_owner, SCRIPT, {"owner"})
    return as_owner


def owner_url(cluster: PostgresCluster, name: str) -> str:
    """URL of a database for the role that is no superuser."""
    return cluster.url(name, OWNER, _PASSWORD)


def run_sections(url: str, script: Path, who: set[str]) -> None:
    """Runs the sections of a script that are written for these people, each as one transaction."""
    with _cursor(url) as cursor:
        for section in _sections(cursor, script, who):
            cursor.execute(section)


def make_roles(cluster: PostgresCluster) -> None:
    """The roles that the script names are there."""
    with _cursor(cluster.url()) as cursor:
        cursor.execute("SELECT rolname FROM pg_roles")
        there = {name for (name,) in cursor.fetchall()}
        for role in ROLES:
            if role not in there:
                cursor.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(role)))
        login = sql.SQL("ALTER ROLE {} LOGIN NOSUPERUSER NOCREATEDB PASSWORD {}")
        cursor.execute(login.format(sql.Identifier(OWNER), sql.Literal(_PASSWORD)))


def _sections(cursor: Cursor, script: Path, who: set[str]) -> Iterator[str]:
    """The parts of the script that this server takes and these people may run."""
    cursor.execute("SELECT count(*) > 100 FROM pg_collation WHERE collprovider = 'i'")
    has_icu = cursor.fetchone()[0]
    version = cursor.connection.server_version // 10000
    parts = re.split(r"(?m)^--- (\w+)(?: (\w+))?\n", script.read_text(encoding="utf-8"))[1:]
    for whose, condition, text in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
        suits = condition is None or (has_icu if condition == "icu" else version >= int(condition))
        if whose in who and suits:
            yield text


@contextmanager
def _cursor(url: str) -> Iterator[Cursor]:
    with closing(psycopg2.connect(url)) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            yield cursor
