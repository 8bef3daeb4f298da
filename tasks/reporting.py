"""What people see of a run while it goes on and when it ends: logs, progress, results. Never a secret."""

from __future__ import annotations

import getpass
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID

import httpx
from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger

from tasks.core.catalogue import Catalogue, Event
from tasks.core.errors import BackupSystemError, Transient

PROGRESS_SECONDS = 3
#: How long a catalogue is waited for that does not take a line of the audit, such as one that is being restarted.
AUDIT_DELAYS = (0.5, 1.5, 3.0)  # seconds


class OneSentence(logging.Filter):
    """Takes the traceback off a log record that reports one of our own errors: its sentence says it all."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.exc_info and isinstance(record.exc_info[1], BackupSystemError):
            record.exc_info = None
            record.exc_text = None
        return True


for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(OneSentence())


def now() -> datetime:
    """The time, in UTC."""
    return datetime.now(UTC)


def current_run_id() -> str:
    """The id of the flow run that this step belongs to."""
    context = FlowRunContext.get()
    assert context is not None and context.flow_run is not None, "called outside a flow run"
    return str(context.flow_run.id)


def run_started_at() -> datetime:
    """When the flow run began: the same for every try of a step."""
    context = FlowRunContext.get()
    assert context is not None
    return datetime.fromtimestamp(context.start_time.timestamp(), UTC)


def created_by(requested_by: str) -> str:
    """Who asked: a schedule is `system`; else who says so; else the user of this machine for a direct run."""
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    if run is not None and run.auto_scheduled:
        return "system"
    asked_by = " ".join("".join(c if c.isprintable() else " " for c in requested_by).split())
    if asked_by:
        return asked_by[:200]
    return "unnamed" if run is not None and run.deployment_id else getpass.getuser()


def audit(catalogue: Catalogue, event: Event) -> None:
    """One line in the audit. A catalogue that does not answer for some seconds costs a line in the log, not the run."""
    for delay in (*AUDIT_DELAYS, None):
        try:
            catalogue.note(event)
            return
        except BackupSystemError as problem:
            if delay is None or not isinstance(problem, Transient):
                warn(f"The audit could not be written: {problem}")
                return
            time.sleep(delay)


def say(message: str) -> None:
    """One line in the run's log."""
    get_run_logger().info(message)


def warn(message: str) -> None:
    """One line in the run's log that should be seen."""
    get_run_logger().warning(message)


def progress(description: str, expected: int) -> Callable[[int], None]:
    """A function to call with the bytes done so far; the Prefect UI shows them as a share of `expected`.

    A Prefect server that does not answer never stops the work: its picture is only late.
    """
    artifact: UUID | None = None
    shown_at = 0.0

    def show(done: int) -> None:
        nonlocal artifact, shown_at
        if time.monotonic() - shown_at < PROGRESS_SECONDS:
            return
        shown_at = time.monotonic()
        percent = min(99.0, 100.0 * done / max(expected, 1))
        try:
            if artifact is None:
                artifact = create_progress_artifact(progress=percent, description=description)  # type: ignore[assignment]
            else:
                update_progress_artifact(artifact_id=artifact, progress=percent)
        except httpx.HTTPError:
            get_run_logger().warning("The Prefect server does not take the progress at the moment; the work goes on.")

    return show


def publish(key: str, description: str, markdown: str) -> None:
    """A markdown artifact of this run; a server that does not answer costs a line in the log, not the run."""
    try:
        create_markdown_artifact(key=key, markdown=markdown, description=description)
    except httpx.HTTPError:
        get_run_logger().warning("The Prefect server did not take the artifact %s.", key)


def cell(text: str) -> str:
    """`text` as it is, in a cell of a markdown table: no character of it is taken for markup or HTML. Pure."""
    shown = "".join(character if character.isprintable() else " " for character in text)
    return "".join(f"&#{ord(one)};" if one in "|\\`*_{}[]()<>#+-!~&@:" else one for one in shown)


def human_bytes(count: float) -> str:
    """`1.5 MiB`, for people."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TiB"
