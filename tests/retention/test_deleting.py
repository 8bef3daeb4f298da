"""Deleting one backup: what goes, in which order, what must stay, and what happens when several people do it at once."""

from __future__ import annotations

import hashlib
import itertools
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from threading import Barrier
from threading import Event as Signal
from typing import Any

import boto3
import pytest
from botocore.awsrequest import AWSResponse

from deployments.quick_start.s3 import REGION, S3Server
from tasks.catalogue.catalogue import Catalogue
from tasks.catalogue.rows import Event
from tasks.errors import (
    AlreadyRunning,
    BackupNotFound,
    BackupSystemError,
    BadSetting,
    DeletionRefused,
    Unreachable,
)
from tasks.names import FULL, backup_filename, manifest_key, object_key
from tasks.plans.plan import Plan, Policy, Replica
from tasks.postgres.dsn import parse
from tasks.postgres.locks import is_held, removal_lock
from tasks.rebuild_catalogue.rebuild import compare, write
from tasks.retention.debris import clear_orphans
from tasks.retention.delete import Deleted, delete_backup
from tasks.retention.removal import retain
from tasks.storage.backup_values import Part
from tasks.storage.s3 import Storage
from tasks.storage.s3_client import make_client
from tests.support import eventually
from tests.support.manifests import manifest_bytes
from tests.support.scene import in_words

NOW = datetime(2026, 3, 18, 12, tzinfo=UTC)
CONTENT = b"-- PostgreSQL database dump\n"
_numbers = itertools.count(1)


class Killed(BaseException):
    """The process dies here."""


class WatchedStorage(Storage):
    """A real store that notes what is deleted, and fails where the test says so."""

    deleted: list[str]
    before_delete: Callable[[str], None]

    def delete(self, key: str) -> bool:
        self.before_delete(key)
        kept = super().delete(key)
        self.deleted.append(f"{self.bucket}/{key}")
        return kept


class WatchedCatalogue(Catalogue):
    """A real catalogue that fails where the test says so."""

    before_remove: Callable[[str], None]

    def remove(self, filename: str, status: str, event: Event) -> None:
        self.before_remove(filename)
        super().remove(filename, status, event)


def nothing(_: str) -> None:
    return


def raising(error: BaseException, at: str) -> Callable[[str], None]:
    """To be called with a key or a file name: raises when it is `at`."""

    def call(name: str) -> None:
        if name == at:
            raise error

    return call


