"""The command line of a flow: runs it directly, without a worker, with its parameters as options.

The Prefect server is the one in the settings; without it, a temporary one of the run's own, with a password of its own.
"""

from __future__ import annotations

import atexit
import inspect
import logging
import os
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, get_type_hints

import httpx
from prefect import Flow, tags
from prefect.logging.configuration import setup_logging
from prefect.settings import (
    PREFECT_API_AUTH_STRING,
    PREFECT_API_URL,
    PREFECT_SERVER_ALLOW_EPHEMERAL_MODE,
    PREFECT_SERVER_ANALYTICS_ENABLED,
    PREFECT_SERVER_API_AUTH_STRING,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    temporary_settings,
)

from tasks.errors import BackupSystemError, HealthFailed
from tasks.names import TAG
from tasks.runs.arguments import flag, run_command, with_options
from tasks.runs.reporting import states_failure

STARTUP_SECONDS = 180  # the first start of a temporary server makes its database
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
#: Ends a process when its own standard input ends: when the process that holds the other end has died.
_GUARD = 'cat > /dev/null; kill "$0"; sleep 5; kill -9 "$0"'


def run_flow(
    flow: Flow[..., Any],
    text: Callable[[Any], str] | None = None,
    text_option: tuple[str, str] | None = None,
    console_level: int = logging.INFO,
) -> int:
    """Runs a flow with the options of this command; returns the exit status.

    0, after `text` of the result on standard output; 1 after one sentence on standard error; 2 after one sentence
    when the options cannot be used. `text_option` is the name, with what it means, of an option without which the
    text is not written. Log lines below `console_level` are not shown, only kept by the server.
    """
    program = f"python -m flows.{Path(inspect.getfile(inspect.unwrap(flow.fn))).stem}"

    def run(**options: Any) -> int:
        is_wanted = text is not None and (text_option is None or options.pop(text_option[0], False))
        return _directly(lambda: flow(**options), text if is_wanted else None, console_level)

    more = [flag(*text_option)] if text_option else []
    return run_command(with_options(run, _parameters(flow), flow.fn.__doc__ or "", more), program=program)


def _parameters(flow: Flow[..., Any]) -> Iterator[inspect.Parameter]:
    hints = get_type_hints(flow.fn)
    for name, parameter in inspect.signature(flow.fn).parameters.items():
        yield parameter.replace(annotation=hints[name])


def _directly(run: Callable[[], Any], text: Callable[[Any], str] | None, console_level: int) -> int:
    try:
        with _console(console_level), some_server(console_level), tags(TAG):
            result = run()
    except BackupSystemError as error:
        if isinstance(error, HealthFailed):
            sys.stdout.write(f"{error.report}\n")
        sys.stderr.write(f"{error}\n")
        return 1
    if text is not None:
        sys.stdout.write(f"{text(result).rstrip()}\n")
    return 0


@contextmanager
def _console(level: int) -> Iterator[None]:
    """On standard error, the run's log lines of this level or above; what several warnings have as cause, once.

    The sentence of a failure stands there once, at the end.
    """
    warnings: list[str] = []

    def is_shown(record: logging.LogRecord) -> bool:
        if record.levelno < level or states_failure(record):
            return False
        if record.levelno < logging.WARNING:
            return True
        cause = getattr(record, "cause", "")
        is_known = bool(cause) and any(cause in warning for warning in warnings)
        warnings.append(record.getMessage())
        return not is_known

    setup_logging()
    handlers = logging.getLogger().handlers
    for handler in handlers:
        handler.addFilter(is_shown)
    try:
        yield
    finally:
        for handler in handlers:
            handler.removeFilter(is_shown)


def _is_a_problem(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.WARNING


@contextmanager
def some_server(console_level: int) -> Iterator[None]:
    """Within the block a Prefect server answers: the one in the settings, else a temporary one.

    One line says so, on standard error, when the one in the settings does not answer, or the console shows so much.
    """
    _never_proxy_loopback()
    url = PREFECT_API_URL.value()
    if url and _answers(url):
        yield
        return
    if url:
        sys.stderr.write(f"No Prefect server answers at {url}: running without it.\n")
    elif console_level <= logging.INFO:
        sys.stderr.write("No Prefect server is set: running without it. The start takes up to a minute.\n")
    # That its temporary server starts and stops, which Prefect logs here, is said above.
    logging.getLogger("prefect").addFilter(_is_a_problem)
    password = f"direct:{secrets.token_urlsafe(32)}"  # else every user of this machine could read and change its blocks
    temporary = {
        PREFECT_SERVER_API_AUTH_STRING: password,
        PREFECT_API_AUTH_STRING: password,
        PREFECT_SERVER_ALLOW_EPHEMERAL_MODE: True,
        PREFECT_SERVER_ANALYTICS_ENABLED: False,
        PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: STARTUP_SECONDS,
    }
    _end_with_this_process()
    with temporary_settings(updates=temporary, restore_defaults={PREFECT_API_URL}):
        yield


def _never_proxy_loopback() -> None:
    """No client of this process, or of one that it starts, asks a proxy for what is on this machine."""
    for name in ("no_proxy", "NO_PROXY"):
        os.environ[name] = ",".join([*filter(None, [os.environ.get(name)]), *_LOOPBACK])


def _end_with_this_process() -> None:
    """Prefect's temporary server, once it is started, ends with this process, in whichever way that ends.

    Prefect ends it when Python ends, which SIGKILL and SIGTERM do not let happen.
    """
    from prefect.server.api.server import SubprocessASGIServer  # here, as only a run without a server needs it

    server = SubprocessASGIServer()  # the one that Prefect starts
    start = server._run_uvicorn_command

    def start_guarded() -> subprocess.Popen[Any]:
        process = start()
        guard = subprocess.Popen(
            ["sh", "-c", _GUARD, str(process.pid)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        atexit.register(guard.kill)
        return process

    server._run_uvicorn_command = start_guarded  # type: ignore[method-assign]


def _answers(url: str) -> bool:
    try:
        httpx.get(f"{url}/health", timeout=5)
    except httpx.HTTPError:
        return False
    return True
