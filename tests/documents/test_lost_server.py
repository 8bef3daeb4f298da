"""A lost server is rebuilt on an empty one from the bucket alone, as docs/restore.md says: with stock tools, and with this project."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pyrage
import pytest

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.prefect_services import PrefectServer
from deployments.quick_start.s3 import REGION, S3Server
from tasks.plans.from_settings import plan_from_settings
from tasks.plans.settings import settings_from
from tests.conftest import BIN_DIRECTORIES, NEWEST, DatabaseFactory
from tests.documents.test_restore_page import CHECKOUT, PAGE, Reader, back_up, blocks, path
from tests.support import ci_skip
from tests.support.lost_server import PASSWORD, new_directory, two_servers, whole_dump


@dataclass(frozen=True)
class Loss:
    """A server that was backed up is gone; an empty one is there."""

    empty: PostgresCluster
    settings: dict[str, str]
    prefix: str
    before: str
    """What pg_dumpall said of the lost server; with passwords where the backup is encrypted."""
    secret: str
    """The key that decrypts it; empty where it is not encrypted."""
    password: str
    """Of the superuser of the lost server, where passwords are kept."""
    manifest: str


@pytest.fixture(params=list(BIN_DIRECTORIES), ids=lambda major: f"pg{major}")
def loss(
    request: pytest.FixtureRequest,
    any_postgres: PostgresCluster,
    fresh_database: DatabaseFactory,
    s3_server: S3Server,
    s3_bucket: Callable[[], str],
    tmp_path: Path,
) -> Iterator[Loss]:
    """The lost server's catalogue is lost too. On the newest version the backup is encrypted, and holds passwords."""
    key = pyrage.x25519.Identity.generate() if [request.param] == NEWEST else None
    with two_servers(BIN_DIRECTORIES[request.param], tmp_path) as (lost, empty):
        settings = {
            "DATABASE_URL": lost.url("shop"),
            "CATALOG_URL": fresh_database(any_postgres),
            "S3_ENDPOINT_URL": s3_server.endpoint_url,
            "S3_BUCKET": s3_bucket(),
            "AWS_ACCESS_KEY_ID": s3_server.access_key_id,
            "AWS_SECRET_ACCESS_KEY": s3_server.secret_access_key,
            "PG_BIN_DIRECTORY": str(lost.bin_directory),
            "SPOOL_DIRECTORY": str(tmp_path / "spool"),
            "AGE_RECIPIENTS": str(key.to_public()) if key else "",
        }
        plan = plan_from_settings("default", settings_from(settings))
        plan.catalogue.prepare()
        password = lost.password if key else ""
        before = whole_dump(lost, password=password)
        backup = back_up(plan)
        lost.stop()
        shutil.rmtree(lost.data_directory.parent / "fast disk")
        new_directory(lost, "fast disk")
        manifest = plan.storage.get(f"{backup.key}.manifest.json").decode()
        settings |= {"DATABASE_URL": empty.url("shop"), "CATALOG_URL": fresh_database(any_postgres)}
        yield Loss(empty, settings, plan.prefix.rstrip("/"), before, str(key or ""), password, manifest)


def test_stock_tools_rebuild_it_as_the_page_says(loss: Loss, s3_server: S3Server, tmp_path: Path) -> None:
    if missing := [name for name in ("curl", "jq", "sha256sum", "age") if shutil.which(name) is None]:
        ci_skip(f"not installed: {', '.join(missing)}")
    desk = tmp_path / "desk"
    desk.mkdir()
    (desk / "key.txt").write_text(loss.secret)
    values = {
        "S3_ENDPOINT_URL": s3_server.endpoint_url,
        "S3_REGION": REGION,
        "S3_BUCKET": loss.settings["S3_BUCKET"],
        "PREFIX": loss.prefix,
        "PGHOST": "127.0.0.1",
        "PGPORT": str(loss.empty.port),
        "PGUSER": "postgres",
        "DATABASE": "shop",
        "AGE_IDENTITY": "key.txt",
        "PUBLIC_KEY": "",
    }
    server, database, passwords = blocks("## On an empty server")
    said = Reader(loss.empty, s3_server, desk, values).obeys(*path(1, 4), server, *path(5, 7), database, passwords)
    assert "Every table has its rows." in said
    assert whole_dump(loss.empty, password=loss.password) == loss.before
    assert bool(loss.secret) == ("SCRAM-SHA-256$" in loss.before)
    assert "sales.orders" in loss.before and "fast disk" in loss.before and "log_min_messages" in loss.before
    assert PASSWORD not in loss.manifest and "SCRAM" not in loss.manifest


@pytest.mark.slow
def test_a_lost_server_is_rebuilt_from_the_bucket_alone_with_roles_grants_and_settings(
    loss: Loss, prefect_server: PrefectServer, tmp_path: Path
) -> None:
    directory = tmp_path / "checkout"
    directory.mkdir()
    if loss.secret:  # the address is that of the lost server, with its password, which `backups globals` brings back
        url = loss.empty.url("shop", "postgres", loss.password)
        loss.settings.update({"AGE_IDENTITY": loss.secret, "DATABASE_URL": url})
    (directory / ".env").write_text("".join(f"{name}={value}\n" for name, value in loss.settings.items()))
    main = "import sys; from deployments.command_line.main import main; sys.exit(main())"
    program = directory / "backups"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -c "{main}" "$@"\n')
    program.chmod(0o755)
    environment = {
        **prefect_server.environment(),
        "PATH": f"{directory}:{loss.empty.bin_directory}:/usr/bin:/bin",
        "PYTHONPATH": str(CHECKOUT),
        "PGHOST": "127.0.0.1",
        "PGPORT": str(loss.empty.port),
        "PGUSER": "postgres",
        "PGPASSWORD": loss.empty.password,
    }
    start = PAGE.index("backups globals > globals.sql")
    told = PAGE[start : PAGE.index("```", start)]
    if loss.secret:
        assert "backups globals --passwords" in PAGE
        told = told.replace("backups globals", "backups globals --passwords")
    for command in told.splitlines():
        done = subprocess.run(
            ["sh", "-c", command], cwd=directory, env=environment, check=False, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr
    assert whole_dump(loss.empty, password=loss.password) == loss.before
