"""A plan on real servers, backed up and restored by the steps of the flows without Prefect: hundreds are soon done."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import subprocess
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import psycopg2
from psycopg2 import sql

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.s3 import REGION, S3Server
from tasks.backup.dump import dump
from tasks.backup.open_backup import open_backup
from tasks.backup.record_backup import record
from tasks.backup.source import database_properties
from tasks.backup.upload import Shipper
from tasks.catalogue.catalogue import Catalogue
from tasks.catalogue.own_tables import TABLES
from tasks.errors import Stopped
from tasks.names import manifest_key
from tasks.plans.plan import Plan, Policy, pinned
from tasks.postgres.dsn import parse
from tasks.postgres.server import source_session
from tasks.restore import load as loading
from tasks.restore import psql
from tasks.restore import put_into_place as placing
from tasks.restore.compare import compare_run
from tasks.restore.labels import is_scratch_name
from tasks.restore.psql import Script
from tasks.restore.validate import validate
from tasks.restore.values import Loaded, Restored, RestoreRequest, RestoreRun, Undone
from tasks.storage.backup_stages import Backup
from tasks.storage.backup_values import DatabaseProperties
from tasks.storage.manifest_text import with_checksum
from tasks.storage.s3 import Storage
from tasks.storage.s3_client import make_client
from tasks.storage.spool import Spool, open_spool
from tests.support.world import masked

KIB = 1 << 10
#: What a test does to a spool while psql and the download are at work on it.
Meddler = Callable[[Spool], None]

#: A new scene; see the fixture `scene`.
SceneFactory = Callable[..., "Scene"]


def now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Scene:
    """One plan. `url` is its database's, for the role that backs up and restores; `part_size` counts bytes."""

    cluster: PostgresCluster
    url: str
    plan: Plan
    part_size: int = 256 * KIB

    @property
    def name(self) -> str:
        return self.plan.database.dbname

    # --- the steps

    def back_up(self, started_at: datetime | None = None) -> Backup:
        """A completed backup of the plan."""
        opened = open_backup(self.plan, str(uuid.uuid4()), "tester", started_at or now(), lambda _: None)
        run = replace(opened, part_size=self.part_size)
        with open_spool(Path(run.spool_directory), run.run_id, run.part_size, run.spool_limit) as parts:
            dumped = dump(run, parts, self.plan.database, now, lambda _: None)
            stored = Shipper(parts, self.plan.storage, run.key).ship(now, lambda _: None)
            return record(self.plan, run, dumped, stored, now())

    def validated(self, backup: str = "latest", **request: Any) -> RestoreRun:
        """A restore that nothing stands in the way of; in place, it is confirmed."""
        if request.get("mode") == "in_place":
            request.setdefault("confirm", self.name)
        return validate(
            self.plan, RestoreRequest(backup, **request), str(uuid.uuid4()), "tester", now(), lambda _: None
        )

    def load(self, run: RestoreRun, meddle: Meddler = lambda spool: None, ahead: bool = True) -> Loaded:
        """psql restores, with a download beside it unless it is to fetch for itself (not `ahead`)."""
        with self._parts(run, meddle, ahead) as parts:
            return loading.load(self.plan, run, parts, _ignore, _ignore)

    def feed(self, run: RestoreRun, meddle: Meddler = lambda spool: None, ahead: bool = True) -> Loaded:
        """The same into the scratch of the run as it stands, without the preparations, which take the most time."""
        with self._parts(run, meddle, ahead) as parts:
            target, incoming = self.plan.database.with_dbname(run.scratch), loading.parts_of(self.plan, run, parts)
            return psql.load(run, target, incoming, Script(), self.plan.identities, parts, _ignore)

    def restore(self, backup: str = "latest", **request: Any) -> Restored:
        """A whole restore."""
        return self.finish(self.validated(backup, **request))

    def finish(self, run: RestoreRun) -> Restored:
        """All that follows on validation."""
        with loading.nothing_left(self.plan, run, _ignore):
            loaded = self.load(run)
            compared = compare_run(self.plan, run, loaded)
            return placing.put_into_place(self.plan, run, loaded, compared, now)

    def undo(self, target: str = "") -> Undone:
        """The last swap is taken back."""
        return placing.undo(self.plan, target, str(uuid.uuid4()), now())

    @contextmanager
    def _parts(self, run: RestoreRun, meddle: Meddler, ahead: bool) -> Iterator[Spool]:
        """The restore's spool, filled by a download if `ahead`."""
        largest = max(part.size for part in run.backup.parts)
        with open_spool(self.plan.spool_directory, run.run_id, largest, self.plan.spool_limit) as parts:
            meddle(parts)
            with _beside(lambda: loading.parts_of(self.plan, run, parts).prefetch(_ignore) if ahead else 0, parts):
                yield parts

    def empty_database(self) -> str:
        """The name of a new database on the same server."""
        name = f"{self.name[:40]} scratch"
        for words in ("DROP DATABASE IF EXISTS {}", "CREATE DATABASE {} TEMPLATE template0"):
            self._admin(sql.SQL(words).format(sql.Identifier(name)), "postgres")
        return name

    # --- asking

    def sql(self, statements: str, database: str = "", superuser: bool = False) -> list[tuple[Any, ...]]:
        """Runs statements, as one transaction; returns the rows of the last."""
        url = self.cluster.url(database or self.name) if superuser or database else self.url
        with closing(psycopg2.connect(url)) as connection:
            connection.autocommit = True
            with connection.cursor() as cursor:
                cursor.execute(statements)
                return cursor.fetchall() if cursor.description else []

    def dumped(self, database: str = "", *options: str) -> bytes:
        """What pg_dump says of a database (the plan's own) to a superuser, without the catalogue's tables."""
        program, url = str(self.cluster.bin_directory / "pg_dump"), self.cluster.url(database or self.name)
        done = subprocess.run([program, f"--dbname={url}", *options], capture_output=True, check=False)
        assert done.returncode == 0, done.stderr.decode(errors="replace")
        return masked(done.stdout)

    def dumped_whole(self, database: str = "") -> bytes:
        """The same with CREATE DATABASE, owner, encoding, locale, comment, limit, grants and settings."""
        return self.dumped(database, "--create")

    def dumped_without_catalogue(self, database: str = "") -> bytes:
        """The same where the catalogue lies in the database itself."""
        return self.dumped(database, "--create", *(f"--exclude-table=*.{table}*" for table in TABLES))

    def properties(self, database: str) -> DatabaseProperties:
        """What a database has beside its content; without name and size, which differ."""
        with source_session(parse(self.cluster.url(database)), "test") as connection:
            return replace(database_properties(connection), name="", size=0)

    def databases(self) -> set[str]:
        """Every database of the server."""
        return {name for (name,) in self.sql("SELECT datname FROM pg_database", "postgres")}

    def left_behind(self) -> list[str]:
        """Scratch databases, spools and sessions of restores: nothing of them may stay."""
        scratches = [name for name in self.databases() if is_scratch_name(name, self.name)]
        sessions = self.sql(
            "SELECT application_name FROM pg_stat_activity WHERE application_name LIKE 'restore%'", "postgres"
        )
        directory = self.plan.spool_directory
        return [*scratches, *(name for (name,) in sessions), *map(str, directory.glob("*"))]

    # --- the store

    def stored(self, backup: Backup) -> tuple[bytes, bytes]:
        """Object and manifest."""
        return self.plan.storage.get(backup.key), self.plan.storage.get(manifest_key(backup.key))

    def store(self, backup: Backup, content: bytes | None = None, its_manifest: bytes | None = None) -> None:
        """Puts other bytes in the place of object, of manifest, or of both."""
        for key, body in ((backup.key, content), (manifest_key(backup.key), its_manifest)):
            if body is not None:
                self.plan.storage.put(key, body)

    def rewrite(self, backup: Backup, change: Callable[[dict[str, Any]], None], recorded: bool = True) -> None:
        """Changes the manifest as whoever wrote it could have: checksum and the catalogue's hash fit it."""
        told = json.loads(self.stored(backup)[1])
        change(told)
        content = with_checksum(told)
        self.store(backup, its_manifest=content)
        if recorded:
            with closing(self.plan.catalogue.dsn.connect("test")) as connection, connection.cursor() as cursor:
                cursor.execute(
                    "UPDATE database_backups SET manifest_sha256 = %s WHERE filename = %s",
                    [hashlib.sha256(content).hexdigest(), backup.filename],
                )

    # --- others of the kind

    def without_catalogue(self) -> Scene:
        """The same on the day when the catalogue is lost."""
        lost = Catalogue(self.plan.catalogue.dsn.with_dbname("the lost catalogue"))
        return replace(self, plan=replace(self.plan, catalogue=lost))

    def with_plan(self, **changes: Any) -> Scene:
        """The same with another plan."""
        return replace(self, plan=replace(self.plan, **changes))

    # --- afterwards

    def discard(self, *databases: str) -> None:
        """Drops databases, with the subscriptions in them."""
        for database in databases:
            for (name,) in self.sql(
                "SELECT subname FROM pg_subscription s JOIN pg_database d ON d.oid = subdbid"
                " WHERE datname = current_database()",
                database,
            ):
                quoted = sql.Identifier(name)
                for words in (
                    "ALTER SUBSCRIPTION {} DISABLE",
                    "ALTER SUBSCRIPTION {} SET (slot_name = NONE)",
                    "DROP SUBSCRIPTION {}",
                ):
                    with contextlib.suppress(psycopg2.Error):
                        self._admin(sql.SQL(words).format(quoted), database)
            self._admin(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(database)), "postgres")

    def _admin(self, statement: sql.Composed, database: str) -> None:
        with closing(psycopg2.connect(self.cluster.url(database))) as connection:
            connection.autocommit = True
            connection.cursor().execute(statement)