class Shelf:
    """A plan with a bucket of its own, two replicas, and the backups that a test puts there."""

    def __init__(self, client: Any, new_bucket: Callable[[], str], catalogue_url: str) -> None:
        self.deleted: list[str] = []
        self.client = client
        self.storage, *copies = (self._storage(new_bucket()) for _ in range(3))
        self.catalogue = WatchedCatalogue(parse(catalogue_url))
        self.catalogue.before_remove = nothing
        replicas = tuple(Replica(one, "copies") for one in copies)
        self.plan = Plan(
            f"shelf-{next(_numbers)}",
            parse(catalogue_url),
            self.catalogue,
            self.storage,
            "folder",
            Policy(days=7),
            replicas=replicas,
        )

    def _storage(self, bucket: str) -> WatchedStorage:
        storage = WatchedStorage(self.client, bucket)
        storage.deleted, storage.before_delete = self.deleted, nothing
        return storage

    def backup(self, days_old: float, suspicious: str = "", kind: str = FULL, status: str = "completed") -> str:
        """The file name of a backup with object, manifest and copies, and a row of this status."""
        at, run_id = NOW - timedelta(days=days_old), f"run-{days_old}"
        name = backup_filename(self.plan.name, run_id, at)
        key, sha256 = self.plan.key(name), hashlib.sha256(CONTENT).hexdigest()
        told = manifest_bytes(name, key, len(CONTENT), sha256, (Part(1, len(CONTENT), sha256),), self.plan.name)
        if status in ("completed", "in_progress"):
            for storage, place in self.places(name):
                storage.put(place, CONTENT)
                storage.put(manifest_key(place), told)
        backup_id = self.catalogue.open(name, key, self.plan.name, run_id, "test", at, kind)
        event = Event("backup", status, self.plan.name, "test", run_id, filename=name)
        if status == "failed":
            self.catalogue.fail(backup_id, "no room", event)
        elif status != "in_progress":
            facts = {
                "file_size": len(CONTENT),
                "plain_size": 1000,
                "table_count": 1,
                "completed_at": at,
                "manifest_sha256": hashlib.sha256(told).hexdigest(),
                "suspicious": suspicious,
            }
            self.catalogue.complete(backup_id, run_id, facts, {"bucket": self.storage.bucket}, event)
            self.catalogue.remove(name, status, event) if status != "completed" else None
        return name

    def places(self, name: str) -> list[tuple[Storage, str]]:
        """Where a backup and its copies lie."""
        copies = [(one.storage, object_key(one.folder, self.plan.name, name)) for one in self.plan.replicas]
        return [(self.storage, self.plan.key(name)), *copies]

    def delete(self, backup: str, confirm: str = "", run_id: str = "run-x", patience: float = 60) -> Deleted:
        return delete_backup(self.plan, backup, confirm, run_id, "olga", patience)

    def status(self) -> dict[str, str]:
        return {row.filename: row.status for row in self.catalogue.rows(self.plan.name)}

    def id_of(self, name: str) -> str:
        return next(str(row.id) for row in self.catalogue.rows(self.plan.name) if row.filename == name)

    def _noted(self, name: str, key: str) -> object:
        return next(row.metadata.get(key) for row in self.catalogue.rows(self.plan.name) if row.filename == name)

    def intent(self, name: str) -> object:
        """What the row says is being done to the backup."""
        return self._noted(name, "removal")

    def asked_by(self, name: str) -> object:
        return self._noted(name, "removal_by")

    def is_whole(self, name: str) -> bool:
        """Whether object, manifest and every copy are there."""
        return all(s.size(key) == len(CONTENT) and s.size(manifest_key(key)) for s, key in self.places(name))

    def is_gone(self, name: str) -> bool:
        return all(s.size(key) is None and s.size(manifest_key(key)) is None for s, key in self.places(name))

    def events(self) -> list[tuple[str, str, str, int | None]]:
        """Action, outcome, actor and bytes of the audit's lines about deletions."""
        with self.catalogue.cursor() as cursor:
            cursor.execute(
                "SELECT action, outcome, actor, bytes FROM backup_events WHERE plan = %s"
                " AND action = 'delete-backup' ORDER BY id",
                [self.plan.name],
            )
            return [tuple(row.values()) for row in cursor.fetchall()]


@pytest.fixture(scope="module")
def client(s3_server: S3Server) -> Any:
    session = boto3.Session(s3_server.access_key_id, s3_server.secret_access_key, region_name=REGION)
    return make_client(session, s3_server.endpoint_url)


@pytest.fixture
def shelf(client: Any, s3_bucket: Callable[[], str], catalogue_url: str) -> Shelf:
    return Shelf(client, s3_bucket, catalogue_url)


@contextmanager
def refusing(client: Any, code: str, status: int, bucket: str) -> Iterator[None]:
    """The store answers every deletion in a bucket with this error."""

    class Body:
        def stream(self, **_: Any) -> Iterator[bytes]:
            yield f"<Error><Code>{code}</Code><Message>no</Message></Error>".encode()

    def refuse(request: Any, **_: Any) -> AWSResponse | None:
        return AWSResponse(request.url, status, {}, Body()) if f"/{bucket}/" in request.url else None

    client.meta.events.register("before-send.s3.DeleteObject", refuse)
    try:
        yield
    finally:
        client.meta.events.unregister("before-send.s3.DeleteObject", refuse)


# --- what goes


def test_copies_go_first_each_after_its_manifest_then_object_then_manifest_and_the_row_stays_as_deleted(
    shelf: Shelf,
) -> None:
    old, new = shelf.backup(2), shelf.backup(1)
    done = shelf.delete(old)
    key, copy = shelf.plan.key(old), object_key("copies", shelf.plan.name, old)
    first, second = (one.storage.bucket for one in shelf.plan.replicas)
    both = lambda bucket, key: [f"{bucket}/{key}", f"{bucket}/{manifest_key(key)}"]  # noqa: E731
    copies = [*reversed(both(first, copy)), *reversed(both(second, copy))]
    assert shelf.deleted == [*copies, *both(shelf.storage.bucket, key)]
    assert shelf.status() == {new: "completed", old: "deleted"}
    assert shelf.is_whole(new) and shelf.is_gone(old)
    assert (done.filename, done.was, done.bytes) == (old, "completed", len(CONTENT))
    assert shelf.events() == [("delete-backup", "completed", "olga", len(CONTENT))]


