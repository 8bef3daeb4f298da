"""The values that pass from step to step: frozen, one type a stage, nothing that means "not yet".

    BackupRun → Dump → StoredObject → Backup

None of them holds a secret or a client, so Prefect may store and show them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tasks.storage.manifest_model import Part, SourceFacts, TableData


@dataclass(frozen=True)
class BackupRun:
    """A backup that has been opened: its row in the catalogue is `in_progress`."""

    backup_id: int
    plan: str
    run_id: str
    filename: str
    key: str
    created_by: str
    started_at: datetime
    pg_dump: str
    pg_dump_version: str
    codec: str
    encrypted: bool
    part_size: int
    """Bytes in every part but the last."""
    most_parts: int
    """Parts that the store takes for one object."""
    expected_size: int
    """Bytes that the stored file will have, more or less: for progress alone."""
    excluded_tables: tuple[str, ...]
    """Patterns for pg_dump: the catalogue's own tables, where they lie in the database that is dumped."""
    spool_directory: str
    spool_limit: int
    """Bytes of part files that may wait on the disk before the dump waits for the upload."""
    backup_type: str = "full"
    recipients: tuple[str, ...] = ()
    """Public age keys that the stored file is encrypted for; empty when it is not encrypted."""


@dataclass(frozen=True)
class Dump:
    """A dump that is whole: pg_dump ended well, its trailer was seen, every part was hashed."""

    plain_size: int
    plain_sha256: str
    stored_size: int
    stored_sha256: str
    parts: tuple[Part, ...]
    tables: tuple[TableData, ...]
    source: SourceFacts
    started_at: datetime
    finished_at: datetime

    @property
    def rows(self) -> int:
        """Rows in all tables together."""
        return sum(table.rows for table in self.tables)


@dataclass(frozen=True)
class StoredObject:
    """An object that the store has confirmed to hold: its size, and the parts it was made of."""

    key: str
    size: int
    parts: tuple[Part, ...]
    etag: str
    finished_at: datetime


@dataclass(frozen=True)
class Backup:
    """A completed backup: whole, stored, checked and recorded."""

    backup_id: int
    plan: str
    filename: str
    bucket: str
    key: str
    file_size: int
    plain_size: int
    rows: int
    tables: int
    created_at: datetime
    completed_at: datetime
    suspicious: str = ""
    """Why retention holds back: what shrank against the last good backup. Empty when nothing did."""

    @property
    def seconds(self) -> float:
        """From the opening of the run to its record."""
        return (self.completed_at - self.created_at).total_seconds()
