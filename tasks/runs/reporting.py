"""What people see of a run while it goes on and when it ends: logs, progress, results. Never a secret."""

from __future__ import annotations

import getpass
import inspect
import logging
import re
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import lru_cache, partial, wraps
from typing import Any, ParamSpec, TypeVar, cast
from uuid import UUID

from prefect.artifacts import create_markdown_artifact, create_progress_artifact, update_progress_artifact
from prefect.client.orchestration import get_client
from prefect.context import FlowRunContext
from prefect.logging import get_run_logger
from prefect.states import Failed

from tasks.errors import BackupSystemError
from tasks.names import artifact_key
from tasks.prefect_client import NO_ANSWER, aware
from tasks.runs.at_once import begin
from tasks.runs.markdown import printable

P = ParamSpec("P")
R = TypeVar("R")
PROGRESS_SECONDS = 3  # between two updates of a progress artifact, and for the last one
#: The name that only a schedule has.
_SYSTEM = re.compile(r"system( ?\(.*)?", re.IGNORECASE)
#: The key of the artifact that is the admin page; its id does not change while it exists.
ADMIN_PAGE = "backups"
#: What the metadata of that artifact calls the path or address at which the pages of the UI begin.
UI_BASE = "ui"
_LINK_TEXT = "All backups"
_LINK = re.compile(rf"\A\[{_LINK_TEXT}\]\([^)\s]*\)\s*")


class OwnLines(logging.Filter):
    """Keeps a run's log to what its steps say: nothing of Prefect's states, one sentence for an error of our own.

    Any other error keeps its traceback.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if record.module not in ("flow_engine", "task_engine"):
            return True
        if str(record.msg).startswith("Finished in state"):
            return False
        error = record.exc_info[1] if record.exc_info else None
        if not isinstance(error, BackupSystemError):
            return True
        if str(record.msg).startswith("Engine execution exited"):  # in a worker's process; the flow has said why
            return False
        record.msg, record.args, record.exc_info, record.exc_text = str(error), (), None, None
        record.states_failure = True
        return record.module == "flow_engine"  # a task's error becomes its flow's


for _name in ("prefect.flow_runs", "prefect.task_runs"):
    logging.getLogger(_name).addFilter(OwnLines())


def fails_in_one_sentence(flow_function: Callable[P, R]) -> Callable[P, R]:
    """The function of a flow, whose run ends in the state Failed with the sentence of an error of our own, and no more.

    Prefect puts words of its own before an error that is raised. Whoever calls the flow gets the error all the same:
    the state holds it.
    """

    @wraps(flow_function)
    def run(*given: P.args, **named: P.kwargs) -> R:
        try:
            return flow_function(*given, **named)
        except BackupSystemError as error:
            get_run_logger().error(str(error), extra={"states_failure": True})
            failed: Any = Failed(message=str(error), data=error)
            return cast(R, failed)

    # Prefect would look for the types of the parameters in this module.
    run.__signature__ = inspect.signature(flow_function, eval_str=True)  # type: ignore[attr-defined]
    return run


def states_failure(record: logging.LogRecord) -> bool:
    """Whether a log record is the sentence that says why a flow run failed."""
    return bool(getattr(record, "states_failure", False))


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
    return aware(context.start_time)


def created_by(requested_by: str) -> str:
    """Who asked for the run: `system (nightly)` for a schedule, else `requested_by`, else this machine's user.

    What the Prefect server knows about who started the run (Prefect Cloud the account, any server the automation) is
    added in brackets. A person who writes `system` is marked, so as not to look like a schedule.
    """
    context = FlowRunContext.get()
    run = context.flow_run if context else None
    known = (run.created_by.display_value or "") if run is not None and run.created_by else ""
    if run is not None and run.auto_scheduled:
        return system(known)
    name = _on_one_line(requested_by)[:200]
    if _SYSTEM.fullmatch(name):
        name = f"{name} (so they say)"
    if known:
        known = _on_one_line(known)[:100]
        return f"{name} ({known})" if name else known
    if name:
        return name
    return "unnamed" if run is not None and run.deployment_id else getpass.getuser()


def _on_one_line(text: str) -> str:
    return " ".join(printable(text).split())


def is_direct() -> bool:
    """Whether this run was started by hand in this process, and not through a deployment."""
    context = FlowRunContext.get()
    return not (context and context.flow_run and context.flow_run.deployment_id)


def system(schedule: str) -> str:
    """`system (nightly)`, or `system` for a schedule without a name: Prefect gives the name of its kind then. Pure."""
    name = _on_one_line(schedule)[:100]
    return f"system ({name})" if name and not name.endswith("Schedule") else "system"


def say(message: str) -> None:
    """One line in the run's log."""
    get_run_logger().info(message)


