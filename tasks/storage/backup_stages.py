"""What the steps of a backup hand on, one type for each stage: BackupRun → Dump → StoredObject → Backup.

Frozen; none holds a secret or a client, so Prefect may store and show them.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from tasks.names import ADOPTED, ADOPTION
from tasks.storage.backup_values import NOTHING_LEFT_OUT, LeftOut, Part, SourceFacts, TableData


@dataclass(frozen=True)
class BackupRun:
    """A backup that has begun: its row in the catalogue is `in_progress`."""

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
    """How many parts the store allows for one object."""
    expected_size: int
    """Estimated bytes of the stored file: for progress alone."""
    excluded_tables: tuple[str, ...]
    """Patterns for pg_dump: the catalogue's own tables, when they are in the database that is dumped."""
    spool_directory: str
    spool_limit: int
    """Bytes of part files on disk from which on the dump waits for the upload."""
    backup_type: str = "full"
    recipients: tuple[str, ...] = ()
    """Public age keys that the stored file is encrypted for; empty when it is not encrypted."""
    jobs: int = 1
    """Sessions that read the rows of large tables; 1: pg_dump reads everything."""
    left_out: LeftOut = NOTHING_LEFT_OUT
    """What the plan leaves out."""

    @property
    def action(self) -> str:
        """What the audit calls the work of the run."""
        return ADOPTION if self.backup_type == ADOPTED else "backup"

    @property
    def not_dumped(self) -> tuple[str, ...]:
        """Every relation of which the dump holds nothing."""
        return (*self.excluded_tables, *self.left_out.tables)


@dataclass(frozen=True)
class Dump:
    """A complete dump: pg_dump exited with 0, its trailer was seen, every part was hashed."""

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

    @property
    def table_count(self) -> int:
        """Tables whose rows the dump holds. The rows of one table may stand in several places, for each partition."""
        return len({table.name for table in self.tables})


@dataclass(frozen=True)
class StoredObject:
    """An object whose size and parts the store has confirmed."""

    key: str
    size: int
    parts: tuple[Part, ...]
    etag: str
    finished_at: datetime


@dataclass(frozen=True)
class Backup:
    """A completed backup: dumped, stored, checked and recorded."""

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
    """What shrank against the last good backup, so that retention removes nothing; empty when nothing did."""
    attention: tuple[str, ...] = ()
    """What will need attention when it is restored, and did not with the backup before, a sentence each."""
    left_out: str = ""
    """What the plan left out of it, in words; empty when that is nothing."""

    @property
    def seconds(self) -> float:
        """From the beginning of the run to its record."""
        return (self.completed_at - self.created_at).total_seconds()
