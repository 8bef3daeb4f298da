"""Manifests of backups that no dump was made for."""

from __future__ import annotations

from datetime import UTC, datetime

from tasks.storage.backup_stages import BackupRun, Dump, StoredObject
from tasks.storage.backup_values import DatabaseProperties, Part, SourceFacts
from tasks.storage.manifest_text import build_manifest, to_bytes

AT = datetime(2026, 3, 1, 2, tzinfo=UTC)
DATABASE = DatabaseProperties(
    "shop",
    "olga",
    "UTF8",
    "C",
    "C",
    "libc",
    None,
    None,
    None,
    None,
    "pg_default",
    -1,
    False,
    None,
    None,
    (),
    8_000_000,
    "18.1",
    180001,
)


def manifest_bytes(
    filename: str, key: str, size: int, sha256: str, parts: tuple[Part, ...], plan: str = "shop"
) -> bytes:
    """The manifest of a plain backup of `size` bytes, without any table."""
    run = BackupRun(
        1,
        plan,
        "run",
        filename,
        key,
        "system",
        AT,
        "pg_dump",
        "18.1",
        "none",
        False,
        parts[0].size,
        10_000,
        size,
        (),
        "spool",
        1 << 30,
    )
    facts = SourceFacts(DATABASE, (), ("olga",), large_objects=0)
    dump = Dump(size, sha256, size, sha256, parts, (), facts, AT, AT)
    return to_bytes(build_manifest(run, dump, StoredObject(key, size, parts, "etag", AT), "bucket", AT))