def warn(message: str, cause: str = "") -> None:
    """One line in the run's log that should be seen. A console shows lines of the same `cause` once."""
    get_run_logger().warning(message, extra={"cause": cause.rstrip(".")})


@contextmanager
def progress(description: str, expected: int) -> Iterator[Callable[[int], None]]:
    """Gives a function to call with the bytes done so far; the Prefect UI shows them as a share of `expected`.

    When the `with` block ends the share is 100, whatever was expected; after an error it stays as it was. The work
    never waits for the Prefect server, but for a few seconds at its end.
    """
    bar = _ProgressBar(description)
    yield lambda done: bar.show(min(99.0, 100.0 * done / max(expected, 1)))
    bar.complete()


class _ProgressBar:
    """One progress artifact, which threads of their own update one after the other."""

    def __init__(self, description: str) -> None:
        self._description = description
        self._artifact: UUID | None = None
        self._shown_at = 0.0
        self._update: Future[None] | None = None

    def show(self, percent: float) -> None:
        """Starts an update, unless there was one a moment ago or one has not ended yet."""
        if time.monotonic() - self._shown_at >= PROGRESS_SECONDS and (self._update is None or self._update.done()):
            self._shown_at = time.monotonic()
            self._update = begin(partial(self._send, percent))

    def complete(self) -> None:
        """The last update: 100 percent. Waits for a few seconds, no longer, until the server has it."""
        if self._update is not None:
            wait([self._update], timeout=PROGRESS_SECONDS)
        if self._update is None or self._update.done():
            wait([begin(partial(self._send, 100.0))], timeout=PROGRESS_SECONDS)

    def _send(self, percent: float) -> None:
        try:
            if self._artifact is None:
                made = create_progress_artifact(progress=percent, description=self._description)
                assert isinstance(made, UUID)  # called from synchronous code, so not a coroutine
                self._artifact = made
            else:
                update_progress_artifact(artifact_id=self._artifact, progress=percent)
        except NO_ANSWER:
            warn("The Prefect server does not take the progress at the moment; the work goes on.")


def publish(key: str, description: str, markdown: str) -> None:
    """A markdown artifact of this run, with the link to the admin page at its end.

    A server that does not answer costs a line in the log, not the run.
    """
    try:
        link = link_for_run(current_run_id())
        text = f"{markdown}\n\n{link}".rstrip() + "\n"
        create_markdown_artifact(key=artifact_key(key), markdown=text, description=description)
    except NO_ANSWER:
        warn(f"The Prefect server did not take the artifact {artifact_key(key)}.")


def address_of(artifact: Mapping[str, Any]) -> str:
    """The address of the admin page; a path, on whatever host shows the UI, unless the UI has an address of its own."""
    base = (artifact.get("metadata_") or {}).get(UI_BASE, "/v2")
    return f"{base}/artifacts/artifact/{artifact['id']}"


def link_to(address: str) -> str:
    """The link to the admin page in markdown."""
    return f"[{_LINK_TEXT}]({address})"


def with_link(text: str, address: str) -> str:
    """`text` with the link to the admin page before it, once."""
    return f"{link_to(address)}\n\n{without_link(text)}".rstrip()


def without_link(text: str) -> str:
    """`text` without the link to the admin page before it."""
    return _LINK.sub("", text)


@lru_cache(maxsize=8)
def link_for_run(run_id: str) -> str:  # noqa: ARG001 - asks the server once for each run
    """The link to the admin page for the results of a run; empty while there is no page, or no server answers."""
    asked = {"artifacts": {"key": {"any_": [ADMIN_PAGE]}}, "sort": "CREATED_DESC", "limit": 1}
    try:
        with get_client(sync_client=True) as client:
            pages = client.request("POST", "/artifacts/filter", json=asked).json()
    except NO_ANSWER:
        return ""
    return link_to(address_of(pages[0])) if pages else ""
