"""Prefect servers that begin with the tables that the first of them made: to make them takes longer than all the rest."""

from __future__ import annotations

import atexit
import shutil
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path

from deployments.quick_start.prefect_services import PrefectServer
from deployments.quick_start.private import private_directory

DATABASE, REMEMBERED = "prefect.db", "memo_store.toml"

_SEED = Path(tempfile.mkdtemp(prefix="prefect-seed-"))
atexit.register(shutil.rmtree, _SEED, ignore_errors=True)


def started(server: PrefectServer) -> PrefectServer:
    """The server, which is new and has its own database on SQLite, running."""
    private_directory(server.directory)
    seeded = [shutil.copy(file, server.directory) for file in _SEED.iterdir()]
    server.start()
    if not seeded:
        _keep(server.directory)
    return server


def _keep(directory: Path) -> None:
    """The tables and the types of blocks of a server that nobody has used yet."""
    with closing(sqlite3.connect(directory / DATABASE)) as made, closing(sqlite3.connect(_SEED / DATABASE)) as seed:
        made.backup(seed)
    shutil.copy(directory / REMEMBERED, _SEED)
