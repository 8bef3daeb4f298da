"""The small world in which operations meet faults: one plan, one backup of it, behind a store and a PostgreSQL that fail."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import shutil
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import State, StateType
from psycopg2 import Error as PostgresError

from deployments.quick_start.postgres import PostgresCluster
from deployments.sample import fill
from flows.backup import backup
from flows.cleanup import cleanup
from flows.delete_backup import delete_backup
from flows.keep_backup import keep_backup
from flows.restore import restore
from flows.verify_backup import verify_backup
from tasks.plans.find_plan import plan_named
from tasks.postgres.dsn import parse
from tests.faults.fault import BACKUP, CLEANUP, DELETE, IN_PLACE, KEEP, NEW_DATABASE, SWAP, VERIFY
from tests.faults.small_world import REPLICA_URL
from tests.support import eventually
from tests.support.faulty_postgres import FaultyPostgres
from tests.support.faulty_store import FaultyStore
from tests.support.recorded import recorded_backup
from tests.support.world import Heard, World, go, kill, plain_dump

#: A value in a row of every database here: no message may repeat it.
MARKER = "row-marker-51c7"
_numbers = itertools.count(1)
_FLOWS = "flows.backup, flows.restore, flows.cleanup, flows.delete_backup, flows.keep_backup, flows.verify_backup"
#: What a process of the laboratory does first: it is as small as this one, and says how its run ended, for `ended`.
_SMALL = "import json, pytest, tests.faults.small_world; tests.faults.small_world.make_small(pytest.MonkeyPatch())"
_CALLS = "iter(sys.stdin.readline, '')"
_SAY = "print('state', json.dumps([state.type.value, str(state.message)]), flush=True) or state"


@dataclass(frozen=True)
class LabWorld(World):
    """A world that the plan reaches through the proxies, and the questions of tests directly."""

    store_url: str = ""
    proxy_port: int = 0

    @property
    def port(self) -> int:
        return self.proxy_port

    def settings(self) -> dict[str, str]:
        direct, through = f":{self.cluster.port}/", f":{self.proxy_port}/"
        return {
            **super().settings(),
            "DATABASE_URL": self.database_url.replace(direct, through),
            "CATALOG_URL": self.catalogue_url.replace(direct, through),
            "S3_ENDPOINT_URL": self.store_url,
        }

    def start_any(self) -> subprocess.Popen[str]:
        """A process that has imported the flows and waits for `go`, and then for calls of them, in Python."""
        end = f"[(lambda state: {_SAY})(eval(call)) for call in {_CALLS}][-1]"
        return self._start(f"import {_FLOWS}", _SMALL, end=end)


@dataclass
class Laboratory:
    """The world, what stands before it, and what an operation is to find: made once, and put in order for each fault."""

    world: LabWorld
    store: FaultyStore
    replica: FaultyStore
    """The store of the plan's replica, where it has one."""
    postgres: FaultyPostgres
    heard: Heard
    keeper: ThreadPoolExecutor
    """Starts the servers: they die with the thread that started them."""
    disk: Path | None
    """A small disk that holds the spools; None where none could be mounted."""
    server_disk: Path
    """Another, for a tablespace of the server."""
    base: str = ""
    """The file name of the backup that is there before each operation."""
    new: bytes = b""
    """What pg_dump says of the database that was backed up."""
    old: bytes = b""
    """What it says of the live database before the operation."""
    target: str = ""
    """The name of the database that a restore with `new_database` makes."""
    standby: PostgresCluster | None = None
    """A server that can take the place of the world's."""
    running: list[object] = field(default_factory=list)
    """What must stay alive for standbys to run."""
    due: list[str] = field(default_factory=list)
    """The file names of backups that retention is to remove."""
    young: list[str] = field(default_factory=list)
    """The file names of others that must stay."""
    spare: subprocess.Popen[str] | None = None
    """A process that waits for the call of a flow: the next one that is killed."""
    workers: dict[tuple[object, ...], subprocess.Popen[str]] = field(default_factory=dict)
    """Processes that stay, by what is peculiar to them."""

    @property
    def live(self) -> str:
        return parse(self.world.database_url).dbname

    # --- before an operation

    def furnish(self) -> None:
        """A shop, its backup, and a catalogue that knows it."""
        self.world.catalogue.prepare()
        fill(self.world.database_url, 1)
        self.world.sql(f"CREATE TABLE shop.notes AS SELECT i, '{MARKER}' AS note FROM generate_series(1, 9) i")
        self.new = self.dump()
        self.base = backup().filename

    def begin(self, operation: str, history: bool = False) -> None:
        """Nothing fails, nothing is left of what was before, and the operation has something to do.

        With a `history` there are backups of the last days and older ones.
        """
        self.calm()
        self._forget_what_was()
        if self.dump() == self.new:
            self.world.sql("DELETE FROM shop.order_items WHERE quantity > 1")
        self.old = self.dump()
        self.target = f"{self.live}_look_{next(_numbers)}"
        self.due = [self._old_backup(days) for days in (30, 40)] if history or operation in (CLEANUP, DELETE) else []
        self.young = [self._old_backup(days) for days in (1, 2, 3)] if history else []
        self.heard.lines.clear()
        self.store.requests.clear()

    def calm(self) -> None:
        """The store and PostgreSQL work."""
        for store in (self.store, self.replica):
            store.rule = store.after = lambda request: None
        self.postgres.slow, self.postgres.refused = False, 0

    def _forget_what_was(self) -> None:
        world, s3, bucket = self.world, self.world.s3.client, self.world.bucket
        for sign in ("__before_", "_look_", "__restoring_", "__verifying_"):
            world.drop(sign)
        # What went today counts against what may go; a trigger keeps events from being removed.
        world.sql("SET session_replication_role = replica; DELETE FROM backup_events", url=world.catalogue_url)
        world.sql("DELETE FROM database_backups WHERE filename <> %s", [self.base], world.catalogue_url)
        world.sql("UPDATE database_backups SET metadata = metadata - 'kept'", url=world.catalogue_url)
        for key in world.objects():
            if self.base not in key:
                s3.delete_object(Bucket=bucket, Key=key)
        for upload in s3.list_multipart_uploads(Bucket=bucket).get("Uploads", ()):
            s3.abort_multipart_upload(Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])
        shutil.rmtree(world.spool, ignore_errors=True)

    def _old_backup(self, days: int) -> str:
        return recorded_backup(plan_named(self.world.plan), datetime.now(UTC) - timedelta(days=days)).filename

    # --- an operation

    def run(self, operation: str) -> Any:
        """Runs the flow in this process; returns its state."""
        flow, given = self._call(operation)
        return flow(**given, return_state=True)

    def _call(self, operation: str) -> tuple[Any, dict[str, Any]]:
        restored: dict[str, Any] = {"backup": self.base}
        calls: dict[str, tuple[Any, dict[str, Any]]] = {
            BACKUP: (backup, {}),
            SWAP: (restore, restored),
            NEW_DATABASE: (restore, {**restored, "mode": "new_database", "target": self.target}),
            IN_PLACE: (restore, {**restored, "mode": "in_place", "confirm": self.live}),
            VERIFY: (verify_backup, restored),
            CLEANUP: (cleanup, {}),
            DELETE: (delete_backup, {"backup": self.due[0] if self.due else self.base}),
            KEEP: (keep_backup, {"backup": self.due[0] if self.due else self.base}),
        }
        return calls[operation]

    def start(self, operation: str) -> subprocess.Popen[str]:
        """The flow begins in a process of its own; the next such process is made ready."""
        process, self.spare = self.spare or self.world.start_any(), None
        go(process)
        self.call(process, operation)
        self.spare = self.world.start_any()
        return process

    def call(self, process: subprocess.Popen[str], operation: str) -> None:
        """The flow begins in a process that waits for a call."""
        flow, given = self._call(operation)
        name, replica = flow.fn.__name__, os.environ.get(REPLICA_URL, "")
        assert process.stdin is not None
        prepared = f"tests.faults.small_world.use_replica({replica!r})"
        process.stdin.write(f"{prepared} or flows.{name}.{name}(**{given!r}, return_state=True)\n")
        process.stdin.flush()

    def ended(self, process: subprocess.Popen[str]) -> State[Any]:
        """How the flow in that process ended; what the process has said is heard."""
        assert process.stdout is not None
        while not (line := process.stdout.readline()).startswith("state "):
            assert line, "the process ended early"
            self.heard.lines.append(line)
        kind, message = json.loads(line.removeprefix("state "))
        return State(type=StateType(kind), message=message)

    def worker(self, number: int = 0, **environment: str) -> subprocess.Popen[str]:
        """A process that waits for calls, and stays for the faults to come."""
        key = (number, *environment.values())
        if key not in self.workers or self.workers[key].poll() is not None:
            world = replace(self.world, environment={**self.world.environment, **environment})
            self.workers[key] = world.start_any()
            go(self.workers[key])
        return self.workers[key]

    # --- the servers

    def restart(self) -> None:
        """PostgreSQL is stopped and started."""
        self.keeper.submit(self.world.cluster.stop).result()
        self.keeper.submit(self.world.cluster.start).result()

    def move_to(self, cluster: PostgresCluster) -> None:
        """From now on the world is on another server, which has its databases."""
        before, after = f":{self.world.cluster.port}/", f":{cluster.port}/"
        self.postgres.target = cluster.port
        self.world = replace(
            self.world,
            cluster=cluster,
            database_url=self.world.database_url.replace(before, after),
            catalogue_url=self.world.catalogue_url.replace(before, after),
        )

    # --- afterwards

    def dump(self, database: str = "") -> bytes:
        """What pg_dump says of a database (the live one), once it takes connections, which is soon."""
        url = self.world.cluster.url(database or self.live)
        for _ in range(40):
            with contextlib.suppress(subprocess.CalledProcessError):
                return plain_dump(self.world.cluster, url)
            time.sleep(0.25)
        return plain_dump(self.world.cluster, url)

    def debris(self) -> list[str]:
        """What is left of unfinished work: it is for the next run to clear. What ends by itself is waited for."""
        world, found = self.world, []
        rows = world.rows()
        found += [f"a row {row.status}: {row.filename}" for row in rows if row.status == "in_progress"]
        found += [f"a removal that was begun: {row.filename}" for row in rows if row.removal is not None]
        found += [f"an open upload: {key}" for key in world.uploads()]
        found += [f"a spool: {name}" for name in world.spools()]
        keys = [row.filename for row in rows if row.status == "completed"]
        found += [f"an object without a completed row: {key}" for key in world.objects() if not _belongs(key, keys)]
        for sign in ("__restoring_", "__verifying_"):
            found += [f"a scratch database: {name}" for name in world.databases(f"%{sign}")]
        roles = "SELECT rolname FROM pg_roles WHERE rolname LIKE 'backup_loader_%%'"
        found += [f"a role: {name}" for (name,) in world.sql(roles, url=world.catalogue_url)]
        eventually(lambda: not self._at_work(), 5)
        return found + self._at_work()

    def _at_work(self) -> list[str]:
        sessions = (
            "SELECT application_name FROM pg_stat_activity WHERE application_name ~ '^(backup|restore|run|verify) '"
        )
        with contextlib.suppress(PostgresError):
            names = [name for (name,) in self.world.sql(sessions, url=self.world.catalogue_url)]
            programs = [*self.world.dumpers(), *self.world.restorers()]
            return [f"a session: {name}" for name in names] + [f"a process: {program}" for program in programs]
        return ["a server that does not answer"]

    def close(self) -> None:
        """The processes that wait are gone."""
        for process in filter(None, [self.spare, *self.workers.values()]):
            kill(process)


def _belongs(key: str, names: list[str]) -> bool:
    return any(key.endswith((name, f"{name}.manifest.json")) for name in names)
