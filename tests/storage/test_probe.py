"""What stores are known to do differently is found out by a probe, and backups are made of what every store takes."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest

from deployments.quick_start.s3 import REGION, S3Server
from tasks.errors import BackupSystemError, BadSetting
from tasks.storage.backup_values import Part
from tasks.storage.probe import FEW_PARTS, MOST_PARTS, StoreFacts, probe
from tasks.storage.s3 import Storage
from tasks.storage.s3_client import make_client
from tasks.stored_backups.backup_files import confirm, remove_object
from tests.support.faulty_store import FaultyStore, Request

PREFIX = "folder/plan/"
KEY = f"{PREFIX}backup_2026-03-01_02-00-00_9f2c41ab.sql"
MIB = 1 << 20
_numbers = itertools.count(1)


@pytest.fixture
def proxy(s3_server: S3Server) -> Iterator[FaultyStore]:
    with FaultyStore(s3_server.endpoint_url) as store:
        yield store


@pytest.fixture
def storage(proxy: FaultyStore, s3_server: S3Server, s3_bucket: Callable[[], str]) -> Storage:
    session = boto3.Session(s3_server.access_key_id, s3_server.secret_access_key, region_name=REGION)
    return Storage(make_client(session, proxy.endpoint_url), s3_bucket())


@pytest.fixture
def on_moto(moto_server: str) -> Callable[..., Storage]:
    client = make_client(boto3.Session("key", "secret", region_name=REGION), moto_server)

    def make(**more: Any) -> Storage:
        bucket = f"probed-{next(_numbers)}"
        client.create_bucket(Bucket=bucket, **more)
        return Storage(client, bucket)

    return make


def back_up(storage: Storage, directory: Path, size: int = 5 * MIB) -> None:
    """Every kind of request that a backup, its proof and its removal make."""
    contents = [bytes([1]) * size, bytes([2]) * size, b"end"]
    upload, etags, parts = storage.begin(KEY), {}, []
    for number, content in enumerate(contents, 1):
        (directory / "part").write_bytes(content)
        parts.append(Part(number, len(content), hashlib.sha256(content).hexdigest()))
        etags[number] = storage.send(KEY, upload, parts[-1], directory / "part")
    assert len(storage.acknowledged(KEY, upload)) == 3
    storage.complete(KEY, upload, etags)
    confirm(storage, KEY, parts)
    storage.put(f"{KEY}.manifest.json", b"{}")
    assert storage.get(f"{KEY}.manifest.json") == b"{}"
    remove_object(storage, KEY)


# --- what is found out


def test_a_probe_leaves_nothing_behind_and_is_a_few_requests(storage: Storage, proxy: FaultyStore) -> None:
    facts = probe(storage, PREFIX)
    assert (facts.needs_md5, facts.etag_is_md5, facts.most_parts) == (True, True, MOST_PARTS)
    assert len(proxy.requests) <= 9
    assert storage.unfinished("") == [] and list(storage.objects("")) == []


def test_a_store_that_takes_a_thousand_parts_is_known_before_the_first_large_backup(
    storage: Storage, proxy: FaultyStore
) -> None:
    proxy.rule = lambda request: 400 if request.any_part > FEW_PARTS else None
    assert probe(storage, PREFIX).most_parts == FEW_PARTS
    assert storage.unfinished("") == []


def test_a_store_that_does_not_answer_is_no_store_with_few_parts(storage: Storage, proxy: FaultyStore) -> None:
    storage.proofs(PREFIX)
    proxy.rule = lambda request: 503 if request.any_part else None
    with pytest.raises(BackupSystemError):
        probe(storage, PREFIX)
    proxy.rule = lambda request: None
    assert storage.unfinished("") == []


def test_versions_object_lock_and_rules_of_the_bucket_are_read(on_moto: Callable[..., Storage]) -> None:
    storage = on_moto(ObjectLockEnabledForBucket=True)
    assert probe(storage, PREFIX).object_lock == "on"
    retention = {"Mode": "GOVERNANCE", "Days": 30}
    storage.ask(
        "put_object_lock_configuration",
        ObjectLockConfiguration={"ObjectLockEnabled": "Enabled", "Rule": {"DefaultRetention": retention}},
    )
    facts = probe(storage, PREFIX)
    assert (facts.versioning, facts.object_lock, facts.expiry_days) == ("Enabled", "GOVERNANCE 30 days", 0)
    assert facts.needs_md5, "with Object Lock, parts need a Content-MD5"
    assert "versions are kept; Object Lock is GOVERNANCE 30 days" in facts.sentence()


@pytest.mark.parametrize(
    ("rule", "days"),
    [
        ({"Filter": {"Prefix": ""}, "Expiration": {"Days": 9}}, 9),
        ({"Filter": {"Prefix": "folder/"}, "Expiration": {"Days": 9}}, 9),
        ({"Filter": {"Prefix": "folder/plan/backup_2026"}, "Expiration": {"Days": 9}}, 9),
        ({"Filter": {"Prefix": "another/"}, "Expiration": {"Days": 9}}, 0),
        ({"Filter": {"Tag": {"Key": "a", "Value": "b"}}, "Expiration": {"Days": 9}}, 0),
        ({"Filter": {"Prefix": ""}, "NoncurrentVersionExpiration": {"NoncurrentDays": 9}}, 0),
        ({"Filter": {"Prefix": ""}, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}}, 0),
    ],
)
def test_a_rule_that_would_remove_backups_is_found(
    on_moto: Callable[..., Storage], rule: dict[str, Any], days: int
) -> None:
    storage = on_moto()
    rules = [{"ID": "rule", "Status": "Enabled", **rule}, {**rule, "ID": "off", "Status": "Disabled"}]
    storage.ask("put_bucket_lifecycle_configuration", LifecycleConfiguration={"Rules": rules})
    assert probe(storage, PREFIX).expiry_days == days
    rules[0]["Status"] = "Disabled"
    storage.ask("put_bucket_lifecycle_configuration", LifecycleConfiguration={"Rules": rules})
    assert probe(storage, PREFIX).expiry_days == 0


@pytest.mark.parametrize("status", [403, 501, 400])
def test_what_keys_may_not_ask_or_a_store_does_not_know_is_nothing(
    storage: Storage, proxy: FaultyStore, status: int
) -> None:
    asked = {"versioning", "object-lock", "lifecycle"}
    proxy.rule = lambda request: status if request.query.keys() & asked else None
    facts = probe(storage, PREFIX)
    assert (facts.versioning, facts.object_lock, facts.expiry_days) == ("", "", 0)


def test_facts_of_another_version_of_the_program_are_not_taken() -> None:
    facts = StoreFacts(True, True, 1000, "", "", 0)
    assert StoreFacts.of(vars(facts)) == facts
    assert StoreFacts.of({"needs_md5": True}) is None and StoreFacts.of({**vars(facts), "more": 1}) is None


# --- the known ways of services, each as its documentation or its users tell


def unsupported(request: Request, names: tuple[str, ...]) -> bool:
    return any(name.startswith(names) for name in request.headers)


class R2:
    """R2: parts of one size but for the last; no versions, tags or ACL; checksums that break uploads."""

    __name__ = "r2"

    def __init__(self) -> None:
        self.parts: dict[str, dict[int, str]] = {}

    def __call__(self, request: Request) -> int | None:
        if request.any_part:
            upload = self.parts.setdefault(request.query["uploadId"][0], {})
            upload[request.any_part] = request.headers["content-length"]
        if request.completes_upload:
            sizes = [size for _, size in sorted(self.parts[request.query["uploadId"][0]].items())]
            return 400 if len(set(sizes[:-1])) > 1 else None
        if request.query.keys() & {"versioning", "versions", "object-lock", "acl", "tagging", "delete"}:
            return 501
        refused = ("x-amz-checksum-", "x-amz-sdk-checksum-", "x-amz-acl", "x-amz-tagging", "x-amz-object-lock-")
        return 501 if unsupported(request, refused) else None


def b2(request: Request) -> int | None:
    """B2: "Unsupported header 'x-amz-checksum-sha256' received for this API call", 400."""
    return 400 if unsupported(request, ("x-amz-checksum-", "x-amz-sdk-checksum-", "x-amz-tagging")) else None


def ceph(request: Request) -> int | None:
    """Ceph's gateway: refuses bodies in aws-chunked with trailing checksums; knows no conditional writes."""
    chunked = request.headers.get("x-amz-content-sha256", "").startswith("STREAMING")
    conditional = request.method == "PUT" and unsupported(request, ("if-match", "if-none-match"))
    return 400 if chunked or conditional else None


