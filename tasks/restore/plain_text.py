"""The plain text of a backup out of its stored parts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from tasks.errors import BackupDamaged
from tasks.restore.decode import decoded
from tasks.restore.download import Parts
from tasks.storage.manifest_model import StoredBackup


@contextmanager
def plain_text(parts: Parts, backup: StoredBackup, identities: Sequence[str]) -> Iterator[Iterator[tuple[int, bytes]]]:
    """Offset in the plain text, and text, decrypted and decompressed. Raises BackupDamaged naming the file."""
    if backup.codec == "none" and not backup.encrypted:
        yield parts.stored_bytes()
        return
    stored = (chunk for _, chunk in parts.stored_bytes())
    try:
        with decoded(stored, backup.codec, identities) as chunks:
            yield _numbered(chunks)
    except BackupDamaged as error:
        if backup.filename in str(error):
            raise
        raise BackupDamaged(f"{backup.filename}: {error}") from None


def _numbered(chunks: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    at = 0
    for chunk in chunks:
        yield at, chunk
        at += len(chunk)


def without(chunk: bytes, offset: int, skipped: Sequence[tuple[int, int]]) -> Iterator[bytes | memoryview]:
    """What of a chunk lies in none of the skipped ranges, which are in order."""
    if not skipped:
        yield chunk
        return
    at, end = offset, offset + len(chunk)
    view = memoryview(chunk)
    for low, high in skipped:
        if high > at and low < end:
            if low > at:
                yield view[at - offset : low - offset]
            at = min(high, end)
    if at < end:
        yield view[at - offset :]
