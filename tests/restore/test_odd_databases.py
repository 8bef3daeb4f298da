"""Databases with odd names, and in encodings other than UTF-8: restored in every mode, swapped, and swapped back."""

from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from deployments.quick_start.postgres import PostgresCluster
from tests.conftest import BIN_DIRECTORIES, DatabaseFactory
from tests.support.original import run_psql
from tests.support.scene import Scene, SceneFactory

#: One major version will do: what is odd here is none of the server's concern.
pytestmark = pytest.mark.parametrize(
    "postgres_server", list(BIN_DIRECTORIES)[:1] or [0], indirect=True, ids=lambda major: f"pg{major}"
)
NAMES = (
    "two words ",
    'quo\'te "d"',
    "Größe: ümläut",
    "-d postgres",
    "per%cent %s %20 {x} $$",
    "x" * 63,
    "ü" * 31 + "x",
    "back\\slash\ttab",
    "dbname=postgres",
)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_database_with_an_odd_name_is_restored_in_every_mode(
    postgres_server: PostgresCluster, scene: SceneFactory, fresh_database: DatabaseFactory, name: str
) -> None:
    one = scene(fresh_database(postgres_server, name))
    one.sql("CREATE TABLE t (id integer PRIMARY KEY); INSERT INTO t VALUES (1)")
    check_every_mode(
        one, lambda: one.sql("INSERT INTO t VALUES (2); CREATE TABLE later ()"), f"{name[:10]}:\n{name[:10]}"
    )


def check_every_mode(one: Scene, damage: Callable[[], object], target: str) -> None:
    """New database, swap, undo, in place."""
    before = one.dumped_whole()
    one.back_up()
    damage()
    damaged = one.dumped_whole()
    assert damaged != before
    new = one.restore(mode="new_database", target=target)
    assert one.dumped(new.database) == one.dumped(one.restore().database)
    assert one.dumped_whole() == before
    kept = one.undo().kept
    assert one.dumped_whole() == damaged
    assert len(kept.encode()) <= 63
    one.restore(mode="in_place")
    assert one.dumped_whole() == before
    assert one.left_behind() == []
    one.discard(new.database, kept, one.name)


@pytest.fixture
def encoded(postgres_server: PostgresCluster, scene: SceneFactory) -> Callable[[str, bytes], Scene]:
    """`encoded(encoding, script) -> Scene`: a database in an encoding, in which psql has run a script."""

    def make(encoding: str, script: bytes) -> Scene:
        name = f"in {encoding}"
        create = f"CREATE DATABASE \"{name}\" TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C' LOCALE_PROVIDER libc;"
        run_psql(postgres_server, postgres_server.url(), f'DROP DATABASE IF EXISTS "{name}";\n{create}'.encode())
        run_psql(postgres_server, postgres_server.url(name), f"SET client_encoding = '{encoding}';\n".encode() + script)
        return scene(postgres_server.url(name))

    return make


def content(codec: str) -> bytes:
    """Names and rows that are not ASCII."""
    return (
        'CREATE SCHEMA "Läden"; CREATE TABLE "Läden"."Größe" (id serial PRIMARY KEY, "Maß" text DEFAULT \'ä\');'
        'INSERT INTO "Läden"."Größe" ("Maß") VALUES (\'Ünsinn ßß\'), (\'plain\');'
        'CREATE TABLE "Läden".bezug (id integer REFERENCES "Läden"."Größe"); CREATE INDEX "für" ON "Läden"."Größe" ("Maß");'
        'INSERT INTO "Läden".bezug VALUES (1); COMMENT ON TABLE "Läden"."Größe" IS \'Äpfel\';'
    ).encode(codec)


ENCODINGS = [("LATIN1", "latin-1"), ("SQL_ASCII", "utf-8"), ("SQL_ASCII", "latin-1")]


@pytest.mark.slow
@pytest.mark.parametrize(("encoding", "codec"), ENCODINGS, ids=["latin1", "utf-8 in sql_ascii", "latin1 in sql_ascii"])
def test_a_database_in_another_encoding_is_restored_in_every_mode(
    encoded: Callable[[str, bytes], Scene], encoding: str, codec: str
) -> None:
    one = encoded(encoding, content(codec))
    damage = f'SET client_encoding = \'{encoding}\'; DROP TABLE "Läden"."Größe" CASCADE;'.encode(codec)
    check_every_mode(one, lambda: run_psql(one.cluster, one.url, damage), f"new {one.name}")


@pytest.mark.parametrize("mode", ["new_database", "in_place"])
@pytest.mark.parametrize(("encoding", "codec"), ENCODINGS[:2], ids=["latin1", "utf-8 in sql_ascii"])
def test_chosen_tables_of_a_database_in_another_encoding_come_back(
    encoded: Callable[[str, bytes], Scene], encoding: str, codec: str, mode: str
) -> None:
    one = encoded(encoding, content(codec))
    before = rows(one, one.name, codec)
    one.back_up()
    damage = (
        f'SET client_encoding = \'{encoding}\'; UPDATE "Läden"."Größe" SET "Maß" = \'ö\'; DELETE FROM "Läden".bezug;'
    )
    run_psql(one.cluster, one.url, damage.encode(codec))
    assert rows(one, one.name, codec) != before
    target = f"tables of {one.name}" if mode == "new_database" else ""
    done = one.restore(mode=mode, tables=('"Läden"."Größe"',), target=target)
    assert rows(one, done.database, codec) == before
    one.discard(done.database)


def rows(scene: Scene, database: str, codec: str) -> bytes:
    """The rows of the table, as the server has them."""
    script = 'SET client_encoding = SQL_ASCII; TABLE "Läden"."Größe" ORDER BY 1;'.encode(codec)
    program = [str(scene.cluster.bin_directory / "psql"), "-XqAt", "-d", scene.cluster.url(database)]
    done = subprocess.run(program, input=script, capture_output=True, check=False)
    assert done.returncode == 0 and not done.stderr, done.stderr
    return done.stdout
