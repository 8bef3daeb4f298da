"""No secret appears in an argument list, a log, an artifact, a parameter, an exception, or a file others can read."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import stat
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import psycopg2
import pytest
from prefect_aws import AwsCredentials
from psycopg2 import sql
from pydantic import SecretStr

from deployments.quick_start.prefect_services import PrefectServer
from tasks.errors import BackupSystemError
from tasks.plans.blocks import BackupPlan, PostgresDatabase
from tests.support import whole_story
from tests.support.flow_fixtures import WorldFactory
from tests.support.prefect_client import prefect_client
from tests.support.world import CHECKOUT, Heard, World, paths_below, plain_dump

#: Passwords that no text holds by chance; odd enough to be quoted, escaped or encoded in one place and not in another.
DATABASE_SECRET = "mArKeR1zQ8vTn"
CATALOGUE_SECRET = "mArKeR2kW3xLp"
#: The least that may be recognised: long pieces of the secrets, so that one which is cut or wrapped is found too.
PIECE = 10


@dataclass
class Leaks:
    """Where secrets were seen. `secrets` maps what a secret is to its text."""

    secrets: dict[str, str]
    found: set[str] = field(default_factory=set)

    def look(self, where: str, content: bytes | str) -> None:
        """Notes `where` for every secret that `content` holds."""
        content = content.encode(errors="replace") if isinstance(content, str) else content
        for name, secret in self.secrets.items():
            if secret[:PIECE].encode() in content or secret[-PIECE:].encode() in content:
                self.found.add(f"{name} in {where}")

    def look_into_files(self, directory: Path, everything: bool = False) -> int:
        """Looks into every file that others may read (or into all of them); returns how many."""
        count = 0
        for folder, _, names in os.walk(directory):
            for path in (Path(folder) / name for name in names):
                with contextlib.suppress(OSError):
                    status = path.lstat()
                    if stat.S_ISREG(status.st_mode) and (everything or status.st_mode & 0o077):
                        self.look(f"file {path} of mode {stat.S_IMODE(status.st_mode):o}", path.read_bytes())
                        count += 1
        return count


class Spy(threading.Thread):
    """Looks at the argument list of every process, and into the spool, for as long as a run goes on."""

    def __init__(self, leaks: Leaks, spool: Path) -> None:
        super().__init__(daemon=True)
        self._leaks, self._spool, self._done = leaks, spool, threading.Event()
        self.programs: set[str] = set()
        self.open_to_others: set[str] = set()
        self.rounds = 0

    def run(self) -> None:
        while not self._done.wait(0.03):
            self.rounds += 1
            self._look_at_processes()
            self._look_at_spool()

    def end(self) -> None:
        self._done.set()
        self.join()

    def _look_at_processes(self) -> None:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    words = (entry / "cmdline").read_bytes()
                    self.programs.add(Path(words.split(b"\0")[0].decode(errors="replace")).name)
                    self._leaks.look(f"argument list {words[:60]!r}", words)

    def _look_at_spool(self) -> None:
        for path in [self._spool, *paths_below(self._spool)]:
            with contextlib.suppress(OSError):
                status = path.lstat()
                if (path == self._spool or path.parent == self._spool) and status.st_mode & 0o077:
                    self.open_to_others.add(f"{path} {status.st_mode:o}")
                if path.suffix in (".json", ".lock", "") and stat.S_ISREG(status.st_mode) and status.st_size < 1 << 20:
                    self._leaks.look(f"spool file {path.name}", path.read_bytes())


@dataclass
class Scene:
    """A world whose every credential is a marked one, and what was seen of them."""

    world: World
    server: PrefectServer
    leaks: Leaks
    programs: set[str] = field(default_factory=set)
    began: datetime = field(default_factory=lambda: datetime.now(UTC))
    """Runs of earlier tests are not looked at."""

    def superuser(self, statement: str) -> None:
        with contextlib.closing(psycopg2.connect(self.world.cluster.url(_dbname(self.world)))) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statement)

    def back_up(self, *preparations: str, meanwhile: Callable[[], None] = lambda: None) -> tuple[int, str]:
        """Runs `python -m flows.backup` in all but name, with no secret but Prefect's; status and what it said."""
        code = "\n".join(
            [
                "import sys, flows.backup, tasks.backup.steps",
                "tasks.backup.steps.open_backup = tasks.backup.steps.open_backup.with_options(retry_delay_seconds=[0.1] * 3)",
                "tasks.backup.steps.dump = tasks.backup.steps.dump.with_options(retry_delay_seconds=[0.1] * 3)",
                *preparations,
                f"sys.argv = ['backup', '--plan', {self.world.plan!r}]",
                "sys.exit(flows.backup.main())",
            ]
        )
        spy = Spy(self.leaks, self.world.spool)
        spy.start()
        try:
            run = subprocess.Popen(
                [sys.executable, "-c", code],
                cwd=CHECKOUT,
                env=self.environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            helper = threading.Thread(target=meanwhile, daemon=True)
            helper.start()
            said, _ = run.communicate(timeout=180)
            helper.join(timeout=10)
        finally:
            spy.end()
        self.programs |= spy.programs
        assert spy.rounds > 20 and not spy.open_to_others
        self.leaks.look("output of the run", said)
        return run.returncode, said.decode()

    def environment(self) -> dict[str, str]:
        """The test's environment without what describes the plan: the run knows it from its blocks."""
        foreign = {*self.world.settings(), "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"}
        return {
            name: value for name, value in {**os.environ, **self.server.environment()}.items() if name not in foreign
        }

    def look_everywhere(self, tmp_path: Path) -> None:
        """Everything that is left after runs, wherever it is kept."""
        self._look_at_prefect()
        self._look_at_catalogue()
        for key in self.world.objects():
            if key.endswith(".json"):
                self.leaks.look(f"object {key}", self.world.download(key))
        self.leaks.look_into_files(self.server.directory.parent)
        self.leaks.look_into_files(tmp_path)
        self.leaks.look_into_files(Path(os.environ["PREFECT_HOME"]))

    def _look_at_prefect(self) -> None:
        with prefect_client(self.server.api_url, self.server.password) as client:
            for kind in (
                "flow_runs",
                "task_runs",
                "logs",
                "artifacts",
                "events",
                "block_documents",
                "deployments",
                "flows",
                "automations",
                "variables",
            ):
                since = {"start_time": {"after_": self.began.isoformat()}}
                asked = {kind: since} if kind.endswith("_runs") else {}
                answer = client.post(f"{self.server.api_url}/{kind}/filter", json=asked)
                assert answer.status_code == 200, answer.text
                self.leaks.look(f"Prefect's {kind}", answer.content)
                for run in answer.json() if kind.endswith("_runs") else ():
                    states = client.get(
                        f"{self.server.api_url}/{kind[:-1]}_states/", params={f"{kind[:-1]}_id": run["id"]}
                    )
                    assert states.status_code == 200
                    self.leaks.look(f"states of {kind}", states.content)
        assert self.server.database
        self.leaks.look("Prefect's database", plain_dump(self.server.database, self.server.database.url("prefect")))
        for path in paths_below(self.server.directory.parent):
            if path.suffix == ".log":
                self.leaks.look(f"log {path.name}", path.read_bytes())

    def _look_at_catalogue(self) -> None:
        for table in ("database_backups", "backup_events"):
            rows = self.world.sql(f"SELECT to_jsonb(t)::text FROM {table} t", url=self.world.catalogue_url)
            self.leaks.look(f"table {table}", json.dumps(rows))


def _dbname(world: World) -> str:
    return world.database_url.rsplit("/", 1)[1]


def _marked_role(world: World, name: str, password: str) -> None:
    with contextlib.closing(psycopg2.connect(world.cluster.url())) as connection:
        connection.autocommit = True
        with connection.cursor() as cursor:
            role = sql.Identifier(name)
            cursor.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [name])
            if not cursor.fetchone():
                cursor.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
            cursor.execute(sql.SQL("ALTER ROLE {} SUPERUSER PASSWORD {}").format(role, sql.Literal(password)))


