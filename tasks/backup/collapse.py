"""What makes a backup suspicious: it is much smaller than the last good one."""

from __future__ import annotations

from tasks.catalogue.rows import Record
from tasks.runs.markdown import human_bytes


def collapse(new_size: int, new_tables: int, last_good: Record | None, percent: int) -> str:
    """One sentence that says what shrank by more than `percent` per cent against `last_good`; empty if nothing did.

    Sizes are bytes of plain text. Without a last good backup, or at 0 per cent, nothing counts as a collapse.
    """
    if last_good is None or percent == 0:
        return ""
    old_size, old_tables = last_good.plain_size or 0, last_good.table_count or 0
    shrunk = []
    if new_size * 100 < old_size * (100 - percent):
        shrunk.append(f"its size shrank from {human_bytes(old_size)} to {human_bytes(new_size)}")
    if new_tables * 100 < old_tables * (100 - percent):
        shrunk.append(f"its number of tables shrank from {old_tables:,} to {new_tables:,}")
    return f"Compared with {last_good.filename}, {' and '.join(shrunk)}." if shrunk else ""
