"""Backups go on where the keys of the worker may not delete: what has to go waits for somebody who may."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.s3 import S3Server
from tasks.backup.dead_runs import clear_dead_runs
from tasks.catalogue.catalogue import Catalogue
from tasks.errors import AccessRefused
from tasks.names import backup_filename
from tasks.plans.plan import Plan
from tasks.postgres.dsn import parse
from tasks.retention import steps as retention
from tasks.retention.debris import Databases, clear_orphans
from tasks.retention.removal import Retained
from tasks.storage.s3 import Storage
from tests.conftest import DatabaseFactory
from tests.support.stored_world import NOW, StoredWorld


class WriteOnly(Storage):
    """A real store whose keys may not delete."""

    def delete(self, key: str) -> bool:
        raise AccessRefused(f"The store refused DeleteObject for bucket {self.bucket} (AccessDenied): {key}")


@pytest.fixture
def world(
    any_postgres: PostgresCluster, s3_server: S3Server, s3_bucket: Callable[[], str], fresh_database: DatabaseFactory
) -> StoredWorld:
    url = fresh_database(any_postgres)
    Catalogue(parse(url)).prepare()
    return StoredWorld.make(any_postgres, s3_server, s3_bucket(), url)


def without_delete(plan: Plan) -> Plan:
    return replace(plan, storage=WriteOnly(plan.storage._client, plan.storage.bucket))


def dead_run(world: StoredWorld, *, stored: bool) -> str:
    plan = world.plan
    filename = backup_filename(plan.name, "dead", NOW, "none", False)
    plan.catalogue.open(filename, plan.key(filename), plan.name, "dead", "olga", NOW, "full")
    if stored:
        plan.storage.put(plan.key(filename), b"half of it")
    return filename


def test_a_dead_run_that_had_stored_nothing_is_cleared_without_a_request_to_delete(world: StoredWorld) -> None:
    filename = dead_run(world, stored=False)
    assert clear_dead_runs(without_delete(world.plan), "next", "olga") == [
        f"{filename}: left unfinished by run dead; cleared away"
    ]
    assert world.statuses() == {filename: "failed"}


def test_a_dead_run_whose_row_names_another_backups_object_leaves_that_alone(world: StoredWorld) -> None:
    mine, victim = dead_run(world, stored=True), "folder/other-plan/backup_2026-03-01_02-00-00_00000000.sql"
    world.plan.storage.put(victim, b"rows")
    with world.plan.catalogue.dsn.session("test") as connection, connection.cursor() as cursor:
        cursor.execute("UPDATE database_backups SET s3_key = %s WHERE filename = %s", [victim, mine])
    [said] = clear_dead_runs(world.plan, "next", "olga")
    assert "names an object of another backup, which stays" in said
    assert world.plan.storage.size(victim) == 4 and world.statuses() == {mine: "failed"}


def test_what_a_dead_run_had_stored_waits_for_a_clean_up_by_who_may_delete(world: StoredWorld) -> None:
    filename = dead_run(world, stored=True)
    [said] = clear_dead_runs(without_delete(world.plan), "next", "olga")
    assert "stays until cleanup/clean-up-now runs with remove_orphans" in said
    assert world.statuses() == {filename: "failed"} and world.files() == {filename}
    assert clear_dead_runs(without_delete(world.plan), "the run after", "olga") == []
    clear_orphans(world.plan, "clean-up", "olga", NOW, remove=True)
    assert world.files() == set()


@pytest.mark.parametrize("after_backup", [True, False])
def test_a_plan_may_leave_removal_to_the_clean_up(
    world: StoredWorld, monkeypatch: pytest.MonkeyPatch, after_backup: bool
) -> None:
    asked: list[bool] = []

    def retained(plan: Plan, requested_by: str, dry_run: bool) -> tuple[Retained, Databases]:
        asked.append(dry_run)
        return Retained((), (), ()), Databases((), (), ())

    plan = replace(world.plan, retention_after_backup=after_backup)
    monkeypatch.setattr(retention, "plan_named", lambda name: plan)
    monkeypatch.setattr(retention, "_retained", retained)
    monkeypatch.setattr(retention, "publish", lambda *_: None)
    monkeypatch.setattr(retention, "say", lambda *_: None)
    retention.apply_retention.fn(plan.name)
    assert asked == [not after_backup]
