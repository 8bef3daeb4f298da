"""The image: built, and then set-up, worker, backup, restore and drill out of it, against servers outside."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.s3 import S3Server
from deployments.sample import fill
from tests.conftest import BIN_DIRECTORIES, DatabaseFactory
from tests.support import ci_skip
from tests.support.container import NEEDED, Image
from tests.support.installation import Installation
from tests.support.prefect_start import started_server
from tests.support.world import World, plain_dump

pytestmark = [pytest.mark.image, pytest.mark.slow, pytest.mark.timeout(3600)]

USER, WRITABLE = "10001", ("tmp", "spool")


@pytest.fixture(scope="module")
def debian() -> int:
    """The major version of Debian's PostgreSQL."""
    return min(BIN_DIRECTORIES)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, debian: int) -> Iterator[Image]:
    missing = [program for program in NEEDED if not shutil.which(program)]
    if missing or os.geteuid() != 0:
        ci_skip(f"an image is built by root, with {', '.join(NEEDED)}; missing: {', '.join(missing) or 'root'}")
    built = Image(tmp_path_factory.mktemp("image") / "built")
    try:
        built.build(debian)
        yield built
    finally:
        built.remove()


@pytest.fixture(scope="module")
def outside(
    tmp_path_factory: pytest.TempPathFactory,
    debian: int,
    start_postgres: Callable[[int], PostgresCluster],
    s3_server: S3Server,
    fresh_database: DatabaseFactory,
) -> Iterator[Installation]:
    """A Prefect server, PostgreSQL and S3 outside the image; nothing is set up yet, and no worker works."""
    directory, cluster = tmp_path_factory.mktemp("outside"), start_postgres(debian)
    server = started_server(directory / "prefect", cluster.bin_directory)
    s3_server.create_bucket("image")
    world = World(
        cluster=cluster,
        s3=s3_server,
        bucket="image",
        database_url=fresh_database(cluster, "shop"),
        catalogue_url=fresh_database(cluster, "shop_catalogue"),
        spool=Path("/spool"),
        environment=server.environment(),
    )
    fill(world.database_url, 1)
    try:
        yield Installation(world, server, directory, plain_dump(cluster, world.database_url))
    finally:
        server.stop()


def reached(outside: Installation) -> dict[str, str]:
    """What a container needs to find the Prefect server."""
    server = outside.server
    return {"PREFECT_API_URL": server.api_url, "PREFECT_API_AUTH_STRING": server.auth_string}


def test_it_runs_as_its_own_user_and_writes_to_two_directories_alone(image: Image) -> None:
    assert image.run("id", "-u").stdout.strip() == USER
    for path in ("/app/x", "/opt/venv/x", "/x", "/home/x"):
        refused = image.run("sh", "-c", f"touch {path}")
        assert refused.returncode != 0 and "Read-only file system" in refused.stderr
    for directory in WRITABLE:
        assert image.run("touch", f"/{directory}/x").returncode == 0


def test_it_holds_the_programs_and_no_secret(image: Image, debian: int) -> None:
    assert image.run("backups", "--help").stdout.startswith("Usage: backups")
    for program in ("pg_dump", "psql"):
        assert image.run(program, "--version").stdout.startswith(f"{program} (PostgreSQL) {debian}.")
    assert not list(image.root.glob("app/.env*")) and not list(image.root.glob("app/tests"))
    assert not [one for one in image.config["Env"] if "PASSWORD" in one or "SECRET" in one]


def test_set_up_worker_backup_restore_and_drill_run_out_of_it(image: Image, outside: Installation) -> None:
    settings = {name: value for name, value in outside.world.settings().items() if name != "PG_BIN_DIRECTORY"}
    server = reached(outside)
    done = image.run("python", "-m", "deployments.set_up", **settings, **server)
    assert done.returncode == 0, done.stdout + done.stderr
    log = outside.directory / "worker.log"
    with log.open("wb") as kept:
        worker = subprocess.Popen(
            image.command([]), env=image.environment(server), stdout=kept, stderr=kept, start_new_session=True
        )
        try:
            for deployment in ("backup/manual", "verify-backup/verify-backup"):
                ended = outside.ended(outside.begin(deployment))
                assert ended["state"]["type"] == "COMPLETED", (ended["state"], log.read_text()[-3000:])
            outside.world.sql("DROP TABLE shop.order_items CASCADE")
            restored = outside.ended(outside.begin("restore/restore-backup"))
            assert restored["state"]["type"] == "COMPLETED", restored["state"]
        finally:
            os.killpg(worker.pid, signal.SIGTERM)  # tini passes it on; unshare does not
            worker.wait(60)
    assert plain_dump(outside.world.cluster, outside.world.database_url) == outside.original
    for secret in (outside.world.s3.secret_access_key, outside.world.cluster.password, outside.server.password):
        assert secret not in log.read_text()
