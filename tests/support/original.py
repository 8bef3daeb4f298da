"""A database, the dump that was taken of it, and ways to restore it with psql alone."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from contextlib import closing
from types import SimpleNamespace
from typing import Any

import psycopg2
import pytest

from deployments.quick_start.postgres import PostgresCluster
from tasks.backup.source import extensions
from tasks.postgres.dsn import parse
from tasks.postgres.server import within_pg_catalog
from tasks.restore.dump_reader import DumpReader
from tasks.restore.in_place import removal
from tasks.storage.backup_values import Conditions
from tests.support.every_kind import OWNER, owner_url
from tests.support.world import masked, plain_dump


def restore_with_psql(cluster: PostgresCluster, url: str, dump: bytes) -> None:
    """Runs a dump as one transaction that holds its large objects too."""
    reader = DumpReader(cluster.major * 10000)
    pieces = [piece.data for piece in [*reader.feed(dump), *reader.finish()]]
    run_psql(cluster, url, b"BEGIN;\n" + b"".join(pieces) + b"\nCOMMIT;\n")


def run_psql(cluster: PostgresCluster, url: str, script: bytes) -> None:
    """psql reads a script; its complaints are those of the test."""
    program = str(cluster.bin_directory / "psql")
    arguments = [program, "-XqAt", "--set=ON_ERROR_STOP=1", f"--dbname={url}"]
    done = subprocess.run(arguments, input=script, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 0, done.stderr.decode()[:4000]


def own(cluster: PostgresCluster, url: str) -> str:
    """The database belongs to the role that is no superuser; returns its URL of it."""
    name = parse(url).dbname
    run_psql(cluster, url, f'ALTER DATABASE "{name}" OWNER TO {OWNER};'.encode())
    return owner_url(cluster, name)


class Original:
    """A database, and the dump that was taken of it."""

    def __init__(self, cluster: PostgresCluster, url: str, keep: Iterable[str] = ()) -> None:
        self.cluster, self.url, self.keep = cluster, url, tuple(keep)
        self.dump = self.dumped()
        with closing(psycopg2.connect(url)) as connection:
            self.backup: Any = SimpleNamespace(
                extensions=extensions(within_pg_catalog(connection)), tables=(), conditions=Conditions((), True, (), ())
            )

    def dumped(self) -> bytes:
        """What pg_dump says now, without the relations that stay."""
        program = [str(self.cluster.bin_directory / "pg_dump"), f"--dbname={self.url}", "--format=plain"]
        done = subprocess.run([*program, *(f"--exclude-table={name}" for name in self.keep)], capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        return masked(done.stdout)

    def script(self, lock_wait: int = 30) -> bytes:
        """The whole transaction that restores in place."""
        with closing(psycopg2.connect(self.url)) as connection:
            connection.autocommit = True
            script = removal(connection, self.backup, self.keep, lock_wait)
        reader = DumpReader(self.cluster.major * 10000)
        pieces = [*reader.feed(self.dump), *reader.finish()]
        selected = [taken.data for piece in pieces for taken in script.selection.take(piece)]
        last = [taken.data for taken in script.selection.finish()]
        parts = [b"BEGIN;\n", script.before, *selected, *last, script.after, b"\nCOMMIT;\n"]
        return b"".join(parts)

    def restore(self, lock_wait: int = 30) -> None:
        """Restores in place. Raises AssertionError with psql's complaint."""
        run_psql(self.cluster, self.url, self.script(lock_wait))

    def refusal(self, lock_wait: int = 30) -> str:
        """psql's complaint about a restore that must fail; the database must be as it was."""
        before = self.dumped_by_superuser()
        with pytest.raises(AssertionError) as refused:
            self.restore(lock_wait)
        assert self.dumped_by_superuser() == before
        return str(refused.value)

    def dumped_by_superuser(self) -> bytes:
        return plain_dump(self.cluster, self.cluster.url(parse(self.url).dbname))

    def sql(self, statements: str, superuser: bool = False) -> list[tuple[Any, ...]]:
        """Runs statements, as one transaction; returns the rows of the last."""
        url = self.cluster.url(parse(self.url).dbname) if superuser else self.url
        with closing(psycopg2.connect(url)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statements)
                return cursor.fetchall() if cursor.description else []
