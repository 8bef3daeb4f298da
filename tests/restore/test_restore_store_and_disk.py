# ruff: noqa: F401, F811 - fixtures are imported
"""A store that fails, a full disk, a wrong psql: a restore is tried again, or ends in one sentence with nothing done."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg2
import pytest

from deployments.quick_start.postgres import PostgresCluster
from tasks.errors import (
    BackupDamaged,
    DiskFull,
    Unreachable,
)
from tests.backup.test_failures import small_disk
from tests.conftest import BIN_DIRECTORIES
from tests.restore.test_restore_killed import many_parts
from tests.support import ci_skip
from tests.support.faulty_store import FaultyStore, Request
from tests.support.flow_fixtures import WorldFactory
from tests.support.restore_ground import PART, SLOW, Ground, ground, make_ground
from tests.support.world import MIB, Heard

pytestmark = pytest.mark.usefixtures("impatient", "many_parts")


@pytest.mark.parametrize("fate", [500, "drop", "short", "wrong"])
def test_a_store_that_fails_for_a_while_costs_time_alone(ground: Ground, fate: int | str) -> None:
    failures = {2 * PART: 5 if fate == 500 else 1, 5 * PART: 2}  # a client tries four times

    def rule(request: Request) -> int | str | None:
        time.sleep(0.05)
        with ground.store.lock:
            if failures.get(request.start, 0) > 0:
                failures[request.start] -= 1
                return fate
        return None

    ground.store.rule = rule
    ground.check_restored(ground.restore())
    assert ground.gets(3) == 1, "a part that arrived is not fetched again"


@pytest.mark.parametrize(
    ("fate", "error", "said"),
    [
        ("wrong", BackupDamaged, "part 4 of"),
        pytest.param(500, Unreachable, "500", marks=SLOW),
        pytest.param("short", Unreachable, "", marks=SLOW),
    ],
)
def test_a_store_that_fails_for_good_ends_the_run_with_nothing_done(
    ground: Ground, fate: int | str, error: type[Exception], said: str
) -> None:
    ground.store.rule = lambda request: fate if request.start == 3 * PART else None
    state = ground.restore()
    ground.check_untouched(state, said)
    with pytest.raises(error):
        state.result()


def test_an_object_that_goes_in_the_middle_ends_the_run_with_nothing_done(ground: Ground) -> None:
    world, key = ground.world, ground.world.rows()[0].s3_key
    ground.in_the_middle(lambda: world.s3.client.delete_object(Bucket=world.bucket, Key=key))
    ground.check_untouched(ground.restore(), "is gone from bucket", "restore another backup")


# --- disks


def test_a_full_disk_of_the_spool_ends_the_run_in_one_sentence(
    make_world: WorldFactory,
    faulty_store: FaultyStore,
    small_disk: Path,
    heard: Heard,
) -> None:
    ground = make_ground(make_world, faulty_store, settings={"SPOOL_DIRECTORY": str(small_disk / "spool")})
    ground.in_the_middle(lambda: fill_up(small_disk))
    state = ground.restore()
    assert list((small_disk / "spool").iterdir()) == []
    ground.check_untouched(state, "The disk of the spool", "is full")
    with pytest.raises(DiskFull):
        state.result()
    assert "Retry" not in heard.text and "Traceback" not in heard.text
    (small_disk / "filler").unlink()
    ground.check_restored(ground.restore())


def fill_up(disk: Path) -> None:
    """No byte is free on a disk any more."""
    with (disk / "filler").open("wb", buffering=0) as filler, pytest.raises(OSError, match="No space"):
        while True:
            filler.write(b"\0" * 4096)


@pytest.fixture
def small_tablespace(any_postgres: PostgresCluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The directory of a tablespace `small` on a disk of its own of 40 MiB."""
    if os.geteuid() != 0:
        ci_skip("a small disk can be mounted by root alone")
    disk = any_postgres.directory / "small-disk"
    disk.mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={40 * MIB}", "tmpfs", str(disk)]
    if (tried := subprocess.run(mount, capture_output=True, text=True, check=False)).returncode != 0:
        ci_skip(f"a small disk cannot be mounted here: {tried.stderr.strip()}")
    place = disk / "tablespace"
    place.mkdir(mode=0o700)
    status = any_postgres.data_directory.stat()
    os.chown(place, status.st_uid, status.st_gid)
    as_superuser(any_postgres, f"CREATE TABLESPACE small LOCATION '{place}'")
    yield disk
    (disk / "filler").unlink(missing_ok=True)
    for name in as_superuser(
        any_postgres,
        "SELECT datname FROM pg_database d JOIN pg_tablespace t ON t.oid = d.dattablespace WHERE spcname = 'small'",
    ):
        as_superuser(any_postgres, f'DROP DATABASE "{name[0]}" WITH (FORCE)')
    as_superuser(any_postgres, "DROP TABLESPACE small")
    subprocess.run(["umount", "-l", str(disk)], check=True)


