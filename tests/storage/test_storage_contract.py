"""What every store must do: one suite, run against an S3 server on disk (nanio) and in memory (moto)."""

from __future__ import annotations

import hashlib
import itertools
import secrets
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import IPv4Address
from pathlib import Path
from ssl import PROTOCOL_TLS_SERVER, SSLContext
from threading import Thread
from typing import Any

import boto3
import pytest
from botocore.config import Config
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from prefect_aws import AwsCredentials
from prefect_aws.client_parameters import AwsClientParameters

from deployments.quick_start.processes import free_port
from deployments.quick_start.s3 import REGION, S3Server
from tasks.errors import AccessRefused, BackupSystemError, BadSetting, Unreachable, UploadMismatch, UploadUnknown
from tasks.plans.blocks import s3_client
from tasks.storage.backup_values import Part
from tasks.storage.s3 import WRITE_CHECK, Storage
from tasks.storage.s3_client import Encryption, default_region, make_client
from tests.support.recording_s3 import UPLOAD_ID, RecordingS3, Request, recording_s3

MIB = 1 << 20
SECRET = "marker-S3cr3t/of+the=test"
ONCE = Config(retries={"mode": "standard", "total_max_attempts": 1}, connect_timeout=2)
ODD_KEYS = (
    "folder/with blanks  two.sql",
    "folder/ümläut-ß-日本-💾.sql",
    "folder/100% plus+and&amp;.sql",
    "folder/single'double\"quotes.sql",
    "folder/semi;colon=equals?question#hash.sql",
    "folder/-dash~tilde(brackets)[square]*.sql",
)


@dataclass(frozen=True)
class Store:
    """One server: how to reach it, and an empty bucket of the test's own."""

    name: str
    endpoint_url: str
    access_key_id: str
    secret: str
    bucket: str

    def client(self) -> Any:
        return make_client(session_of(self.access_key_id, self.secret, REGION), self.endpoint_url, ONCE)

    def storage(self, **changes: str) -> Storage:
        other = replace(self, **changes)
        return Storage(other.client(), other.bucket)


_numbers = itertools.count(1)


@cache
def session_of(access_key_id: str, secret: str, region: str) -> boto3.Session:
    """A session; the clients of one session are made fast."""
    return boto3.Session(access_key_id, secret, region_name=region)


@pytest.fixture(params=["nanio", "moto"])
def store(request: pytest.FixtureRequest) -> Store:
    if request.param == "nanio":
        server: S3Server = request.getfixturevalue("s3_server")
        bucket: Callable[[], str] = request.getfixturevalue("s3_bucket")
        return Store("nanio", server.endpoint_url, server.access_key_id, server.secret_access_key, bucket())
    made = Store("moto", request.getfixturevalue("moto_server"), "key", "secret", f"contract-{next(_numbers)}")
    made.client().create_bucket(Bucket=made.bucket)
    return made


@pytest.fixture
def storage(store: Store) -> Storage:
    return store.storage()


@pytest.fixture
def recording() -> Iterator[RecordingS3]:
    with recording_s3() as server:
        yield server


@pytest.fixture(autouse=True)
def _no_keys_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "no-config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "no-credentials"))


def part_on_disk(directory: Path, number: int, content: bytes) -> tuple[Part, Path]:
    file = directory / f"part-{number}"
    file.write_bytes(content)
    return Part(number, len(content), hashlib.sha256(content).hexdigest()), file


def upload_parts(storage: Storage, key: str, directory: Path, contents: list[bytes]) -> tuple[str, dict[int, str]]:
    """An open upload with these parts, sent in reverse order; its id, and the ETag of each part."""
    upload_id = storage.begin(key)
    etags = {}
    for number, content in reversed(list(enumerate(contents, 1))):
        part, file = part_on_disk(directory, number, content)
        etags[number] = storage.send(key, upload_id, part, file)
    return upload_id, etags


# --- whole objects


def test_what_is_put_is_got_back(storage: Storage) -> None:
    for content in (b"", b"x", '{"ü": "€"}\n'.encode(), secrets.token_bytes(300_000)):
        storage.put("folder/plan/file", content)
        assert storage.get("folder/plan/file") == content
        assert storage.size("folder/plan/file") == len(content)


