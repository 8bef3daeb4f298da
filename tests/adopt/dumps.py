"""A small database with something of most kinds, and dumps of it as other people's scripts make them."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from deployments.quick_start.postgres import PostgresCluster
from tests.conftest import DatabaseFactory

SCHEMA = """
    CREATE SCHEMA shop;
    CREATE TABLE shop.customers (id serial PRIMARY KEY, name text NOT NULL, note text);
    INSERT INTO shop.customers (name, note)
      SELECT 'Zoë ' || i, E'tab\\there, back\\\\slash, return\\r and line\\nend' FROM generate_series(1, 400) i;
    CREATE TABLE shop.sales (day date, amount numeric) PARTITION BY RANGE (day);
    CREATE TABLE shop.sales_2026 PARTITION OF shop.sales FOR VALUES FROM ('2026-01-01') TO ('2027-01-01');
    INSERT INTO shop.sales SELECT '2026-01-01'::date + i, i FROM generate_series(0, 99) i;
    CREATE FUNCTION shop.twice(i int) RETURNS int LANGUAGE plpgsql AS $$ BEGIN -- ; '
      RETURN i * 2; END $$;
    CREATE VIEW shop.names AS SELECT name FROM shop.customers;
    SELECT lo_from_bytea(0, 'a large object');
    CREATE EXTENSION pg_trgm SCHEMA shop;
"""
PLAIN = "--format=plain"
CUSTOM = "--format=custom"
TAR = "--format=tar"


def fill(cluster: PostgresCluster, url: str) -> None:
    """Makes the database at `url`."""
    psql(cluster, url, SCHEMA.encode())


def psql(cluster: PostgresCluster, url: str, script: bytes) -> None:
    words = [str(cluster.bin_directory / "psql"), "-X", "-q", "-v", "ON_ERROR_STOP=1", f"--dbname={url}"]
    subprocess.run(words, input=script, check=True, capture_output=True)


def dumped(cluster: PostgresCluster, url: str, *options: str) -> bytes:
    """What pg_dump writes with these options."""
    words = [str(cluster.bin_directory / "pg_dump"), f"--dbname={url}", *options]
    return subprocess.run(words, check=True, capture_output=True).stdout


@pytest.fixture(scope="module")
def dump_of(any_postgres: PostgresCluster, fresh_database: DatabaseFactory) -> Callable[..., bytes]:
    """`dump_of(*options)`: a dump of the small database."""
    url = fresh_database(any_postgres)
    fill(any_postgres, url)
    return lambda *options: dumped(any_postgres, url, *options)
