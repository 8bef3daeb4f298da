"""One bucket, used through a few operations and settings that AWS, R2 and their clones all accept.

Clients send checksums only where S3 requires them, since the newer default breaks uploads to R2. Each part is signed
with the SHA-256 that the dump computed. So a store that checks the signed hash, as S3 does, refuses a part that changed
on disk or on the way. Whether a store does so is tried before the first part. Where it does not, parts get a
Content-MD5, and the ETag that comes back is compared with it.
"""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.errors import BackupDamaged, BackupSystemError, BadSetting, Unreachable, UploadMismatch, UploadUnknown
from tasks.storage.backup_values import Part
from tasks.storage.s3_client import (
    ASKED_AGAIN,
    Encryption,
    Missigned,
    ObjectLock,
    PartFile,
    Proofs,
    Stored,
    Version,
    in_base64,
    promised_bytes,
    saved_as,
)
from tasks.storage.s3_errors import sentences

#: Name of the upload that is opened and aborted at once, to prove that objects can be written.
WRITE_CHECK = ".write-check"
#: A part of that upload, and its number: below the 1000 parts that some stores take, above those of small backups.
_PROBE, _PROBE_PART = b"database backup", 999
#: Bytes of the largest object that is read whole: a manifest of 100,000 tables has 20 MiB.
LARGEST_SMALL = 64 << 20