def test_a_put_replaces_what_was_there(storage: Storage) -> None:
    storage.put("a", b"first")
    storage.put("a", b"second, longer")
    assert storage.get("a") == b"second, longer"


def test_an_object_that_is_not_there_has_no_size_and_cannot_be_read(storage: Storage) -> None:
    assert storage.size("nothing") is None
    with pytest.raises(FileNotFoundError):
        storage.get("nothing")
    with pytest.raises(FileNotFoundError):
        list(storage.read("nothing", 0, 10))


def test_a_range_is_read_exactly(storage: Storage) -> None:
    content = secrets.token_bytes(3 * MIB + 17)
    storage.put("a", content)
    for start, size in ((0, 1), (0, len(content)), (MIB - 1, 2 * MIB + 2), (len(content) - 17, 17)):
        assert b"".join(storage.read("a", start, size)) == content[start : start + size]


def test_a_range_arrives_in_small_chunks(storage: Storage) -> None:
    storage.put("a", bytes(3 * MIB))
    assert max(map(len, storage.read("a", 0, 3 * MIB))) <= MIB


def test_a_deleted_object_is_gone_and_deleting_it_again_is_no_error(storage: Storage) -> None:
    storage.put("a", b"x")
    storage.delete("a")
    assert storage.size("a") is None
    storage.delete("a")
    storage.delete("never/was")


def test_objects_lists_what_lies_below_a_prefix_and_nothing_beside_it(storage: Storage) -> None:
    for key in ("backups/app/1", "backups/app/deeper/2", "backups/app_prod/3", "backups/apple", "other"):
        storage.put(key, key.encode())
    found = {one.key: one for one in storage.objects("backups/app/")}
    assert sorted(found) == ["backups/app/1", "backups/app/deeper/2"]
    assert found["backups/app/1"].size == len("backups/app/1")
    assert abs(datetime.now(UTC) - found["backups/app/1"].modified_at) < timedelta(minutes=5)
    assert list(storage.objects("nowhere/")) == []


def test_objects_lists_more_than_one_page(store: Store) -> None:
    client = store.client()
    in_pages(client, "ListObjectsV2", MaxKeys=7)
    storage = Storage(client, store.bucket)
    keys = [f"many/{number:03d} +%" for number in range(24)]
    for key in keys:
        storage.put(key, b"x")
    assert [one.key for one in storage.objects("many/")] == keys


@pytest.mark.parametrize("key", ODD_KEYS)
def test_an_odd_key_is_kept_as_it_is(storage: Storage, key: str, tmp_path: Path) -> None:
    storage.put(key, key.encode())
    assert storage.get(key) == key.encode()
    assert storage.size(key) == len(key.encode())
    assert [one.key for one in storage.objects("folder/")] == [key]
    storage.delete(key)
    upload_id, etags = upload_parts(storage, key, tmp_path, [b"multipart"])
    assert storage.unfinished("folder/") == [(key, upload_id)]
    assert storage.acknowledged(key, upload_id) == {1: 9}
    storage.complete(key, upload_id, etags)
    assert b"".join(storage.read(key, 0, 9)) == b"multipart"
    storage.abort(key, storage.begin(key))
    assert storage.unfinished("folder/") == []


def test_a_percent_sign_in_a_key_is_encoded_on_the_wire(recording: RecordingS3) -> None:
    storage_at(recording.endpoint_url).put("folder/%41-is-no-A.sql", b"x")  # nanio would read it twice
    assert list(recording.taken) == ["/bucket/folder/%41-is-no-A.sql"]


# --- multipart uploads


def test_parts_sent_out_of_order_become_the_object_in_order(storage: Storage, tmp_path: Path) -> None:
    contents = [secrets.token_bytes(5 * MIB), secrets.token_bytes(5 * MIB), b"the end"]
    upload_id, etags = upload_parts(storage, "big", tmp_path, contents)
    assert storage.size("big") is None  # nothing is seen before it is whole
    assert storage.acknowledged("big", upload_id) == {1: 5 * MIB, 2: 5 * MIB, 3: 7}
    assert storage.unfinished("") == [("big", upload_id)]
    assert storage.complete("big", upload_id, etags)
    assert storage.unfinished("") == []
    assert storage.get("big") == b"".join(contents)


