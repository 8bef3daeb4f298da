"""The figures of a plan as a file for Prometheus: the node exporter's textfile collector reads `*.prom` of a directory.

prometheus_client writes the text format and escapes what is in it. Times are Unix times, so that an age stays right
between two checks.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge
from prometheus_client.exposition import generate_latest

from tasks.catalogue.rows import Record
from tasks.errors import BadSetting
from tasks.health.lines import Line
from tasks.restore.last_restore import LastRestore

_CHECK = "Metrics"
_LONGEST = 200  # characters of a plan in the name of its file
#: Each metric with what it means.
METRICS = {
    "database_backup_last_success_timestamp_seconds": "When the newest backup that is whole in the bucket began.",
    "database_backup_last_size_bytes": "The size of that backup, as it is stored.",
    "database_backup_last_duration_seconds": "How long that backup took.",
    "database_backup_last_restore_seconds": "How long the last restore or verify run of a whole backup took.",
    "database_backup_last_verified_timestamp_seconds": "When a backup was last restored and compared.",
    "database_backup_health_failed_checks": "How many checks of the last health check failed.",
    "database_backup_health_warnings": "How many checks of the last health check gave a warning.",
    "database_backup_health_timestamp_seconds": "When the last health check ended.",
}


@dataclass(frozen=True)
class Figures:
    """What is known of a plan. None is what is not known, or not there yet: its metric is left out."""

    checked_at: datetime
    failed: int
    warnings: int
    good: Record | None = None
    """The newest backup that is whole in the bucket."""
    verified_at: datetime | None = None
    last_restore: LastRestore | None = None


def metrics_text(plan: str, figures: Figures) -> bytes:
    """The figures in the text format of Prometheus, each with the label `plan`. Pure."""
    registry = CollectorRegistry()
    for (name, meaning), value in zip(METRICS.items(), _values(figures), strict=True):
        if value is not None:
            Gauge(name, meaning, ["plan"], registry=registry).labels(plan).set(value)
    return generate_latest(registry)


def _values(figures: Figures) -> tuple[float | None, ...]:
    """In the order of `METRICS`."""
    good, restore = figures.good, figures.last_restore
    ended = good.completed_at if good else None
    return (
        good.created_at.timestamp() if good else None,
        good.file_size if good else None,
        (ended - good.created_at).total_seconds() if good and ended else None,
        restore.seconds if restore else None,
        figures.verified_at.timestamp() if figures.verified_at else None,
        figures.failed,
        figures.warnings,
        figures.checked_at.timestamp(),
    )


def metrics_lines(directory: str, plan: str, figures: Figures) -> list[Line]:
    """Writes the file of a plan; a line says how that went. No line, and no file, where no directory is set."""
    if not directory:
        return []
    try:
        file = write_metrics(Path(directory), plan, metrics_text(plan, figures))
    except (BadSetting, OSError) as error:
        reason = str(error) if isinstance(error, BadSetting) else f"{error.strerror or type(error).__name__}."
        to_do = "Make the directory, writable for the user of the worker, or correct it in the plan."
        return [Line(_CHECK, "warning", f"No metrics were written to {directory}: {reason}", to_do)]
    return [Line(_CHECK, "ok", f"Written to {file}.")]


def _shortened(plan: str) -> str:
    """The name of a plan in that of a file, where a hash stands for the end of a very long one."""
    return plan if len(plan) <= _LONGEST else f"{plan[:_LONGEST]}-{hashlib.sha256(plan.encode()).hexdigest()[:8]}"


def write_metrics(directory: Path, plan: str, text: bytes) -> Path:
    """`database_backup_<plan>.prom` in the directory holds this text, as a whole or as before; everybody may read it.

    Raises BadSetting for a path that is not absolute, and OSError.
    """
    if not directory.is_absolute():
        raise BadSetting("the directory must begin with a slash.")
    file = directory / f"database_backup_{_shortened(plan)}.prom"
    handle, aside = tempfile.mkstemp(prefix=f".{file.name}.", dir=directory)
    try:
        with os.fdopen(handle, "wb") as written:
            written.write(text)
            os.fchmod(written.fileno(), 0o644)
        Path(aside).replace(file)
    except BaseException:
        with suppress(OSError):
            Path(aside).unlink()
        raise
    return file
