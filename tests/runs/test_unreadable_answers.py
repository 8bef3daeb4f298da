"""An address that answers, and is no Prefect server: a proxy's page for signing in. It costs a line, never a backup."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from prefect.logging import disable_run_logger
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings

from tasks.admin_page.steps import publish_backups
from tasks.alarms import run_reports
from tasks.alarms.run_reports import failure_reported, outcome_reported, remind, watched
from tasks.alarms.watch import standing_of
from tasks.backup_all.steps import choose
from tasks.errors import DumpFailed, Unreachable
from tasks.health.prefect_facts import prefect_facts
from tasks.runs import reporting
from tasks.runs.reporting import _ProgressBar, now, publish


class _SignIn(BaseHTTPRequestHandler):
    """Whatever is asked, the answer is 200 and a page."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        page = b"<html><title>Sign in</title></html>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    do_POST = do_PATCH = do_PUT = do_DELETE = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def sign_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The address of the Prefect server leads to such a page."""
    monkeypatch.setattr(reporting, "current_run_id", lambda: "a-run")
    monkeypatch.setattr(run_reports, "emit_event", lambda **_: None)  # which has a thread of its own
    server = ThreadingHTTPServer(("127.0.0.1", 0), _SignIn)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/api"
    reporting.link_for_run.cache_clear()
    with disable_run_logger(), temporary_settings({PREFECT_API_URL: url, PREFECT_CLIENT_MAX_RETRIES: 0}):
        yield
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "step",
    [
        lambda: publish_backups.fn(),
        lambda: publish("summary", "A summary", "text"),
        lambda: standing_of("backup-shop"),
        lambda: remind("shop", "backup-shop", "new"),
        lambda: _ProgressBar("The backup").complete(),
        lambda: reporting.link_for_run("a-run"),
    ],
    ids=["admin page", "artifact", "standing", "reminder", "progress", "link"],
)
def test_what_is_only_shown_or_told_fails_no_run(sign_in: None, step: Callable[[], object]) -> None:
    step()


@pytest.mark.parametrize("reported", [failure_reported, outcome_reported])
def test_a_failure_is_raised_as_it_was(sign_in: None, reported: Callable[..., object]) -> None:
    with pytest.raises(DumpFailed, match="The server is gone"), reported("backup-shop", "shop"):
        raise DumpFailed("The server is gone.")


def test_a_backup_is_raised_as_it_failed(sign_in: None) -> None:
    with pytest.raises(DumpFailed, match="The server is gone"), watched("shop"):
        raise DumpFailed("The server is gone.")


@pytest.mark.parametrize("asked", [lambda: choose.fn([], 5), lambda: prefect_facts("shop", now())])
def test_what_cannot_do_without_the_server_says_so_in_one_sentence(sign_in: None, asked: Callable[[], object]) -> None:
    with pytest.raises(Unreachable, match=r"rver gave no answer \(\w+\)\.$"):
        asked()