def test_a_part_sent_again_replaces_the_first(storage: Storage, tmp_path: Path) -> None:
    upload_id, etags = upload_parts(storage, "a", tmp_path, [b"first try"])
    part, file = part_on_disk(tmp_path, 1, b"second try, longer")
    etags[1] = storage.send("a", upload_id, part, file)
    assert storage.acknowledged("a", upload_id) == {1: 18}
    storage.complete("a", upload_id, etags)
    assert storage.get("a") == b"second try, longer"


def test_hundreds_of_parts_are_all_listed(store: Store, tmp_path: Path) -> None:
    client = store.client()
    in_pages(client, "ListParts", MaxParts=100)
    storage = Storage(client, store.bucket)
    upload_id = storage.begin("many")
    sized = {number: 10 + number % 7 for number in range(1, 351)}

    def send(number: int) -> str:
        return storage.send("many", upload_id, *part_on_disk(tmp_path, number, bytes(sized[number])))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(send, sized))
    assert storage.acknowledged("many", upload_id) == sized
    storage.abort("many", upload_id)


def test_an_aborted_upload_leaves_nothing_and_aborting_it_again_is_no_error(storage: Storage, tmp_path: Path) -> None:
    upload_id, _ = upload_parts(storage, "a", tmp_path, [b"x"])
    storage.abort("a", upload_id)
    assert storage.unfinished("") == []
    assert list(storage.objects("")) == []
    storage.abort("a", upload_id)


def test_unfinished_lists_only_what_lies_below_the_prefix(store: Store) -> None:
    client = store.client()
    in_pages(client, "ListMultipartUploads", MaxUploads=3)
    storage = Storage(client, store.bucket)
    keys = [f"backups/app/{number}" for number in range(8)]
    opened = [(key, storage.begin(key)) for key in keys]
    for beside in ("backups/app_prod/1", "other", "z"):
        storage.begin(beside)
    assert sorted(storage.unfinished("backups/app/")) == opened


def test_two_uploads_of_one_key_are_told_apart(storage: Storage) -> None:
    first, second = storage.begin("a"), storage.begin("a")
    assert first != second
    assert sorted(storage.unfinished("a")) == sorted([("a", first), ("a", second)])
    storage.abort("a", first)
    assert storage.unfinished("a") == [("a", second)]


def test_an_upload_that_is_gone_is_unknown(store: Store, tmp_path: Path) -> None:
    storage = store.storage()
    upload_id, etags = upload_parts(storage, "plan/a", tmp_path, [b"x"])
    storage.abort("plan/a", upload_id)
    part, file = part_on_disk(tmp_path, 2, bytes(MIB))
    calls = [
        lambda: storage.acknowledged("plan/a", upload_id),
        lambda: storage.complete("plan/a", upload_id, etags),
        lambda: storage.send("plan/a", upload_id, part, file),
    ]
    for call in calls[: 1 if store.name == "moto" else 3]:  # moto answers the others with an internal error
        with pytest.raises(UploadUnknown, match="plan/a") as caught:
            call()
        assert_one_sentence(caught.value)


def test_a_refused_part_leaves_the_connection_fit_for_the_next_request(
    s3_server: S3Server, s3_bucket: Callable[[], str], tmp_path: Path
) -> None:
    client = make_client(
        session_of(s3_server.access_key_id, s3_server.secret_access_key, REGION),
        s3_server.endpoint_url,
        Config(retries={"total_max_attempts": 1}, read_timeout=5),
    )
    storage = Storage(client, s3_bucket())
    part, file = part_on_disk(tmp_path, 1, bytes(MIB))
    for _ in range(3):
        with pytest.raises(UploadUnknown):
            storage.send("a", "no-such-upload", part, file)
        assert storage.size("a") is None


def test_a_completed_upload_is_unknown_and_its_object_stays(storage: Storage, tmp_path: Path) -> None:
    upload_id, etags = upload_parts(storage, "a", tmp_path, [b"whole"])
    storage.complete("a", upload_id, etags)
    with pytest.raises(UploadUnknown):
        storage.acknowledged("a", upload_id)
    storage.abort("a", upload_id)
    assert storage.get("a") == b"whole"


