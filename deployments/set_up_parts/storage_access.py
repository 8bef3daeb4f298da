"""Where the backups go and with which keys: what the set-up needs to make the storage blocks."""

from __future__ import annotations

from dataclasses import dataclass, field

from deployments.quick_start.s3 import REGION, S3Server
from tasks.plans.settings import Settings


@dataclass(frozen=True)
class StorageAccess:
    """One bucket and the keys to it; an empty endpoint is AWS. The secret stays out of `repr`."""

    endpoint_url: str
    bucket: str
    folder: str
    region: str
    access_key_id: str = field(repr=False)
    secret_access_key: str = field(repr=False)


def storage_of(settings: Settings) -> StorageAccess:
    """The storage that the settings name."""
    return StorageAccess(
        endpoint_url=settings.s3_endpoint_url,
        bucket=settings.s3_bucket,
        folder=settings.s3_folder,
        region=settings.s3_region,
        access_key_id=settings.access_key_id,
        secret_access_key=settings.secret_access_key,
    )


def storage_on(server: S3Server, settings: Settings) -> StorageAccess:
    """The settings' bucket and folder, on the running server of the quick start."""
    return StorageAccess(
        endpoint_url=server.endpoint_url,
        bucket=settings.s3_bucket,
        folder=settings.s3_folder,
        region=settings.s3_region or REGION,
        access_key_id=server.access_key_id,
        secret_access_key=server.secret_access_key,
    )
