"""A webhook for one test: keeps every call as it came in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread


@dataclass
class Webhook:
    """The calls that came in, oldest first."""

    url: str = ""
    calls: list[tuple[str, str, str]] = field(default_factory=list)
    """Method, path and body."""
    answer: int = 200
    """The status of every answer from now on."""

    @property
    def notify_url(self) -> str:
        """The same as an address for Apprise."""
        return self.url.replace("http://", "json://")

    @property
    def messages(self) -> list[tuple[str, str]]:
        """Title and text of every message that Apprise has sent."""
        return [(message["title"], message["message"]) for message in self._received]

    @property
    def types(self) -> list[str]:
        """The type of every message: failure, success or warning."""
        return [message["type"] for message in self._received]

    @property
    def _received(self) -> list[dict[str, str]]:
        return [json.loads(body) for _, path, body in self.calls if path == "/alarms"]


@contextmanager
def webhook(answer: int = 200) -> Iterator[Webhook]:
    """Listens for the length of a `with` block, and answers every call with the status `answer`."""
    kept = Webhook(answer=answer)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            kept.calls.append((self.command, self.path, body))
            self.send_response(kept.answer)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_POST  # noqa: N815

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    kept.url = f"http://127.0.0.1:{server.server_address[1]}/alarms"
    try:
        yield kept
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