def make_scene(
    cluster: PostgresCluster, url: str, catalogue_url: str, s3: S3Server, bucket: str, spool: Path, **more: Any
) -> Scene:
    """A plan for the database `url`, with a catalogue that is ready; `more` are fields of `Plan`."""
    session = boto3.Session(s3.access_key_id, s3.secret_access_key, region_name=REGION)
    catalogue = Catalogue(parse(catalogue_url))
    catalogue.prepare()
    plan = Plan(
        "shop",
        parse(url),
        catalogue,
        Storage(make_client(session, s3.endpoint_url), bucket),
        "backups",
        Policy(),
        tools_directory=str(cluster.bin_directory),
        spool_directory=spool,
        **more,
    )
    return Scene(cluster, url, pinned(plan))


@contextmanager
def _beside(work: Callable[[], int], parts: Spool) -> Iterator[None]:
    """`work` goes on in a thread during the block; if it fails, the block is stopped, and its error is raised."""

    def stop(done: Future[int]) -> None:
        if done.exception():
            parts.stop(f"Stopped, because another step failed: {done.exception()}")

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        working.add_done_callback(stop)
        try:
            yield
            working.result()
        except Stopped:
            working.result()
            raise
        finally:
            parts.stop("The steps have ended.")


def _ignore(_: object) -> None:
    return None


def in_words(pattern: str, said: object) -> re.Match[str]:
    """What the pattern finds in what was said, which is one line."""
    assert "\n" not in str(said), said
    found = re.search(pattern, str(said))
    assert found, (pattern, str(said))
    return found