@pytest.mark.parametrize("spelling", [lambda s, n: s.id_of(n), lambda s, n: f" {s.plan.key(n)}.manifest.json "])
def test_a_backup_can_be_named_by_its_id_or_its_key(shelf: Shelf, spelling: Callable[[Shelf, str], str]) -> None:
    old, _ = shelf.backup(2), shelf.backup(1)
    assert shelf.delete(spelling(shelf, old)).filename == old
    assert shelf.is_gone(old)


def test_deleting_twice_is_no_error_and_is_said(shelf: Shelf) -> None:
    old, _ = shelf.backup(2), shelf.backup(1)
    shelf.delete(old)
    shelf.deleted.clear()
    again = shelf.delete(old)
    assert again.was == "deleted" and "was deleted already" in again.message
    assert shelf.deleted == []


@pytest.mark.parametrize(
    ("status", "said"),
    [("expired", "retention has removed it"), ("missing", "missing from its bucket"), ("failed", "never completed")],
)
def test_what_is_not_there_is_said_and_touches_nothing(shelf: Shelf, status: str, said: str) -> None:
    other, gone = shelf.backup(1), shelf.backup(2, status=status)
    done = shelf.delete(gone)
    assert done.was == status and said in done.message
    assert shelf.status() == {gone: status, other: "completed"} and shelf.deleted == []


# --- what stays


def test_the_newest_goes_only_when_its_name_is_confirmed(shelf: Shelf) -> None:
    old, new = shelf.backup(2), shelf.backup(1)
    for confirm in ("", "yes", old, "latest", shelf.id_of(new)):
        with pytest.raises(DeletionRefused) as refused:
            shelf.delete(new, confirm)
        in_words(f"{new} is the newest completed backup of plan {shelf.plan.name}.* confirm", refused.value)
    assert shelf.is_whole(new) and shelf.is_whole(old)
    shelf.delete(new, f" {new} ")
    assert shelf.is_gone(new) and shelf.status()[new] == "deleted"


def test_the_last_of_all_is_the_newest(shelf: Shelf) -> None:
    old, new = shelf.backup(2), shelf.backup(1)
    shelf.delete(new, new)
    with pytest.raises(DeletionRefused, match="newest completed"):
        shelf.delete(old)


def test_a_safety_backup_does_not_stand_in_for_the_newest_full_one(shelf: Shelf) -> None:
    full, safety = shelf.backup(2), shelf.backup(1, kind="pre_restore")
    for name in (full, safety):
        with pytest.raises(DeletionRefused, match="newest completed"):
            shelf.delete(name)


def test_the_newest_that_is_not_suspicious_needs_confirmation_too(shelf: Shelf) -> None:
    good, _ = shelf.backup(2), shelf.backup(1, suspicious="its size shrank")
    with pytest.raises(DeletionRefused, match="not suspicious"):
        shelf.delete(good)
    assert shelf.delete(good, good).was == "completed"


def test_a_newest_whose_object_is_lost_does_not_count(shelf: Shelf) -> None:
    old, new = shelf.backup(2), shelf.backup(1)
    Storage(shelf.client, shelf.storage.bucket).delete(shelf.plan.key(new))
    with pytest.raises(DeletionRefused, match="newest backup whose file is still in the bucket"):
        shelf.delete(old)


@pytest.mark.parametrize("name", ["latest", "", "  ", "folder/latest"])
def test_a_person_must_name_what_goes(shelf: Shelf, name: str) -> None:
    backup = shelf.backup(1)
    with pytest.raises(BadSetting, match="give a file name or an id"):
        shelf.delete(name, backup)
    assert shelf.is_whole(backup)


@pytest.mark.parametrize("name", ["999999999", "backup_2026-01-01_00-00-00_00000000.sql", "x' OR 1=1 --", "a" * 5000])
def test_a_wrong_name_is_one_clear_sentence(shelf: Shelf, name: str) -> None:
    shelf.backup(1)
    with pytest.raises(BackupNotFound) as missed:
        shelf.delete(name)
    in_words("has no backup .* in its catalogue: give", missed.value)
    assert len(str(missed.value)) < 400


def test_a_backup_of_another_plan_is_not_deleted(shelf: Shelf, client: Any, s3_bucket: Any, catalogue_url: str) -> None:
    other = Shelf(client, s3_bucket, catalogue_url)
    name, _ = other.backup(2), other.backup(1)
    for spelling in (name, other.id_of(name)):
        with pytest.raises(BackupNotFound, match=f"is a backup of plan {other.plan.name}, not of"):
            shelf.delete(spelling)
    assert other.is_whole(name)


