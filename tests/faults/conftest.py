"""The laboratory for the tests of this folder, and a record of every one of them for the report."""

from __future__ import annotations

import json
import logging
import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.prefect_services import PrefectServer
from deployments.quick_start.s3 import S3Server
from tests.conftest import BIN_DIRECTORIES, flows_use
from tests.faults.laboratory import Laboratory, LabWorld
from tests.faults.report import RECORDS
from tests.faults.small_world import REPLICA_BUCKET, make_small
from tests.support import ci_skip
from tests.support.faulty_postgres import FaultyPostgres
from tests.support.faulty_store import FaultyStore
from tests.support.senders import sent
from tests.support.world import MIB, Heard

#: Connections and locks of the laboratory's server: few enough to take them all.
SETTINGS = ("max_connections = 40", "max_locks_per_transaction = 10", "max_wal_senders = 4", "wal_level = replica")


@pytest.fixture(scope="session")
def furnished(servers_directory: Path, prefect_server: PrefectServer) -> Iterator[Laboratory]:
    """The laboratory with its servers; without the patches that its runs need."""
    if not BIN_DIRECTORIES:
        ci_skip("no PostgreSQL server is installed")
    directory = servers_directory / "laboratory"
    directory.mkdir(mode=0o711)
    cluster = PostgresCluster(directory / "postgres", next(iter(BIN_DIRECTORIES.values())), durable=False, owned=True)
    s3 = S3Server(directory / "s3", owned=True)
    with ThreadPoolExecutor(1) as keeper, _stores(keeper, s3) as (store, replica):
        keeper.submit(cluster.start).result()
        with (cluster.data_directory / "postgresql.auto.conf").open("a") as file:
            file.writelines(f"{setting}\n" for setting in SETTINGS)
        keeper.submit(cluster.stop).result()
        keeper.submit(cluster.start).result()
        with FaultyPostgres(cluster.port) as postgres, small_disk(directory / "disk") as disk:
            world = LabWorld(
                cluster=cluster,
                s3=s3,
                bucket="laboratory",
                database_url=cluster.ensure_database("live"),
                catalogue_url=cluster.ensure_database("catalogue"),
                spool=(disk or directory) / "spool",
                environment=prefect_server.environment(),
                store_url=store.endpoint_url,
                proxy_port=postgres.port,
            )
            with small_disk(cluster.directory / "small-disk", 40) as server_disk:
                lab = Laboratory(world, store, replica, postgres, Heard(), keeper, disk, server_disk or directory)
                yield lab
        lab.close()
        keeper.submit(lab.world.cluster.stop, True).result()


@contextmanager
def _stores(keeper: ThreadPoolExecutor, s3: S3Server) -> Iterator[tuple[FaultyStore, FaultyStore]]:
    """The store with two buckets, and a proxy before each of them."""
    keeper.submit(s3.start).result()
    for bucket in ("laboratory", REPLICA_BUCKET):
        s3.create_bucket(bucket)
    with FaultyStore(s3.endpoint_url) as store, FaultyStore(s3.endpoint_url) as replica:
        yield store, replica
    keeper.submit(s3.stop).result()


@contextmanager
def small_disk(directory: Path, mebibytes: int = 24) -> Iterator[Path | None]:
    """A disk of its own; None where it cannot be mounted."""
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={mebibytes * MIB}", "tmpfs", str(directory)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        yield None
        return
    try:
        yield directory
    finally:
        subprocess.run(["umount", "-l", str(directory)], check=True)


@pytest.fixture(scope="module")
def laboratory(furnished: Laboratory, prefect_server: PrefectServer) -> Iterator[Laboratory]:
    """The laboratory, for the tests of one file."""
    lab = furnished
    with pytest.MonkeyPatch.context() as patch, flows_use(prefect_server, patch):
        make_small(patch)
        for name, value in lab.world.settings().items():
            patch.setenv(name, value)
        logging.getLogger("prefect").addHandler(lab.heard)
        if not lab.base:
            lab.furnish()
        yield lab
        lab.calm()
        sent()
        logging.getLogger("prefect").removeHandler(lab.heard)


# --- the record


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    """Every attack of this folder leaves a line: what it was, how it ended, and how long it took."""
    outcome = yield
    report = outcome.get_result()  # type: ignore[attr-defined]
    if report.when == "call" and not report.skipped:
        told = dict(item.user_properties)
        line = {"test": item.nodeid, "kept": report.passed, "seconds": round(report.duration, 2), **told}
        RECORDS.mkdir(parents=True, exist_ok=True)
        with (RECORDS / f"{os.getpid()}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