def test_a_part_whose_file_is_gone_is_a_missing_file(storage: Storage, tmp_path: Path) -> None:
    upload_id = storage.begin("a")
    with pytest.raises(FileNotFoundError):
        storage.send("a", upload_id, Part(1, 1, "0" * 64), tmp_path / "gone")


def test_the_check_that_a_bucket_is_writable_leaves_nothing(storage: Storage) -> None:
    storage.check_writable("backups/app/")
    assert storage.unfinished("") == []
    assert list(storage.objects("")) == []


# --- refusals


def test_a_missing_bucket_is_named(store: Store, tmp_path: Path) -> None:
    storage = store.storage(bucket="nobody-made-this")
    part, file = part_on_disk(tmp_path, 1, b"x")
    for call in (
        lambda: storage.put("a", b"x"),
        lambda: storage.get("a"),
        lambda: storage.begin("a"),
        lambda: storage.send("a", "some-upload", part, file),
        lambda: storage.unfinished(""),
        lambda: list(storage.objects("")),
        lambda: storage.check_writable("a/"),
    ):
        with pytest.raises((BadSetting, UploadUnknown)) as caught:
            call()
        assert_one_sentence(caught.value)
    with pytest.raises(BadSetting, match=r"no bucket nobody-made-this .* create it"):
        storage.check_writable("a/")


def test_wrong_keys_are_refused(s3_server: S3Server, s3_bucket: Callable[[], str]) -> None:
    right = Store("nanio", s3_server.endpoint_url, s3_server.access_key_id, s3_server.secret_access_key, s3_bucket())
    for changes in ({"secret": SECRET}, {"access_key_id": "AKIAUNKNOWN", "secret": SECRET}):
        storage = right.storage(**changes)
        for call in (
            lambda storage=storage: storage.check_writable("a/"),
            lambda storage=storage: storage.put("a", b"x"),
            lambda storage=storage: storage.size("a"),
            lambda storage=storage: list(storage.objects("")),
        ):
            with pytest.raises(AccessRefused, match="access key") as caught:
                call()
            assert_one_sentence(caught.value)


def test_no_keys_at_all_are_noticed_before_anything_is_sent(recording: RecordingS3) -> None:
    storage = Storage(make_client(boto3.Session(region_name=REGION), recording.endpoint_url, ONCE), "bucket")
    with pytest.raises(AccessRefused, match=r"no access key .* CLOUDFLARE_ACCESS_KEY_ID") as caught:
        storage.check_writable("a/")
    assert_one_sentence(caught.value)
    assert recording.requests == []


def test_a_host_without_an_address_is_a_bad_setting() -> None:
    with pytest.raises(BadSetting, match=r"no-such-host\.invalid has no address") as caught:
        storage_at("http://no-such-host.invalid:9000").check_writable("a/")
    assert_one_sentence(caught.value)


def test_a_refused_connection_may_pass() -> None:
    with pytest.raises(Unreachable, match="does not answer") as caught:
        storage_at(f"http://127.0.0.1:{free_port()}").check_writable("a/")
    assert_one_sentence(caught.value)


@pytest.mark.parametrize("bucket", ["", "no blanks", "UPPER/slash", "x"])
def test_a_name_that_no_bucket_can_have_is_a_bad_setting(store: Store, bucket: str) -> None:
    with pytest.raises(BadSetting) as caught:
        store.storage(bucket=bucket).check_writable("a/")
    assert_one_sentence(caught.value)


@pytest.mark.parametrize("endpoint_url", ["s3.example.com", "http://", "http://bad host:9000", "://x", "ftp://h"])
def test_an_endpoint_that_is_no_address_is_a_bad_setting(endpoint_url: str) -> None:
    with pytest.raises(BadSetting) as caught:
        storage_at(endpoint_url).check_writable("a/")
    assert_one_sentence(caught.value)


