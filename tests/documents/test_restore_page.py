"""docs/restore.md holds: its commands, run as they stand there, bring a real backup back."""

from __future__ import annotations

import inspect
import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg2
import pyrage
import pytest

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.prefect_services import PrefectServer
from deployments.quick_start.s3 import REGION, S3Server
from deployments.sample import fill
from tasks.backup.dump import dump
from tasks.backup.open_backup import open_backup
from tasks.backup.record_backup import record
from tasks.backup.upload import Shipper
from tasks.plans.from_settings import plan_from_settings
from tasks.plans.plan import Plan
from tasks.plans.settings import settings_from
from tasks.storage.backup_stages import Backup
from tasks.storage.manifest_text import with_checksum
from tasks.storage.spool import open_spool
from tests.conftest import DatabaseFactory
from tests.support import ci_skip

CHECKOUT = Path(__file__).parents[2]
PAGE = (CHECKOUT / "docs" / "restore.md").read_text(encoding="utf-8")
SET_UP_PAGE = (CHECKOUT / "docs" / "set-up.md").read_text(encoding="utf-8")
PROGRAMS = {"none": (), "gzip": ("gunzip",), "zstd": ("zstd", "age")}
STEPS = [f"## {number}." for number in range(1, 9)]
TOLD = [line for block in re.findall(r"(?ms)^```console\n(.*?)^```$", PAGE) for line in block.splitlines()]


