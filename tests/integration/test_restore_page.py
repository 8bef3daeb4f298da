"""docs/restore.md holds: the commands of its main path, run as they stand there, bring a real backup back."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg2
import pyrage
import pytest

from deployments.embedded.postgres import PostgresCluster
from deployments.embedded.s3 import REGION, S3Server
from deployments.sample import fill
from tasks.core.dump import dump
from tasks.core.opening import open_backup
from tasks.core.plan import Plan, plan_from_settings
from tasks.core.recording import record
from tasks.core.settings import settings_from
from tasks.core.spool import open_spool
from tasks.core.upload import Shipper
from tasks.core.values import Backup
from tests.conftest import DatabaseFactory
from tests.support import ci_skip

PAGE = (Path(__file__).parents[2] / "docs" / "restore.md").read_text(encoding="utf-8")
PROGRAMS = {"none": (), "gzip": ("gunzip",), "zstd": ("zstd", "age")}
STEPS = [f"## {number}." for number in range(1, 9)]


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

    def make(codec: str, recipients: Sequence[str] = ()) -> Scene:
        missing = [name for name in ("curl", "jq", "sha256sum", *PROGRAMS[codec]) if shutil.which(name) is None]
        if missing:
            ci_skip(f"the page needs {', '.join(missing)}")
        database = f"page {codec}"
        for name in (database, f"{database}_restored", f"{database}_before"):
            execute(any_postgres.url(), f'DROP DATABASE IF EXISTS "{name}"')
        execute(any_postgres.url(), f'CREATE DATABASE "{database}" TEMPLATE "{shop}"')
        url = any_postgres.url(database)
        plan = plan_from_settings("default", settings_from({
            "DATABASE_URL": url,
            "CATALOG_URL": fresh_database(any_postgres, "page_catalogue"),
            "S3_ENDPOINT_URL": s3_server.endpoint_url,
            "S3_BUCKET": s3_bucket(),
            "AWS_ACCESS_KEY_ID": s3_server.access_key_id,
            "AWS_SECRET_ACCESS_KEY": s3_server.secret_access_key,
            "COMPRESSION": codec,
            "AGE_RECIPIENTS": ",".join(recipients),
            "PG_BIN_DIRECTORY": str(any_postgres.bin_directory),
            "SPOOL_DIRECTORY": str(tmp_path / "spool"),
        }))  # fmt: skip
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
        }
        return Scene(plan, url, back_up(plan), Reader(any_postgres, s3_server, desk, values))

    return make


def back_up(plan: Plan) -> Backup:
    """A completed backup of the plan, made by the steps of the flow without Prefect."""
    run = open_backup(plan, "run-of-the-page", "tester", now(), lambda _: None)
    with open_spool(Path(run.spool_directory), run.run_id, run.part_size, run.spool_limit) as parts:
        dumped = dump(run, parts, plan.database, now, lambda _: None, lambda: False)
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
        assert f"{scene.backup.filename}: OK" in said
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
