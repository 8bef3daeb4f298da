"""The upload, against a real S3 server: it resumes, follows the dump's tries, and believes nothing it has not seen."""

from __future__ import annotations

import hashlib
import itertools
import secrets
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import boto3
import pytest
from botocore.config import Config
from hypothesis import given
from hypothesis import strategies as st

from deployments.quick_start.s3 import REGION, S3Server
from tasks.backup.dump import PartWriter
from tasks.backup.upload import JOURNAL, Shipper, part_size_for, read_journal
from tasks.errors import AccessRefused, DumpFailed, Stopped, Unreachable, UploadMismatch, UploadUnknown
from tasks.storage.backup_stages import StoredObject
from tasks.storage.backup_values import Part
from tasks.storage.s3 import Storage
from tasks.storage.s3_client import SMALLEST_PART, make_client
from tasks.storage.spool import Spool
from tasks.stored_backups.backup_files import confirm

PART_SIZE = 5 << 20  # bytes: the least that S3 joins
LIMIT = 1 << 30
KEY = "database-backups/shop/backup_2026-03-01_02-00-00_9f2c41ab.sql"
NOW = datetime(2026, 3, 1, 2, 5, tzinfo=UTC)


class FailingStorage(Storage):
    """A real store that counts what is sent, and fails where the test says so."""

    sent: list[int]
    before_send: Callable[[Part], None]
    after_complete: Callable[[], None]

    def send(self, key: str, upload_id: str, part: Part, file: Path) -> str:
        self.before_send(part)
        etag = super().send(key, upload_id, part, file)
        self.sent.append(part.number)
        return etag

    def complete(self, key: str, upload_id: str, etags: dict[int, str]) -> str:
        etag = super().complete(key, upload_id, etags)
        self.after_complete()
        return etag


class Sink:
    """Takes parts of any size, as no store does, and keeps their sizes alone."""

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}

    def begin(self, key: str) -> str:
        return "upload"

    def send(self, key: str, upload_id: str, part: Part, file: Path) -> str:
        self.sizes[part.number] = len(file.read_bytes())
        return "etag"

    def acknowledged(self, key: str, upload_id: str) -> dict[int, int]:
        return self.sizes

    def complete(self, key: str, upload_id: str, etags: dict[int, str]) -> str:
        return "etag"


@pytest.fixture(scope="module")
def client(s3_server: S3Server) -> object:
    session = boto3.Session(s3_server.access_key_id, s3_server.secret_access_key, region_name=REGION)
    once = Config(retries={"total_max_attempts": 1}, read_timeout=10)
    return make_client(session, s3_server.endpoint_url, once)


@pytest.fixture
def storage(client: object, s3_bucket: Callable[[], str]) -> FailingStorage:
    made = FailingStorage(client, s3_bucket())
    made.sent = []
    made.before_send = lambda part: None
    made.after_complete = lambda: None
    return made


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    (tmp_path / "spool").mkdir()
    return Spool(tmp_path / "spool", PART_SIZE, LIMIT)


def write(spool: Spool, content: bytes) -> tuple[Part, ...]:
    """One whole try of a dump: its parts, and the note that there are no more."""
    attempt = spool.begin_attempt()
    writer = PartWriter(spool, attempt)
    writer.write(memoryview(content))
    parts = writer.close()
    spool.finish(attempt, len(parts))
    return parts


def ship(spool: Spool, storage: Storage) -> StoredObject:
    return Shipper(spool, storage, KEY).ship(lambda: NOW, lambda done: None)


def failing_once(error: Exception, at: int) -> Callable[[Part], None]:
    """To be called before each part is sent: raises at the n-th call."""
    calls = itertools.count(1)

    def before_send(part: Part) -> None:
        if next(calls) == at:
            raise error

    return before_send


def shipping(spool: Spool, storage: Storage) -> tuple[ThreadPoolExecutor, Future[StoredObject]]:
    pool = ThreadPoolExecutor(1)
    return pool, pool.submit(ship, spool, storage)


def wait_until(condition: Callable[[], object]) -> None:
    patience = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < patience, "it did not happen"
        time.sleep(0.01)


# --- all goes well