def test_one_in_progress_is_refused(shelf: Shelf) -> None:
    made = shelf.backup(1, status="in_progress")
    with pytest.raises(DeletionRefused, match="is still being made"):
        shelf.delete(made, made)
    assert shelf.is_whole(made) and shelf.status() == {made: "in_progress"}


def test_one_in_another_bucket_is_refused(shelf: Shelf, s3_bucket: Callable[[], str]) -> None:
    old, new = shelf.backup(2), shelf.backup(1)
    moved = replace(shelf.plan, storage=Storage(shelf.client, s3_bucket()), replicas=())
    with pytest.raises(DeletionRefused, match=f"lies in bucket {shelf.storage.bucket}, and plan"):
        delete_backup(moved, old, old, "run", "olga")
    assert shelf.is_whole(old) and shelf.is_whole(new)


def _started(shelf: Shelf, name: str, run_id: str, *outcomes: str, action: str = "restore") -> None:
    for outcome in ("started", *outcomes):
        shelf.catalogue.note(Event(action, outcome, shelf.plan.name, "olga", run_id, filename=name))


def test_one_that_is_being_read_is_refused_for_as_long_as_the_reader_lives(shelf: Shelf) -> None:
    old, _ = shelf.backup(2), shelf.backup(1)
    run_id = f"reader-{shelf.plan.name}"
    _started(shelf, old, run_id)
    _started(shelf, old, run_id, "completed", action="backup")  # the safety backup of the same run
    session = shelf.plan.database.connect(f"run {run_id}")
    with pytest.raises(DeletionRefused, match=f"is being read by restore .run {run_id} since"):
        shelf.delete(old, old)
    assert shelf.is_whole(old)
    session.close()
    assert shelf.delete(old).was == "completed"


def test_a_reader_that_has_ended_is_in_nobodys_way(shelf: Shelf) -> None:
    old, _ = shelf.backup(2), shelf.backup(1)
    run_id = f"reader-{shelf.plan.name}"
    _started(shelf, old, run_id, "failed")
    session = shelf.plan.database.connect(f"run {run_id}")
    assert shelf.delete(old).was == "completed"
    session.close()


# --- what fails


@pytest.mark.parametrize(
    ("code", "status", "said"),
    [
        (
            "AccessDenied",
            403,
            "{old} cannot be deleted from bucket {bucket}, .* stays completed.*AccessDenied.*Object Lock",
        ),
        (
            "ObjectLockedByBucketPolicy",
            403,
            "{old} is kept by bucket {bucket} by a rule, for now: its row stays completed",
        ),
    ],
)
@pytest.mark.parametrize("place", [0, 1], ids=["own bucket", "replica"])
def test_a_locked_object_is_a_clear_answer_and_the_backup_stays(
    shelf: Shelf, code: str, status: int, said: str, place: int
) -> None:
    old, _ = shelf.backup(2), shelf.backup(1)
    bucket = shelf.places(old)[place][0].bucket
    with refusing(shelf.client, code, status, bucket), pytest.raises(DeletionRefused) as refused:
        shelf.delete(old)
    in_words(said.format(old=old, bucket=bucket), refused.value)
    assert shelf.status()[old] == "completed"
    assert shelf.storage.size(shelf.plan.key(old)) == len(CONTENT)
    assert shelf.storage.size(manifest_key(shelf.plan.key(old)))


def test_a_store_that_takes_a_deletion_and_does_nothing_is_found_out(shelf: Shelf) -> None:
    old, _ = shelf.backup(2), shelf.backup(1)
    with (
        refusing(shelf.client, "", 204, shelf.storage.bucket),
        pytest.raises(DeletionRefused, match="is still in bucket"),
    ):
        shelf.delete(old)
    assert shelf.status()[old] == "completed"


def test_a_bucket_that_keeps_versions_is_told_of(catalogue_url: str, moto_server: str) -> None:
    client = make_client(boto3.Session("key", "secret", region_name=REGION), moto_server)

    def versioned() -> str:
        name = f"versioned-{next(_numbers)}"
        client.create_bucket(Bucket=name, ObjectLockEnabledForBucket=True)
        return name

    shelf = Shelf(client, versioned, catalogue_url)
    old, _ = shelf.backup(2), shelf.backup(1)
    said = shelf.delete(old).message
    assert shelf.is_gone(old) and f"Bucket {shelf.storage.bucket} keeps older versions" in said


