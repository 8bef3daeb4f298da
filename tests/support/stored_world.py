"""One plan with a bucket of its own on real servers, and questions about what is in bucket and catalogue."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
from psycopg2.extras import RealDictCursor

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.s3 import REGION, S3Server
from tasks.catalogue.catalogue import Catalogue
from tasks.names import backup_filename, manifest_key
from tasks.plans.plan import Plan, Policy
from tasks.postgres.dsn import parse
from tasks.storage.backup_stages import Backup
from tasks.storage.s3 import Storage
from tasks.storage.s3_client import make_client
from tests.support.recorded import recorded_backup

NOW = datetime(2026, 3, 18, 12, tzinfo=UTC)
_numbers = itertools.count(1)


@dataclass(frozen=True)
class StoredWorld:
    """The plan, and what a test asks and does."""

    plan: Plan

    @classmethod
    def make(cls, cluster: PostgresCluster, s3: S3Server, bucket: str, catalogue_url: str) -> StoredWorld:
        session = boto3.Session(s3.access_key_id, s3.secret_access_key, region_name=REGION)
        storage = Storage(make_client(session, s3.endpoint_url), bucket)
        catalogue = Catalogue(parse(catalogue_url))
        return cls(Plan(f"plan-{next(_numbers)}", parse(cluster.url()), catalogue, storage, "folder", Policy(days=7)))

    def back_up(self, days_old: float = 1, **more: Any) -> Backup:
        return recorded_backup(self.plan, NOW - timedelta(days=days_old), **more)

    def stray(self, days_old: float = 30, manifest: bytes | None = None, content: bytes | None = b"stray") -> str:
        """Files that are named like a backup of the plan and have no row; returns the file name."""
        name = backup_filename(self.plan.name, f"stray-{next(_numbers)}", NOW - timedelta(days=days_old))
        for key, body in ((self.plan.key(name), content), (manifest_key(self.plan.key(name)), manifest)):
            if body is not None:
                self.plan.storage.put(key, body)
        return name

    def execute(self, statement: str, *parameters: Any) -> list[dict[str, Any]]:
        """Runs a statement in the catalogue's database; returns the rows."""
        with self.plan.catalogue.dsn.session("test") as connection:
            connection.autocommit = True
            with connection.cursor(cursor_factory=RealDictCursor) as cursor:
                cursor.execute(statement, list(parameters) or None)
                return [dict(row) for row in cursor.fetchall()] if cursor.description else []

    def forget(self, *names: str) -> None:
        """The catalogue loses rows, as nothing here would."""
        self.execute("DELETE FROM database_backups WHERE filename = ANY (%s)", list(names))

    def statuses(self) -> dict[str, str]:
        return {row.filename: row.status for row in self.plan.catalogue.rows(self.plan.name)}

    def files(self) -> set[str]:
        """What is in the bucket, without the plan's prefix."""
        return {one.key.removeprefix(self.plan.prefix) for one in self.plan.storage.objects("")}

    def events(self, action: str) -> list[tuple[str, str | None]]:
        found = self.execute(
            "SELECT outcome, filename FROM backup_events WHERE plan = %s AND action = %s ORDER BY id",
            self.plan.name,
            action,
        )
        return [(one["outcome"], one["filename"]) for one in found]


def files_of(*names: str) -> set[str]:
    return {file for name in names for file in (name, manifest_key(name))}


def damaged_manifest(world: StoredWorld, name: str) -> None:
    key = manifest_key(world.plan.key(name))
    world.plan.storage.put(key, world.plan.storage.get(key).replace(b"olga", b"0lga"))