def test_what_was_dumped_is_what_is_stored(spool: Spool, storage: FailingStorage) -> None:
    content = secrets.token_bytes(3 * PART_SIZE + 1234)
    parts = write(spool, content)
    stored = ship(spool, storage)
    assert storage.get(KEY) == content
    assert (stored.key, stored.size, stored.parts, stored.finished_at) == (KEY, len(content), parts, NOW)
    assert sorted(storage.sent) == [1, 2, 3, 4]
    assert spool.ready(1) == []  # what is acknowledged takes no room
    assert storage.unfinished("") == []


def test_all_parts_but_the_last_are_of_one_size(spool: Spool, storage: FailingStorage) -> None:
    write(spool, bytes(2 * PART_SIZE + 1))
    stored = ship(spool, storage)
    assert [part.size for part in stored.parts] == [PART_SIZE, PART_SIZE, 1]


def test_parts_are_shipped_while_the_dump_still_writes(spool: Spool, storage: FailingStorage) -> None:
    attempt = spool.begin_attempt()
    writer = PartWriter(spool, attempt)
    pool, shipped = shipping(spool, storage)
    with pool:
        writer.write(memoryview(bytes(2 * PART_SIZE)))
        wait_until(lambda: sorted(storage.sent) == [1, 2])
        assert storage.size(KEY) is None
        writer.write(memoryview(b"rest"))
        spool.finish(attempt, len(writer.close()))
        assert shipped.result(20).size == 2 * PART_SIZE + 4


def test_progress_counts_acknowledged_bytes(spool: Spool, storage: FailingStorage) -> None:
    write(spool, bytes(2 * PART_SIZE))
    told: list[int] = []
    Shipper(spool, storage, KEY).ship(lambda: NOW, told.append)
    assert told == sorted(told)
    assert set(told) <= {0, PART_SIZE, 2 * PART_SIZE}


# --- another try


def test_another_try_sends_only_the_rest(spool: Spool, storage: FailingStorage) -> None:
    content = secrets.token_bytes(6 * PART_SIZE)
    write(spool, content)
    storage.before_send = failing_once(Unreachable("The store does not answer."), at=4)
    with pytest.raises(Unreachable):
        ship(spool, storage)
    first_try = list(storage.sent)
    journal = read_journal(spool)
    assert journal is not None and sorted(journal.etags) == sorted(first_try)
    assert 3 <= len(first_try) < 6
    storage.before_send = lambda part: None
    ship(spool, storage)
    assert sorted(storage.sent) == [1, 2, 3, 4, 5, 6]  # none of them twice
    assert storage.get(KEY) == content
    assert storage.unfinished("") == []


def test_a_part_whose_acknowledgement_was_lost_is_sent_again(spool: Spool, storage: FailingStorage) -> None:
    content = secrets.token_bytes(2 * PART_SIZE)
    part = write(spool, content)[0]
    ship_one = Shipper(spool, storage, KEY)
    assert ship_one.ship_one()
    journal = read_journal(spool)
    assert journal is not None
    # The store has part 2 as well, and the journal does not know it.
    [second] = spool.ready(1)
    storage.send(KEY, journal.upload_id, second, spool.part_file(1, second))
    assert ship(spool, storage).parts == (part, second)
    assert storage.get(KEY) == content


def test_a_part_that_was_acknowledged_but_not_discarded_is_not_counted_twice(
    spool: Spool, storage: FailingStorage
) -> None:
    content = secrets.token_bytes(2 * PART_SIZE)
    first, _ = write(spool, content)
    kept = spool.part_file(1, first).read_bytes()
    assert Shipper(spool, storage, KEY).ship_one()
    spool.part_file(1, first).write_bytes(kept)  # as if the try had died right after its note in the journal
    assert ship(spool, storage).size == len(content)
    assert sorted(storage.sent) == [1, 2]
    assert spool.ready(1) == []
    assert storage.get(KEY) == content


def test_the_journal_says_what_the_store_has_acknowledged(spool: Spool, storage: FailingStorage) -> None:
    assert read_journal(spool) is None
    parts = write(spool, bytes(2 * PART_SIZE + 7))
    shipper = Shipper(spool, storage, KEY)
    for number in (1, 2, 3):
        assert shipper.ship_one()
        journal = read_journal(spool)
        assert journal is not None
        assert tuple(journal.parts.values()) == parts[:number]
        assert [(KEY, journal.upload_id)] == storage.unfinished("")
        assert storage.acknowledged(KEY, journal.upload_id) == {part.number: part.size for part in parts[:number]}
    assert not shipper.ship_one()


