"""A server with everything that belongs to no database, and an empty one of the same version that takes its place."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg2

from deployments.quick_start.postgres import PostgresCluster

PASSWORD = "marker-of-a-password"
#: `{}` is a directory for a tablespace.
MADE = r"""
CREATE ROLE shop_owner NOLOGIN CREATEROLE;
CREATE ROLE "shop app" LOGIN PASSWORD 'marker-of-a-password' CONNECTION LIMIT 7 VALID UNTIL '2031-05-06 07:08:09+02';
CREATE ROLE "odd ""na'me\ $$ :x %s" NOINHERIT LOGIN;
CREATE ROLE "new
line" NOLOGIN;
CREATE ROLE "ümlaut 💾" CREATEDB VALID UNTIL 'infinity';
CREATE ROLE boss SUPERUSER REPLICATION BYPASSRLS LOGIN PASSWORD 'marker-of-a-password';
COMMENT ON ROLE shop_owner IS 'owns the shop''s \ tables';
GRANT shop_owner TO "shop app" WITH ADMIN OPTION;
GRANT shop_owner TO "ümlaut 💾";
GRANT pg_read_all_data, pg_monitor TO "odd ""na'me\ $$ :x %s";
ALTER ROLE "shop app" SET search_path = "$user", "odd, schema", public;
ALTER ROLE "shop app" SET app.greeting = 'it''s a \ "test"';
ALTER ROLE shop_owner SET role = "new
line";
ALTER ROLE postgres SET work_mem = '5MB';
CREATE TABLESPACE "fast disk" OWNER shop_owner LOCATION '{}' WITH (random_page_cost = 1.5);
GRANT CREATE ON TABLESPACE "fast disk" TO "shop app" WITH GRANT OPTION;
COMMENT ON TABLESPACE "fast disk" IS 'it''s fast';
CREATE DATABASE shop OWNER shop_owner TEMPLATE template0;
COMMENT ON DATABASE shop IS 'The shop';
ALTER DATABASE shop SET timezone = 'Europe/Vienna';
ALTER ROLE "shop app" IN DATABASE shop SET statement_timeout = '9s';
REVOKE CONNECT ON DATABASE shop FROM PUBLIC;
GRANT CONNECT ON DATABASE shop TO "shop app" WITH GRANT OPTION;
"""
SINCE_15 = """
GRANT SET ON PARAMETER log_min_messages TO "shop app" WITH GRANT OPTION;
SET SESSION AUTHORIZATION "shop app";
GRANT SET ON PARAMETER log_min_messages TO "ümlaut 💾";
RESET SESSION AUTHORIZATION;
GRANT ALTER SYSTEM ON PARAMETER work_mem TO shop_owner;
"""
SINCE_16 = """
GRANT shop_owner TO "new
line" WITH INHERIT FALSE, SET TRUE GRANTED BY "shop app";
GRANT "ümlaut 💾" TO "shop app" WITH INHERIT TRUE, SET FALSE;
"""
IN_THE_SHOP = """
SET ROLE shop_owner;
CREATE SCHEMA sales;
CREATE TABLE sales.orders (id int PRIMARY KEY, note text);
INSERT INTO sales.orders SELECT n, 'note ' || n FROM generate_series(1, 100) n;
GRANT SELECT ON sales.orders TO "shop app", "odd ""na'me\\ $$ :x %s";
ALTER DEFAULT PRIVILEGES IN SCHEMA sales GRANT INSERT ON TABLES TO "shop app";
"""


@contextmanager
def two_servers(bin_directory: Path, directory: Path) -> Iterator[tuple[PostgresCluster, PostgresCluster]]:
    """The server that gets lost, with roles and a shop, and the empty one; both run."""
    names = ("lost", "empty")
    lost, empty = (PostgresCluster(directory / it, bin_directory, durable=False, owned=True) for it in names)
    try:
        for server in (lost, empty):
            server.start()
        place = new_directory(lost, "fast disk")
        execute(lost, MADE.replace("{}", str(place)))
        execute(lost, SINCE_15 if lost.major >= 15 else "")
        execute(lost, SINCE_16 if lost.major >= 16 else "")
        execute(lost, IN_THE_SHOP, "shop")
        yield lost, empty
    finally:
        for server in (lost, empty):
            server.stop(immediate=True)


def new_directory(server: PostgresCluster, name: str) -> Path:
    """A directory that the server may write to."""
    made = server.data_directory.parent / name
    made.mkdir()
    made.chmod(0o777)
    return made


def execute(server: PostgresCluster, statements: str, database: str = "postgres") -> None:
    """Runs statements one by one, as psql does."""
    with closing(psycopg2.connect(server.url(database))) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        for statement in re.split(r";\n", statements):
            if statement.strip():
                cursor.execute(statement)


def whole_dump(server: PostgresCluster, *options: str, password: str = "") -> str:
    """What pg_dumpall says of the server, its random keys masked; without passwords, or as a superuser with this one."""
    program = str(server.bin_directory / "pg_dumpall")
    secret = [] if password else ["--no-role-passwords"]
    command = [
        program,
        *secret,
        f"--dbname={server.url('postgres', 'postgres', password or server.password)}",
        *options,
    ]
    environment = {**os.environ, "PGPASSWORD": password or server.password}
    done = subprocess.run(command, env=environment, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return re.sub(r"(?m)^\\(un)?restrict .*$", r"\\restrict", done.stdout)


def by_psql(server: PostgresCluster, text: str, database: str = "postgres") -> None:
    """psql runs a text, up to the first error."""
    command = [str(server.bin_directory / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", "-d", server.url(database)]
    done = subprocess.run(command, input=text, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