def as_superuser(cluster: PostgresCluster, statement: str) -> list[Any]:
    connection = psycopg2.connect(cluster.url())
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def test_a_full_disk_of_the_server_ends_the_run_with_nothing_done(
    make_world: WorldFactory,
    faulty_store: FaultyStore,
    any_postgres: PostgresCluster,
    small_tablespace: Path,
    heard: Heard,
) -> None:
    ground = make_ground(make_world, faulty_store)
    as_superuser(any_postgres, f"ALTER DATABASE {ground.live} SET TABLESPACE small")
    ground.in_the_middle(lambda: fill_up(small_tablespace))
    ground.check_untouched(ground.restore(), "No space left on device", "make room on the server's disk")
    assert "Retry" not in heard.text
    fill_up(small_tablespace)
    refused = ground.restore()
    (small_tablespace / "filler").unlink()  # pg_dump, which compares, may need a temporary file
    ground.check_untouched(refused, "make room", outcome="refused")


# --- psql


def fake_psql(directory: Path, *lines: str, version: str = "18.6") -> dict[str, str]:
    """Settings with a psql of the test's own, in a directory beside the true pg_dump."""
    directory.mkdir()
    for program in next(iter(BIN_DIRECTORIES.values())).iterdir():
        if program.name != "psql":
            (directory / program.name).symlink_to(program)
    script = directory / "psql"
    body = f'if [ "$1" = --version ]; then echo "psql (PostgreSQL) {version}"; exit 0; fi'
    script.write_text("\n".join(["#!/bin/sh", body, *lines]) + "\n")
    script.chmod(0o755)
    return {"PG_BIN_DIRECTORY": str(directory)}


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (("exit 3",), "psql ended with status 3"),
        (("echo 'psql: error: cannot breathe' >&2", "exit 1"), "psql: error: cannot breathe"),
        (("read line", "exit 0"), "psql ended with status 0"),
    ],
)
def test_a_psql_that_dies_at_once_ends_the_run_with_its_last_words(
    make_world: WorldFactory, faulty_store: FaultyStore, tmp_path: Path, lines: tuple[str, ...], said: str
) -> None:
    major = next(iter(BIN_DIRECTORIES))
    settings = fake_psql(tmp_path / "bin", *lines, version=f"{major}.90")
    ground = make_ground(make_world, faulty_store, settings=settings)
    ground.check_untouched(ground.restore(), said)


def test_a_psql_that_is_missing_or_too_old_is_refused(
    make_world: WorldFactory, faulty_store: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ground = make_ground(make_world, faulty_store)
    monkeypatch.setattr("tasks.postgres.tools._path", lambda: [])
    monkeypatch.setattr("tasks.postgres.tools._expand", lambda patterns: [])
    for number, version in enumerate(("9.6.24", "14.2")):
        settings = fake_psql(tmp_path / f"bin-{number}", version=version)
        monkeypatch.setenv("PG_BIN_DIRECTORY", settings["PG_BIN_DIRECTORY"])
        ground.check_untouched(ground.restore(), version, "Install", outcome="refused")
    (tmp_path / "bin-0" / "psql").unlink()
    monkeypatch.setenv("PG_BIN_DIRECTORY", str(tmp_path / "bin-0"))
    ground.check_untouched(ground.restore(), "installed: none", "Install", outcome="refused")