def test_a_web_server_that_is_no_store_is_suspected() -> None:
    class Page(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<!doctype html><title>Welcome</title><p>It works!")

        def log_message(self, *_: object) -> None:
            return

    with web_server(Page) as server, pytest.raises(Unreachable, match="not as S3 does: check") as caught:
        storage_at(f"http://127.0.0.1:{server.server_port}").check_writable("a/")
    assert_one_sentence(caught.value)


@pytest.mark.parametrize(
    ("status", "code", "expected"),
    [
        (503, "SlowDown", Unreachable),
        (500, "InternalError", Unreachable),
        (429, "TooManyRequests", Unreachable),
        (400, "RequestTimeout", Unreachable),
        (409, "OperationAborted", Unreachable),
        (403, "AccessDenied", AccessRefused),
        (400, "ExpiredToken", AccessRefused),
        (403, "RequestTimeTooSkewed", BadSetting),
        (400, "InvalidBucketName", BadSetting),
        (501, "NotImplemented", BadSetting),
    ],
)
def test_what_a_store_answers_decides_whether_to_try_again(
    recording: RecordingS3, status: int, code: str, expected: type[BackupSystemError]
) -> None:
    recording.refusal = (status, code)
    with pytest.raises(expected, match=code) as caught:
        storage_at(recording.endpoint_url).begin("a")
    assert type(caught.value) is expected
    assert_one_sentence(caught.value)


def test_a_certificate_that_nobody_vouches_for_is_refused(tmp_path: Path) -> None:
    context = SSLContext(PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*self_signed_certificate(tmp_path))
    with web_server(BaseHTTPRequestHandler, context) as server:
        with pytest.raises(BadSetting, match="certificate of https://") as caught:
            storage_at(f"https://127.0.0.1:{server.server_port}").check_writable("a/")
        assert_one_sentence(caught.value)


# --- requests as R2 takes them


def storage_at(endpoint_url: str, encryption: Encryption | None = None) -> Storage:
    session = session_of("AKIATEST", SECRET, default_region(endpoint_url))
    return Storage(make_client(session, endpoint_url, ONCE), "bucket", encryption)


def storage_of_block(endpoint_url: str) -> Storage:
    """As a plan's blocks make it."""
    credentials = AwsCredentials(
        aws_access_key_id="AKIATEST",
        aws_secret_access_key=SECRET,
        aws_client_parameters=AwsClientParameters(endpoint_url=endpoint_url),
    )
    return Storage(s3_client(credentials), "bucket")


def one_of_each(storage: Storage, directory: Path) -> None:
    """Every kind of request that carries content."""
    storage.put("a.manifest.json", b"{}")
    upload_id = storage.begin("a")
    etags = {}
    for number, content in ((1, bytes(MIB)), (2, b"rest")):
        etags[number] = storage.send("a", upload_id, *part_on_disk(directory, number, content))
    storage.complete("a", upload_id, etags)


def is_begin(request: Request) -> bool:
    return request.method == "POST" and "uploads" in request.query


def work_of(store: RecordingS3) -> list[Request]:
    """The requests but those that try what the store can do."""
    return [request for request in store.requests if not request.path.endswith(WRITE_CHECK)]


@pytest.mark.parametrize("made", [storage_at, storage_of_block])
def test_no_request_has_a_checksum_header_or_a_chunked_body(
    recording: RecordingS3, tmp_path: Path, made: Callable[[str], Storage]
) -> None:
    one_of_each(made(recording.endpoint_url), tmp_path)
    assert len(work_of(recording)) == 5
    for request in recording.requests:
        # x-amz-checksum-algorithm, x-amz-sdk-checksum-algorithm, x-amz-trailer …
        assert not [name for name in request.headers if "checksum" in name or "trailer" in name or name == "expect"]
        assert "aws-chunked" not in request.headers.get("content-encoding", "")
        assert "transfer-encoding" not in request.headers
        assert not request.headers["x-amz-content-sha256"].startswith(("STREAMING", "UNSIGNED"))
    assert recording.taken == {"/bucket/a.manifest.json": b"{}", "/bucket/a 1": bytes(MIB), "/bucket/a 2": b"rest"}


def test_every_part_is_signed_with_the_hash_that_was_recorded(recording: RecordingS3, tmp_path: Path) -> None:
    part, file = part_on_disk(tmp_path, 1, b"as dumped")
    storage_at(recording.endpoint_url).send("a", UPLOAD_ID, part, file)
    [request] = work_of(recording)
    assert request.headers["x-amz-content-sha256"] == part.sha256
    assert "x-amz-content-sha256" in request.headers["authorization"]
    assert request.headers["authorization"].startswith("AWS4-HMAC-SHA256 ")


def test_a_part_that_changed_on_the_disk_is_refused_by_the_store(
    recording: RecordingS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.storage.s3_client.ASKED_AGAIN", (0.0, 0.0))
    part, file = part_on_disk(tmp_path, 1, b"as dumped")
    file.write_bytes(b"as dumpeD")
    with pytest.raises(UploadMismatch, match=r"part 1\b") as caught:
        storage_at(recording.endpoint_url).send("plan/a", UPLOAD_ID, part, file)
    assert_one_sentence(caught.value)
    requests = work_of(recording)
    assert {request.headers["x-amz-content-sha256"] for request in requests} == {part.sha256}
    assert [request.body for request in requests] == [b"as dumpeD"] * 3
    assert recording.taken == {}


@pytest.mark.parametrize(
    ("encryption", "expected"),
    [
        (Encryption(), {}),
        (Encryption("AES256"), {"x-amz-server-side-encryption": "AES256"}),
        (Encryption("aws:kms"), {"x-amz-server-side-encryption": "aws:kms"}),
        (
            Encryption("aws:kms", "key-1"),
            {"x-amz-server-side-encryption": "aws:kms", "x-amz-server-side-encryption-aws-kms-key-id": "key-1"},
        ),
        (Encryption("", "key-1"), {}),
    ],
)
def test_encryption_is_asked_for_when_the_plan_says_so(
    recording: RecordingS3, tmp_path: Path, encryption: Encryption, expected: dict[str, str]
) -> None:
    one_of_each(storage_at(recording.endpoint_url, encryption), tmp_path)
    makes_objects = [one for one in recording.requests if is_begin(one) or one.path.endswith(".json")]
    assert len([request for request in makes_objects if request in work_of(recording)]) == 2
    for request in recording.requests:
        asked = {name: value for name, value in request.headers.items() if "server-side-encryption" in name}
        assert asked == (expected if request in makes_objects else {})


def test_no_request_holds_the_secret(recording: RecordingS3, tmp_path: Path) -> None:
    one_of_each(storage_at(recording.endpoint_url), tmp_path)
    assert SECRET not in repr(recording.requests)


@pytest.mark.parametrize(
    ("endpoint_url", "region"),
    [
        ("https://0123.r2.cloudflarestorage.com", "auto"),
        ("https://0123.eu.r2.cloudflarestorage.com", "auto"),
        ("https://r2.cloudflarestorage.com.example.org", "us-east-1"),
        ("http://127.0.0.1:9000", "us-east-1"),
        ("", "us-east-1"),
    ],
)
def test_the_region_of_r2_is_auto(endpoint_url: str, region: str) -> None:
    assert default_region(endpoint_url) == region


# --- help


def assert_one_sentence(error: BaseException) -> None:
    """The text is fit for a person, and no secret is in it or in what is printed with it."""
    text = str(error)
    assert isinstance(error, BackupSystemError)
    assert "\n" not in text and text.endswith(".") and 20 < len(text) < 400, text
    assert SECRET not in text + repr(error) + "".join(traceback.format_exception(error))


def in_pages(client: Any, operation: str, **size: int) -> None:
    """The client asks for small pages, so that few things fill several."""
    client.meta.events.register(f"provide-client-params.s3.{operation}", lambda params, **_: {**params, **size})


@contextmanager
def web_server(
    handler: type[BaseHTTPRequestHandler], context: SSLContext | None = None
) -> Iterator[ThreadingHTTPServer]:
    """A web server for the length of a `with` block; over TLS when a context is given."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def self_signed_certificate(directory: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that nobody vouches for, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = directory / "certificate.pem", directory / "key.pem"
    files[0].write_bytes(certificate.public_bytes(Encoding.PEM))
    files[1].write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return files


def test_a_profile_that_does_not_exist_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "no-such-profile")
    with pytest.raises(BadSetting, match=r"no-such-profile.* correct AWS_PROFILE") as caught:
        storage_of_block("http://127.0.0.1:9000")
    assert_one_sentence(caught.value)