@pytest.fixture
def scene(make_world: WorldFactory, prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    """A world of 4 MiB whose plan is kept in blocks; at the end, no secret was seen anywhere."""
    world = make_world(mebibytes=4)
    world.sql("CREATE TABLE small AS SELECT 1 AS i")
    _marked_role(world, "marked_source", DATABASE_SECRET)
    _marked_role(world, "marked_catalogue", CATALOGUE_SECRET)
    marked = replace(
        world,
        database_url=world.cluster.url(_dbname(world), "marked_source", DATABASE_SECRET),
        catalogue_url=world.cluster.url(world.catalogue_url.rsplit("/", 1)[1], "marked_catalogue", CATALOGUE_SECRET),
    ).save_plan(f"secret-{world.bucket}")
    for name in marked.settings():
        monkeypatch.delenv(name, raising=False)
    leaks = Leaks(
        {
            "the database's password": DATABASE_SECRET,
            "the catalogue's password": CATALOGUE_SECRET,
            "the secret key of the storage": world.s3.secret_access_key,
            "Prefect's password": prefect_server.password,
        }
    )
    yield Scene(marked, prefect_server, leaks)


def test_a_backup_that_succeeds_shows_no_secret_anywhere(scene: Scene, tmp_path: Path) -> None:
    status, said = scene.back_up()
    assert status == 0, said
    assert scene.world.statuses() == ["completed"]
    assert "pg_dump" in scene.programs
    scene.look_everywhere(tmp_path)
    assert not scene.leaks.found


def test_the_search_itself_finds_what_is_there(scene: Scene, tmp_path: Path) -> None:
    """Proof that the other tests of this file could fail: a secret laid out in each place is found."""
    scene.superuser(
        f"CREATE TABLE IF NOT EXISTS {DATABASE_SECRET} (i int)"
    )  # its name ends up in manifest and catalogue
    readable = tmp_path / "readable"
    readable.write_text(f"x{CATALOGUE_SECRET}y")
    readable.chmod(0o644)
    shown = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3)", scene.server.password])
    spy = Spy(scene.leaks, tmp_path / "spool")
    spy.start()
    time.sleep(0.5)
    spy.end()
    shown.kill()
    shown.wait()
    scene.world.catalogue.note(_note(scene.world.s3.secret_access_key, scene.world.plan))
    scene.look_everywhere(tmp_path)
    for found in (
        "Prefect's password in argument list",
        "catalogue's password in file",
        "storage in table backup_events",
    ):
        assert any(found in one for one in scene.leaks.found), scene.leaks.found


