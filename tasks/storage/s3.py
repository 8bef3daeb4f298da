"""One bucket, used through a few operations and settings that AWS, R2 and their clones all accept.

Clients send checksums only where S3 requires them, since the newer default breaks uploads to R2. Each part is signed
with the SHA-256 that the dump computed. So a store that checks the signed hash, as S3 does, refuses a part that changed
on disk or on the way.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3
import botocore.auth
import botocore.handlers
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from tasks.errors import BackupSystemError, BadSetting, UploadUnknown
from tasks.storage.backup_values import Part
from tasks.storage.s3_errors import sentences

#: Name of the upload that is opened and aborted at once, to prove that objects can be written.
WRITE_CHECK = ".write-check"
_PART_SIGNER = "s3v4-known-payload"
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class Encryption:
    """Server-side encryption to ask for: `AES256`, `aws:kms` with a key's id, or nothing."""

    algorithm: str = ""
    kms_key_id: str = ""

    @property
    def arguments(self) -> dict[str, str]:
        """The arguments for the S3 requests that make an object."""
        named = {"ServerSideEncryption": self.algorithm, "SSEKMSKeyId": self.kms_key_id if self.algorithm else ""}
        return {name: value for name, value in named.items() if value}


@dataclass(frozen=True)
class Stored:
    """An object in the bucket."""

    key: str
    size: int
    modified_at: datetime


@dataclass(frozen=True)
class Version:
    """A version of an object, or a delete marker, in a bucket that keeps them."""

    key: str
    id: str
    size: int
    is_latest: bool
    is_marker: bool

    @property
    def is_older(self) -> bool:
        """Whether it is not what a reader of the key gets."""
        return self.is_marker or not self.is_latest


class PartFile(io.FileIO):
    """The file of a part, with the SHA-256 that its content must have."""

    _AT_ONCE = 1 << 20  # bytes; the HTTP client asks for 16 KiB at a time, which costs a system call and a lock each

    def __init__(self, path: Path, sha256: str) -> None:
        super().__init__(path, "rb")
        self.sha256 = sha256

    def read(self, size: int | None = -1) -> bytes:
        """At least 1 MiB if the file has it, even when `size` is smaller: the HTTP client sends all that it gets."""
        return super().read(max(size, self._AT_ONCE) if size is not None and size > 0 else -1) or b""


class _KnownPayloadAuth(botocore.auth.S3SigV4Auth):  # type: ignore[misc]
    """Signature version 4 with the SHA-256 that the body carries, instead of one computed from the body."""

    def payload(self, request: Any) -> str:
        known: str = getattr(request.body, "sha256", "")
        return known or super().payload(request)


botocore.auth.AUTH_TYPE_MAPS[_PART_SIGNER] = _KnownPayloadAuth


def make_client(
    session: boto3.Session, endpoint_url: str | None = None, config: Config | None = None, **more: Any
) -> Any:
    """An S3 client of `session`. `config` and `more` (verify, use_ssl, …) override the settings of this system.

    Raises BadSetting when the endpoint is not an address.
    """
    style = {"addressing_style": "path"} if endpoint_url else {}
    ours = Config(
        signature_version="s3v4",
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"mode": "standard", "total_max_attempts": 4},
        connect_timeout=10,
        read_timeout=60,
        tcp_keepalive=True,
        max_pool_connections=8,
        s3=style,
    )
    try:
        client = session.client(
            "s3", endpoint_url=endpoint_url or None, config=ours.merge(config) if config else ours, **more
        )
    except (ValueError, BotoCoreError):
        raise BadSetting(
            "The storage's endpoint (S3_ENDPOINT_URL) is no address: write https://host or http://host:port."
        ) from None
    # Some servers refuse a request before they read its body, and then read the next request as that body.
    client.meta.events.unregister("before-call.s3", botocore.handlers.add_expect_header)
    client.meta.events.register("choose-signer.s3.UploadPart", lambda **_: _PART_SIGNER)
    return client


