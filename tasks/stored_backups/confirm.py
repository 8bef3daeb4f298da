"""Proves that an uploaded object is what was sent."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from tasks.errors import UploadMismatch
from tasks.storage.manifest_model import Part
from tasks.storage.s3 import Storage


def confirm(storage: Storage, key: str, parts: Sequence[Part]) -> None:
    """Proves that the store holds an object of the right size whose first and last part read back as sent.

    Raises UploadMismatch.
    """
    expected, stored = sum(part.size for part in parts), storage.size(key)
    if stored != expected:
        raise UploadMismatch(f"{key}: sent {expected} bytes, the store holds {stored or 0}: back up again.")
    for part in {parts[0].number: parts[0], parts[-1].number: parts[-1]}.values():
        digest = hashlib.sha256()
        for chunk in storage.read(key, (part.number - 1) * parts[0].size, part.size):
            digest.update(chunk)
        if digest.hexdigest() != part.sha256:
            raise UploadMismatch(f"{key}: part {part.number} does not read back as it was sent: back up again.")
