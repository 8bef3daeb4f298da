"""In a bucket that keeps versions: what is kept is told, goes when that is asked for, and no backup goes with it."""

from __future__ import annotations

import html
import itertools
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import boto3
import pytest

from deployments.quick_start.s3 import REGION
from tasks.catalogue.rows import Event
from tasks.health.bucket import bucket_line, try_bucket
from tasks.names import PROBE, manifest_key
from tasks.retention.debris import Databases
from tasks.retention.removal import retain
from tasks.retention.steps import Cleaned, details, log_lines, retention_page
from tasks.retention.versions import Versions, clear_versions
from tasks.runs.at_once import Answer
from tasks.storage.s3 import Storage
from tasks.storage.s3_client import Version, make_client
from tests.retention.test_deleting import CONTENT, NOW, Shelf
from tests.support.recording_s3 import recording_s3

_numbers = itertools.count(1)


@pytest.fixture
def client(moto_server: str) -> Any:
    return make_client(boto3.Session("key", "secret", region_name=REGION), moto_server)


@pytest.fixture
def new_bucket(client: Any) -> Callable[[], str]:
    def make() -> str:
        name = f"with-versions-{next(_numbers)}"
        client.create_bucket(Bucket=name)
        client.put_bucket_versioning(Bucket=name, VersioningConfiguration={"Status": "Enabled"})
        return name

    return make


@pytest.fixture
def shelf(client: Any, new_bucket: Callable[[], str], catalogue_url: str) -> Shelf:
    return Shelf(client, new_bucket, catalogue_url)


def clear(shelf: Shelf, remove: bool = True, dry_run: bool = False, **more: int) -> tuple[Versions, ...]:
    return clear_versions(shelf.plan, "clean-up-run", "tester", remove, dry_run, **more)


def held(shelf: Shelf) -> dict[str, list[Version]]:
    """All that each bucket of the plan still has, older versions too."""
    return {storage.bucket: list(storage.versions("")) for storage, _ in shelf.places("x")}


def cleaned(shelf: Shelf, versions: tuple[Versions, ...]) -> Cleaned:
    return Cleaned(shelf.plan.name, False, retain(shelf.plan, "x", "x", NOW, True), Databases(), versions=versions)


def test_what_retention_removed_is_counted_and_goes_when_that_is_asked_for(shelf: Shelf) -> None:
    old, new = shelf.backup(20), shelf.backup(1)
    assert retain(shelf.plan, "run", "tester", NOW).removed == (old,)
    before = held(shelf)
    for asked in ({"remove": False}, {"dry_run": True}):
        for told in clear(shelf, **asked):
            assert (told.count, told.markers, told.removable, told.removed) == (2, 2, 4, 0)
            assert told.bytes > len(CONTENT)
    assert held(shelf) == before
    for told in clear(shelf):
        assert (told.removed, told.problems) == (4, ()) and told.removed_bytes == told.bytes
    assert shelf.is_whole(new) and shelf.is_gone(old)
    for versions in held(shelf).values():
        assert len(versions) == 2 and all(one.is_latest and not one.is_marker for one in versions)
    assert [told.removable for told in clear(shelf)] == [0, 0, 0]
    with shelf.catalogue.cursor() as cursor:
        cursor.execute(
            "SELECT filename, details->>'bucket' AS bucket, details->>'versions' AS versions FROM backup_events"
            " WHERE plan = %s AND outcome = 'versions removed' ORDER BY id",
            [shelf.plan.name],
        )
        noted = [tuple(row.values()) for row in cursor.fetchall()]
    assert noted == [(old, bucket, "2") for bucket in held(shelf) for _ in range(2)]


def test_retention_itself_says_that_no_room_became_free(shelf: Shelf) -> None:
    shelf.backup(20), shelf.backup(1)
    done = retain(shelf.plan, "run", "tester", NOW)
    assert done.versioned == tuple(sorted(held(shelf)))
    said = "\n".join(log_lines(Cleaned(shelf.plan.name, False, done, Databases())))
    for bucket in held(shelf):
        assert f"Bucket {bucket} keeps what was removed as older versions" in said


def test_nothing_goes_of_a_backup_whatever_became_of_its_object(shelf: Shelf) -> None:
    """Overwritten, deleted past the catalogue, back again, missing, foreign: the older version may be all there is."""
    overwritten, deleted, lost, back = (shelf.backup(days) for days in (2, 3, 4, 20))
    retain(shelf.plan, "run", "tester", NOW)
    assert shelf.status()[back] == "expired"
    stray = shelf.plan.key("backup_2026-01-01_00-00-00_00000000.sql")
    storage = shelf.storage
    for body in (b"of somebody", b"of somebody else"):
        storage.put(stray, body)
        storage.put(shelf.plan.prefix + "notes.txt", body)
    storage.put(shelf.plan.key(overwritten), b"written over")
    for name in (deleted, lost):
        storage.delete(shelf.plan.key(name))
    shelf.catalogue.remove(lost, "missing", _event(shelf, lost))
    [first, *_] = [one for one in storage.versions(shelf.plan.key(back)) if one.is_marker]
    storage.delete_version(first.key, first.id)  # the object is there again
    assert storage.size(shelf.plan.key(back)) == len(CONTENT)
    before = list(storage.versions(""))
    told = clear(shelf)[0]
    assert told.removable == 0 and told.count >= 5
    assert list(storage.versions("")) == before


