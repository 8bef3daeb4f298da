"""Removes the files of one backup from one bucket."""

from __future__ import annotations

from tasks.names import manifest_key
from tasks.storage.s3 import Storage


def remove_object(storage: Storage, key: str) -> bool:
    """Removes everything that the bucket holds of the backup `key`: open uploads, then the object, then its manifest.

    Returns whether the bucket keeps what was removed as an older version. Sends no delete request for what is not
    there. Raises AccessRefused when the access key may not delete.
    """
    for upload_key, upload_id in storage.unfinished(key):
        if upload_key == key:
            storage.abort(key, upload_id)
    versioned = False
    for stored in (key, manifest_key(key)):
        if storage.size(stored) is not None:
            versioned |= storage.delete(stored)
    return versioned
