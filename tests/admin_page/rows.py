"""Rows of the catalogue for the admin page, without the backups themselves."""

from __future__ import annotations

import zlib
from datetime import datetime, timedelta
from typing import Any

from psycopg2.extras import Json, execute_values

from tasks.catalogue.catalogue import Catalogue

COLUMNS = (
    "filename",
    "s3_key",
    "plan",
    "run_id",
    "status",
    "created_by",
    "created_at",
    "completed_at",
    "file_size",
    "plain_size",
    "row_count",
    "table_count",
    "manifest_sha256",
    "verified_at",
    "suspicious",
    "error",
    "backup_type",
    "metadata",
)


def row(plan: str, at: datetime, **given: Any) -> dict[str, Any]:
    """A row of a backup that was begun at `at`, completed unless `given` says something else."""
    number = zlib.crc32(f"{plan} {at}".encode())
    status = given.get("status", "completed")
    done = status not in ("failed", "in_progress")
    name = f"backup_{at:%Y-%m-%d_%H-%M-%S}_{number:08x}.sql"
    default = {
        "filename": name,
        "s3_key": f"database-backups/{plan}/{given.get('filename', name)}",
        "plan": plan,
        "run_id": f"run of {at}",
        "status": status,
        "created_by": "system",
        "created_at": at,
        "completed_at": at + timedelta(seconds=given.pop("seconds", 10)) if done else None,
        "file_size": 1000 if done else None,
        "plain_size": 2000 if done else None,
        "row_count": 500 if done else None,
        "table_count": 5 if done else None,
        "manifest_sha256": "0" * 64 if done else None,
        "verified_at": None,
        "suspicious": "",
        "error": None,
        "backup_type": "full",
        "metadata": {"bucket": "main-bucket"},
    }
    return {**default, **given}


def insert(catalogue: Catalogue, rows: list[dict[str, Any]]) -> None:
    """Puts the rows into the catalogue as they are."""
    values = [[Json(one[name]) if name == "metadata" else one[name] for name in COLUMNS] for one in rows]
    with catalogue.cursor() as cursor:
        statement = f"INSERT INTO database_backups ({', '.join(COLUMNS)}) VALUES %s"
        execute_values(cursor, cursor.qualified(statement), values, page_size=1000)
