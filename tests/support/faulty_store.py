"""An HTTP proxy before an S3 server: it counts requests, and fails or holds those that a test chooses."""

from __future__ import annotations

import http.client
import re
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

_HOP = {"connection", "keep-alive", "transfer-encoding", "expect"}
#: Seconds for which an answer is `late`, and after which a `stall` ends without one.
LATE, STALLED = 0.3, 6.0
#: Bytes of a `slow` answer that come in a twentieth of a second: 50 kB in each.
_SLOW = 2500


@dataclass(frozen=True)
class Request:
    """One request as S3 means it. `part` is 0 unless a part is sent."""

    method: str
    key: str
    query: dict[str, list[str]]
    start: int = -1
    """From which byte on an object is asked for; -1 unless a range is."""
    headers: dict[str, str] = field(default_factory=dict)
    """By their names in small letters."""

    @property
    def part(self) -> int:
        """The number of the part of a backup that the request sends."""
        return 0 if self.is_check else self.any_part

    @property
    def any_part(self) -> int:
        """The number of the part that the request sends, of a backup or to try what the store can do."""
        return int(self.query.get("partNumber", ["0"])[0]) if self.method == "PUT" else 0

    @property
    def is_check(self) -> bool:
        """Whether it belongs to the upload that only tries what the store can do."""
        return self.key.endswith("/.write-check")

    @property
    def begins_upload(self) -> bool:
        """Whether it opens a multipart upload."""
        return self.method == "POST" and "uploads" in self.query

    @property
    def completes_upload(self) -> bool:
        """Whether it joins the parts of one."""
        return self.method == "POST" and "uploadId" in self.query


#: What becomes of a request: None lets it pass, a number is the status of the answer, `drop` closes the connection,
#: `deaf` lets it pass and closes the connection in place of an answer, `short` does so in the middle of the answer,
#: `wrong` changes a byte of the answer, `altered` one of the request on its way to the store, `truncated` cuts its body.
#: `no length` leaves the length out of the answer, `cut` does so and ends the answer in its middle, `no etag` leaves the
#: ETag out and `no headers` all that the store wrote. `overlong` lets it end with bytes that are not the object's,
#: `late` and `slow` let it wait, `stall` gives none. `error inside` and `web page` have the status 200, `stale` knows
#: nothing of what was written, `redirect` leads to where nobody answers, and `skewed` finds the clock of the client wrong.
Rule = Callable[[Request], int | str | None]


class FaultyStore:
    """A running proxy for the length of a `with` block. `rule` is asked about every request."""

    def __init__(self, endpoint_url: str) -> None:
        self._target = urlsplit(endpoint_url).netloc
        self.rule: Rule = lambda request: None
        self.after: Callable[[Request], None] = lambda request: None
        """Is told of every request that the store has answered, before the client gets the answer."""
        self.requests: list[Request] = []
        self.passed: list[Request] = []
        self.lock = threading.Lock()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._server.daemon_threads = True

    @property
    def endpoint_url(self) -> str:
        """Where the proxy listens."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def parts_passed(self) -> list[int]:
        """Numbers of the parts that reached the store, in that order."""
        return [request.part for request in list(self.passed) if request.part and not request.is_check]

    def __enter__(self) -> FaultyStore:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def forward(self, method: str, path: str, headers: dict[str, str], body: bytes) -> tuple[int, list[Any], bytes]:
        """The store's own answer; the Host header, which is signed, goes along as it came."""
        connection = http.client.HTTPConnection(self._target, timeout=60)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                if name.lower() not in _HOP:
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()