def _note(error: str, plan: str) -> Any:
    from tasks.catalogue.rows import Event

    return Event("test", "noted", plan, "tester", "run", error=error)


def _failing_password(scene: Scene) -> None:
    scene.superuser("ALTER ROLE marked_source PASSWORD 'another'")


def _failing_catalogue(scene: Scene) -> None:
    scene.superuser("ALTER ROLE marked_catalogue PASSWORD 'another'")


def _missing_bucket(scene: Scene) -> None:
    for key in scene.world.objects():
        scene.world.s3.client.delete_object(Bucket=scene.world.bucket, Key=key)
    scene.world.s3.client.delete_bucket(Bucket=scene.world.bucket)


def _unreadable_table(scene: Scene) -> None:
    scene.superuser("ALTER ROLE marked_source NOSUPERUSER")


@pytest.mark.parametrize(
    ("break_it", "sentence"),
    [
        pytest.param(
            _failing_password, "password is wrong or has expired", id="wrong password", marks=pytest.mark.slow
        ),
        pytest.param(
            _failing_catalogue,
            "password is wrong or has expired",
            id="wrong catalogue password",
            marks=pytest.mark.slow,
        ),
        pytest.param(_missing_bucket, "There is no bucket", id="missing bucket", marks=pytest.mark.slow),
        pytest.param(_unreadable_table, "has no SELECT on", id="unreadable table", marks=pytest.mark.slow),
    ],
)
def test_a_backup_that_cannot_begin_shows_no_secret_anywhere(
    scene: Scene, tmp_path: Path, break_it: Callable[[Scene], None], sentence: str
) -> None:
    break_it(scene)
    status, said = scene.back_up()
    assert status == 1 and sentence in said
    restored = replace(scene.world, catalogue_url=scene.world.cluster.url(scene.world.catalogue_url.rsplit("/", 1)[1]))
    with contextlib.suppress(scene.world.s3.client.exceptions.NoSuchBucket):
        replace(scene, world=restored).look_everywhere(tmp_path)
    assert not scene.leaks.found


