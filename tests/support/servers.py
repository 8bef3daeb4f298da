"""More than one server: a standby, a pooler, and a port behind which two servers answer in turn."""

from __future__ import annotations

import itertools
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.private import private_directory
from deployments.quick_start.processes import free_port
from tasks.catalogue.catalogue import Catalogue
from tasks.errors import BackupSystemError
from tasks.postgres.as_ordinary_user import prefix_for
from tasks.postgres.dsn import parse
from tests.support import ci_skip, eventually


@contextmanager
def standby_of(primary: PostgresCluster, directory: Path, *settings: str) -> Iterator[PostgresCluster]:
    """A running standby with the primary's roles and databases; `settings` are lines of its configuration."""
    standby = PostgresCluster(directory, primary.bin_directory, durable=False, owned=True)
    private_directory(directory)
    shutil.copy(primary.directory / "password", directory / "password")
    program = [*prefix_for(standby.data_directory), str(primary.bin_directory / "pg_basebackup"), "--checkpoint=fast"]
    words = [*program, "--write-recovery-conf", f"--pgdata={standby.data_directory}", f"--dbname={primary.url()}"]
    subprocess.run(words, check=True, capture_output=True)
    with (standby.data_directory / "postgresql.auto.conf").open("a") as file:
        file.writelines(f"{setting}\n" for setting in settings)
    standby.start()
    try:
        yield standby
    finally:
        standby.stop(immediate=True)


@contextmanager
def pair_of(bin_directory: Path, directory: Path) -> Iterator[tuple[PostgresCluster, PostgresCluster]]:
    """A running primary and its standby."""
    primary = PostgresCluster(directory / "primary", bin_directory, durable=False, owned=True)
    primary.start()
    try:
        with standby_of(primary, directory / "standby") as standby:
            yield primary, standby
    finally:
        primary.stop(immediate=True)


@contextmanager
def catalogue_at_a_standby(bin_directory: Path, directory: Path) -> Iterator[Catalogue]:
    """A catalogue that is ready, at the address of a standby: nobody can write to it."""
    with pair_of(bin_directory, directory) as (primary, standby):
        Catalogue(parse(primary.ensure_database("catalogue"))).prepare()
        catalogue = Catalogue(parse(standby.url("catalogue")))
        assert eventually(lambda: _has_tables(catalogue), 30)
        yield catalogue


def _has_tables(catalogue: Catalogue) -> bool:
    try:
        return catalogue.rows("any") == []
    except BackupSystemError:
        return False


@contextmanager
def in_turn(*ports: int) -> Iterator[int]:
    """A port behind which the servers at `ports` answer in turn, one for each connection."""
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        threading.Thread(target=_accept, args=(listener, itertools.cycle(ports)), daemon=True).start()
        yield listener.getsockname()[1]


def _accept(listener: socket.socket, ports: Iterator[int]) -> None:
    with suppress(OSError):
        while True:
            client, _ = listener.accept()
            server = socket.create_connection(("127.0.0.1", next(ports)))
            for one, other in ((client, server), (server, client)):
                threading.Thread(target=_copy, args=(one, other), daemon=True).start()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    for end in (source, target):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


@contextmanager
def pgbouncer(
    server: PostgresCluster, directory: Path, mode: str, *settings: str, name: str = "postgres", of: str = "postgres"
) -> Iterator[tuple[str, int]]:
    """A running PgBouncer in front of `server`, which has the name `name` for the database `of`: its host and port."""
    program = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
    if program is None:
        ci_skip("pgbouncer is not installed (Debian: apt-get install pgbouncer)")
    port = free_port()
    configuration = directory / "pgbouncer.ini"
    lines = [
        "[databases]",
        f"{name} = host=127.0.0.1 port={server.port} dbname={of} user=postgres password={server.password}",
        "[pgbouncer]",
        "listen_addr = 127.0.0.1",
        f"listen_port = {port}",
        "unix_socket_dir =",
        "auth_type = any",
        f"pool_mode = {mode}",
        *settings,
    ]
    configuration.write_text("\n".join(lines) + "\n")
    command = [*prefix_for(server.data_directory), program, "--quiet", str(configuration)]
    with (directory / "pgbouncer.log").open("wb") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
    try:
        _wait_for_port(port, process, directory / "pgbouncer.log")
        yield "127.0.0.1", port
    finally:
        process.kill()
        process.wait()


def _wait_for_port(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.05)
    pytest.fail(f"pgbouncer did not start: {log.read_text()}")
