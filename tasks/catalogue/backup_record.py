"""One row of the table `database_backups`, and what its column `metadata` says: in Python, and the same in SQL."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Literal

#: What a removal ends as.
Removal = Literal["deleted", "expired"]


@dataclass(frozen=True)
class Record:
    """What the catalogue says of one backup. Sizes are bytes; what a row does not have yet is None."""

    id: int
    filename: str
    s3_key: str
    plan: str
    run_id: str
    status: str
    backup_type: str
    created_by: str
    created_at: datetime
    completed_at: datetime | None = None
    file_size: int | None = None
    plain_size: int | None = None
    """Of the SQL text, before compression."""
    table_count: int | None = None
    row_count: int | None = None
    manifest_sha256: str | None = None
    verified_at: datetime | None = None
    suspicious: str = ""
    """What shrank against the last good backup; empty if nothing did."""
    error: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Record:
        """The record of a row that was selected with `COLUMNS`."""
        metadata = row["metadata"] if isinstance(row["metadata"], dict) else {}
        return cls(**{**row, "metadata": metadata})

    @property
    def is_completed(self) -> bool:
        """Whether there is a stored backup, as far as the catalogue knows."""
        return self.status == "completed"

    @property
    def bucket(self) -> str:
        """The bucket that the backup was stored in; empty when the row does not say. `lies_in` compares."""
        return str(self.metadata.get("bucket") or "")

    def lies_in(self, bucket: str) -> bool:
        """Whether the backup is stored in `bucket`, the plan's; a row that names no bucket means that one."""
        return self.bucket in ("", bucket)

    @property
    def removal(self) -> Removal | None:
        """The status that the row gets when a removal that was begun has ended; None when none was begun."""
        noted = self.metadata.get("removal")
        return noted if self.is_completed and noted in ("deleted", "expired") else None

    @property
    def removal_by(self) -> str:
        """Who asked for the removal that was begun; empty when that is not known."""
        return str(self.metadata.get("removal_by", ""))


#: SQL: the columns of a `Record`.
COLUMNS = ", ".join(column.name for column in fields(Record))
#: SQL: `Record.lies_in`, for the parameter `bucket`.
LIES_IN = "coalesce(nullif(metadata->>'bucket', ''), %(bucket)s) = %(bucket)s"
#: SQL: the status of a row whose object is gone: that of the removal that was begun, or `missing`.
STATUS_WHEN_GONE = (
    "(CASE WHEN metadata->>'removal' IN ('deleted', 'expired') THEN metadata->>'removal' ELSE 'missing' END)"
)
#: SQL: the metadata of a row, always an object, without a removal that was begun.
WITHOUT_REMOVAL = "(CASE WHEN jsonb_typeof(metadata) = 'object' THEN metadata ELSE '{}' END - 'removal' - 'removal_by')"