@pytest.mark.parametrize("dies_at", range(7))
def test_killed_at_any_moment_it_is_completed_by_another_try(shelf: Shelf, dies_at: int) -> None:
    old, new = shelf.backup(2), shelf.backup(1)
    left = itertools.count()

    def die(_: str) -> None:
        if next(left) == dies_at:
            raise Killed

    for storage, _ in shelf.places(old):
        storage.before_delete = die  # type: ignore[attr-defined]
    shelf.catalogue.before_remove = die
    with pytest.raises(Killed):
        shelf.delete(old)
    assert shelf.status()[old] == "completed"
    assert shelf.delete(old).was == "completed"
    assert shelf.is_gone(old) and shelf.is_whole(new)
    assert shelf.status() == {old: "deleted", new: "completed"}


def test_an_expiry_that_died_before_the_object_went_means_nothing_once_retention_keeps_the_backup(shelf: Shelf) -> None:
    """Else its copies would be removed on the day that the object is lost for another reason."""
    kept, new = shelf.backup(2), shelf.backup(1)
    shelf.catalogue.begin_removal(kept, "expired", "system")
    retain(shelf.plan, "clean", "system", NOW)
    assert not shelf.intent(kept)
    assert shelf.is_whole(kept) and shelf.status() == {kept: "completed", new: "completed"}


@pytest.mark.parametrize("dies_at", [0, 4, 5, 6])
def test_killed_at_any_moment_it_is_told_truly_by_the_next_clean_up(shelf: Shelf, dies_at: int) -> None:
    """What was killed once the object had gone is deleted; before, it is completed, as if nobody had asked."""
    old, new = shelf.backup(2), shelf.backup(1)
    left = itertools.count()

    def die(_: str) -> None:
        if next(left) == dies_at:
            raise Killed

    for storage, _ in shelf.places(old):
        storage.before_delete = die  # type: ignore[attr-defined]
    shelf.catalogue.before_remove = die
    with pytest.raises(Killed):
        shelf.delete(old)
    would = retain(shelf.plan, "dry", "system", NOW, dry_run=True)
    assert shelf.status()[old] == "completed" and shelf.intent(old) == "deleted"
    done = retain(shelf.plan, "clean", "system", NOW)
    assert done.problems == () and done.removed == would.removed
    assert shelf.is_whole(new) and shelf.status()[new] == "completed"
    if dies_at < 5:
        assert done.removed == () and shelf.status()[old] == "completed" and shelf.intent(old) is None
        return
    assert done.removed == (old,) and shelf.status()[old] == "deleted" and shelf.is_gone(old)
    assert "was begun by a run that died" in done.decisions[-1].reasons[0]
    assert shelf.events() == [("delete-backup", "completed", "system", None)]
    assert shelf.asked_by(old) == "olga"
    assert shelf.delete(old).was == "deleted"


def test_a_newest_that_was_being_deleted_is_not_told_as_lost(shelf: Shelf) -> None:
    old, new = shelf.backup(9), shelf.backup(8)
    shelf.catalogue.before_remove = raising(Killed(), at=new)
    with pytest.raises(Killed):
        shelf.delete(new, new)
    shelf.catalogue.before_remove = nothing
    done = retain(shelf.plan, "clean", "system", NOW)
    assert (done.removed, done.problems) == ((new,), ())
    assert shelf.status() == {new: "deleted", old: "completed"}


def test_a_refused_deletion_leaves_nothing_in_the_row(shelf: Shelf) -> None:
    old, _ = shelf.backup(2), shelf.backup(1)
    with refusing(shelf.client, "AccessDenied", 403, shelf.storage.bucket), pytest.raises(DeletionRefused):
        shelf.delete(old)
    assert shelf.intent(old) is None
    Storage(shelf.client, shelf.storage.bucket).delete(shelf.plan.key(old))
    retain(shelf.plan, "clean", "system", NOW + timedelta(days=30))
    assert shelf.status()[old] == "missing"


@pytest.mark.parametrize("finder", ["rebuild-catalogue", "orphans"])
def test_whoever_finds_that_the_object_has_gone_knows_that_it_was_deleted(shelf: Shelf, finder: str) -> None:
    old, _ = shelf.backup(2), shelf.backup(1)
    shelf.storage.before_delete = raising(Killed(), at=manifest_key(shelf.plan.key(old)))
    with pytest.raises(Killed):
        shelf.delete(old)
    shelf.storage.before_delete = nothing
    if finder == "orphans":
        clear_orphans(shelf.plan, "run", "system", NOW, remove=True)
    else:
        [gone] = [one for one in compare(shelf.plan).changes if one.filename == old]
        assert gone.kind == "deleted"
        assert write(shelf.plan, [gone], "run", "system") == {old}
    assert shelf.status()[old] == "deleted"
    with shelf.catalogue.cursor() as cursor:
        cursor.execute("SELECT outcome FROM backup_events WHERE filename = %s AND run_id = 'run'", [old])
        assert cursor.fetchone()["outcome"] == "deleted"