def test_a_part_whose_line_in_the_journal_was_cut_off_is_sent_again(spool: Spool, storage: FailingStorage) -> None:
    content = secrets.token_bytes(3 * PART_SIZE)
    parts = write(spool, content)
    kept = {part: spool.part_file(1, part).read_bytes() for part in parts}
    shipper = Shipper(spool, storage, KEY)
    assert shipper.ship_one() and shipper.ship_one()
    file = spool.directory / JOURNAL
    whole = file.read_bytes()
    for end in range(whole.rindex(b"\n"), len(whole)):
        file.write_bytes(whole[:end])
        journal = read_journal(spool)
        assert journal is not None and list(journal.parts) == [1]
    spool.part_file(1, parts[1]).write_bytes(kept[parts[1]])  # the try died before it was discarded
    assert ship(spool, storage).parts == parts
    assert sorted(storage.sent) == [1, 2, 2, 3]
    assert storage.get(KEY) == content


def test_what_is_written_and_listed_for_a_part_does_not_grow_with_the_number_of_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small, many = 16, 3_000
    (tmp_path / "spool").mkdir()
    spool = Spool(tmp_path / "spool", small, many * small)
    listed: list[int] = []
    ready = spool.ready
    monkeypatch.setattr(Spool, "ready", lambda self, attempt: listed.append(len(all_ := ready(attempt))) or all_)
    monkeypatch.setattr("tasks.backup.upload.confirm", lambda storage, key, parts: None)
    parts = write(spool, secrets.token_bytes(many * small))  # the worst that can be: all of them wait
    stored = Shipper(spool, Sink(), KEY).ship(lambda: NOW, lambda done: None)  # type: ignore[arg-type]
    assert stored.parts == parts and len(parts) == many
    journal = (spool.directory / JOURNAL).read_bytes().split(b"\n")
    assert len(journal) == 1 + many and max(map(len, journal)) < 150
    assert sum(listed) < 3 * many, "each part listed all that were there"


# --- another try of the dump


def test_a_new_try_of_the_dump_voids_what_was_uploaded_of_the_former(spool: Spool, storage: FailingStorage) -> None:
    attempt = spool.begin_attempt()
    writer = PartWriter(spool, attempt)
    writer.write(memoryview(b"1" * 2 * PART_SIZE))
    pool, shipped = shipping(spool, storage)
    with pool:
        wait_until(lambda: len(storage.sent) == 2)
        [(_, first_upload)] = storage.unfinished("")
        content = secrets.token_bytes(PART_SIZE + 99)
        parts = write(spool, content)
        stored = shipped.result(20)
    assert stored.parts == parts
    assert storage.get(KEY) == content
    assert storage.unfinished("") == []
    with pytest.raises(UploadUnknown):
        storage.acknowledged(KEY, first_upload)


def test_a_part_of_a_former_try_that_is_on_its_way_is_let_go(spool: Spool, storage: FailingStorage) -> None:
    """The dump starts over at the very moment between claiming a part and opening its file."""
    content = secrets.token_bytes(PART_SIZE + 5)
    write(spool, b"1" * 2 * PART_SIZE)
    started_over: list[tuple[Part, ...]] = []

    def start_over(part: Part) -> None:
        if not started_over:
            started_over.append(())
            started_over[0] = write(spool, content)

    storage.before_send = start_over
    stored = ship(spool, storage)
    assert stored.parts == started_over[0]
    assert storage.get(KEY) == content
    assert storage.unfinished("") == []


def test_a_dump_of_too_many_parts_starts_over_with_larger_ones(tmp_path: Path, storage: FailingStorage) -> None:
    spool = Spool(tmp_path, PART_SIZE, LIMIT, most_parts=2)
    content = secrets.token_bytes(3 * PART_SIZE)
    pool, shipped = shipping(spool, storage)
    with pool:
        with pytest.raises(DumpFailed, match="more than 2 parts"):
            write(spool, content)
        parts = write(spool, content)
        stored = shipped.result(20)
    assert stored.parts == parts
    assert [part.size for part in parts] == [3 * PART_SIZE]
    assert storage.get(KEY) == content
    assert storage.unfinished("") == []


