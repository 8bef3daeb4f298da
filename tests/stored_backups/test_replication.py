"""Copies of completed backups in other buckets."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest

from deployments.quick_start.postgres import PostgresCluster
from deployments.quick_start.s3 import S3Server
from tasks.catalogue.catalogue import Catalogue
from tasks.catalogue.rows import Event
from tasks.errors import DeletionRefused
from tasks.names import MANIFEST_SUFFIX, manifest_key, object_key
from tasks.plans.plan import Plan, Policy, Replica
from tasks.postgres.dsn import parse
from tasks.retention.removal import remove_backup, retain
from tasks.storage.backup_values import Part
from tasks.storage.s3 import Storage
from tasks.storage.s3_client import make_client
from tasks.stored_backups.replicas import replicate
from tests.support.faulty_store import FaultyStore
from tests.support.manifests import manifest_bytes

NOW = datetime(2026, 3, 10, 2, tzinfo=UTC)
PART = 6 << 20


@pytest.fixture
def storage(s3_server: S3Server, s3_bucket: Callable[[], str]) -> Callable[[], Storage]:
    session = boto3.Session(s3_server.access_key_id, s3_server.secret_access_key, region_name="us-east-1")
    return lambda: Storage(make_client(session, s3_server.endpoint_url), s3_bucket())


@pytest.fixture
def plan(any_postgres: PostgresCluster, fresh_database: Any, storage: Callable[[], Storage], tmp_path: Path) -> Plan:
    catalogue = Catalogue(parse(fresh_database(any_postgres)))
    catalogue.prepare()
    return Plan(
        name="shop",
        database=catalogue.dsn,
        catalogue=catalogue,
        storage=storage(),
        folder="database-backups",
        policy=Policy(),
        replicas=(Replica(storage(), "copies"), Replica(storage(), "")),
        spool_directory=tmp_path / "spool",
    )


def completed(plan: Plan, at: datetime, content: bytes) -> str:
    """A completed backup whose object has `content`; returns its file name."""
    filename = f"backup_{at:%Y-%m-%d_%H-%M-%S}_00000000.sql"
    key = plan.key(filename)
    pieces = [content[start : start + PART] for start in range(0, len(content), PART)]
    parts = tuple(Part(n, len(piece), hashlib.sha256(piece).hexdigest()) for n, piece in enumerate(pieces, 1))
    whole = hashlib.sha256(content).hexdigest()
    plan.storage.put(key, content)
    manifest = manifest_bytes(filename, key, len(content), whole, parts)
    plan.storage.put(manifest_key(key), manifest)
    backup_id = plan.catalogue.open(filename, key, plan.name, "run", "system", at, "full")
    facts = {
        "file_size": len(content),
        "plain_size": len(content),
        "table_count": 1,
        "manifest_sha256": _sha256(manifest),
    }
    plan.catalogue.complete(
        backup_id, "run", {**facts, "completed_at": at}, {}, Event("backup", "completed", plan.name, "system", "run")
    )
    return filename


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_every_replica_gets_every_completed_backup_with_its_manifest(plan: Plan) -> None:
    contents = {completed(plan, NOW - timedelta(days=day), bytes([day]) * (PART + day)): day for day in (1, 2)}
    copies = replicate(plan, "run")
    assert copies.problems == ()
    assert len(copies.made) == 4
    for replica in plan.replicas:
        for filename, day in contents.items():
            key = object_key(replica.folder, plan.name, filename)
            assert replica.storage.get(key) == bytes([day]) * (PART + day)
            assert replica.storage.get(manifest_key(key)) == plan.storage.get(manifest_key(plan.key(filename)))


def test_what_a_replica_has_is_not_copied_again(plan: Plan) -> None:
    completed(plan, NOW, b"one")
    assert len(replicate(plan, "run").made) == 2
    assert replicate(plan, "run").made == ()
    assert not list(plan.spool_directory.iterdir())


def test_a_replica_that_fails_keeps_no_other_from_its_copy_and_catches_up_later(plan: Plan) -> None:
    filename = completed(plan, NOW, b"one")
    gone = Storage(plan.storage._client, "no-such-bucket")
    copies = replicate(dataclasses.replace(plan, replicas=(Replica(gone, ""), plan.replicas[0])), "run")
    assert copies.made == (f"{filename} → {plan.replicas[0].storage.bucket}",)
    assert len(copies.problems) == 1
    assert "no-such-bucket" in copies.problems[0]
    assert replicate(plan, "run").made == (f"{filename} → {plan.replicas[1].storage.bucket}",)


def test_a_source_that_is_not_what_its_manifest_says_is_never_copied(plan: Plan) -> None:
    filename = completed(plan, NOW, b"one")
    plan.storage.put(plan.key(filename), b"onE")
    copies = replicate(plan, "run")
    assert copies.made == ()
    assert all("part 1" in problem for problem in copies.problems)
    for replica in plan.replicas:
        assert list(replica.storage.objects("")) == []
        assert replica.storage.unfinished("") == []


def test_a_manifest_that_is_not_the_recorded_one_does_not_replace_a_good_copy(plan: Plan) -> None:
    filename = completed(plan, NOW, b"one")
    replicate(plan, "run")
    copies = {replica.storage.bucket: _copied(plan, replica, filename) for replica in plan.replicas}
    forged = plan.key(filename), b"two"
    plan.storage.put(*forged)
    parts = (Part(1, 3, _sha256(b"two")),)
    plan.storage.put(manifest_key(plan.key(filename)), manifest_bytes(filename, forged[0], 3, _sha256(b"two"), parts))
    assert all("is not the manifest_sha256" in problem for problem in replicate(plan, "run").problems)
    assert {replica.storage.bucket: _copied(plan, replica, filename) for replica in plan.replicas} == copies


def _copied(plan: Plan, replica: Replica, filename: str) -> tuple[bytes, bytes]:
    key = object_key(replica.folder, plan.name, filename)
    return replica.storage.get(key), replica.storage.get(manifest_key(key))


def test_a_copy_that_died_is_cleared_and_made_again(plan: Plan) -> None:
    filename = completed(plan, NOW, b"one")
    replica = plan.replicas[0]
    replica.storage.begin(object_key(replica.folder, plan.name, filename))
    assert len(replicate(plan, "run").made) == 2
    assert replica.storage.unfinished("") == []


def behind(store: FaultyStore, plan: Plan, s3_server: S3Server) -> Plan:
    """The plan, whose one replica lies behind the faulty store."""
    session = boto3.Session(s3_server.access_key_id, s3_server.secret_access_key, region_name="us-east-1")
    own = plan.replicas[0]
    failing = Replica(Storage(make_client(session, store.endpoint_url), own.storage.bucket), own.folder)
    return dataclasses.replace(plan, replicas=(failing,))


@pytest.mark.parametrize("kept", ["object", "manifest"])
def test_a_copy_that_is_half_removed_is_made_again(plan: Plan, s3_server: S3Server, kept: str) -> None:
    filename = completed(plan, NOW, b"one")
    own = plan.replicas[0]
    with FaultyStore(s3_server.endpoint_url) as store:
        plan = behind(store, plan, s3_server)
        replicate(plan, "run")
        of_manifest = kept == "manifest"
        store.rule = lambda request: (
            404 if request.method == "DELETE" and request.key.endswith(MANIFEST_SUFFIX) is of_manifest else None
        )
        with pytest.raises(DeletionRefused, match="stays completed"):
            remove_backup(plan, plan.catalogue.rows(plan.name)[0], "deleted", "run", "olga")
        replicate(plan, "next run")
    key = object_key(own.folder, plan.name, filename)
    assert own.storage.get(key) == b"one"
    assert own.storage.get(manifest_key(key)) == plan.storage.get(manifest_key(plan.key(filename)))


def test_a_copy_goes_although_its_store_says_that_there_is_none(plan: Plan, s3_server: S3Server) -> None:
    completed(plan, NOW, b"one")
    own = plan.replicas[0]
    with FaultyStore(s3_server.endpoint_url) as store:
        plan = behind(store, plan, s3_server)
        replicate(plan, "run")
        store.rule = lambda request: 404 if request.method == "HEAD" else None
        remove_backup(plan, plan.catalogue.rows(plan.name)[0], "deleted", "run", "olga")
    assert list(own.storage.objects("")) == []


def test_retention_removes_the_copies_as_well(plan: Plan) -> None:
    old = completed(plan, NOW - timedelta(days=8), b"old")
    new = completed(plan, NOW, b"new")
    replicate(plan, "run")
    assert retain(plan, "run", "system", NOW).removed == (old,)
    for replica in plan.replicas:
        kept = object_key(replica.folder, plan.name, new)
        assert {stored.key for stored in replica.storage.objects("")} == {kept, manifest_key(kept)}