def minio(request: Request) -> int | None:
    """MinIO without erasure coding: no versions, no Object Lock; several deletions at once need a Content-MD5."""
    if request.query.keys() & {"versioning", "object-lock", "lifecycle"}:
        return 404
    return 400 if "delete" in request.query and "content-md5" not in request.headers else None


@pytest.mark.parametrize("service", [R2(), b2, ceph, minio], ids=lambda service: service.__name__)
def test_a_backup_is_made_proved_and_removed_as_each_service_wants_it(
    storage: Storage, proxy: FaultyStore, tmp_path: Path, service: Callable[[Request], int | None]
) -> None:
    proxy.rule = service
    storage.check_writable(PREFIX)
    assert probe(storage, PREFIX).most_parts == MOST_PARTS
    back_up(storage, tmp_path)
    assert list(storage.objects("")) == [] and storage.unfinished("") == []


def test_the_model_of_r2_refuses_parts_of_several_sizes(storage: Storage, proxy: FaultyStore, tmp_path: Path) -> None:
    proxy.rule = R2()
    upload, etags = storage.begin(KEY), {}
    for number, content in enumerate([b"1" * 5 * MIB, b"2" * 6 * MIB, b"3"], 1):
        (tmp_path / "part").write_bytes(content)
        part = Part(number, len(content), hashlib.sha256(content).hexdigest())
        etags[number] = storage.send(KEY, upload, part, tmp_path / "part")
    with pytest.raises(BadSetting):
        storage.complete(KEY, upload, etags)
    storage.abort(KEY, upload)


def test_a_bucket_that_asks_for_a_content_md5_since_it_was_probed_gets_it(
    storage: Storage, proxy: FaultyStore, tmp_path: Path
) -> None:
    """As when Object Lock is switched on: what was kept is not true any more."""
    storage.adopt(StoreFacts(False, False, MOST_PARTS, "", "", 0).proofs)
    proxy.rule = lambda request: 400 if request.any_part and "content-md5" not in request.headers else None
    back_up(storage, tmp_path)
    assert storage.proofs(KEY).needs_md5