class Storage:
    """One bucket. Every method raises AccessRefused, BadSetting or Unreachable in place of botocore's errors."""

    def __init__(
        self,
        client: Any,
        bucket: str,
        encryption: Encryption | None = None,
        lock: ObjectLock | None = None,
        storage_class: str = "",
    ) -> None:
        self._client = client
        self.bucket = bucket
        self._encryption = (encryption or Encryption()).arguments
        self._lock = lock or ObjectLock()
        self._storage_class = {"StorageClass": storage_class} if storage_class else {}
        self._proofs: Proofs | None = None
        self._proofs_lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        """The address of the store."""
        return str(self._client.meta.endpoint_url)

    def ask(self, operation: str, **arguments: Any) -> dict[str, Any]:
        """The answer to any request of S3 about this bucket, in boto3's names."""
        with self._sentences(missing_upload=str(arguments.get("Key", "")) if "UploadId" in arguments else ""):
            answer: dict[str, Any] = getattr(self._client, operation)(Bucket=self.bucket, **arguments)
            return answer

    # --- whole objects

    def put(self, key: str, body: bytes, content_type: str = "application/json", *, locked: bool = False) -> str:
        """Stores a small object in one request; `locked` as long as a backup. Returns the id of its version, if any."""
        with self._sentences():
            stored = self._client.put_object(
                Bucket=self.bucket,
                Key=key,
                Body=body,
                ContentType=content_type,
                ContentMD5=in_base64(hashlib.md5(body, usedforsecurity=False).digest()),
                **self._encryption,
                **(self._lock.arguments(datetime.now(UTC)) if locked else {}),
            )
            return str(stored.get("VersionId", ""))

    def get(self, key: str) -> bytes:
        """A small object whole, such as a manifest. Raises FileNotFoundError when there is none.

        Raises BackupDamaged, having read nothing that counts, for one that is too large to be a manifest.
        """
        with self._sentences(missing=key):
            answer = self._client.get_object(Bucket=self.bucket, Key=key)
            too_large = answer.get("ContentLength", 0) > LARGEST_SMALL
            body: bytes = b"" if too_large else answer["Body"].read(LARGEST_SMALL + 1)
            if too_large or len(body) > LARGEST_SMALL:
                answer["Body"].close()
                raise BackupDamaged(
                    f"{key} in bucket {self.bucket} is larger than {LARGEST_SMALL >> 20} MiB, and no manifest is: "
                    "it was not read. Restore another backup, or this one from a replica."
                )
            return body

    def find(self, key: str) -> bytes | None:
        """A small object whole, or None when there is none."""
        try:
            return self.get(key)
        except FileNotFoundError:
            return None

    def read(self, key: str, start: int, size: int) -> Iterator[bytes]:
        """The bytes of one range, in chunks, as far as the object goes.

        Raises FileNotFoundError when there is no such object, and Unreachable when fewer bytes came than the answer
        promised.
        """
        with self._sentences(missing=key, ranged=True):
            wanted = f"bytes={start}-{start + size - 1}"
            answer = self._client.get_object(Bucket=self.bucket, Key=key, Range=wanted)
            promised, came = promised_bytes(answer, start), 0
            for chunk in answer["Body"].iter_chunks(1 << 20):
                came += len(chunk)
                yield chunk
            if promised is not None and came < promised:
                raise Unreachable(
                    f"The store broke off its answer for {key} in bucket {self.bucket}: {came} of {promised} bytes."
                )

    def size(self, key: str) -> int | None:
        """The size of an object in bytes, or None when there is none."""
        try:
            with self._sentences(missing=key):
                size = self._client.head_object(Bucket=self.bucket, Key=key).get("ContentLength")
        except FileNotFoundError:
            return None
        if size is None:  # a proxy has left it out
            return next((stored.size for stored in self.objects(key) if stored.key == key), None)
        return int(size)

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
                **saved_as(key),
                **self._encryption,
                **self._lock.arguments(datetime.now(UTC)),
                **self._storage_class,
            )
        if not opened.get("UploadId"):
            raise Unreachable(
                f"The store's answer to CreateMultipartUpload in bucket {self.bucket} has no upload id: something on "
                "the way changes answers, if this lasts."
            )
        return str(opened["UploadId"])

    def send(self, key: str, upload_id: str, part: Part, file: Path) -> str:
        """Sends one part; returns the ETag that acknowledges it.

        Raises FileNotFoundError when the file is gone, UploadMismatch when the part changed on its way, three times.
        """
        proofs = self.proofs(key)
        for seconds in ASKED_AGAIN:
            try:
                return self._send(key, upload_id, part, file, proofs)
            except UploadUnknown:
                raise
            except BadSetting:  # the bucket may ask for a Content-MD5 since it was tried
                if proofs.needs_md5:
                    raise
                etag = self._send(key, upload_id, part, file, proofs := Proofs(needs_md5=True, etag_is_md5=False))
                self.adopt(proofs)
                return etag
            except UploadMismatch:
                time.sleep(seconds)
        return self._send(key, upload_id, part, file, proofs)

    def _send(self, key: str, upload_id: str, part: Part, file: Path, proofs: Proofs) -> str:
        with PartFile(file, part.sha256) as body, self._sentences(missing_upload=key, part=part.number):
            sha256, md5 = body.hashes() if proofs.needs_md5 else (part.sha256, b"")
            if sha256 != part.sha256:
                raise UploadMismatch(f"{key}: part {part.number} has changed on the disk of the spool: back up again.")
            more = {"ContentMD5": in_base64(md5)} if md5 else {}
            sent = self._client.upload_part(
                Bucket=self.bucket, Key=key, UploadId=upload_id, PartNumber=part.number, Body=body, **more
            )
        etag = self._etag(sent, f"part {part.number} of {key}")
        if md5 and proofs.etag_is_md5 and etag.strip('"').lower() != md5.hex():
            raise UploadMismatch(
                f"{key}: part {part.number} did not reach the store as it was dumped (its ETag differs): back up again."
            )
        return etag

    def _etag(self, answer: dict[str, Any], what: str) -> str:
        if not answer.get("ETag"):
            raise Unreachable(
                f"The store's answer for {what} in bucket {self.bucket} has no ETag: something on the way changes "
                "answers, if this lasts."
            )
        return str(answer["ETag"])

    def proofs(self, key: str) -> Proofs:
        """What proves parts here: tried once, beside `key`, with a part whose SHA-256 is not the signed one."""
        with self._proofs_lock:
            if self._proofs is None:
                self._proofs = self._tried(key[: key.rfind("/") + 1] + WRITE_CHECK)
            return self._proofs

    def adopt(self, proofs: Proofs) -> None:
        """What proves parts here is known from an earlier run."""
        with self._proofs_lock:
            self._proofs = proofs

    def _tried(self, key: str) -> Proofs:
        upload_id = self.begin(key)
        try:
            with self._sentences(missing_upload=key, part=_PROBE_PART):
                sent = self._client.upload_part(
                    Bucket=self.bucket, Key=key, UploadId=upload_id, PartNumber=_PROBE_PART, Body=Missigned(_PROBE)
                )
        except UploadUnknown:
            raise
        except UploadMismatch:  # the store compares
            return Proofs(needs_md5=False, etag_is_md5=False)
        except BadSetting:  # such as a bucket with Object Lock, which wants a Content-MD5 before all else
            return Proofs(needs_md5=True, etag_is_md5=False)
        finally:
            self.abort(key, upload_id)
        md5 = hashlib.md5(_PROBE, usedforsecurity=False).hexdigest()
        return Proofs(needs_md5=True, etag_is_md5=str(sent.get("ETag", "")).strip('"').lower() == md5)

    def acknowledged(self, key: str, upload_id: str) -> dict[int, int]:
        """The size of every part that the store has of an open upload, by part number."""
        with self._sentences(missing_upload=key):
            pages = self._client.get_paginator("list_parts").paginate(Bucket=self.bucket, Key=key, UploadId=upload_id)
            return {part["PartNumber"]: part.get("Size", 0) for page in pages for part in page.get("Parts", ())}

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
        try:
            self.abort(key, self.begin(key))
        except BadSetting as error:
            if not self._lock.mode:
                raise
            raise BadSetting(
                f"{error} The plan asks for Object Lock: bucket {self.bucket} must have it, or clear Object lock mode."
            ) from None

    def _sentences(
        self, missing: str = "", missing_upload: str = "", part: int = 0, ranged: bool = False
    ) -> AbstractContextManager[None]:
        return sentences(self.bucket, self.endpoint, missing, missing_upload, part, ranged)