def _handler(store: FaultyStore) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        pause = 0.0

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            address = urlsplit(self.path)
            asked = re.fullmatch(r"bytes=(\d+)-\d*", self.headers.get("Range") or "")
            start = int(asked[1]) if asked else -1
            asked_with = {name.lower(): value for name, value in self.headers.items()}
            query = parse_qs(address.query, keep_blank_values=True)
            request = Request(self.command, address.path, query, start, asked_with)
            with store.lock:
                store.requests.append(request)
            fate = store.rule(request)
            if fate == "stall":
                time.sleep(STALLED)
            if fate in ("drop", "stall"):
                self.close_connection = True
            elif isinstance(fate, int):
                self._answer(fate, [("Content-Type", "application/xml")], _error(fate, self.command))
            elif fate in _MADE_UP:
                self._answer(*_MADE_UP[fate](request))
            else:
                self._pass_on(request, fate, _changed(fate, body))

        def _pass_on(self, request: Request, fate: str | None, body: bytes) -> None:
            sent = dict(self.headers.items())
            if body:
                sent["Content-Length"] = str(len(body))
            try:
                status, headers, content = store.forward(self.command, self.path, sent, body)
            except (OSError, http.client.HTTPException):  # the store is gone
                self.close_connection = True
                return
            if status < 300:
                with store.lock:
                    store.passed.append(request)
            store.after(request)
            if fate == "deaf":
                self.close_connection = True
            elif fate == "short":
                self.close_connection = True
                self._answer(status, headers, content, content[: len(content) // 2])
            elif fate == "wrong" and content:
                self._answer(status, headers, bytes([content[0] ^ 1]) + content[1:])
            elif fate == "overlong":
                self._answer(status, headers, content + b"more")
            elif fate == "no etag":
                self._answer(status, [each for each in headers if each[0].lower() != "etag"], content)
            elif fate == "no headers":
                self._answer(status, [], content)
            elif fate in ("no length", "cut"):
                self.close_connection = True
                self._answer(status, headers, content, content[: len(content) // (1 + (fate == "cut"))], "")
            else:
                self.pause = 0.05 if fate == "slow" else 0.0
                time.sleep(LATE if fate == "late" else 0)
                self._answer(status, headers, content)
                self.pause = 0.0

        def _answer(
            self, status: int, headers: list[Any], content: bytes, sent: bytes | None = None, length: str | None = None
        ) -> None:
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in {*_HOP, "content-length"}:
                    self.send_header(name, value)
            if length is None:
                given = {name.lower(): value for name, value in headers}.get("content-length", len(content))
                length = str(given if self.command == "HEAD" else len(content))
            if length:
                self.send_header("Content-Length", length)
            self.end_headers()
            if self.command != "HEAD":
                self._write(content if sent is None else sent)

        def _write(self, content: bytes) -> None:
            while self.pause and content:
                self.wfile.write(content[:_SLOW])
                content = content[_SLOW:]
                time.sleep(self.pause)
            self.wfile.write(content)

        def log_message(self, *_: Any) -> None:
            """Tells nobody."""

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815

    return Handler


def _changed(fate: str | None, body: bytes) -> bytes:
    """A request's body as it reaches the store."""
    if fate == "altered" and body:
        return bytes([body[0] ^ 1]) + body[1:]
    return body[: len(body) // 2] if fate == "truncated" else body


def _error(status: int, method: str) -> bytes:
    missing = "NoSuchKey" if method in ("GET", "HEAD") else "NoSuchUpload"
    code = {
        500: "InternalError",
        503: "SlowDown",
        403: "AccessDenied",
        404: missing,
        429: "TooManyRequests",
        507: "InsufficientStorage",
    }.get(status, "Error")
    return _xml_error(code)


def _xml_error(code: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>told to fail</Message></Error>".encode()


_XML = [("Content-Type", "application/xml")]
_MadeUp = tuple[int, list[tuple[str, str]], bytes]


def _stale(request: Request) -> _MadeUp:
    """What a store answers that has not yet heard of anything."""
    if request.method == "GET" and request.query and "uploadId" not in request.query:
        kind = "ListMultipartUploadsResult" if "uploads" in request.query else "ListBucketResult"
        return 200, _XML, f"<?xml version='1.0'?><{kind}><IsTruncated>false</IsTruncated></{kind}>".encode()
    return 404, _XML, _error(404, request.method)


#: Answers that no store gave.
_MADE_UP: dict[int | str | None, Callable[[Request], _MadeUp]] = {
    "error inside": lambda request: (200, _XML, _xml_error("InternalError")),
    "web page": lambda request: (200, [("Content-Type", "text/html")], b"<html><body>Please sign in.</body></html>"),
    "redirect": lambda request: (307, [("Location", "http://127.0.0.1:9/elsewhere")], b""),
    "skewed": lambda request: (403, _XML, _xml_error("RequestTimeTooSkewed")),
    "stale": _stale,
}