# --- what must never pass for an upload


def test_a_dump_that_stops_midway_makes_no_object(spool: Spool, storage: FailingStorage) -> None:
    attempt = spool.begin_attempt()
    PartWriter(spool, attempt).write(memoryview(bytes(PART_SIZE)))
    pool, shipped = shipping(spool, storage)
    with pool:
        wait_until(lambda: storage.sent)
        spool.stop("The dump failed.")
        with pytest.raises(Stopped, match="The dump failed"):
            shipped.result(20)
    assert storage.size(KEY) is None


def test_a_part_that_vanished_ends_the_upload_at_once(spool: Spool, storage: FailingStorage) -> None:
    parts = write(spool, bytes(2 * PART_SIZE + 1))
    storage.before_send = lambda part: spool.part_file(1, parts[1]).unlink(missing_ok=True)
    pool, shipped = shipping(spool, storage)
    with pool:
        try:
            with pytest.raises(UploadMismatch, match=r"vanished|other parts"):
                shipped.result(20)
        finally:
            spool.stop("The test is over.")
    assert storage.size(KEY) is None


def test_an_error_that_nobody_foresaw_ends_the_upload_at_once(spool: Spool, storage: FailingStorage) -> None:
    PartWriter(spool, spool.begin_attempt()).write(memoryview(bytes(4 * PART_SIZE)))
    storage.before_send = failing_once(PermissionError("no"), at=1)
    pool, shipped = shipping(spool, storage)
    with pool:
        try:
            with pytest.raises(PermissionError):
                shipped.result(20)
        finally:
            spool.stop("The test is over.")


def test_an_error_of_progress_ends_the_upload_at_once(spool: Spool, storage: FailingStorage) -> None:
    PartWriter(spool, spool.begin_attempt()).write(memoryview(bytes(PART_SIZE)))

    def broken(done: int) -> None:
        raise InterruptedError("cancelled")

    with ThreadPoolExecutor(1) as pool:
        shipped = pool.submit(Shipper(spool, storage, KEY).ship, lambda: NOW, broken)
        try:
            with pytest.raises(InterruptedError):
                shipped.result(20)
        finally:
            spool.stop("The test is over.")


def test_refused_credentials_end_the_upload_at_once(spool: Spool, storage: FailingStorage) -> None:
    write(spool, bytes(4 * PART_SIZE))
    storage.before_send = failing_once(AccessRefused("The store refused."), at=2)
    with pytest.raises(AccessRefused):
        ship(spool, storage)


def test_an_upload_that_somebody_aborted_is_not_taken_for_completed(spool: Spool, storage: FailingStorage) -> None:
    write(spool, bytes(2 * PART_SIZE))
    shipper = Shipper(spool, storage, KEY)
    assert shipper.ship_one() and shipper.ship_one()
    [(key, upload_id)] = storage.unfinished("")
    storage.abort(key, upload_id)
    with pytest.raises(UploadUnknown):
        ship(spool, storage)
    assert storage.size(KEY) is None


@pytest.mark.parametrize("damage", ["cut", "flipped", "grown"])
@pytest.mark.parametrize("number", [1, 3])
def test_a_part_file_that_changed_on_the_disk_never_becomes_a_backup(
    spool: Spool, storage: FailingStorage, damage: str, number: int
) -> None:
    parts = write(spool, secrets.token_bytes(3 * PART_SIZE))
    file = spool.part_file(1, parts[number - 1])
    content = bytearray(file.read_bytes())
    file.write_bytes(
        {"cut": content[:-1], "flipped": bytes([content[0] ^ 1]) + content[1:], "grown": content + b"x"}[damage]
    )
    with pytest.raises(UploadMismatch):
        ship(spool, storage)


def test_parts_that_the_store_lost_are_noticed_before_they_are_joined(spool: Spool, storage: FailingStorage) -> None:
    write(spool, secrets.token_bytes(2 * PART_SIZE))
    shipper = Shipper(spool, storage, KEY)
    assert shipper.ship_one() and shipper.ship_one()
    journal = read_journal(spool)
    assert journal is not None
    other = spool.directory / "other"
    other.write_bytes(bytes(PART_SIZE + 1))
    changed = Part(2, PART_SIZE + 1, hashlib.sha256(other.read_bytes()).hexdigest())
    storage.send(KEY, journal.upload_id, changed, other)
    with pytest.raises(UploadMismatch, match="other parts"):
        ship(spool, storage)
    assert storage.size(KEY) is None


