"""Prefect servers that begin with the tables that the first of them made: to make them takes longer than all the rest.

Each has a database of its own on PostgreSQL, as the quick start's has: one on SQLite is at times too busy to answer, and
loses events.
"""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
from pathlib import Path

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.prefect_services import PrefectServer
from deployments.quick_start.private import private_directory
from tasks.postgres.as_ordinary_user import prefix_for

REMEMBERED = "memo_store.toml"

_SEED = Path(tempfile.mkdtemp(prefix="prefect-seed-"))
atexit.register(shutil.rmtree, _SEED, ignore_errors=True)


def started_server(directory: Path, bin_directory: Path) -> PrefectServer:
    """A new server whose files lie in `directory`, running; its database is run by the programs in `bin_directory`."""
    database = PostgresCluster(directory / "database", bin_directory, durable=False, owned=True)
    server = PrefectServer(directory, database=database, owned=True)
    private_directory(directory)
    if (_SEED / REMEMBERED).exists():
        shutil.copy(_SEED / REMEMBERED, directory)
        subprocess.run(["cp", "-a", _SEED / "database", directory], check=True)
        server.start()
    else:
        server.start()
        _keep(server, database)
    return server


def _keep(server: PrefectServer, database: PostgresCluster) -> None:
    """The tables and the types of blocks of a server that nobody has used yet."""
    kept = PostgresCluster(_SEED / "database", database.bin_directory)
    private_directory(kept.directory)
    shutil.copy(database.directory / "password", kept.directory)
    words = [str(database.bin_directory / "pg_basebackup"), "--checkpoint=fast", "--no-sync"]
    subprocess.run(
        [*prefix_for(kept.data_directory), *words, f"--pgdata={kept.data_directory}", f"--dbname={database.url()}"],
        check=True,
        capture_output=True,
    )
    shutil.copy(server.directory / REMEMBERED, _SEED)