def test_a_catalogue_that_breaks_at_the_end_is_caught_up_with(shelf: Shelf) -> None:
    old, _ = shelf.backup(2), shelf.backup(1)

    def broken(_: str) -> None:
        raise Unreachable("gone")

    shelf.catalogue.before_remove = broken
    with pytest.raises(Unreachable):
        shelf.delete(old)
    shelf.catalogue.before_remove = nothing
    assert "its file was gone from the bucket already" in shelf.delete(old).message
    assert shelf.status()[old] == "deleted"


def test_without_a_catalogue_nothing_is_deleted(shelf: Shelf) -> None:
    old, _ = shelf.backup(2), shelf.backup(1)
    lost = replace(shelf.plan, catalogue=Catalogue(shelf.plan.catalogue.dsn.with_dbname("no such database")))
    with pytest.raises(BackupSystemError):
        delete_backup(lost, old, old, "run", "olga")
    assert shelf.is_whole(old)


# --- several at once


def _at_once(shelf: Shelf, *names: str) -> list[Deleted | BackupSystemError]:
    """What becomes of deletions that begin at the same time."""
    barrier = Barrier(len(names))

    def one(number: int) -> Deleted | BackupSystemError:
        barrier.wait()
        try:
            return shelf.delete(names[number], run_id=f"run-{number}")
        except BackupSystemError as error:
            return error

    with ThreadPoolExecutor(len(names)) as pool:
        return list(pool.map(one, range(len(names))))


def test_of_two_that_are_deleted_at_once_the_newest_stays(shelf: Shelf) -> None:
    names = [shelf.backup(2), shelf.backup(1)]
    outcomes = _at_once(shelf, *names)
    assert shelf.status() == {names[0]: "deleted", names[1]: "completed"}
    assert isinstance(outcomes[0], Deleted) and isinstance(outcomes[1], DeletionRefused)
    assert shelf.is_whole(names[1])


def test_the_same_backup_deleted_by_four_at_once_is_deleted_once(shelf: Shelf) -> None:
    old, new = shelf.backup(2), shelf.backup(1)
    outcomes = _at_once(shelf, *[old] * 4)
    assert sorted(one.was for one in outcomes if isinstance(one, Deleted)) == ["completed", *["deleted"] * 3]
    assert [outcome for _, outcome, _, _ in shelf.events()] == ["completed"]
    assert shelf.is_whole(new)


def test_whoever_removes_for_long_is_named_and_nothing_is_deleted(shelf: Shelf) -> None:
    old, _ = shelf.backup(2), shelf.backup(1)
    with removal_lock(shelf.plan.catalogue.dsn, shelf.plan.name, "run copies"):
        with pytest.raises(AlreadyRunning) as refused:
            shelf.delete(old, patience=0.5)
    in_words("are being removed or copied by run copies since .*: wait for it to end", refused.value)
    assert shelf.is_whole(old)


def test_a_clean_up_waits_for_the_deletion_of_the_newest_and_keeps_what_was_due_until_then(shelf: Shelf) -> None:
    due, new = shelf.backup(30), shelf.backup(1)
    assert not retain(shelf.plan, "dry", "system", NOW, dry_run=True).decisions[1].keep
    cleaning = Signal()

    def in_the_middle(_: str) -> None:
        assert cleaning.wait(60)
        time.sleep(0.3)

    for storage, _ in shelf.places(new):
        storage.before_delete = in_the_middle  # type: ignore[attr-defined]
    with ThreadPoolExecutor(1) as pool:
        deletion = pool.submit(shelf.delete, new, new)
        assert eventually(lambda: _is_removing(shelf), 60)
        cleaning.set()
        done = retain(shelf.plan, "clean-up", "system", NOW)
        assert deletion.result().was == "completed"
    assert done.removed == () and shelf.is_whole(due)
    assert shelf.status() == {due: "completed", new: "deleted"}


def _is_removing(shelf: Shelf) -> bool:
    """Whether somebody holds the lock of removals."""
    with shelf.plan.catalogue.dsn.session("test") as server:
        return is_held(server, "removal", shelf.plan.name)
