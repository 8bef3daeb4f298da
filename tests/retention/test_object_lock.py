"""What a bucket locks stays there as long as it says, which is told and is no failure; afterwards it goes."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
import pytest

from deployments.quick_start.s3 import REGION
from tasks.errors import BadSetting, DeletionRefused, ObjectLocked
from tasks.names import manifest_key
from tasks.retention.debris import Databases, clear_orphans
from tasks.retention.removal import Retained, retain
from tasks.retention.steps import Cleaned, log_lines, retention_page
from tasks.retention.versions import clear_versions
from tasks.storage.manifest_text import with_checksum
from tasks.storage.probe import lock_of
from tasks.storage.s3 import Storage
from tasks.storage.s3_client import ObjectLock, checked_lock, make_client
from tests.retention.test_deleting import NOW, Shelf, refusing
from tests.support.recorded import recorded_backup
from tests.support.recording_s3 import recording_s3

LOCKED = "until 20"
_numbers = itertools.count(1)


@pytest.fixture
def client(moto_server: str) -> Any:
    return make_client(boto3.Session("key", "secret", region_name=REGION), moto_server)


@pytest.fixture
def new_bucket(client: Any) -> Callable[[], str]:
    """Buckets with a default retention of 30 days, as the recipe for AWS makes them."""

    def make() -> str:
        name = f"with-lock-{next(_numbers)}"
        client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
        rule = {"DefaultRetention": {"Mode": "GOVERNANCE", "Days": 30}}
        client.put_object_lock_configuration(
            Bucket=name, ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": rule}
        )
        return name

    return make


@pytest.fixture
def shelf(client: Any, new_bucket: Callable[[], str], catalogue_url: str) -> Shelf:
    return Shelf(client, new_bucket, catalogue_url)


def end_locks(shelf: Shelf) -> None:
    """The days have passed."""
    past = datetime.now(UTC) - timedelta(days=1)
    for storage, _ in shelf.places("x"):
        for version in storage.versions(""):
            if not version.is_marker:
                storage.ask(
                    "put_object_retention",
                    Key=version.key,
                    VersionId=version.id,
                    Retention={"Mode": "GOVERNANCE", "RetainUntilDate": past},
                    BypassGovernanceRetention=True,
                )


def lines(shelf: Shelf, done: Retained, **more: Any) -> str:
    return "\n".join(log_lines(Cleaned(shelf.plan.name, False, done, Databases(), **more)))


# --- a bucket with Object Lock, which keeps versions


def test_in_a_bucket_with_default_retention_a_backup_expires_and_its_versions_go_when_the_lock_has_ended(
    shelf: Shelf,
) -> None:
    old, new = shelf.backup(20), shelf.backup(1)
    done = retain(shelf.plan, "run", "tester", NOW)
    assert (done.removed, done.problems) == ((old,), ())
    assert shelf.status() == {old: "expired", new: "completed"}
    assert len(done.kept) == 3 and all(f"An older version of {old} is kept by bucket" in one for one in done.kept)
    assert all(LOCKED in one for one in done.kept)
    assert done.kept[0] in lines(shelf, done)
    page = retention_page(Cleaned(shelf.plan.name, False, done, Databases()))
    assert "Kept by the lock of a bucket" in page

    tried = clear_versions(shelf.plan, "clean-up", "tester", True, False)
    assert [(one.removed, one.problems, len(one.locked)) for one in tried] == [(0, (), 2)] * 3
    said = lines(shelf, done, versions=tried)
    assert f"Those of 2 files are kept by the lock of the bucket, such as {tried[0].locked[0]}." in said
    assert shelf.storage.size(shelf.plan.key(old)) is None, "no version came back"

    end_locks(shelf)
    tried = clear_versions(shelf.plan, "clean-up", "tester", True, False)
    assert [(one.removed, one.problems, one.locked) for one in tried] == [(4, (), ())] * 3
    assert shelf.is_whole(new) and not list(shelf.storage.versions(shelf.plan.key(old)))


def test_a_person_who_deletes_is_told_until_when_the_bucket_keeps_the_bytes(shelf: Shelf) -> None:
    old, _ = shelf.backup(2), shelf.backup(1)
    said = shelf.delete(old).message
    assert f"{old} is deleted." in said and f"Bucket {shelf.storage.bucket} {LOCKED}" in said


# --- a bucket that refuses to delete, as R2 with a bucket lock


def test_what_a_bucket_lock_keeps_is_no_problem_and_goes_when_the_lock_has_ended(shelf: Shelf) -> None:
    old, new = shelf.backup(20), shelf.backup(1)
    with refusing(shelf.client, "ObjectLockedByBucketPolicy", 403, shelf.storage.bucket):
        done = retain(shelf.plan, "run", "tester", NOW)
        assert (done.removed, done.problems) == ((), ())
        [sentence] = [one for one in done.kept if old in one and "row stays" in one]
        assert sentence.startswith(f"{old} is kept by bucket {shelf.storage.bucket} until 20")
        [decision] = [one for one in done.decisions if one.backup.filename == old]
        assert decision.keep and decision.reasons == ("due, and kept by the lock of a bucket",)
        assert shelf.status()[old] == "completed" and shelf.intent(old) is None
        assert sentence in lines(shelf, done) and "0 removed" in lines(shelf, done)
    done = retain(shelf.plan, "the next day", "tester", NOW)
    assert done.removed == (old,) and shelf.status() == {old: "expired", new: "completed"}


def test_a_refusal_without_any_lock_stays_a_problem(client: Any, catalogue_url: str) -> None:
    def plain() -> str:
        client.create_bucket(Bucket=f"without-lock-{(number := next(_numbers))}")
        return f"without-lock-{number}"

    shelf = Shelf(client, plain, catalogue_url)
    old, _ = shelf.backup(20), shelf.backup(1)
    with refusing(shelf.client, "AccessDenied", 403, shelf.storage.bucket):
        done = retain(shelf.plan, "run", "tester", NOW)
    assert done.kept == () and len(done.problems) == 1 and "cannot be deleted" in done.problems[0]
    with refusing(shelf.client, "ObjectLockedByBucketPolicy", 403, shelf.storage.bucket):
        done = retain(shelf.plan, "run", "tester", NOW)
        assert (
            done.problems == () and f"{old} is kept by bucket" in done.kept[0] and "by a rule, for now" in done.kept[0]
        )
        with pytest.raises(DeletionRefused, match="by a rule, for now"):
            shelf.delete(old)


def test_orphans_that_a_bucket_lock_keeps_are_no_problem(client: Any, catalogue_url: str) -> None:
    def plain() -> str:
        client.create_bucket(Bucket=f"orphans-{(number := next(_numbers))}")
        return f"orphans-{number}"

    shelf = Shelf(client, plain, catalogue_url)
    shelf.backup(1)
    stray = shelf.plan.key("backup_2026-01-01_00-00-00_00000000.sql")
    shelf.storage.put(stray, b"half of it")
    with refusing(shelf.client, "ObjectLockedByBucketPolicy", 403, shelf.storage.bucket):
        found = clear_orphans(shelf.plan, "run", "tester", NOW, remove=True)
    assert found.problems == () and [one.goes for one in found.files] == [False]
    assert "A rule of the bucket keeps it for now." in found.files[0].why


# --- a plan that asks for a lock


def test_a_plan_asks_for_mode_and_days_of_every_backup_and_of_nothing_else(tmp_path: Path) -> None:
    with recording_s3() as server:
        made = make_client(boto3.Session("key", "secret", region_name=REGION), server.endpoint_url)
        storage = Storage(made, "bucket", lock=checked_lock("compliance", 30))
        storage.begin("folder/plan/backup")
        storage.put("folder/plan/backup.manifest.json", b"{}", locked=True)
        storage.put("folder/plan/.health-check", b"probe")
        upload, manifest, probe = server.requests
    for request in (upload, manifest):
        assert request.headers["x-amz-object-lock-mode"] == "COMPLIANCE"
        until = datetime.fromisoformat(request.headers["x-amz-object-lock-retain-until-date"])
        assert timedelta(days=29, hours=23) < until - datetime.now(UTC) < timedelta(days=30, minutes=1)
    assert not [name for name in probe.headers if name.startswith("x-amz-object-lock")]


def test_the_lock_of_a_manifest_is_the_one_that_was_asked_for(client: Any, shelf: Shelf) -> None:
    storage = Storage(client, shelf.storage.bucket, lock=ObjectLock("governance", 400))
    before = datetime.now(UTC)
    storage.put("a", b"1", locked=True)
    days = {f"until {at + timedelta(days=400):%Y-%m-%d}" for at in (before, datetime.now(UTC))}
    assert lock_of(storage, "a")[: len("until 2026-03-01")] in days
    assert lock_of(storage, "not there") == ""


def test_mode_and_days_belong_together() -> None:
    assert checked_lock("", 0) == ObjectLock()
    for mode, days in (("governance", 0), ("", 30)):
        with pytest.raises(BadSetting, match=r"Object lock mode is '.*' and Object lock days is \d+: give both"):
            checked_lock(mode, days)


def test_a_bucket_without_object_lock_is_named_before_the_backup_begins() -> None:
    with recording_s3() as server:
        made = make_client(boto3.Session("key", "secret", region_name=REGION), server.endpoint_url)
        server.refusal = (400, "InvalidRequest")
        with pytest.raises(
            BadSetting, match="asks for Object Lock: bucket shop must have it, or clear Object lock mode"
        ):
            Storage(made, "shop", lock=ObjectLock("governance", 1)).check_writable("folder/plan/")


class Locking(Storage):
    """A store where an earlier try has written the manifest, its answer was lost, and a lock lets nothing be replaced."""

    changed: dict[str, Any]

    def put(self, key: str, body: bytes, *more: Any, **named: Any) -> str:
        if not named.pop("locked", False):
            return super().put(key, body, *more, **named)
        super().put(key, with_checksum({**json.loads(body), **self.changed}), *more)
        raise ObjectLocked(f"{key} is kept")


def test_a_record_that_is_tried_again_takes_the_manifest_that_the_bucket_has_locked(shelf: Shelf) -> None:
    storage = Locking(shelf.client, shelf.storage.bucket)
    plan = replace(shelf.plan, storage=storage, replicas=())
    storage.changed = {"recorded_at": "2026-03-18T12:00:01+00:00"}
    backup = recorded_backup(plan, NOW)
    [row] = shelf.catalogue.rows(plan.name)
    written = storage.get(manifest_key(backup.key))
    assert row.is_completed and row.manifest_sha256 == hashlib.sha256(written).hexdigest()
    assert row.completed_at == datetime(2026, 3, 18, 12, 0, 1, tzinfo=UTC)
    storage.changed = {"run_id": "somebody else's"}
    with pytest.raises(ObjectLocked):
        recorded_backup(plan, NOW - timedelta(days=1))
