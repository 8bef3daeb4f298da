"""Backups that cannot succeed: what they leave (a failed row, or none), and the one sentence that they say."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg2
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import State

from deployments.quick_start.processes import free_port
from deployments.quick_start.s3 import S3Server
from flows.backup import backup
from tasks.errors import DiskFull, DumpFailed, DumpRefused
from tests.support import ci_skip
from tests.support.faulty_store import FaultyStore, Request
from tests.support.flow_fixtures import WorldFactory
from tests.support.world import MIB, Heard, World

SECRET = "Geheim-4711-%$ß"


def check_failed(world: World, *said: str) -> None:
    """One failed row that keeps the error, and nothing else anywhere."""
    [row] = world.rows()
    assert row.status == "failed" and row.completed_at is None
    for words in said:
        assert words in row.error
    assert world.events()[-1] == ("backup", "failed")
    assert world.objects() == {}
    world.check_no_debris()


def at_part(store: FaultyStore, number: int, act: Callable[[], None]) -> None:
    """`act` is done when part `number` is first on its way to the store; all requests pass."""
    done = threading.Lock()

    def rule(request: Request) -> None:
        if request.part == number and done.acquire(blocking=False):
            act()

    store.rule = rule


@pytest.fixture
def reader(make_world: WorldFactory, faulty_store: FaultyStore) -> tuple[World, str]:
    """A world of two tables that is backed up by a role of its own, over a proxy; and that role."""
    world = make_world(mebibytes=12, spool_limit=2 * MIB, settings={"S3_ENDPOINT_URL": faulty_store.endpoint_url})
    world.fill(1, table="second")
    role = f"reader_{os.path.basename(world.database_url)}"  # noqa: PTH119
    world.sql(f"CREATE ROLE {role} LOGIN PASSWORD 'marker'; GRANT pg_read_all_data TO {role}")
    return world, role


# --- pg_dump fails midway


def test_a_table_that_was_dropped_under_the_dump_is_left_out_by_the_next_try(
    make_world: WorldFactory, impatient: None, heard: Heard
) -> None:
    world = make_world()
    world.fill(1, table="doomed")
    drop_under(world, "doomed", backup)
    assert "Retry 1/3 will start" in heard.text and "doomed" in heard.text
    _, stored, manifest = world.newest()
    assert [table["name"] for table in manifest["tables"]] == ["public.big"] and b"doomed" not in stored
    world.check_completed_are_intact()
    world.check_no_debris()


def drop_under(world: World, table: str, run: Callable[[], Any]) -> Any:
    """The outcome of `run` while `table` is dropped between the dump's snapshot and its lock on the table."""
    answer: list[Any] = []
    with world.transaction() as cursor:
        cursor.execute(f"DROP TABLE {table}")
        other = threading.Thread(target=lambda: commit_when_awaited(world, cursor, answer), daemon=True)
        other.start()
        answer.append(run())
        other.join()
    return answer[-1]


def commit_when_awaited(world: World, cursor: Any, answer: list[Any]) -> None:
    """Commits the cursor's transaction as soon as pg_dump waits for a lock."""
    waiting = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    while not answer and not world.sql(waiting.replace("SELECT", "SELECT 1")):
        time.sleep(0.02)
    cursor.connection.commit()


def test_a_dump_that_fails_at_every_try_leaves_a_failed_row(
    make_world: WorldFactory, faulty_store: FaultyStore, impatient: None
) -> None:
    # More than the sockets between server and pg_dump can hold: else the dump may be out before the cut.
    world = make_world(mebibytes=32, spool_limit=2 * MIB, settings={"S3_ENDPOINT_URL": faulty_store.endpoint_url})

    lock, cut = threading.Lock(), set()

    def rule(request: Request) -> None:
        upload = str(request.query.get("uploadId"))
        with lock:
            if request.part >= 3 and upload not in cut:
                time.sleep(0.2)
                cut.update([upload] if world.cut_dump() else [])

    faulty_store.rule = rule
    with pytest.raises(DumpFailed):
        backup()
    assert sum(one.begins_upload and "write-check" not in one.key for one in faulty_store.requests) == 4
    check_failed(world, "pg_dump of", "ended with status 1", "server closed the connection")