@pytest.mark.slow
def test_a_refused_connection_shows_no_secret_anywhere(scene: Scene, tmp_path: Path) -> None:
    unreachable = f"postgresql://marked_source:{DATABASE_SECRET}@127.0.0.1:1/{_dbname(scene.world)}"
    replace(scene.world, database_url=unreachable).save_plan(scene.world.plan)
    status, said = scene.back_up()
    assert status == 1 and "Nobody answers at 127.0.0.1:1" in said
    scene.look_everywhere(tmp_path)
    assert not scene.leaks.found


@pytest.mark.slow
def test_a_pg_dump_that_is_killed_shows_no_secret_anywhere(scene: Scene, tmp_path: Path) -> None:
    held = threading.Event()

    def kill_each_dump() -> None:
        give_up = time.monotonic() + 120
        killed: set[int] = set()
        while time.monotonic() < give_up and len(killed) < 4 and not held.is_set():
            for process in psutil.process_iter(["name", "cmdline"]):
                words = " ".join(process.info["cmdline"] or [])
                if process.info["name"] == "pg_dump" and f"dbname={_dbname(scene.world)} " in words + " ":
                    with contextlib.suppress(psutil.Error):
                        process.kill()
                        killed.add(process.pid)
            time.sleep(0.005)

    with contextlib.closing(psycopg2.connect(scene.world.cluster.url(_dbname(scene.world)))) as holder:
        holder.cursor().execute("LOCK TABLE public.big IN ACCESS EXCLUSIVE MODE")  # so that no pg_dump is too quick
        try:
            status, said = scene.back_up(meanwhile=kill_each_dump)
        finally:
            held.set()
    assert status == 1 and "ended with status -9" in said, said
    assert scene.world.statuses() == ["failed"]
    scene.look_everywhere(tmp_path)
    assert not scene.leaks.found


@pytest.mark.parametrize(
    "break_it",
    [_failing_password, *(pytest.param(one, marks=pytest.mark.slow) for one in (_failing_catalogue, _missing_bucket))],
)
def test_what_a_flow_raises_holds_no_secret_however_deep_one_looks(
    scene: Scene, heard: Heard, break_it: Callable[[Scene], None]
) -> None:
    from flows.backup import backup

    break_it(scene)
    with pytest.raises(BackupSystemError) as raised:
        backup(scene.world.plan, "tester")
    scene.leaks.look("exception", whole_story(raised.value))
    scene.leaks.look("traceback", "".join(traceback.format_exception(raised.value)))
    scene.leaks.look("log", heard.text)
    assert not scene.leaks.found


@pytest.mark.slow
def test_a_plan_whose_address_cannot_be_read_repeats_none_of_it(scene: Scene, heard: Heard) -> None:
    from flows.backup import backup

    for url in (
        f"postgres//u:{DATABASE_SECRET}@h/d",
        f"postgresql://u:{DATABASE_SECRET}%zz@h/d",
        f"postgresql://u:{DATABASE_SECRET}@h:x/d",
        f"host=h password={DATABASE_SECRET} x",
    ):
        with pytest.raises(BackupSystemError) as raised:
            PostgresDatabase(url=SecretStr(url)).save(f"{scene.world.plan}-database", overwrite=True)
            backup(scene.world.plan, "tester")
        scene.leaks.look(f"exception for {url.replace(DATABASE_SECRET, '…')}", whole_story(raised.value))
    scene.leaks.look("log", heard.text)
    scene._look_at_prefect()
    assert not scene.leaks.found


def test_plans_blocks_and_addresses_show_no_secret(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    from tasks.plans.find_plan import plan_named

    plan, block = plan_named(scene.world.plan), BackupPlan.load(scene.world.plan)
    with caplog.at_level(logging.DEBUG, logger="tests"):
        logging.getLogger("tests").debug("%r %s %r", plan, plan.database, plan.catalogue.dsn)
    for shown in (
        repr(plan),
        str(plan),
        repr(plan.database),
        repr(plan.catalogue),
        repr(vars(plan.catalogue)),
        repr(plan.storage),
        repr(block),
        str(block),
        repr(PostgresDatabase.load(block.database)),  # type: ignore[union-attr]
        repr(AwsCredentials.load(f"{scene.world.plan}-credentials")),
        json.dumps(block.model_dump(mode="json"), default=repr),
        caplog.text,
    ):  # type: ignore[union-attr]
        scene.leaks.look("repr", shown)
    assert not scene.leaks.found