# --- the answer to the completion is lost


@pytest.mark.parametrize("answer", [Unreachable("No answer."), UploadUnknown("Gone.")])
def test_a_completion_whose_answer_was_lost_counts_when_the_object_is_whole(
    spool: Spool, storage: FailingStorage, answer: Exception
) -> None:
    content = secrets.token_bytes(PART_SIZE + 17)
    parts = write(spool, content)

    def lose() -> None:
        raise answer

    storage.after_complete = lose
    if isinstance(answer, Unreachable):
        with pytest.raises(Unreachable):
            ship(spool, storage)
    stored = ship(spool, storage)
    assert (stored.size, stored.parts) == (len(content), parts)
    assert sorted(storage.sent) == [1, 2]
    assert storage.get(KEY) == content


def test_a_lost_answer_does_not_excuse_another_object_in_its_place(spool: Spool, storage: FailingStorage) -> None:
    write(spool, secrets.token_bytes(PART_SIZE))

    def lose() -> None:
        raise Unreachable("No answer.")

    storage.after_complete = lose
    with pytest.raises(Unreachable):
        ship(spool, storage)
    storage.put(KEY, b"shorter")
    with pytest.raises(UploadUnknown):
        ship(spool, storage)
    storage.put(KEY, bytes(PART_SIZE))
    with pytest.raises(UploadMismatch, match="does not read back"):
        ship(spool, storage)


# --- confirmation


def parts_of(content: bytes, size: int) -> list[Part]:
    slices = [content[start : start + size] for start in range(0, len(content), size)]
    return [Part(number, len(one), hashlib.sha256(one).hexdigest()) for number, one in enumerate(slices, 1)]


CONTENT = bytes(range(256)) * 10  # 2560 bytes: two parts of 1000 and one of 560


@pytest.mark.parametrize("size", [1000, 2560, 256])
def test_an_object_that_is_what_was_sent_is_confirmed(storage: FailingStorage, size: int) -> None:
    storage.put(KEY, CONTENT)
    confirm(storage, KEY, parts_of(CONTENT, size))


@pytest.mark.parametrize(
    ("stored", "complaint"),
    [
        (CONTENT[:-1], "sent 2560 bytes, the store holds 2559"),
        (CONTENT + b"x", "sent 2560 bytes, the store holds 2561"),
        (b"", "sent 2560 bytes, the store holds 0"),
        (b"x" + CONTENT[1:], "part 1 does not read back"),
        (CONTENT[:-1] + b"x", "part 3 does not read back"),
        (CONTENT[1:] + CONTENT[:1], "part 1 does not read back"),
    ],
)
def test_an_object_that_is_not_what_was_sent_is_noticed(storage: FailingStorage, stored: bytes, complaint: str) -> None:
    storage.put(KEY, stored)
    with pytest.raises(UploadMismatch, match=complaint):
        confirm(storage, KEY, parts_of(CONTENT, 1000))


def test_an_object_that_is_not_there_is_noticed(storage: FailingStorage) -> None:
    with pytest.raises(UploadMismatch, match="the store holds 0"):
        confirm(storage, KEY, parts_of(CONTENT, 1000))


# --- the size of parts


@pytest.mark.parametrize(
    ("expected_size", "most_parts", "size"),
    [
        (0, 10_000, SMALLEST_PART),
        (50 << 20, 10_000, SMALLEST_PART),
        (80_000 << 20, 10_000, 16 << 20),
        ((80_000 << 20) + 1, 10_000, 17 << 20),
        (15 << 30, 1_000, 31 << 20),
        (1 << 30, 1, 2 << 30),
    ],
)
def test_the_part_size_grows_with_the_database(expected_size: int, most_parts: int, size: int) -> None:
    assert part_size_for(expected_size, most_parts) == size


@given(st.integers(0, 1 << 44), st.integers(1, 10_000))
def test_twice_the_expected_size_fits_into_the_parts(expected_size: int, most_parts: int) -> None:
    size = part_size_for(expected_size, most_parts)
    assert size * most_parts >= 2 * expected_size
    assert size >= SMALLEST_PART and size % (1 << 20) == 0