def test_a_table_that_becomes_unreadable_midway_fails_the_backup_without_another_try(
    reader: tuple[World, str], faulty_store: FaultyStore, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, role = reader
    url = world.cluster.url(os.path.basename(world.database_url), role, "marker")  # noqa: PTH119
    monkeypatch.setenv("DATABASE_URL", url)
    at_part(faulty_store, 2, lambda: world.sql(f"REVOKE pg_read_all_data FROM {role}") and None)
    with pytest.raises(DumpRefused):
        backup()
    check_failed(world, "permission denied for table second")
    assert "Retry" not in heard.text and "Traceback" not in heard.text and "marker" not in heard.text


def test_an_unreadable_table_is_refused_before_there_is_a_row(
    reader: tuple[World, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    world, role = reader
    world.sql(f"REVOKE pg_read_all_data FROM {role}; GRANT SELECT ON big TO {role}")
    url = world.cluster.url(os.path.basename(world.database_url), role, "marker")  # noqa: PTH119
    monkeypatch.setenv("DATABASE_URL", url)
    state = backup(return_state=True)
    assert "public.second" in (state.message or "") and "public.big" not in (state.message or "")
    assert world.rows() == [] and world.objects() == {} and world.uploads() == []
    assert world.events() == [("backup", "refused")]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A directory on a disk of its own of 24 MiB."""
    if os.geteuid() != 0:
        ci_skip("a small disk can be mounted by root alone")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={24 * MIB}", "tmpfs", str(disk)]
    if (tried := subprocess.run(mount, capture_output=True, text=True, check=False)).returncode != 0:
        ci_skip(f"a small disk cannot be mounted here: {tried.stderr.strip()}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_disk_that_fills_up_under_the_spool_fails_the_backup_and_is_freed(
    make_world: WorldFactory, faulty_store: FaultyStore, small_disk: Path, heard: Heard
) -> None:
    spool = small_disk / "spool"
    world = make_world(
        mebibytes=24,
        spool_limit=8 * MIB,
        settings={"S3_ENDPOINT_URL": faulty_store.endpoint_url, "SPOOL_DIRECTORY": str(spool)},
    )

    full, ended = threading.Event(), threading.Event()

    def fill_disk() -> None:
        """Until the end, for the room of each part that has arrived becomes free again."""
        with (small_disk / "filler").open("wb", buffering=0) as filler:
            while not ended.is_set():
                try:
                    filler.write(b"\0" * 4096)
                except OSError:
                    full.set()
                    ended.wait(0.001)

    filling = threading.Thread(target=fill_disk)

    def start_to_fill() -> None:
        filling.start()
        assert full.wait(60)

    at_part(faulty_store, 2, start_to_fill)
    try:
        with pytest.raises(DiskFull):
            backup()
    finally:
        ended.set()
        filling.join()
    check_failed(world, "The disk of the spool", "is full", "free some room")
    assert list(spool.iterdir()) == []
    assert "Retry" not in heard.text and "Traceback" not in heard.text
    (small_disk / "filler").unlink()
    faulty_store.rule = lambda request: None
    backup()
    assert world.statuses() == ["completed", "failed"]


# --- what is wrong from the start: one sentence each, no secret in it, no second try


def log_of(state: State[Any]) -> str:
    """What the Prefect server keeps of a run: its log and the messages of all its states."""
    run_id = state.state_details.flow_run_id
    assert run_id is not None
    with get_client(sync_client=True) as client:
        steps = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])))
        messages = [run.state.message or "" for run in steps if run.state]
        run = client.read_flow_run(run_id)
        return "\n".join([*messages, str(run.state), str(run.parameters)])


def broken(world: World, s3: S3Server, name: str) -> dict[str, str]:
    """The settings of a plan with one thing wrong."""
    database = os.path.basename(world.database_url)  # noqa: PTH119
    login = f"{quote('postgres')}:{quote(SECRET, safe='')}"
    port = world.cluster.port
    return {
        "database password": {"DATABASE_URL": f"postgresql://{login}@127.0.0.1:{port}/{database}"},
        "database role": {"DATABASE_URL": f"postgresql://nobody:{quote(SECRET, safe='')}@127.0.0.1:{port}/{database}"},
        "database name": {"DATABASE_URL": world.cluster.url("no_such_database")},
        "database host": {"DATABASE_URL": f"postgresql://{login}@no-such-host.invalid/{database}"},
        "database address": {"DATABASE_URL": f"postgresql://{login}@127.0.0.1:{port}:1/{database}"},
        "catalogue password": {"CATALOG_URL": f"postgresql://{login}@127.0.0.1:{port}/{database}"},
        "catalogue tables": {"CATALOG_URL": world.database_url},
        "storage secret": {"CLOUDFLARE_SECRET_ACCESS_KEY": SECRET.replace("ß", "")},
        "storage key": {"CLOUDFLARE_ACCESS_KEY_ID": "somebody-else"},
        "storage bucket": {"S3_BUCKET": "no-such-bucket"},
        "storage host": {"S3_ENDPOINT_URL": "http://no-such-host.invalid:9000"},
        "storage address": {"S3_ENDPOINT_URL": "no address at all"},
    }[name]


EXPECTED = {
    "database password": "the password is wrong or has expired",
    "database role": "the password is wrong or has expired",
    "database name": 'database "no_such_database" does not exist',
    "database host": "The host no-such-host.invalid has no address",
    "database address": "The database of plan default cannot be read as a PostgreSQL address",
    "catalogue password": "the password is wrong or has expired",
    "catalogue tables": "There is no catalogue in",
    "storage secret": "check the access key",
    "storage key": "check the access key",
    "storage bucket": "create it, or correct the bucket's name",
    "storage host": "The storage host no-such-host.invalid has no address",
    "storage address": "S3_ENDPOINT_URL",
}


#: Those of which another stands for the same way to fail.
ALIKE = {"database role", "catalogue password", "storage key", "storage host", "database name"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in ALIKE else []) for name in EXPECTED]
)
def test_what_is_wrong_in_a_plan_is_said_in_one_sentence_and_not_tried_again(
    make_world: WorldFactory, s3_server: S3Server, heard: Heard, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    world = make_world(mebibytes=0)
    for variable, value in broken(world, s3_server, name).items():
        monkeypatch.setenv(variable, value)
    state = backup(return_state=True)
    message = state.message or ""
    assert state.is_failed() and EXPECTED[name] in message
    assert message.rstrip().endswith(".") and "\n" not in message.strip()
    everything = heard.text + log_of(state)
    assert "Traceback" not in everything and "Retry" not in everything
    for secret in (SECRET, quote(SECRET, safe=""), SECRET.replace("ß", ""), world.cluster.password):
        assert secret not in everything
    assert s3_server.secret_access_key not in everything
    assert world.rows() == [] and world.objects() == {} and world.uploads() == []


def test_a_password_that_has_expired_is_said_to_be_so(
    reader: tuple[World, str], heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, role = reader
    world.sql(f"ALTER ROLE {role} VALID UNTIL '2020-01-01'")
    url = world.cluster.url(os.path.basename(world.database_url), role, "marker")  # noqa: PTH119
    monkeypatch.setenv("DATABASE_URL", url)
    state = backup(return_state=True)
    assert "has expired" in (state.message or "") and role in (state.message or "")
    everything = heard.text + log_of(state)
    assert "Traceback" not in everything and "Retry" not in everything and "marker" not in everything


@pytest.mark.parametrize("which", ["DATABASE_URL", pytest.param("S3_ENDPOINT_URL", marks=pytest.mark.slow)])
def test_a_refused_connection_may_pass_and_is_tried_again_three_times(
    make_world: WorldFactory, impatient: None, heard: Heard, monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    world = make_world(mebibytes=0)
    place = f"127.0.0.1:{free_port()}"
    value = {"DATABASE_URL": f"postgresql://postgres:marker@{place}/any", "S3_ENDPOINT_URL": f"http://{place}"}[which]
    monkeypatch.setenv(which, value)
    state = backup(return_state=True)
    assert place in (state.message or "") and "nswer" in (state.message or "")
    assert heard.text.count("will start") == 3
    assert "Traceback" not in heard.text and "marker" not in heard.text
    assert world.rows() == []


def test_a_server_that_restarts_while_the_backup_opens_does_not_fail_it(
    make_world: WorldFactory, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world()
    real, failures = psycopg2.connect, [2]

    def connect(*args: Any, **settings: Any) -> Any:
        if settings.get("application_name") == "backup preflight" and failures[0]:
            failures[0] -= 1
            raise psycopg2.OperationalError("FATAL:  the database system is starting up")
        return real(*args, **settings)

    monkeypatch.setattr("tasks.postgres.dsn.psycopg2.connect", connect)
    backup()
    assert world.statuses() == ["completed"]