def blocks(heading: str, language: str = "sh") -> list[str]:
    """The fenced blocks of a language below a heading of the page."""
    [section] = [text for text in re.split(r"(?m)^(?=## )", PAGE) if text.startswith(heading)]
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```$", section)


def with_values(block: str, values: dict[str, str]) -> str:
    """The block that names what is where, with this test's values; it must name just these."""
    assert re.findall(r"(?m)^export (\w+)=", block) == list(values)
    return "".join(f"export {name}='{value}'\n" for name, value in values.items())


@dataclass(frozen=True)
class Reader:
    """Somebody with the page before them, an empty directory, and the keys."""

    cluster: PostgresCluster
    s3: S3Server
    directory: Path
    values: dict[str, str]

    def obeys(self, *commands: str) -> str:
        """Runs the commands in one shell, stopping at the first error; returns what was printed."""
        done = self.tries(*commands)
        assert done.returncode == 0, done.stdout
        return done.stdout

    def tries(self, *commands: str) -> subprocess.CompletedProcess[str]:
        """Runs the commands in one shell, up to the first that fails."""
        script = "\n".join(["set -eu", with_values(blocks(STEPS[0])[0], self.values), *commands])
        environment = {
            "PATH": f"{self.cluster.bin_directory}{os.pathsep}{os.environ['PATH']}",
            "LC_ALL": "C.UTF-8",
            "no_proxy": "*",
            "PGPASSWORD": self.cluster.password,
            "AWS_ACCESS_KEY_ID": self.s3.access_key_id,
            "AWS_SECRET_ACCESS_KEY": self.s3.secret_access_key,
        }
        return subprocess.run(
            ["sh", "-c", script],
            cwd=self.directory,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )


@dataclass(frozen=True)
class Scene:
    """A database and its backup."""

    plan: Plan
    url: str
    backup: Backup
    reader: Reader


@pytest.fixture(scope="module")
def shop(any_postgres: PostgresCluster, fresh_database: DatabaseFactory) -> str:
    """The name of a database with the sample shop, to be copied."""
    fill(fresh_database(any_postgres, "shop of the page"), megabytes=1)
    return "shop of the page"


@pytest.fixture
def make_scene(
    any_postgres: PostgresCluster,
    shop: str,
    fresh_database: DatabaseFactory,
    s3_server: S3Server,
    s3_bucket: Callable[[], str],
    tmp_path: Path,
) -> Callable[[str], Scene]:
    """`make_scene(codec)`: the sample shop, with a large object and a second role, has been backed up."""

    def make(codec: str, recipients: Sequence[str] = (), signing_key: str = "") -> Scene:
        missing = [
            name for name in ("curl", "jq", "openssl", "sha256sum", *PROGRAMS[codec]) if shutil.which(name) is None
        ]
        if missing:
            ci_skip(f"the page needs {', '.join(missing)}")
        database = f"page {codec}"
        for name in (database, f"{database}_restored", f"{database}_before"):
            execute(any_postgres.url(), f'DROP DATABASE IF EXISTS "{name}"')
        execute(any_postgres.url(), f'CREATE DATABASE "{database}" TEMPLATE "{shop}"')
        url = any_postgres.url(database)
        plan = plan_from_settings(
            "default",
            settings_from(
                {
                    "DATABASE_URL": url,
                    "CATALOG_URL": fresh_database(any_postgres, "page_catalogue"),
                    "S3_ENDPOINT_URL": s3_server.endpoint_url,
                    "S3_BUCKET": s3_bucket(),
                    "AWS_ACCESS_KEY_ID": s3_server.access_key_id,
                    "AWS_SECRET_ACCESS_KEY": s3_server.secret_access_key,
                    "COMPRESSION": codec,
                    "AGE_RECIPIENTS": ",".join(recipients),
                    "SIGNING_KEY": signing_key,
                    "PG_BIN_DIRECTORY": str(any_postgres.bin_directory),
                    "SPOOL_DIRECTORY": str(tmp_path / "spool"),
                }
            ),
        )
        plan.catalogue.prepare()
        desk = tmp_path / "desk"
        desk.mkdir()
        values = {
            "S3_ENDPOINT_URL": s3_server.endpoint_url,
            "S3_REGION": REGION,
            "S3_BUCKET": plan.storage.bucket,
            "PREFIX": plan.prefix.rstrip("/"),
            "PGHOST": "127.0.0.1",
            "PGPORT": str(any_postgres.port),
            "PGUSER": "postgres",
            "DATABASE": database,
            "AGE_IDENTITY": "key.txt",
            "PUBLIC_KEY": "signing.pub" if signing_key else "",
        }
        return Scene(plan, url, back_up(plan), Reader(any_postgres, s3_server, desk, values))

    return make


def back_up(plan: Plan) -> Backup:
    """A completed backup of the plan, made by the steps of the flow without Prefect."""
    run = open_backup(plan, "run-of-the-page", "tester", now(), lambda _: None)
    with open_spool(Path(run.spool_directory), run.run_id, run.part_size, run.spool_limit) as parts:
        dumped = dump(run, parts, plan.database, now, lambda _: None)
        stored = Shipper(parts, plan.storage, run.key).ship(now, lambda _: None)
        return record(plan, run, dumped, stored, now())


def now() -> datetime:
    return datetime.now(UTC)


def execute(url: str, statement: str) -> list[tuple[object, ...]]:
    """Runs one statement by itself; returns its rows."""
    connection = psycopg2.connect(url)
    connection.autocommit = True
    try:
        with connection.cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []
    finally:
        connection.close()


def plain_dump(cluster: PostgresCluster, url: str) -> bytes:
    """What pg_dump says of a database, its random keys masked."""
    done = subprocess.run([cluster.bin_directory / "pg_dump", "-d", url], check=True, capture_output=True)
    return re.sub(rb"(?m)^\\(un)?restrict .*$", rb"\\restrict", done.stdout)


def path(first: int, last: int) -> list[str]:
    """The commands of some of the steps, without the block that the reader has filled in."""
    found = [block for step in STEPS[first - 1 : last] for block in blocks(step)]
    return found[1:] if first == 1 else found


def test_the_page_brings_the_database_back_as_it_was(make_scene: Callable[[str], Scene]) -> None:
    scene = make_scene("none")
    cluster, database = scene.reader.cluster, scene.reader.values["DATABASE"]
    before = plain_dump(cluster, scene.url)
    execute(scene.url, "DELETE FROM shop.pulse")
    execute(cluster.url(), "ALTER ROLE shop_reader RENAME TO somebody_else")
    try:
        said = scene.reader.obeys(*path(1, 8))
        assert f"{scene.backup.filename}.manifest.json: OK" in said
        assert f"{scene.backup.filename}: OK" in said
        assert "large objects|4" in (scene.reader.directory / "expected.txt").read_text().splitlines()
        assert "Every table has its rows." in said
        assert plain_dump(cluster, cluster.url(database)) == before
        closed = f"SELECT datallowconn FROM pg_database WHERE datname = '{database}_before'"
        assert execute(cluster.url(), closed) == [(False,)]
    finally:
        for name in (database, f"{database}_before", f"{database}_restored"):
            execute(cluster.url(), f'DROP DATABASE IF EXISTS "{name}"')
        execute(cluster.url(), "DROP ROLE IF EXISTS shop_reader")
        execute(cluster.url(), "ALTER ROLE somebody_else RENAME TO shop_reader")


@pytest.mark.parametrize(("codec", "is_encrypted"), [("gzip", False), ("zstd", True)])
def test_the_page_undoes_compression_and_encryption_and_proves_the_sql(
    make_scene: Callable[..., Scene], codec: str, is_encrypted: bool
) -> None:
    secret = pyrage.x25519.Identity.generate()
    scene = make_scene(codec, [str(secret.to_public())] if is_encrypted else [])
    (scene.reader.directory / "key.txt").write_text(f"{secret}\n")
    said = scene.reader.obeys(*path(1, 4))
    plain = scene.backup.filename.partition(".sql")[0] + ".sql"
    assert scene.backup.filename == plain + {"gzip": ".gz", "zstd": ".zst.age"}[codec]
    assert f"{scene.backup.filename}: OK" in said and f"{plain}: OK" in said
    assert (scene.reader.directory / plain).stat().st_size == scene.backup.plain_size


def test_the_page_makes_keys_and_knows_a_forged_manifest_by_its_signature(
    make_scene: Callable[..., Scene], tmp_path: Path
) -> None:
    [make_keys] = re.findall(r"(?ms)^```sh\n(openssl .*?)^```$", SET_UP_PAGE)
    subprocess.run(["sh", "-ec", make_keys], cwd=tmp_path, check=True, capture_output=True)
    scene = make_scene("none", signing_key=(tmp_path / "backup-signing.pem").read_text())
    shutil.copy(tmp_path / "backup-signing.pub", scene.reader.directory / "signing.pub")
    assert "Signature Verified Successfully" in scene.reader.obeys(*path(1, 4))
    key = f"{scene.backup.key}.manifest.json"
    signed = json.loads(scene.plan.storage.get(key))
    for forgery in (
        {**signed, "created_by": "mallory"},
        {name: signed[name] for name in signed if name != "signature"},
    ):
        scene.plan.storage.put(key, with_checksum(forgery))
        done = scene.reader.tries(*path(1, 4))
        assert f"{scene.backup.filename}.manifest.json: OK" in done.stdout, "the checksum alone proves no signer"
        assert "Signature Verified Successfully" not in done.stdout and done.returncode != 0


def test_one_table_comes_back_by_its_range_of_bytes_and_the_manifest_is_read_without_jq_too(
    make_scene: Callable[[str], Scene],
) -> None:
    scene = make_scene("none")
    [block] = blocks("## One table only")
    chosen = block.replace("TABLE=public.orders", "TABLE=shop.orders").replace(
        "TARGET=shop", f"TARGET='{scene.reader.values['DATABASE']}'"
    )
    assert chosen.count("shop.orders") == 1
    [without_jq] = blocks("## Without jq", "shell")
    said = scene.reader.obeys(*path(1, 4), chosen, 'echo "by jq: $(manifest .object.sha256)"', without_jq)
    [(by_jq, by_python)] = re.findall(r"(?m)^by jq: ([0-9a-f]{64})\n([0-9a-f]{64})$", said)
    assert by_jq == by_python
    [rows] = execute(scene.url, "SELECT count(*) FROM shop.orders")
    assert execute(scene.url, "TABLE ONLY shop.orders EXCEPT TABLE from_backup") == []
    assert execute(scene.url, "SELECT count(*) FROM from_backup") == [rows]


@pytest.mark.parametrize(
    "change",
    [
        (b'"rows": ', b'"rows": 1'),
        (b'"format": 1', b'"format": 2'),
        (b'"checksum": "', b'"check": "'),
    ],
)
def test_a_damaged_manifest_is_known_by_its_own_checksum(
    make_scene: Callable[[str], Scene], change: tuple[bytes, bytes]
) -> None:
    scene = make_scene("none")
    key = f"{scene.backup.key}.manifest.json"
    scene.plan.storage.put(key, scene.plan.storage.get(key).replace(*change, 1))
    done = scene.reader.tries(*path(1, 4))
    assert f"{scene.backup.filename}.manifest.json: FAILED" in done.stdout
    assert done.returncode != 0


def test_a_file_that_was_cut_off_is_not_restored(make_scene: Callable[[str], Scene]) -> None:
    scene = make_scene("none")
    content = scene.plan.storage.get(scene.backup.key)
    scene.plan.storage.put(scene.backup.key, content[: len(content) // 2])
    done = scene.reader.tries(*path(1, 8))
    assert done.returncode != 0
    assert f"{scene.backup.filename}: FAILED" in done.stdout
    databases = execute(scene.url, "SELECT datname FROM pg_database WHERE datname LIKE 'page none%'")
    assert databases == [("page none",)]


def test_with_large_objects_psql_s_single_transaction_ends_early(make_scene: Callable[[str], Scene]) -> None:
    scene = make_scene("none")
    spoil = r"""sed -i 's/^CREATE INDEX /CREATE INDEXES /' "$PLAIN" """
    done = scene.reader.tries(*path(1, 5), spoil, *path(6, 6))
    assert done.returncode == 3, done.stdout
    assert "there is already a transaction in progress" in done.stdout
    restored = scene.reader.cluster.url("page none_restored")
    assert execute(restored, "SELECT count(*) > 0 FROM shop.customers") == [(True,)]


# --- with this project


@dataclass(frozen=True)
class Machine:
    """A directory with an `.env` for a database `shop`, as the page calls it, and this project's programs."""

    scene: Scene
    environment: dict[str, str]
    directory: Path

    @property
    def url(self) -> str:
        return self.scene.reader.cluster.url("shop")

    def runs(self, command: str) -> str:
        """Runs one command of the page; returns what was printed."""
        done = subprocess.run(
            ["sh", "-c", command],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def dump(self, database: str = "shop") -> bytes:
        return plain_dump(self.scene.reader.cluster, self.scene.reader.cluster.url(database))


@pytest.fixture
def make_machine(
    make_scene: Callable[..., Scene], prefect_server: PrefectServer, tmp_path: Path
) -> Iterator[Callable[..., Machine]]:
    """`make_machine(codec, secret, recipient)`: the scene's database is called `shop` there."""
    clusters: list[PostgresCluster] = []

    def make(codec: str, secret: str = "", recipient: str = "") -> Machine:
        scene = make_scene(codec, [recipient] if recipient else [])
        cluster = scene.reader.cluster
        clusters.append(cluster)
        drop_shops(cluster)
        execute(cluster.url(), f'ALTER DATABASE "{scene.reader.values["DATABASE"]}" RENAME TO shop')
        directory = tmp_path / "checkout"
        directory.mkdir()
        given = {
            "DATABASE_URL": cluster.url("shop"),
            "CATALOG_URL": cluster.url("page_catalogue"),
            "S3_ENDPOINT_URL": scene.reader.s3.endpoint_url,
            "S3_BUCKET": scene.plan.storage.bucket,
            "AWS_ACCESS_KEY_ID": scene.reader.s3.access_key_id,
            "AWS_SECRET_ACCESS_KEY": scene.reader.s3.secret_access_key,
            "PG_BIN_DIRECTORY": str(cluster.bin_directory),
            "SPOOL_DIRECTORY": str(tmp_path / "spool of the machine"),
        }
        (directory / ".env").write_text("".join(f"{name}={value}\n" for name, value in given.items()))
        (directory / "backup-key.txt").write_text(f"# a comment, as age-keygen writes one\n{secret}\n")
        program = directory / "bin" / "backups"  # as the environment of a checkout has it
        program.parent.mkdir(exist_ok=True)
        main = "import sys; from deployments.command_line.main import main; sys.exit(main())"
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{main}" "$@"\n')
        program.chmod(0o755)
        python = os.pathsep.join([str(program.parent), str(Path(sys.executable).parent), os.environ["PATH"]])
        return Machine(scene, {**prefect_server.environment(), "PATH": python, "PYTHONPATH": str(CHECKOUT)}, directory)

    yield make
    for cluster in clusters:
        drop_shops(cluster)


def drop_shops(cluster: PostgresCluster) -> None:
    """Drops every database that the commands of the page name, or make."""
    made = r"SELECT datname FROM pg_database WHERE datname ~ '^shop($|_look$|_tables$|__)'"
    for (name,) in execute(cluster.url(), made):
        execute(cluster.url(), f'DROP DATABASE "{name}" WITH (FORCE)')


def commands(heading: str) -> list[str]:
    """The tested commands below a heading, one a line."""
    return [line for block in blocks(heading) for line in block.splitlines()]


@pytest.mark.slow
def test_with_this_project_every_command_of_the_page_does_what_it_says(make_machine: Callable[..., Machine]) -> None:
    machine = make_machine("none")
    before = machine.dump()
    execute(machine.url, "DELETE FROM shop.pulse")
    damaged = machine.dump()
    restore, undo = commands("## With one click")
    machine.runs(restore)
    assert machine.dump() == before
    machine.runs(undo)
    assert machine.dump() == damaged
    look, in_place = commands("## Which mode")
    machine.runs(look)
    assert (machine.dump("shop_look"), machine.dump()) == (before, damaged)
    machine.runs(in_place)
    assert machine.dump() == before
    items = "SELECT count(*), sum(quantity) FROM shop.order_items"
    backed_up = execute(machine.url, items)
    execute(machine.url, "DELETE FROM shop.order_items")
    execute(machine.url, "DELETE FROM shop.pulse")
    apart, into_the_live = commands("## Single tables")
    machine.runs(apart)
    held = "SELECT relname::text FROM pg_class WHERE relnamespace = 'shop'::regnamespace AND relkind = 'r' ORDER BY 1"
    assert execute(machine.scene.reader.cluster.url("shop_tables"), held) == [("order_items",), ("orders",)]
    machine.runs(into_the_live)
    assert execute(machine.url, items) == backed_up
    assert execute(machine.url, "SELECT count(*) FROM shop.pulse") == [(0,)]


@pytest.mark.slow
def test_an_encrypted_backup_comes_back_when_the_key_is_handed_over(make_machine: Callable[..., Machine]) -> None:
    secret = pyrage.x25519.Identity.generate()
    machine = make_machine("zstd", str(secret), str(secret.to_public()))
    before = machine.dump()
    execute(machine.url, "DELETE FROM shop.pulse")
    [command] = commands("## When something else is lost too")
    said = machine.runs(command)
    assert machine.dump() == before
    assert str(secret) not in said


@pytest.mark.parametrize("command", [line for line in TOLD if line.startswith("prefect deployment run")])
def test_a_deployment_is_run_with_parameters_that_its_flow_takes(command: str) -> None:
    from flows.restore import restore

    words = shlex.split(command)
    assert words[:4] == ["prefect", "deployment", "run", "restore/restore-backup"]
    given = [word for flag, word in itertools.pairwise(words) if flag == "--param"]
    parameters = {
        name: value if value[0] != "[" else json.loads(value)
        for name, _, value in (one.partition("=") for one in given)
    }
    assert restore.validate_parameters(parameters).keys() <= inspect.signature(restore.fn).parameters.keys()
