"""The S3 client: settings that AWS, R2 and their clones all accept, and parts signed with the SHA-256 of the dump."""

from __future__ import annotations

import base64
import hashlib
import io
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

import boto3
import botocore.auth
import botocore.handlers
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from tasks.errors import BadSetting, Unreachable

_PART_SIGNER = "s3v4-known-payload"
#: How often a request is sent at most, where a store or the way there fails.
_ATTEMPTS = 4


class PartFile(io.FileIO):
    """The file of a part, with the SHA-256 that its content must have."""

    _AT_ONCE = 1 << 20  # bytes; the HTTP client asks for 16 KiB at a time, which costs a system call and a lock each

    def __init__(self, path: Path, sha256: str) -> None:
        super().__init__(path, "rb")
        self.sha256 = sha256

    def hashes(self) -> tuple[str, bytes]:
        """The SHA-256 of the file's content, and its MD5, which S3's headers ask for."""
        sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
        while chunk := self.read():
            sha256.update(chunk)
            md5.update(chunk)
        self.seek(0)
        return sha256.hexdigest(), md5.digest()

    def read(self, size: int | None = -1) -> bytes:
        """At least 1 MiB if the file has it, even when `size` is smaller: the HTTP client sends all that it gets."""
        return super().read(max(size, self._AT_ONCE) if size is not None and size > 0 else -1) or b""


class Missigned(io.BytesIO):
    """A body that is signed with the SHA-256 of another one."""

    sha256 = hashlib.sha256(b"another").hexdigest()


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
        retries={"mode": "standard", "total_max_attempts": _ATTEMPTS},
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
    client.meta.events.register("needs-retry.s3", _seconds_before_asking_again)
    return client


def _seconds_before_asking_again(response: tuple[Any, Any] | None, attempts: int, **_: Any) -> float | None:
    """botocore's standard mode takes 429 for final unless the code is one of AWS's own."""
    is_too_many = response is not None and response[0].status_code == HTTPStatus.TOO_MANY_REQUESTS
    return 0.5 * attempts if is_too_many and attempts < _ATTEMPTS else None


def default_region(endpoint_url: str) -> str:
    """The region when none is given: R2 has only `auto`, most clones accept `us-east-1`."""
    return "auto" if (urlsplit(endpoint_url).hostname or "").endswith("r2.cloudflarestorage.com") else "us-east-1"


#: S3 allows 10,000 parts of 5 MiB to 5 GiB.
SMALLEST_PART = 16 << 20
#: How often an answer that cannot be right is asked for again, and the seconds before that.
ASKED_AGAIN = (0.5, 2.0)


@dataclass(frozen=True)
class Proofs:
    """What proves that a part reached the store as it was sent."""

    needs_md5: bool
    """The store does not compare the part with the SHA-256 in its signature: a Content-MD5 goes along."""
    etag_is_md5: bool
    """The store answers with the MD5 of what has arrived."""


_T = TypeVar("_T")


def asked_again(ask: Callable[[], _T], is_right: Callable[[_T], bool]) -> _T:
    """The first answer that is right, or the last of three: stores and proxies are wrong, or break off, for once."""
    for seconds in ASKED_AGAIN:
        with suppress(Unreachable):
            if is_right(answer := ask()):
                return answer
        time.sleep(seconds)
    return ask()


def in_base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def promised_bytes(answer: dict[str, Any], start: int) -> int | None:
    """How many bytes the answer to a ranged request must have; None when it does not say."""
    ranged = re.fullmatch(r"bytes (\d+)-(\d+)/.*", str(answer.get("ContentRange", "")))
    if ranged and int(ranged[1]) == start:
        return int(ranged[2]) - start + 1
    length = answer.get("ContentLength")
    return None if length is None else int(length)


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


_PLAIN_NAME = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class ObjectLock:
    """How long a bucket with Object Lock is to keep every new backup. Without a mode, the bucket's own rule decides."""

    mode: str = ""
    """`governance` or `compliance`."""
    days: int = 0

    def arguments(self, now: datetime) -> dict[str, Any]:
        """The arguments for the S3 requests that make an object."""
        if not self.mode:
            return {}
        return {"ObjectLockMode": self.mode.upper(), "ObjectLockRetainUntilDate": now + timedelta(days=self.days)}


def checked_lock(mode: str, days: int) -> ObjectLock:
    """The lock that a plan asks for. Raises BadSetting when it has a mode without days, or days without a mode."""
    if bool(mode) != bool(days):
        raise BadSetting(
            f"Object lock mode is {mode!r} and Object lock days is {days}: give both, or leave the mode empty and the "
            "days 0."
        )
    return ObjectLock(mode, days)


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


def saved_as(key: str) -> dict[str, str]:
    """The name under which a browser saves an object, for stores that ignore the name in a presigned link."""
    name = key.rpartition("/")[2]
    return {"ContentDisposition": f'attachment; filename="{name}"'} if _PLAIN_NAME.fullmatch(name) else {}
