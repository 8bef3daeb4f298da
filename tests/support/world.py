"""A small world to back up: a database, a catalogue, a bucket and a plan; and questions about what is left in it."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import psycopg2
from botocore.exceptions import ClientError
from prefect.client.orchestration import get_client

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.s3 import S3Server
from deployments.set_up_parts.blocks import set_up_plan
from deployments.set_up_parts.merging import SetUp
from deployments.set_up_parts.remembered import Memory
from tasks.catalogue.catalogue import Catalogue
from tasks.catalogue.rows import Record
from tasks.names import manifest_key
from tasks.plans.from_settings import described
from tasks.plans.settings import settings_from
from tasks.postgres.dsn import parse
from tests.support import eventually

CHECKOUT = Path(__file__).parents[2]
MIB = 1 << 20
FOLDER = "database-backups"


@dataclass(frozen=True)
class World:
    """One plan with everything that it names. `part_size` is what runs started here take for the smallest part."""

    cluster: PostgresCluster
    s3: S3Server
    bucket: str
    database_url: str
    catalogue_url: str
    spool: Path
    plan: str = "default"
    part_size: int = MIB
    environment: dict[str, str] = field(default_factory=dict, repr=False)
    saved_plans: list[str] = field(default_factory=list)
    """Shared with every world that was made of this one."""

    # --- making it

    def settings(self) -> dict[str, str]:
        """The variables of `.env` that describe the plan."""
        return {
            "DATABASE_URL": self.database_url,
            "CATALOG_URL": self.catalogue_url,
            "S3_ENDPOINT_URL": self.s3.endpoint_url,
            "S3_BUCKET": self.bucket,
            "CLOUDFLARE_ACCESS_KEY_ID": self.s3.access_key_id,
            "CLOUDFLARE_SECRET_ACCESS_KEY": self.s3.secret_access_key,
            "SPOOL_DIRECTORY": str(self.spool),
            "PG_BIN_DIRECTORY": str(self.cluster.bin_directory),
        }

    def save_plan(self, plan: str, **more: str) -> World:
        """The same world with its plan stored in Prefect as blocks; `more` are further variables of `.env`."""
        settings = settings_from({**self.settings(), **more})
        list(set_up_plan(plan, described(plan, settings), SetUp(Memory.load())))
        self.saved_plans.append(plan)
        return replace(self, plan=plan)

    def forget_plans(self) -> None:
        """No block is left of the plans that were saved: they are not among all plans of the tests to come."""
        if self.saved_plans:
            with get_client(sync_client=True) as client:
                for one in client.read_block_documents_by_type("backup-plan", include_secrets=False):
                    if one.name in self.saved_plans:
                        client.delete_block_document(one.id)

    def fill(self, mebibytes: int, table: str = "big") -> None:
        """A table of `mebibytes` MiB of text that compresses badly, in rows of about a KiB."""
        self.sql(
            f"CREATE TABLE {table} AS SELECT i AS id,"
            f" (SELECT string_agg(md5(i::text || j::text), '') FROM generate_series(1, 31) j) AS text"
            f" FROM generate_series(1, {mebibytes * 1024}) i"
        )

    # --- asking PostgreSQL

    def sql(self, statement: str, parameters: Any = None, url: str = "") -> list[tuple[Any, ...]]:
        """Runs one statement by itself in the source database (or another); returns its rows."""
        connection = psycopg2.connect(url or self.database_url, application_name="test")
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement, parameters)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """A cursor in a transaction that ends, committed, with the block."""
        connection = psycopg2.connect(self.database_url, application_name="test")
        try:
            with connection, connection.cursor() as cursor:
                yield cursor
        finally:
            connection.close()

    def sessions(self) -> list[str]:
        """What backups have open on the server for this world: names of applications."""
        mine = [parse(url).dbname for url in (self.database_url, self.catalogue_url)]
        found = self.sql(
            "SELECT application_name FROM pg_stat_activity WHERE datname = ANY (%s) AND pid <> pg_backend_pid()"
            " AND (application_name LIKE 'backup %%' OR application_name LIKE 'run %%')",
            [mine],
        )
        return [name for (name,) in found]

    def restore_sessions(self) -> list[str]:
        """What restores have open on the whole server: names of applications."""
        return [
            name
            for (name,) in self.sql(
                "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'restore%%'"
            )
        ]

    def databases(self, sign: str = "") -> list[str]:
        """Names of the databases that belong to this world's own, such as those with `__before_` in their names."""
        pattern = f"{parse(self.database_url).dbname}{sign}%"
        return [
            name
            for (name,) in self.sql(
                "SELECT datname FROM pg_database WHERE datname LIKE %s ORDER BY 1", [pattern], self.catalogue_url
            )
        ]

    def drop(self, sign: str) -> None:
        """Drops the databases that `databases(sign)` lists."""
        for name in self.databases(sign):
            self.sql(f'DROP DATABASE "{name}" WITH (FORCE)', url=self.catalogue_url)

    def cut_dump(self) -> int:
        """Ends the sessions that copy tables out for a dump, as an administrator may; returns how many there were."""
        return len(
            self.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
                " AND application_name LIKE 'backup %%' AND query LIKE 'COPY %%'"
            )
        )

    @property
    def catalogue(self) -> Catalogue:
        return Catalogue(parse(self.catalogue_url))

    def rows(self) -> list[Record]:
        """The plan's rows, newest first."""
        return self.catalogue.rows(self.plan)

    def statuses(self) -> list[str]:
        """The statuses of the plan's rows, newest first."""
        return [row.status for row in self.rows()]

    def events(self) -> list[tuple[str, str]]:
        """Action and outcome of every line of the audit but those about the store, oldest first."""
        return self.sql(
            "SELECT action, outcome FROM backup_events WHERE plan = %s AND action <> 'probe-storage' ORDER BY id",
            [self.plan],
            self.catalogue_url,
        )

    # --- asking the store

    def objects(self) -> dict[str, int]:
        """Size by key of everything in the bucket."""
        listed = self.s3.client.list_objects_v2(Bucket=self.bucket)
        return {item["Key"]: item["Size"] for item in listed.get("Contents", ())}

    def uploads(self) -> list[str]:
        """Keys of the open multipart uploads."""
        return [one["Key"] for one in self.s3.client.list_multipart_uploads(Bucket=self.bucket).get("Uploads", ())]

    def download(self, key: str) -> bytes:
        """A whole object."""
        return self.s3.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()

    def newest(self) -> tuple[Record, bytes, dict[str, Any]]:
        """Row, object and manifest of the newest row."""
        row = self.rows()[0]
        return row, self.download(row.s3_key), json.loads(self.download(manifest_key(row.s3_key)))

    # --- asking this machine

    def spools(self) -> list[str]:
        """What lies in the directory of the spools."""
        return sorted(entry.name for entry in self.spool.iterdir()) if self.spool.is_dir() else []

    def dumpers(self) -> list[psutil.Process]:
        """Every pg_dump of this world's database."""
        return self._clients("pg_dump", re.escape(parse(self.database_url).dbname))

    def restorers(self) -> list[psutil.Process]:
        """Every psql that restores this world's database, or into a scratch of it."""
        return self._clients("psql", re.escape(parse(self.database_url).dbname) + r"\w*")

    @property
    def port(self) -> int:
        """The port at which backups and restores find the server."""
        return self.cluster.port

    def _clients(self, program: str, database: str) -> list[psutil.Process]:
        port, sign = f"port={self.port}", re.compile(rf"dbname='?{database}'? ")
        found = []
        for process in psutil.process_iter(["name", "cmdline"]):
            words = process.info["cmdline"] or []
            if process.info["name"] == program and any(sign.search(f"{word} ") and port in word for word in words):
                found.append(process)
        return found

    # --- what must be true

    def check_no_debris(self) -> None:
        """Nothing of an unfinished backup is left anywhere, and every object belongs to a completed row."""
        assert "in_progress" not in self.statuses()
        assert self.uploads() == []
        assert self.spools() == []
        assert eventually(lambda: self.sessions() == []), self.sessions()
        assert eventually(lambda: self.dumpers() == []), self.dumpers()
        keys = [row.s3_key for row in self.rows() if row.status == "completed"]
        assert sorted(self.objects()) == sorted([*keys, *map(manifest_key, keys)])

    def check_completed_are_intact(self) -> int:
        """Every completed row has the object and the manifest that it speaks of; returns how many there are.

        Those of which a removal was begun do not count.
        """
        completed = [row for row in self.rows() if row.status == "completed" and row.removal is None]
        for row in completed:
            stored, manifest = self.download(row.s3_key), self.download(manifest_key(row.s3_key))
            told = json.loads(manifest)["object"]
            assert hashlib.sha256(manifest).hexdigest() == row.manifest_sha256
            assert len(stored) == row.file_size == told["size"]
            assert hashlib.sha256(stored).hexdigest() == told["sha256"]
            at = 0
            for part in told["parts"]:
                assert hashlib.sha256(stored[at : at + part["size"]]).hexdigest() == part["sha256"]
                at += part["size"]
            assert at == len(stored)
        return len(completed)

    # --- another process

    def start_backup(self, *preparations: str) -> subprocess.Popen[str]:
        """A process that has imported the flow, has done the `preparations` (Python) and waits for `go`."""
        return self._start(
            "import flows.backup",
            f"tasks.backup.upload.SMALLEST_PART = {self.part_size}",
            *preparations,
            end=f"flows.backup.backup({self.plan!r}, 'tester', return_state=True)",
        )

    def start_adoption(self, key: str, **settings: str) -> subprocess.Popen[str]:
        """As `start_backup`, for the adoption of an object, with these settings in place of the world's own."""
        end = f"flows.adopt_backup.adopt_backup({key!r}, {self.plan!r}, 'tester', return_state=True)"
        return self._start("import flows.adopt_backup", end=end, **settings)

    def start_restore(self, *preparations: str, **parameters: Any) -> subprocess.Popen[str]:
        """As `start_backup`, for a restore with these parameters."""
        given = {"plan": self.plan, "requested_by": "tester", **parameters}
        return self._start(
            "import flows.restore", *preparations, end=f"flows.restore.restore(**{given!r}, return_state=True)"
        )

    def start_undo(self, *preparations: str) -> subprocess.Popen[str]:
        """As `start_backup`, for undo-restore."""
        end = f"flows.undo_restore.undo_restore({self.plan!r}, requested_by='tester', return_state=True)"
        return self._start("import flows.undo_restore", *preparations, end=end)

    def start_drill(self, *preparations: str) -> subprocess.Popen[str]:
        """As `start_backup`, for a drill."""
        end = f"flows.verify_backup.verify_backup(plan={self.plan!r}, requested_by='tester', return_state=True)"
        return self._start("import flows.verify_backup", *preparations, end=end)

    def _start(self, *preparations: str, end: str, **settings: str) -> subprocess.Popen[str]:
        lines = [
            "import sys, tasks.backup.upload",
            *preparations,
            "print('ready', flush=True); sys.stdin.readline()",
            f"state = {end}",
            "print('ended', state.type.value, flush=True)",
        ]
        return subprocess.Popen(
            [sys.executable, "-c", "\n".join(lines)],
            cwd=CHECKOUT,
            env={**os.environ, **self.environment, **self.settings(), **settings},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


def go(process: subprocess.Popen[str]) -> None:
    """The waiting process begins with its backup."""
    assert process.stdout is not None and process.stdin is not None
    said = []
    while (line := process.stdout.readline()) != "ready\n":
        said.append(line)
        assert line, f"the process ended early: {''.join(said)}"
    process.stdin.write("go\n")
    process.stdin.flush()


def kill(process: subprocess.Popen[str]) -> None:
    """SIGKILL for one process, and for it alone."""
    process.send_signal(signal.SIGKILL)
    process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        pipe.close()


def plain_dump(cluster: PostgresCluster, url: str, *options: str) -> bytes:
    """What the server's own pg_dump says of a database, with the random keys masked."""
    program = str(cluster.bin_directory / "pg_dump")
    done = subprocess.run([program, f"--dbname={url}", "--format=plain", *options], capture_output=True, check=True)
    return masked(done.stdout)


def masked(dump: bytes) -> bytes:
    r"""A dump without the random keys of `\restrict`."""
    return re.sub(rb"(?m)^(\\(?:un)?restrict) [A-Za-z0-9]+$", rb"\1 KEY", dump)


def is_gone(world: World, key: str) -> bool:
    """Whether the bucket has no object `key`."""
    try:
        world.s3.client.head_object(Bucket=world.bucket, Key=key)
    except ClientError:
        return True
    return False


class Heard(logging.Handler):
    """Keeps what Prefect logs, as it would be printed, tracebacks included."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    @property
    def text(self) -> str:
        """All of it."""
        return "\n".join(self.lines)


def paths_below(directory: Path) -> Iterator[Path]:
    """Every file and directory below, while others remove some: `os.walk` passes over those, `Path.rglob` raises."""
    for folder, folders, files in os.walk(directory):
        for name in [*folders, *files]:
            yield Path(folder, name)
