"""Turns botocore's errors into errors of this system: one sentence each, without a secret."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
    NoCredentialsError,
    SSLError,
)
from botocore.exceptions import ConnectionError as NoConnection

from tasks.errors import (
    AccessRefused,
    BackupSystemError,
    BadSetting,
    ObjectLocked,
    Unreachable,
    UploadMismatch,
    UploadUnknown,
)
from tasks.postgres.dsn import resolves

_REFUSALS = {
    "401",
    "403",
    "AccessDenied",
    "ExpiredToken",
    "Forbidden",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
    "Unauthorized",
}
#: R2's answer for an object that a bucket lock keeps.
_LOCKED = {"ObjectLockedByBucketPolicy"}
#: A range that begins behind the end of the object; some clones of S3 answer InvalidArgument.
_BEHIND_THE_END = {"416", "InvalidRange", "InvalidArgument"}
_CHANGED = {"BadDigest", "InvalidDigest", "XAmzContentSHA256Mismatch"}
_MAY_PASS = {"OperationAborted", "RequestTimeout", "SlowDown", "ThrottlingException", "TooManyRequests"}
_BROKEN = (NoConnection, HTTPClientError, IncompleteReadError, CredentialRetrievalError, MetadataRetrievalError)


@contextmanager
def sentences(
    bucket: str, endpoint: str, missing: str, missing_upload: str, part: int, ranged: bool = False
) -> Iterator[None]:
    """Turns botocore's errors in the block into ours, for requests to `bucket` at `endpoint`.

    A key that is `missing` raises FileNotFoundError, an upload that the store does not know UploadUnknown, and a
    `part` that arrived changed UploadMismatch. A `ranged` request for what lies behind the end just ends the block.
    """
    try:
        yield
    except ClientError as error:
        code = str(error.response.get("Error", {}).get("Code", ""))
        if missing and code in ("404", "NoSuchKey", "NotFound"):
            raise FileNotFoundError(missing) from None
        if ranged and code in _BEHIND_THE_END:
            return
        if missing_upload and code in ("404", "NoSuchUpload"):
            raise UploadUnknown(
                f"The store no longer knows the upload of {missing_upload}: something else ended it; back up again."
            ) from None
        if part and code in _CHANGED:
            raise UploadMismatch(
                f"{missing_upload}: part {part} did not reach the store as it was dumped ({code}): back up again."
            ) from None
        raise _refusal(error, code, bucket, endpoint) from None
    except BotoCoreError as error:
        raise _transport_error(error, bucket, endpoint) from None


def _refusal(error: ClientError, code: str, bucket: str, endpoint: str) -> BackupSystemError:
    where = f"bucket {bucket} at {endpoint}"
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in ("RequestTimeTooSkewed", "RequestExpired"):
        return BadSetting(
            f"The store refused {error.operation_name} for {where} ({code}): the clock of this "
            "machine is wrong; set it."
        )
    if code in _LOCKED:
        return ObjectLocked(
            f"The store refused {error.operation_name} for {where} ({code}): a rule of the bucket keeps the object for "
            "now."
        )
    if code == "InvalidObjectState":
        return BadSetting(
            f"The store refused {error.operation_name} for {where} ({code}): the object lies in an archive, where a "
            "rule of the bucket has moved it; fetch it from there (aws s3api restore-object), then run this again."
        )
    if code == "InvalidStorageClass":
        return BadSetting(
            f"The store refused {error.operation_name} for {where} ({code}): it has no such storage class; correct "
            "Storage class in the plan."
        )
    if code in _REFUSALS or status in (401, 403):
        return AccessRefused(
            f"The store refused {error.operation_name} for {where} ({code}): check the access "
            "key, its secret and its permissions."
        )
    if code == "NoSuchBucket" or status == 404:
        return BadSetting(f"There is no {where}: create it, or correct the bucket's name (S3_BUCKET) in the plan.")
    if (status >= 500 and status != 501) or status == 429 or code in _MAY_PASS:
        hint = "" if code != str(status) else " and not as S3 does: check S3_ENDPOINT_URL, if this lasts"
        return Unreachable(f"The store answered {error.operation_name} for {where} with {status} {code}{hint}.")
    return BadSetting(f"The store refused {error.operation_name} for {where}: {status} {code}.")


def _transport_error(error: BotoCoreError, bucket: str, endpoint: str) -> BackupSystemError:
    host = urlsplit(endpoint).hostname or endpoint
    if isinstance(error, NoCredentialsError):
        return AccessRefused(
            f"There is no access key for {endpoint}: set CLOUDFLARE_ACCESS_KEY_ID and "
            "CLOUDFLARE_SECRET_ACCESS_KEY, or the AWS names."
        )
    if isinstance(error, SSLError):
        return BadSetting(
            f"The certificate of {endpoint} was not accepted: check the address, or give the "
            "certificate authority's file as `verify` in the credentials block."
        )
    if isinstance(error, (EndpointConnectionError, ConnectTimeoutError)) and not resolves(host):
        return BadSetting(f"The storage host {host} has no address: check the spelling of S3_ENDPOINT_URL.")
    if isinstance(error, _BROKEN):
        return Unreachable(f"The store at {endpoint} does not answer ({type(error).__name__}).")
    return BadSetting(
        f"No request can be made for bucket {bucket!r} at {endpoint} ({type(error).__name__}): "
        "check bucket, region and endpoint of the plan."
    )