def _event(shelf: Shelf, name: str) -> Any:
    return Event("retention", "missing", shelf.plan.name, "tester", "run", filename=name)


def test_versions_go_before_their_delete_markers_so_that_none_comes_back(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, _ = shelf.backup(20), shelf.backup(1)
    storage, key = shelf.storage, shelf.plan.key(old)
    storage.put(key, CONTENT + b"written twice")
    retain(shelf.plan, "run", "tester", NOW)
    real = Storage.delete_version
    allowed = itertools.cycle([True, False])

    def dying(self: Storage, name: str, version: str) -> None:
        if not next(allowed):
            raise KeyboardInterrupt
        real(self, name, version)

    monkeypatch.setattr(Storage, "delete_version", dying)
    for _ in range(5):
        with pytest.raises(KeyboardInterrupt):
            clear(shelf)
        assert storage.size(key) is None and storage.size(manifest_key(key)) is None
    monkeypatch.undo()
    clear(shelf)
    assert shelf.is_gone(old) and not list(storage.versions(key))


def test_a_version_that_the_bucket_locks_is_a_problem_and_keeps_no_other_from_going(shelf: Shelf) -> None:
    first, second, _ = shelf.backup(20), shelf.backup(30), shelf.backup(1)
    retain(shelf.plan, "run", "tester", NOW)
    real = Storage.delete_version
    locked = shelf.plan.key(first)

    class Locked(Storage):
        def delete_version(self, key: str, version: str) -> None:
            real(Storage(self._client, "no-such-bucket-at-all" if key == locked else self.bucket), key, version)

    plan = replace(shelf.plan, storage=Locked(shelf.client, shelf.storage.bucket), replicas=())
    [told] = clear_versions(plan, "run", "tester", True, False)
    assert len(told.problems) == 1 and told.problems[0].startswith(f"Older versions of {locked} stay in bucket")
    assert not list(shelf.storage.versions(shelf.plan.key(second)))
    assert [(one.key, one.is_marker) for one in shelf.storage.versions(locked)] == [(locked, False), (locked, True)]
    assert cleaned(shelf, (told,)).problems == told.problems


def test_the_clean_up_says_what_there_is_and_what_went(shelf: Shelf) -> None:
    shelf.backup(20), shelf.backup(1)
    retain(shelf.plan, "run", "tester", NOW)
    done = cleaned(shelf, clear(shelf, remove=False))
    [line, *_] = [line for line in log_lines(done) if "older versions" in line]
    assert line.startswith("2 older versions (") and line.endswith("4 of them of removed backups.")
    assert "remove_versions" in retention_page(done)
    assert details(done, False, False)["versions"] == 12
    done = cleaned(shelf, clear(shelf))
    assert "4 of these were removed (" in html.unescape(retention_page(done, remove_versions=True))
    assert "Run clean-up again with remove_versions" not in retention_page(done, remove_versions=True)


def test_of_a_bucket_with_very_many_versions_only_a_part_is_looked_at(shelf: Shelf) -> None:
    for days in range(20, 23):
        shelf.backup(days)
    shelf.backup(1)
    retain(shelf.plan, "run", "tester", NOW)
    told = clear(shelf, most=7)[0]
    assert told.is_cut and 0 < told.removed <= 7
    for _ in range(5):
        clear(shelf, most=7)
    assert all(one.is_latest and not one.is_marker for one in shelf.storage.versions(""))


def test_a_health_check_leaves_no_version_and_says_what_versions_mean(shelf: Shelf) -> None:
    for _ in range(2):
        tried = try_bucket(shelf.storage, shelf.plan.prefix, lambda: datetime.now(UTC))
        assert not tried.failures
    assert not list(shelf.storage.versions(""))
    line = bucket_line("Bucket", shelf.storage.bucket, Answer(tried))
    assert line.status == "ok" and "The bucket keeps versions" in line.what and "remove_versions" in line.what
    for _ in range(2):  # of an older version of this program
        shelf.storage.put(shelf.plan.prefix + PROBE, b"x")
        shelf.storage.delete(shelf.plan.prefix + PROBE)
    assert clear(shelf)[0].removed == 4 and not list(shelf.storage.versions(""))


def test_a_bucket_without_versions_or_a_store_that_does_not_know_them_is_passed_over(
    client: Any, catalogue_url: str
) -> None:
    def plain() -> str:
        client.create_bucket(Bucket=f"plain-{(number := next(_numbers))}")
        return f"plain-{number}"

    shelf = Shelf(client, plain, catalogue_url)
    shelf.backup(20), shelf.backup(1)
    retain(shelf.plan, "run", "tester", NOW)
    assert clear(shelf) == ()
    tried = try_bucket(shelf.storage, shelf.plan.prefix, lambda: datetime.now(UTC))
    assert not tried.keeps_versions and "versions" not in bucket_line("Bucket", "b", Answer(tried)).what
    session = boto3.Session("key", "secret", region_name=REGION)
    for refusal in ((501, "NotImplemented"), (403, "AccessDenied")):
        with recording_s3() as server:
            server.refusal = refusal
            assert Storage(make_client(session, server.endpoint_url), "b").versioning() == ""
