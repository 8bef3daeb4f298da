"""What proves that bytes reached the store, and came back, as they were sent; and answers that are wrong for once."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import boto3
import pytest

from deployments.quick_start.s3 import REGION, S3Server
from tasks.errors import Unreachable, UploadMismatch
from tasks.storage import s3_client
from tasks.storage.backup_values import Part
from tasks.storage.s3 import Storage
from tasks.storage.s3_client import Proofs, make_client
from tasks.stored_backups.backup_files import confirm
from tests.support.faulty_store import FaultyStore, Request
from tests.support.recording_s3 import UPLOAD_ID, RecordingS3, recording_s3

MIB = 1 << 20
KEY = "folder/plan/backup"


@pytest.fixture(autouse=True)
def asked_again_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_client, "ASKED_AGAIN", (0.0, 0.0))


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[FaultyStore]:
    with FaultyStore(s3_server.endpoint_url) as store:
        yield store


@pytest.fixture
def storage(proxy: FaultyStore, s3_server: S3Server, s3_bucket: Callable[[], str]) -> Storage:
    session = boto3.Session(s3_server.access_key_id, s3_server.secret_access_key, region_name=REGION)
    return Storage(make_client(session, proxy.endpoint_url), s3_bucket())


def parts_in(directory: Path, contents: list[bytes]) -> list[tuple[Part, Path]]:
    made = []
    for number, content in enumerate(contents, 1):
        file = directory / str(number)
        file.write_bytes(content)
        made.append((Part(number, len(content), hashlib.sha256(content).hexdigest()), file))
    return made


def stored(storage: Storage, parts: list[tuple[Part, Path]]) -> None:
    upload_id = storage.begin(KEY)
    storage.complete(KEY, upload_id, {part.number: storage.send(KEY, upload_id, part, file) for part, file in parts})


CONTENTS = [bytes([number]) * 5 * MIB for number in range(4)]


def times(count: int, fate: int | str, chosen: Callable[[Request], bool]) -> Callable[[Request], int | str | None]:
    """A rule: the first `count` requests that are `chosen` get this fate."""
    left = [count]

    def rule(request: Request) -> int | str | None:
        if request.is_check or not chosen(request) or left[0] == 0:
            return None
        left[0] -= 1
        return fate

    return rule


# --- what a store checks


def test_it_is_tried_once_whether_a_store_compares_the_signed_hash(storage: Storage, proxy: FaultyStore) -> None:
    assert storage.proofs(KEY) == storage.proofs(KEY) == Proofs(needs_md5=True, etag_is_md5=True)
    assert len(proxy.requests) == 3 and all(request.is_check for request in proxy.requests)
    assert storage.unfinished("") == [] and list(storage.objects("")) == []


def test_a_store_that_compares_it_gets_no_md5(tmp_path: Path) -> None:
    with recording_s3() as recording:
        storage = storage_of(recording)
        assert storage.proofs(KEY) == Proofs(needs_md5=False, etag_is_md5=False)
        [(part, file)] = parts_in(tmp_path, [b"content"])
        storage.send(KEY, UPLOAD_ID, part, file)
        assert "content-md5" not in recording.requests[-1].headers


def test_a_bucket_that_asks_for_a_content_md5_gets_it(tmp_path: Path) -> None:
    """As a bucket with Object Lock answers, which asks for it before it compares anything."""
    with recording_s3(asks_for_md5=True) as recording:
        storage = storage_of(recording)
        assert storage.proofs(KEY) == Proofs(needs_md5=True, etag_is_md5=False)
        [(part, file)] = parts_in(tmp_path, [b"content"])
        storage.send(KEY, UPLOAD_ID, part, file)
        storage.put("folder/plan/manifest.json", b"{}")
        assert recording.taken == {f"/bucket/{KEY} 1": b"content", "/bucket/folder/plan/manifest.json": b"{}"}


def storage_of(recording: RecordingS3) -> Storage:
    return Storage(make_client(boto3.Session("key", "secret", region_name=REGION), recording.endpoint_url), "bucket")


# --- bytes that change


def test_a_byte_that_changes_on_its_way_to_a_store_that_checks_nothing_is_sent_again(
    storage: Storage, proxy: FaultyStore, tmp_path: Path
) -> None:
    parts = parts_in(tmp_path, CONTENTS)
    proxy.rule = times(2, "altered", lambda request: request.part == 2)
    stored(storage, parts)
    assert proxy.parts_passed().count(2) == 3
    assert storage.get(KEY) == b"".join(CONTENTS)


def test_a_byte_that_changes_each_time_ends_the_upload(storage: Storage, proxy: FaultyStore, tmp_path: Path) -> None:
    proxy.rule = times(99, "altered", lambda request: request.part == 2)
    with pytest.raises(UploadMismatch, match=r"part 2 did not reach the store as it was dumped"):
        stored(storage, parts_in(tmp_path, CONTENTS))


def test_a_part_that_changed_on_the_disk_is_not_sent_to_a_store_that_checks_nothing(
    storage: Storage, proxy: FaultyStore, tmp_path: Path
) -> None:
    [(part, file)] = parts_in(tmp_path, [b"as dumped"])
    file.write_bytes(b"as dumpeD")
    with pytest.raises(UploadMismatch, match=r"part 1 has changed on the disk"):
        storage.send(KEY, storage.begin(KEY), part, file)
    assert proxy.parts_passed() == []


def test_where_nothing_proves_the_parts_others_than_the_first_and_last_are_read_back(
    storage: Storage, proxy: FaultyStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts = parts_in(tmp_path, CONTENTS)
    monkeypatch.setattr(storage, "_proofs", Proofs(needs_md5=True, etag_is_md5=False))
    proxy.rule = times(1, "altered", lambda request: request.part == 3)
    stored(storage, parts)
    with pytest.raises(UploadMismatch, match="part 3 does not read back"):
        confirm(storage, KEY, [part for part, _ in parts])


# --- answers that are wrong


@pytest.mark.parametrize(
    ("fate", "method"), [(404, "HEAD"), ("wrong", "GET"), (404, "GET"), ("cut", "GET"), ("no length", "HEAD")]
)
def test_a_first_wrong_answer_is_asked_for_again(
    storage: Storage, proxy: FaultyStore, tmp_path: Path, fate: int | str, method: str
) -> None:
    parts = parts_in(tmp_path, CONTENTS)
    stored(storage, parts)
    proxy.rule = times(1, fate, lambda request: request.method == method and request.key.endswith(KEY))
    confirm(storage, KEY, [part for part, _ in parts])


def test_a_size_that_head_leaves_out_is_listed(storage: Storage, proxy: FaultyStore) -> None:
    storage.put("folder/plan/a", b"12345")
    proxy.rule = lambda request: "no length" if request.method == "HEAD" else None
    assert storage.size("folder/plan/a") == 5


def test_an_answer_without_an_etag_is_one_sentence_and_may_be_tried_again(
    storage: Storage, proxy: FaultyStore, tmp_path: Path
) -> None:
    [(part, file)] = parts_in(tmp_path, [b"content"])
    upload_id = storage.begin(KEY)
    proxy.rule = times(1, "no etag", lambda request: request.part == 1)
    with pytest.raises(Unreachable, match=r"part 1 of .* has no ETag"):
        storage.send(KEY, upload_id, part, file)
    assert storage.send(KEY, upload_id, part, file)


@pytest.mark.parametrize("fate", ["cut", "short"])
def test_a_short_answer_says_that_the_store_broke_off_not_that_the_backup_is_damaged(
    storage: Storage, proxy: FaultyStore, fate: str
) -> None:
    storage.put("folder/plan/a", bytes(1000))
    proxy.rule = lambda request: fate if request.start >= 0 else None
    with pytest.raises(Unreachable):
        list(storage.read("folder/plan/a", 100, 500))
    proxy.rule = lambda request: None
    assert list(storage.read("folder/plan/a", 100, 500)) == [bytes(500)]