def _saved_as(key: str) -> dict[str, str]:
    """The name under which a browser saves an object, for stores that ignore the name in a presigned link."""
    name = key.rpartition("/")[2]
    return {"ContentDisposition": f'attachment; filename="{name}"'} if _PLAIN_NAME.fullmatch(name) else {}


def default_region(endpoint_url: str) -> str:
    """The region when none is given: R2 has only `auto`, most clones accept `us-east-1`."""
    return "auto" if (urlsplit(endpoint_url).hostname or "").endswith("r2.cloudflarestorage.com") else "us-east-1"


class Storage:
    """One bucket. Every method raises AccessRefused, BadSetting or Unreachable in place of botocore's errors."""

    def __init__(self, client: Any, bucket: str, encryption: Encryption | None = None) -> None:
        self._client = client
        self.bucket = bucket
        self._encryption = (encryption or Encryption()).arguments

    # --- whole objects

    def put(self, key: str, body: bytes, content_type: str = "application/json") -> str:
        """Stores a small object in one request. Returns the id of its version; empty where the bucket keeps none."""
        with self._sentences():
            stored = self._client.put_object(
                Bucket=self.bucket, Key=key, Body=body, ContentType=content_type, **self._encryption
            )
            return str(stored.get("VersionId", ""))

    def get(self, key: str) -> bytes:
        """A small object whole. Raises FileNotFoundError when there is none."""
        with self._sentences(missing=key):
            body: bytes = self._client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
            return body

    def read(self, key: str, start: int, size: int) -> Iterator[bytes]:
        """The bytes of one range, in chunks, as far as the object goes.

        Raises FileNotFoundError when there is no such object.
        """
        with self._sentences(missing=key, ranged=True):
            wanted = f"bytes={start}-{start + size - 1}"
            yield from self._client.get_object(Bucket=self.bucket, Key=key, Range=wanted)["Body"].iter_chunks(1 << 20)

    def size(self, key: str) -> int | None:
        """The size of an object in bytes, or None when there is none."""
        try:
            with self._sentences(missing=key):
                return int(self._client.head_object(Bucket=self.bucket, Key=key)["ContentLength"])
        except FileNotFoundError:
            return None

    def delete(self, key: str) -> bool:
        """Removes an object; no error when there is none. Returns whether the bucket keeps an older version of it."""
        with self._sentences():
            return bool(self._client.delete_object(Bucket=self.bucket, Key=key).get("DeleteMarker"))

    def delete_with_version(self, key: str, version: str) -> None:
        """Removes an object, and then what a bucket with versions keeps of it, where the access key may do that.

        `version` is what `put` returned.
        """
        with self._sentences():
            marker = self._client.delete_object(Bucket=self.bucket, Key=key).get("VersionId", "")
        for kept in filter(None, (version, marker)):
            with suppress(BackupSystemError):
                self.delete_version(key, kept)

    def presigned(self, key: str, seconds: int, filename: str) -> str:
        """A link that downloads an object for this many seconds, to be saved as `filename`.

        The link is a secret: whoever has it needs no access key.
        """
        asked = {"Bucket": self.bucket, "Key": key, "ResponseContentDisposition": f'attachment; filename="{filename}"'}
        with self._sentences():
            return str(self._client.generate_presigned_url("get_object", Params=asked, ExpiresIn=seconds))

    def objects(self, prefix: str) -> Iterator[Stored]:
        """Every object below a prefix."""
        with self._sentences():
            for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix):
                for item in page.get("Contents", ()):
                    yield Stored(item["Key"], item["Size"], item["LastModified"])

    # --- versions

    def versioning(self) -> str:
        """`Enabled`, or `Suspended`: older versions are there. Empty when there are none, or the store does not say."""
        try:
            with self._sentences():
                return str(self._client.get_bucket_versioning(Bucket=self.bucket).get("Status", ""))
        except BackupSystemError:
            return ""

    def versions(self, prefix: str) -> Iterator[Version]:
        """Every version and delete marker below a prefix."""
        with self._sentences():
            for page in self._client.get_paginator("list_object_versions").paginate(Bucket=self.bucket, Prefix=prefix):
                for kind in ("Versions", "DeleteMarkers"):
                    for item in page.get(kind, ()):
                        yield Version(
                            item["Key"],
                            item["VersionId"],
                            item.get("Size", 0),
                            item["IsLatest"],
                            kind == "DeleteMarkers",
                        )

    def delete_version(self, key: str, version: str) -> None:
        """Removes one version, or one delete marker, for good."""
        with self._sentences():
            self._client.delete_object(Bucket=self.bucket, Key=key, VersionId=version)

    # --- multipart uploads

    def begin(self, key: str) -> str:
        """Begins a multipart upload; returns its id."""
        with self._sentences():
            opened = self._client.create_multipart_upload(
                Bucket=self.bucket,
                Key=key,
                ContentType="application/octet-stream",
                **_saved_as(key),
                **self._encryption,
            )
            return str(opened["UploadId"])

    def send(self, key: str, upload_id: str, part: Part, file: Path) -> str:
        """Sends one part; returns the ETag that acknowledges it.

        Raises FileNotFoundError when the file is gone, UploadMismatch when the store noticed that the part changed.
        """
        with PartFile(file, part.sha256) as body, self._sentences(missing_upload=key, part=part.number):
            sent = self._client.upload_part(
                Bucket=self.bucket, Key=key, UploadId=upload_id, PartNumber=part.number, Body=body
            )
            return str(sent["ETag"])

    def acknowledged(self, key: str, upload_id: str) -> dict[int, int]:
        """The size of every part that the store has of an open upload, by part number."""
        with self._sentences(missing_upload=key):
            pages = self._client.get_paginator("list_parts").paginate(Bucket=self.bucket, Key=key, UploadId=upload_id)
            return {part["PartNumber"]: part["Size"] for page in pages for part in page.get("Parts", ())}

    def complete(self, key: str, upload_id: str, etags: dict[int, str]) -> str:
        """Joins the parts into the object; returns its ETag."""
        parts = [{"PartNumber": number, "ETag": etag} for number, etag in sorted(etags.items())]
        with self._sentences(missing_upload=key):
            done = self._client.complete_multipart_upload(
                Bucket=self.bucket, Key=key, UploadId=upload_id, MultipartUpload={"Parts": parts}
            )
            return str(done.get("ETag", ""))

    def abort(self, key: str, upload_id: str) -> None:
        """Aborts an open upload and removes its parts; no error when there is none."""
        try:
            with self._sentences(missing_upload=key):
                self._client.abort_multipart_upload(Bucket=self.bucket, Key=key, UploadId=upload_id)
        except UploadUnknown:
            return

    def unfinished(self, prefix: str) -> list[tuple[str, str]]:
        """Key and id of every open multipart upload below a prefix."""
        with self._sentences():
            pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=prefix)
            return [
                (upload["Key"], upload["UploadId"])
                for page in pages
                for upload in page.get("Uploads", ())
                if upload["Key"].startswith(prefix)
            ]

    def check_writable(self, prefix: str) -> None:
        """Proves that objects can be written below `prefix` without writing one: opens an upload and aborts it."""
        key = prefix + WRITE_CHECK
        self.abort(key, self.begin(key))

    def _sentences(
        self, missing: str = "", missing_upload: str = "", part: int = 0, ranged: bool = False
    ) -> AbstractContextManager[None]:
        return sentences(self.bucket, self._client.meta.endpoint_url, missing, missing_upload, part, ranged)


#: S3 allows 10,000 parts of 5 MiB to 5 GiB.
SMALLEST_PART = 16 << 20
